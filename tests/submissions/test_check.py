"""What `./run.sh check` finds before any work."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.config import load_competition
from competition.prepare import prepare, write_prepared
from core.errors import ConfigError, DataError
from models.training.hardware import Card
from pipeline.check import check_all
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
from tests.models.encoders import publish, publish_decoder


def checked(path: Path) -> str:
    return check_all(load_config(str(path)))


def test_a_good_competition_is_described_with_its_jobs(tmp_path: Path) -> None:
    unread = {"answers": "not there.csv"}  # no step before the report may open it
    path = write_competition(tmp_path, *mixed_tables(), competition=unread)
    path.write_text(
        path.read_text() + "\nsubmissions:\n  # default: mean\n"
    )  # a section of comments is empty
    assert load_config(str(path)).default_blend == "shrunk_ridge"
    output = checked(path)
    assert "60 training rows, 20 test rows" in output
    assert "stage trees: lightgbm; 3 jobs" in output


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("True", "is nan for predictions near the labels on all rows"),
        ("len(y_true) < 60", "on the rows of fold 0"),
        ("len(set(y_true[:, 0])) < 48 and len(y_true) == 60", "on rows drawn with rep"),
        ("exit(3)", "SystemExit"),
    ],
)
def test_a_metric_that_is_no_number_on_some_rows_of_a_run_is_refused(
    tmp_path: Path, where: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(
        f"def score(y_true, y_pred):\n    return float('nan') if {where} else 1.0\n"
    )
    roles = {"metric": "own.py:score", "greater_is_better": True}
    with pytest.raises(ConfigError, match=message):
        checked(write_competition(tmp_path, *mixed_tables(), competition=roles))


def test_a_target_that_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    train, test = mixed_tables()
    train["mu"] = 1.0
    with pytest.raises(
        ConfigError, match="the metric pearson is nan .* all rows .* There mu has only one label"
    ):
        checked(write_competition(tmp_path, train, test, competition={"metric": "pearson"}))
    first = np.arange(60) < 20
    train["mu"], train["round"] = np.where(first, 1.0, np.nan), np.where(first, -1, np.arange(60) < 40)
    roles = {"metric": "pearson", "fold_column": "round"}
    with pytest.raises(ConfigError, match="on all rows that are scored .* There mu has only one label"):
        checked(write_competition(tmp_path, train, test, competition=roles, folds={"kind": "column"}))


@pytest.mark.parametrize(
    ("estimator", "parameters", "warned"),
    [
        ("sklearn.neural_network.MLPRegressor", {"early_stopping": True}, True),
        ("sklearn.linear_model.RidgeCV", {}, True),
        ("sklearn.ensemble.GradientBoostingRegressor", {"n_iter_no_change": 5}, True),
        ("sklearn.neural_network.MLPRegressor", {}, False),
        ("sklearn.ensemble.HistGradientBoostingRegressor", {}, False),  # it stops early above 10,000 rows
        ("sklearn.svm.SVR", {}, False),
    ],
)
def test_an_estimator_that_holds_out_rows_by_itself_is_reported_where_folds_have_groups(
    tmp_path: Path, estimator: str, parameters: dict[str, Any], warned: bool
) -> None:
    train, test = mixed_tables()
    train = train.assign(plate=[f"p{i // 5}" for i in range(60)], day=range(60))
    stages = {"s": {"kind": "sklearn", "estimator": estimator, "parameters": parameters}}
    roles = {"group": "plate", "time": "day"}
    reasons = {"group": "keep the groups of 60 rows together", "time": "hold out the latest", "kfold": None}
    for kind, reason in reasons.items():
        folds = {"kind": kind, "n_folds": 3}
        output = checked(
            write_competition(tmp_path, train, test, stages=stages, competition=roles, folds=folds)
        )
        assert (
            f"stage s: sklearn; {estimator} holds out some training rows by itself and cannot {reason}"
            in output
        ) is (warned and reason is not None)


COLOUR = {"template": "{note} [SEP] {colour}"}


@pytest.mark.parametrize(
    ("stage", "competition", "message"),
    [
        *(({"kind": k}, {"smiles": []}, rf"s: a stage of kind {k} requires") for k in ("gnn", "unimol2")),
        *(
            (stage, {}, r"s: .*\(SMILES, note, site\); got colour")
            for stage in ({"kind": "bert", **COLOUR}, {"kind": "sklearn", "features": [{"encoder": "rxnfp", **COLOUR}]})
        ),
        ({"kind": "bert", "columns": ["note"], "enumerate_smiles": True}, {}, "s: enumerate_smiles requires"),
        ({"kind": "bert", "columns": ["SMILES"], "enumerate_smiles": "order"}, {}, "s: .*with several molecules"),
        *(
            ({"weights": "unimol_small", **s}, {}, rf"s: .* unimol_small are of kind unimol, but {s['kind']} is req")
            for s in ({"kind": "gnn"}, {"kind": "bert"}, {"kind": "unimol2", "architecture": "84m"})
        ),
        (
            {"kind": "lightgbm", "features": [{"encoder": "unimol_small"}]},
            {},
            "s: .* bert or gnn or minimol is required here. Choose from minilm, rxnfp, chemeleon, minimol",
        ),
        ({"kind": "gnn", "layer_decay": 0.9}, {}, "s: message passing repeats one layer"),
        ({"kind": "gnn", "loss": "own.py:absent"}, {}, r"s: gnn\.loss: there is no file .*own\.py"),
        ({"kind": "sklearn", "target_transform": "log1p"}, {}, r"s: .*above -1; got -\d"),
        (
            {"kind": "sklearn", "estimator": "sklearn.neighbors.KNeighborsRegressor"},
            {"weight": "pH", "numeric": []},
            "s: .*KNeighborsRegressor has no sample_weight",
        ),
    ],
)  # fmt: skip
def test_what_a_stage_can_never_do_is_reported_before_any_training(
    tmp_path: Path, stage: dict[str, Any], competition: dict[str, Any], message: str
) -> None:
    train, test = mixed_tables()
    path = write_competition(
        tmp_path, train.assign(pH=1.0), test, competition=competition, stages={"s": stage}
    )
    with pytest.raises(ConfigError, match=message):
        checked(path)


GRADED = {"problem_type": "ordinal", "classes": ["low", "middle", "high"], "metric": "quadratic_kappa"}


@pytest.mark.parametrize(
    ("stage", "competition", "message"),
    [
        (
            {"loss": "mae"},
            {},
            r"s: loss: mae does not fit problem type multiclass; remove it .*\(cross_entropy\)",
        ),
        ({"loss": "cross_entropy"}, GRADED, r"s: loss: cross_entropy does not fit .*; remove it .*\(mse\)"),
        (
            {"loss": "mse"},
            {"targets": ["wet"], "problem_type": "binary", "metric": "roc_auc"},
            r"s: loss: mse does not fit .*; remove it .*\(bce\)",
        ),
        ({"label_smoothing": 0.1}, GRADED, "s: label_smoothing requires a built-in classification loss"),
        (
            {},
            {"auxiliary_targets": ["z"]},
            "s: auxiliary_targets cannot be learned with a multiclass target",
        ),
        ({"auxiliary_weight": 0, "label_smoothing": 0.1}, {}, None),
        ({"loss": "mae"}, {"auxiliary_targets": ["z"], **GRADED}, None),
    ],
)
def test_what_does_not_go_with_the_classes_that_a_network_learns_is_reported_before_any_training(
    tmp_path: Path, stage: dict[str, Any], competition: dict[str, Any], message: str | None
) -> None:
    train, test = mixed_tables()
    train = train.assign(grade=np.array(GRADED["classes"])[np.arange(60) % 3], wet=np.arange(60) % 2, z=0.5)
    roles = {"targets": ["grade"], "problem_type": "multiclass", "metric": "f1_macro", **competition}
    path = write_competition(tmp_path, train, test, competition=roles, stages={"s": {"kind": "gnn", **stage}})
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        checked(path)


USERS = """
from dataclasses import dataclass

@dataclass
class Of:
    value: object
    def predict(self, preds):
        return preds.mean(axis=1)

@dataclass
class Flat:
    def predict(self, preds):
        return preds.mean(axis=(1, 2))

def seen(preds, y, folds):
    assert preds.shape[1:] == (2, 2) and y.shape == (len(preds), 2) == (len(folds), 2), preds.shape
    return Of(float(abs(preds - y[:, None])[1:].max() < 10))

short = lambda preds, y, folds: [1.0] * (preds.shape[1] + 1)
flat = lambda preds, y, folds: Flat()
nan = lambda preds, y, folds: [float("nan")] * preds.shape[1]
no_json = lambda preds, y, folds: Of(lambda: 1)
shift = lambda y_pred: y_pred + 1
first = lambda y_pred: y_pred[:, 0]
"""


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("candidates", "seen", None),
        ("candidates", "short", r"mine\.py:short must return weights \(2,\) or a dataclass"),
        (
            "candidates",
            "flat",
            r"mine\.py:flat must .*expected predictions of shape \(100, 2\), got \(100,\)",
        ),
        ("candidates", "nan", r"mine\.py:nan must .*expected finite predictions"),
        ("candidates", "no_json", r"mine\.py:no_json must return a dataclass of numbers, .*not JSON"),
        ("postprocess", "shift", None),
        ("postprocess", "first", r"mine\.py:first must return predictions of the shape of its argument"),
    ],
)
def test_user_defined_candidates_and_post_processing_are_tried_before_any_training(
    tmp_path: Path, key: str, name: str, message: str | None
) -> None:
    (tmp_path / "mine.py").write_text(USERS)
    code_ref = f"mine.py:{name}"
    submissions = {key: [code_ref] if key == "candidates" else code_ref}
    stages = dict.fromkeys("ab", {"kind": "lightgbm"})
    path = write_competition(tmp_path, *mixed_tables(), stages=stages, submissions=submissions)
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        checked(path)


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        ("import numpy\n\nRATE = numpy.absent\n", r"mine\.py must .*AttributeError in line 3 of helpers\.py"),
        ("def rate(:\n", r"mine\.py must .*SyntaxError.*\(helpers\.py, line 1\)"),
        (
            "def rate(y):\n    return y.absent\n",
            r"mine\.py:score must .*AttributeError in line 2 of helpers\.py",
        ),
    ],
)
def test_a_mistake_in_a_module_that_the_users_code_imports_is_reported_with_its_line(
    tmp_path: Path, helper: str, message: str
) -> None:
    (tmp_path / "helpers.py").write_text(helper)
    (tmp_path / "mine.py").write_text(
        "import helpers\n\ndef score(y_true, y_pred):\n    return helpers.rate(y_true)\n"
    )
    roles = {"metric": "mine.py:score", "greater_is_better": True}
    with pytest.raises(ConfigError, match=message):
        checked(write_competition(tmp_path, *mixed_tables(), competition=roles))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": {}}, None),
        ({"lora": {}, "quantization": "nf4"}, r"s: quantization: nf4 requires the package bitsandbytes"),
        ({"lora": {"layers": ["query"]}}, r"s: lora\.layers names query, which .* does not have"),
        ({"pooling": "cls"}, r"s: pooling: cls reads the first token, .*a decoder\)\. Set pooling: last"),
    ],
)
def test_settings_that_do_not_fit_a_decoder_are_reported_before_any_training(
    tmp_path: Path, settings: dict[str, Any], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.inputs.base_models.find_spec", lambda name: None)
    stage = {
        "kind": "bert",
        "weights": str(publish_decoder(tmp_path / "decoder")),
        "columns": ["note"],
        **settings,
    }
    path = write_competition(tmp_path, *mixed_tables(), stages={"s": stage})
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        checked(path)


def test_a_precision_that_this_machine_has_not_is_reported_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.settings.cards_in_new_process", lambda: ([], ""))
    monkeypatch.setattr("models.training.settings.cpu_has_bf16", lambda: False)
    stages = {name: {"kind": "gnn", "precision": name} for name in ("fp16", "bf16")}
    path = write_competition(tmp_path, *mixed_tables(), stages=stages)
    with pytest.raises(
        ConfigError, match=r"(?s)fp16: precision fp16 needs a GPU.*bf16: precision bf16 needs a GPU"
    ):
        checked(path)
    check_all(load_config(str(path)), here=False)  # other machines train
    monkeypatch.setattr(
        "models.training.settings.cards_in_new_process", lambda: ([Card("0", 80.0, True)], "")
    )
    checked(path)


def test_a_torch_that_cannot_be_imported_is_one_sentence_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is missing')")
    monkeypatch.syspath_prepend(tmp_path)  # a new process has the path of this one
    path = write_competition(
        tmp_path, *mixed_tables(), stages={"graph": {"kind": "gnn", "precision": "bf16"}}
    )
    with pytest.raises(
        ConfigError,
        match=r"^stages\.graph: torch cannot be imported .*: ImportError: libcudart is missing\. Set ",
    ):
        checked(path)


def test_what_no_table_may_have_is_reported_before_any_training(tmp_path: Path) -> None:
    train, test = mixed_tables()
    with pytest.raises(DataError, match=r"row 5 .*: '1e\+300'"):
        checked(
            write_competition(tmp_path, train.assign(lumo=train["lumo"].where(train.index != 3, 1e300)), test)
        )
    path = write_competition(
        tmp_path, train, test.assign(SMILES="no molecule"), competition={"unparsable": "drop"}
    )
    with pytest.raises(DataError, match="has no row with readable molecules"):
        checked(path)


def test_two_yaml_files_of_one_name_do_not_share_products(tmp_path: Path) -> None:
    def prepared(path: Path) -> None:
        config = load_competition(str(path))
        write_prepared(prepare(config), config)

    first, second = (write_competition(tmp_path / name, *mixed_tables()) for name in ("a", "b"))
    for path in (first, first):
        prepared(path)
    with pytest.raises(ConfigError, match="was made from .* Rename one"):
        prepared(second)
    first.unlink()
    prepared(second)


def test_many_rows_for_a_gaussian_process_are_reported_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_competition(tmp_path, *mixed_tables(), stages={"gp": {"kind": "gp"}})
    assert "grows with the cube" not in checked(path)
    monkeypatch.setattr("models.stages.gp.MANY_ROWS", 20)
    assert "stage gp: gp; the time of an exact Gaussian process grows with the cube" in checked(path)


def test_texts_that_will_be_cut_are_counted_in_both_tables(tmp_path: Path) -> None:
    train, test = mixed_tables()  # each note has four words, and two special tokens are added
    train.loc[:2, "note"] = "red blue old new fast"
    test.loc[0, "note"] = "red blue old new fast"
    weights = {"weights": str(publish(tmp_path / "published"))}
    stages = {
        "short": {"kind": "bert", "max_length": 8, **weights, "template": "{note} red red"},
        "long": {
            "kind": "sklearn",
            "features": [{"encoder": weights["weights"], "max_length": 9, "columns": ["note"]}],
        },
    }
    output = checked(write_competition(tmp_path, train, test, stages=stages))
    assert "published; 4 texts have more than 8 tokens and will be cut; 3 jobs" in output
    assert output.count("will be cut") == 1
