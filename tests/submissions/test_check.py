"""What `./run.sh check` finds before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition import prepare
from competition.config import find_config, load_competition
from competition.errors import ConfigError, DataError
from competition.paths import Paths
from submissions.check import check
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition


def checked(path: Path) -> str:
    return check(load_config(str(path)))


def test_a_good_competition_is_described_with_its_jobs(tmp_path: Path) -> None:
    said = checked(write_competition(tmp_path, *mixed_tables()))
    assert "60 training rows, 20 test rows" in said
    assert "stage trees: lightgbm, 3 jobs" in said


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_a_metric_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "own.py").write_text(f"def score(y_true, y_pred):\n    return {value}\n")
    path = write_competition(
        tmp_path, *mixed_tables(), competition={"metric": "own.py:score", "greater_is_better": True}
    )
    with pytest.raises(ConfigError, match="must be a finite number"):
        checked(path)


@pytest.mark.parametrize(
    ("condition", "where"),
    [("len(y_true) < 60", "the rows of fold 0"), ("len(set(y_true[:, 0])) < 0.8 * len(y_true)", "rows drawn with rep")],
)
def test_a_metric_that_is_no_number_on_some_rows_of_a_run_is_refused(
    tmp_path: Path, condition: str, where: str
) -> None:
    (tmp_path / "own.py").write_text(f"def score(y_true, y_pred):\n    return float('nan') if {condition} else 1.0\n")
    path = write_competition(
        tmp_path, *mixed_tables(), competition={"metric": "own.py:score", "greater_is_better": True}
    )
    with pytest.raises(ConfigError, match=f"must be a finite number .* on {where}"):
        checked(path)


def test_a_target_that_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train["mu"] = 1.0
    path = write_competition(tmp_path, train, test, competition={"metric": "pearson"})
    with pytest.raises(ConfigError, match="two different labels for the metric pearson; on all rows .* mu has not"):
        checked(path)
    train["mu"], train["round"] = np.where(np.arange(60) < 20, 1.0, np.nan), np.where(np.arange(60) < 20, -1, 1)
    train.loc[40:, "round"] = 0
    roles = {"metric": "pearson", "fold_column": "round"}
    path = write_competition(tmp_path, train, test, competition=roles, folds={"kind": "column"})
    with pytest.raises(ConfigError, match="on all rows that are scored mu has not"):
        checked(path)


def test_rmsle_of_labels_near_the_end_of_its_domain_passes(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train["lumo"] = [0.0] * 40 + [1000.0] * 20
    checked(write_competition(tmp_path, train, test, competition={"metric": "rmsle"}))


def test_a_metric_that_ends_the_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\n\ndef score(y_true, y_pred):\n    sys.exit(3)\n")
    path = write_competition(
        tmp_path, *mixed_tables(), competition={"metric": "own.py:score", "greater_is_better": True}
    )
    with pytest.raises(ConfigError, match="SystemExit"):
        checked(path)


@pytest.mark.parametrize("kind", ["gnn", "unimol", "unimol2"])
def test_a_stage_without_a_column_for_it_is_named(kind: str, tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables(), competition={"smiles": []}, stages={"graph": {"kind": kind}})
    with pytest.raises(ConfigError, match=rf"stages\.graph: a stage of kind {kind} needs columns"):
        checked(path)


@pytest.mark.parametrize("kind", [{"kind": "bert"}, {"kind": "embedding", "weights": "rxnfp"}])
def test_a_template_that_names_a_column_which_is_no_input_is_found_before_any_work(
    kind: dict[str, str], tmp_path: Path
) -> None:
    path = write_competition(tmp_path, *mixed_tables(), stages={"words": {**kind, "template": "{note} [SEP] {colour}"}})
    with pytest.raises(ConfigError, match=r"stages\.words: .*\(SMILES, note, site\); found colour"):
        checked(path)


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        (
            {"kind": "bert", "columns": ["note"], "enumerate_smiles": True},
            r"stages\.s: enumerate_smiles needs a column",
        ),
        ({"kind": "gnn", "layer_decay": 0.9}, r"stages\.s: message passing uses one layer again"),
        ({"kind": "gnn", "columns": ["SMILES", "SMILES"]}, r"each once; found SMILES"),
        ({"kind": "gnn", "weight_decay": float("inf")}, r"stages\.s\.weight_decay: .*finite"),
        ({"kind": "gnn", "seeds": [1, 1]}, r"stages\.s\.seeds: must name each once; 1 stands"),
        ({"kind": "bert", "template": "{note"}, r"stages\.s: a template names columns in braces"),
        ({"kind": "gnn", "aggregation": ["mean", "mean"]}, r"stages\.s\.aggregation: must name each once; mean stands"),
        ({"kind": "bert", "enumerate_smiles": "false"}, r"stages\.s\.enumerate_smiles: .*(boolean|'order')"),
        (
            {"kind": "bert", "columns": ["SMILES"], "enumerate_smiles": "order"},
            r"stages\.s: .*several molecules; there",
        ),
        ({"kind": "sklearn", "target_transform": "log1p"}, r"stages\.s: .*above -1.* the smallest is -\d"),
        ({"kind": "custom", "code": "own.py"}, r"stages\.s\.code: must be file\.py:name \(found '.*own\.py'\)"),
        (
            {"kind": "gnn", "head": {"kind": "multi_sample", "dropout": 0}},
            r"has 1 mistake\(s\):\n  stages\.s\.head\.dropout: .*greater than 0; or: ",
        ),
    ],
)
def test_what_a_stage_can_never_do_is_found_before_any_work(
    tmp_path: Path, stage: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        checked(write_competition(tmp_path, *mixed_tables(), stages={"s": stage}))


@pytest.mark.parametrize("kind", ["sklearn", "embedding"])
def test_row_weights_and_a_regressor_that_takes_none_are_found_before_any_work(tmp_path: Path, kind: str) -> None:
    train, test = mixed_tables()
    stage = {"kind": kind, "regressor": "KNeighborsRegressor"} | ({"weights": "rxnfp"} if kind == "embedding" else {})
    path = write_competition(tmp_path, train.assign(w=1.0), test, competition={"weight": "w"}, stages={"s": stage})
    with pytest.raises(ConfigError, match=r"stages\.s: .*KNeighborsRegressor takes no sample_weight"):
        checked(path)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_this_machine_has_not_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("submissions.check.usable_gpus", lambda: [])
    monkeypatch.setattr("submissions.check.cpu_has_bf16", lambda: False)
    path = write_competition(tmp_path, *mixed_tables(), stages={"s": {"kind": "gnn", "precision": precision}})
    with pytest.raises(ConfigError, match=rf"stages\.s: precision {precision} needs a GPU"):
        checked(path)
    check(load_config(str(path)), here=False)  # other machines train
    monkeypatch.setattr("submissions.check.usable_gpus", lambda: ["0"])
    checked(path)


def test_the_mistakes_of_all_stages_are_said_at_once(tmp_path: Path) -> None:
    stages = {"a": {"kind": "gnn", "columns": ["x"]}, "b": {"kind": "bert", "template": "{y}"}}
    with pytest.raises(ConfigError, match=r"(?s)stages\.a: .*\nstages\.b: "):
        checked(write_competition(tmp_path, *mixed_tables(), stages=stages))


def test_a_row_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables())
    with (tmp_path / "train.csv").open("a") as file:
        file.write("m999,CC\n")
    with pytest.raises(DataError, match="row 62"):
        checked(path)


def test_a_label_whose_square_overflows_is_refused(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train.loc[3, "lumo"] = 1e300
    with pytest.raises(DataError, match=r"row 5 .*: '1e\+300'"):
        checked(write_competition(tmp_path, train, test))


def test_a_test_table_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    train, test = mixed_tables()
    path = write_competition(tmp_path, train, test.assign(SMILES="no molecule"), competition={"unparsable": "drop"})
    with pytest.raises(DataError, match="without its unparsable rows has no row"):
        checked(path)


def test_two_yaml_files_of_one_name_do_not_share_products(tmp_path: Path) -> None:
    first = write_competition(tmp_path / "a", *mixed_tables())
    second = write_competition(tmp_path / "b", *mixed_tables())
    paths = Paths("mixed")
    for path in (first, first):
        prepare.run(load_competition(str(path)), paths, find_config(str(path)))
    with pytest.raises(ConfigError, match="was made from .* Rename one"):
        prepare.run(load_competition(str(second)), paths, find_config(str(second)))
    first.unlink()
    prepare.run(load_competition(str(second)), paths, find_config(str(second)))


def test_a_section_of_comments_alone_is_an_empty_one(tmp_path: Path) -> None:
    path = write_competition(tmp_path, *mixed_tables())
    path.write_text(path.read_text() + "\nsubmissions:\n  # default: mean\n")
    assert load_config(str(path)).submissions.default == "shrunk_ridge"


def test_folds_that_were_edited_by_hand_are_used_and_said_so(tmp_path: Path) -> None:
    from folds.make import load_folds_config
    from folds.make import run as make_folds

    path = write_competition(tmp_path, *mixed_tables())
    config, paths = load_competition(str(path)), Paths("mixed")
    prepare.run(config, paths, path)
    assert "edited" not in make_folds(config, load_folds_config(str(path)), paths)
    table = pd.read_csv(paths.folds)
    table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    table.to_csv(paths.folds, index=False)
    assert "was edited by hand and is used as it is" in make_folds(config, load_folds_config(str(path)), paths)
    assert pd.read_csv(paths.folds).equals(table)
