"""What `./run.sh check` says of classes: bad input in one sentence, and what is worth knowing of good input."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import UserError
from tests.competition.small import write_small
from tests.submissions.test_check import checked

SMILES = [f"{'C' * (i // 2 + 1)}{'O' * (i % 2)}" for i in range(24)]


def written(
    folder: Path, labels: list[str], sample: list[str] | None = None, stage: Any = None, **competition: Any
) -> Path:
    """A competition with these labels in turn, 24 rows in all; `sample` has a header and cells beside the id."""
    header, *cells = sample or ["y", "0"]
    train = ["id,SMILES,y", *(f"r{i},{SMILES[i]},{labels[i % len(labels)]}" for i in range(24))]
    rows = [f"id,{header}", *(f"t{i},{cells[i % len(cells)]}" for i in (1, 2))]
    path = write_small(
        folder, train, None, rows, **{"problem_type": "binary", "metric": "roc_auc", **competition}
    )
    if stage:
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "stages": {"s": stage}}))
    return path


NAMES: dict[str, Any] = {"problem_type": "multiclass", "metric": "accuracy"}
ABC, PER_CLASS, FOUR = ["a", "b", "c"], ["a,b,c", ".3,.3,.4"], ["a,b,c,d", "0,0,0,1"]
NEEDS = {"metric_needs": "probabilities"}
USER_METRIC: dict[str, Any] = {"metric": "own.py:score", "greater_is_better": True}


def bad(words: str, labels: list[str], sample: list[str] | None = None, **competition: Any) -> Any:
    return pytest.param(labels, sample, competition, words, id=words[:50])


@pytest.mark.parametrize(
    ("labels", "sample", "competition", "words"),
    [
        bad(r"sample\.csv has the classes 'd', the training table has 'a', 'b', 'c'", ABC, ["y", "a", "d"], **NAMES),
        bad("must have the columns id, a, b, c; got id, a, b, c, d", ABC, FOUR, **NAMES, submission_columns=ABC),
        bad("must have 1 columns, .*, or 3, one per class; got 4", ABC, FOUR, **NAMES, submission_columns=[*ABC, "d"]),
        bad(r"takes two classes .* training labels\); got 1 \(1\)", ["1"]),
        bad(r"binary takes two classes .* got 3 \(0\.1, 0\.3, 0\.7\)", ["0.3", "0.7", "0.1"]),
        bad("log_loss scores .*, and this is regression", ["0", "1"], problem_type="regression", metric="log_loss"),
        bad("the metric f1 scores .* binary, multilabel, and this is multi", ABC, **{**NAMES, "metric": "f1"}),
        bad("log_loss .* so the sample needs a column per class", ABC, **{**NAMES, "metric": "log_loss"}),
        bad(r"none of the classes \('a', 'b'\): row 4 \(id 'r2'\): 'c', .* 3 more\. Correct", ABC, classes=["a", "b"]),
        bad(r"train\.csv has no row of 'd', which is in competition\.classes", ABC, **NAMES, classes=[*ABC, "d"]),
        bad(r"classes: must not have duplicates; got 1 twice", ["0", "1"], classes=["0", "1", "1.0"]),
        bad("regression takes no classes", ["0", "1"], problem_type="regression", classes=["0", "1"]),
        bad(r"binary has one target, got 2; several", ["0", "1"], targets=["y", "SMILES"], smiles=[]),
        bad("has no label at all for y", ["", " "], classes=["0", "1"]),
        bad("separated by spaces, and 'b c' has a space", ["a", "b c"], **{**NAMES, "metric": "map_at_3"}),
        bad("needs must be set for a user-defined metric", ["0", "1"], **USER_METRIC),
        bad("needs must be classes", ["1", "2", "3"], problem_type="ordinal", **USER_METRIC, **NEEDS),
    ],
)  # fmt: skip
def test_bad_classes_are_refused_in_one_sentence(
    tmp_path: Path, labels: list[str], sample: list[str] | None, competition: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        checked(written(tmp_path, labels, sample, **competition))
    message = str(error.value)
    assert len(message.splitlines()) == (2 if "1 error(s):" in message else 1)


def test_a_good_competition_of_classes_is_described_with_what_may_surprise(tmp_path: Path) -> None:
    labels = ["no", " no ", "yes", *[""] * 3, *["no"] * 18]
    balanced, of_library = {"class_weights": "balanced"}, {"parameters": {"is_unbalance": True}}
    for metric, weights, bends in (
        ("log_loss", balanced, 1),
        ("brier", of_library, 1),
        ("roc_auc", balanced, 0),
    ):
        trees = {"kind": "lightgbm", **weights}
        lines = checked(written(tmp_path, labels, None, trees, metric=metric)).splitlines()
        assert lines[0] == "24 training rows, 2 test rows"
        assert {"y: no 20, yes 1", "problem_type binary, where 'yes' is the positive class"} <= {*lines}
        assert "missing labels: y 3" in lines
        assert "y: some folds have no row of 'yes' (1 rows); their scores ignore these classes" in lines
        assert any(re.fullmatch("y: no row of 'yes' trains the models of fold [012]", line) for line in lines)
        message = f"; class weights distort the probabilities that {metric} scores; 3 jobs"
        assert lines[-1].endswith(message) == bends
    assert " and 18 more\n" in checked(written(tmp_path, [f"c{i}" for i in range(23)], **NAMES))


@pytest.mark.parametrize(
    ("labels", "sample", "competition"),
    [
        (["0", "1"], ["y", "0"], {}),
        (["1.0", "0.0", ""], ["y", "1"], {"classes": [0, 1], "metric": "f1"}),
        (["False", "True"], ["y", "false", "TRUE"], {"classes": [False, True], "metric": "mcc"}),
        (["no", "yes"], ["y", "no"], {"classes": ["no", "yes"], "metric": "accuracy"}),
        (["0", "1"], ["n,p", "0.5,0.5"], {"submission_columns": ["n", "p"]}),
        (ABC, PER_CLASS, {**NAMES, "metric": "log_loss", "submission_columns": ABC}),
        (ABC, PER_CLASS, {**NAMES, "metric": "map_at_2", "submission_columns": ABC}),
        (ABC, ["y", "a b", "c a"], {**NAMES, "metric": "map_at_2"}),
        (["1", "2", "5"], ["y", "1"], {"problem_type": "ordinal", "metric": "qwk"}),
    ],
)  # fmt: skip
def test_labels_and_layouts_that_go_together_are_accepted(
    tmp_path: Path, labels: list[str], sample: list[str], competition: dict[str, Any]
) -> None:
    path = written(tmp_path, labels, sample, **competition)
    path.write_text(
        path.read_text().replace("'no'", "no").replace("'yes'", "yes")
    )  # which YAML 1.1 takes for booleans
    assert "\nproblem_type " in checked(path)


OWNED = ("probabilities", "classes")
USER_CODE = """
import numpy as np

def probabilities(y_true, y_pred):
    assert y_pred.shape == (len(y_true), 3) and np.allclose(y_pred.sum(axis=1), 1) and (y_pred > 0).all()
    return float((y_pred.argmax(axis=1) == y_true[:, 0]).mean())

def classes(y_true, y_pred):
    assert y_pred.shape == y_true.shape and set(y_pred[:, 0]) <= {0, 1, 2}
    return float((y_pred == y_true).mean())
"""


@pytest.mark.parametrize("function", OWNED)
@pytest.mark.parametrize("needs", OWNED)
def test_a_user_defined_metric_is_tried_on_what_it_needs(tmp_path: Path, function: str, needs: str) -> None:
    (tmp_path / "own.py").write_text(USER_CODE)
    settings = {"metric": f"own.py:{function}", "greater_is_better": True, "metric_needs": needs}
    columns = {"submission_columns": ABC} if needs == "probabilities" else {}
    path = written(tmp_path, ABC, PER_CLASS if columns else ["y", "a"], **{**NAMES, **settings, **columns})
    with nullcontext() if function == needs else pytest.raises(UserError, match="must return one number"):
        checked(path)


def test_a_user_defined_metric_is_tried_on_rows_without_a_rare_class(tmp_path: Path) -> None:
    text = "from sklearn.metrics import log_loss\n\ndef score(y, p):\n    return log_loss(y[:, 0], p[:, 0])\n"
    (tmp_path / "own.py").write_text(text)
    settings = {"metric": "own.py:score", "greater_is_better": False, "metric_needs": "probabilities"}
    with pytest.raises(UserError, match="(?s)own.py:score must return one number.* only one label"):
        checked(written(tmp_path, ["0", "1"], **settings))


def test_a_target_without_labels_to_train_a_fold_is_reported_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target 'y' must have labels among the training rows of every fold"):
        checked(written(tmp_path, ["0", *[""] * 11, "1", *[""] * 11]))
