"""`./run.sh full --holdout`: rows that nothing but the final scoring sees."""

import re

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from competition.prepare import prepare
from core import cli
from core.errors import ConfigError, DataError
from core.paths import Paths, holdout_yaml
from core.user_tables import read_text_table
from pipeline import commands
from pipeline.full import full
from pipeline.hold_out import hold_out
from submissions.config import load_config
from tests.pipeline.made import options, written
from tests.submissions.fakes import TARGETS, by_id, fake_competition

pytestmark = pytest.mark.usefixtures("jobs_in_process")

DAYS = np.arange(60)


def made(path, share=0.2):
    """The raw tables of a competition, by name, after rows were kept out."""
    hold_out(str(path), share)
    raw = Paths.for_competition(str(holdout_yaml(str(path), share))).raw
    return {file.stem: read_text_table(file) for file in raw.glob("*.csv")}


def test_rows_held_out_are_the_test_table_and_nowhere_else(tmp_path):
    """The answers have all their columns, which a metric may read."""
    path = written(tmp_path, {"lumo": ["<1", *map(str, DAYS[1:])], "low": -9})
    tables = made(path)
    all_rows = read_text_table(tmp_path / "train.csv").set_index("id")
    held_out = list(tables["test"]["id"])
    assert len(held_out) == 12
    assert sorted([*tables["train"]["id"], *held_out]) == sorted(all_rows.index)
    assert list(tables["sample_submission"]["id"]) == held_out
    assert not {"lumo", "mu"} & {*tables["test"]}
    assert tables["answers"].set_index("id").equals(all_rows.loc[held_out])
    config = load_config(str(holdout_yaml(str(path), 0.2)))
    assert config.competition.holdout_of == "mixed"
    assert dict(config.stages) == dict(load_config(str(path)).stages)
    path = written(tmp_path, stages="theirs: {kind: file, folder: theirs}")
    with pytest.raises(ConfigError, match=r"--holdout trains every stage without the held-out rows.*theirs"):
        hold_out(str(path), 0.2)  # whoever made these predictions may have seen the rows


@pytest.mark.parametrize(
    ("folds", "roles", "share", "expected"),
    [
        ("kind: kfold, n_folds: 3", "", 0.05, 3),
        ("kind: kfold, n_folds: 3", "", 0.3, 18),
        ("kind: time, n_folds: 3", "time: day", 0.5, DAYS >= 30),
        ("kind: group, n_folds: 3", "group: plate", 0.15, 10),
        ("kind: group, n_folds: 3", "group: plate", 0.05, 10),  # a sixth is the least
        ("kind: file, file: theirs.csv", "", 0.4, DAYS % 5 >= 3),
    ],
)
def test_the_share_is_kept_in_whole_groups_the_latest_rows_or_the_last_of_user_defined_folds(
    tmp_path, folds, roles, share, expected
):
    path = written(tmp_path, {"day": DAYS, "plate": DAYS // 10}, {"plate": 9}, competition=roles, folds=folds)
    ids = read_text_table(tmp_path / "train.csv")["id"]
    pd.DataFrame({"id": ids, "fold": DAYS % 5}).to_csv(tmp_path / "theirs.csv", index=False)
    tables = made(path, share)
    is_held_out = ids.isin(tables["test"]["id"]).to_numpy()
    assert is_held_out.sum() == np.sum(expected)
    assert np.ndim(expected) == 0 or (is_held_out == expected).all()
    if "group" in folds:
        assert len({*DAYS[is_held_out] // 10}) == tables["test"]["plate"].nunique() == 1
    if "file" in folds:
        assert {*tables["folds"]["fold"]} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("metric", "columns", "first_cells"),
    [
        ("f1_macro", "lumo", "calm"),
        ("map_at_2", "lumo", "calm glad"),
        ("log_loss", "p1,p2,p3", "0.0,0.0,0.0"),
    ],
)
def test_classes_are_held_out_in_like_shares_and_in_the_layout_of_the_sample(
    tmp_path, metric, columns, first_cells
):
    """Of sixty rows 45 are calm, 14 glad, and one is sad, which may go either way."""
    classes = np.random.default_rng(0).permutation(["calm"] * 45 + ["glad"] * 14 + ["sad"])
    roles = f"targets: [lumo], problem_type: multiclass, metric: {metric}, submission_columns: [{columns}]"
    path = written(tmp_path, {"lumo": classes}, competition=roles)
    sample = tmp_path / "sample_submission.csv"
    sample.write_text(sample.read_text().replace("0.0", "0"))
    tables = made(path)
    counts = tables["answers"]["lumo"].value_counts()
    assert (counts["calm"], counts["glad"] in (2, 3), counts.sum()) == (9, True, 12)
    config = load_config(str(holdout_yaml(str(path), 0.2))).competition
    assert config.classes == ["calm", "glad", "sad"]
    assert tables["sample_submission"].drop(columns="id").iloc[0].tolist() == first_cells.split(",")
    tables["train"].replace("sad", "calm").to_csv(config.train, index=False)  # as if all were kept out
    assert "sad 0" in prepare(config).report["said"][1]


def test_full_ends_with_the_score_on_the_rows_and_a_second_command_that_is_refused_changes_no_file(
    tmp_path, capsys
):
    path = fake_competition(tmp_path, stages={"trees": {"kind": "lightgbm", "max_trees": 5}})
    given = options(path, "--holdout", "0.2", "--json")
    assert full(given) == 0
    assert not Paths("mixed").root.exists()  # the competition itself is left alone
    paths = Paths.for_competition(str(holdout_yaml(str(path), 0.2)))
    submission = by_id(paths.submission)
    labels = by_id(tmp_path / "train.csv").loc[submission.index, TARGETS]
    assert len(labels) == 30
    expected = METRICS["rmse"](labels.to_numpy(), submission[TARGETS].to_numpy())
    assert given.result["holdout_score"] == pytest.approx(expected)
    printed = capsys.readouterr().out
    assert f"holdout_score on rows of mixed: {expected:#.4g}, " in printed
    assert re.search("on labels used nowhere else, (in|out)side the expected interval", printed)
    assert "test_score" not in printed + (paths.report / "report.md").read_text()
    assert commands.main(["check", str(path), "--holdout", "0.2"]) is None
    before = {file: file.read_bytes() for file in paths.root.rglob("*.csv")}
    with cli.locked(paths, paths.training_lock(1, 1)), pytest.raises(DataError, match="in use"):
        full(options(path, "--holdout", "0.2", "--set", "competition.seed=1"))
    assert {file: file.read_bytes() for file in paths.root.rglob("*.csv")} == before


def test_settings_of_the_command_line_are_applied_once_and_the_other_commands_need_full_first(
    tmp_path, monkeypatch
):
    """A file of the user is beside his YAML, and not beside the one without the held-out rows."""
    path = fake_competition(tmp_path, stages={"trees": {"kind": "lightgbm", "max_trees": 5}})
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef blend(preds, y, folds):\n    return np.ones(1)\n"
    )
    with pytest.raises(ConfigError, match=r"full .*\.yaml --holdout 0\.2 keeps the rows out; run it first"):
        commands.main(["check", str(path), "--holdout", "0.2"])
    setting = 'submissions.candidates=["mine.py:blend"]'
    assert full(options(path, "--holdout", "0.2", "--set", setting)) == 0
    config = load_config(str(holdout_yaml(str(path), 0.2)))
    assert config.submissions.candidates == [f"{tmp_path}/mine.py:blend"]


def test_another_seed_holds_out_other_rows(tmp_path):
    first, second = ({*made(written(tmp_path, competition=f"seed: {n}"))["test"]["id"]} for n in (0, 5))
    assert len(first) == len(second) and first != second
