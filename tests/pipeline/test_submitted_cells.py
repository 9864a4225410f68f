"""Columns of a submission by name, digits of cells, and labels that the sample has in another form."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.prepare import prepare
from competition.task import match_columns
from core.errors import ConfigError
from pipeline.full import full
from submissions.config import load_config
from submissions.submission_file import rounded
from tests.submissions.test_full import options

N_TRAIN, N_TEST = 60, 12
X = np.tile(np.arange(3.0), 24) + np.linspace(0, 0.3, 72)  # equal inputs would share a fold


def write(
    folder: Path, labels: dict[str, Any], sample: dict[str, Any], stage: Any = None, **section: Any
) -> Path:
    """Write a competition whose labels are functions of the input `x`, with one quick stage."""
    ids = [f"r{i:02d}" for i in range(len(X))]
    table = pd.DataFrame({"id": ids, "x": X, **labels})
    table[:N_TRAIN].to_csv(folder / "train.csv", index=False)
    table[N_TRAIN:][["id", "x"]].to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": ids[N_TRAIN:], **sample}).to_csv(folder / "sample.csv", index=False)
    competition = {
        "train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv", "id": "id", "numeric": ["x"],
        "targets": list(labels), **section,
    }  # fmt: skip
    neighbors = {
        "kind": "sklearn",
        "estimator": "sklearn.neighbors.KNeighborsClassifier",
        "parameters": {"n_neighbors": 3},
    }
    ridge = {"kind": "sklearn"}
    stage = stage or (neighbors if "problem_type" in section else ridge)
    submissions = {"trials": 4, "stack": False}
    content = {
        "competition": competition,
        "folds": {"n_folds": 3},
        "stages": {"s": stage},
        "submissions": submissions,
    }
    path = folder / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def submitted(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "work" / folder.name / "submission.csv", index_col=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    return tmp_path


@pytest.mark.parametrize(
    ("columns", "names", "expected"),
    [
        (["b", "a"], ["a", "b"], {"b": "b", "a": "a"}),
        (["prob_b", "prob_a"], ["a", "b"], {"prob_b": "b", "prob_a": "a"}),
        (["Not_Toxic", "Toxic"], ["toxic", "not_toxic"], {"Not_Toxic": "not_toxic", "Toxic": "toxic"}),
        (["class_10", "class_1"], ["1", "10"], {"class_10": "10", "class_1": "1"}),
        (["highrate", "lowrate"], ["low", "high"], {"highrate": "high", "lowrate": "low"}),
        (["p_low", "p_other"], ["low", "high"], {"p_low": "low"}),
        (["plow", "other"], ["low", "high"], {}),
        (["No-show_No", "No-show_Yes"], ["No", "Yes"], {"No-show_No": "No", "No-show_Yes": "Yes"}),
        (["spam_ham", "spam_spam"], ["spam", "ham"], {"spam_ham": "ham", "spam_spam": "spam"}),
        (["profit", "value"], ["E", "f"], {}),
        (["prob1", "prob0"], ["0", "1"], {"prob1": "1", "prob0": "0"}),
        (["first", "second"], ["low", "high"], {}),
    ],
)  # fmt: skip
def test_a_column_belongs_to_the_class_that_it_is_named_after(
    columns: list[str], names: list[str], expected: dict[str, str]
) -> None:
    assert match_columns(tuple(columns), tuple(names)) == expected


CLASSES = np.array(["high", "low", "mid"])[X.astype(int)]


@pytest.mark.parametrize("prefix", ["", "prob_"])
def test_probabilities_are_in_the_column_of_their_class_in_any_order(folder: Path, prefix: str) -> None:
    columns = [f"{prefix}{name}" for name in ("mid", "low", "high")]
    path = write(
        folder, {"y": CLASSES}, dict.fromkeys(columns, 0.3), problem_type="multiclass", metric="log_loss",
        submission_columns=columns,
    )  # fmt: skip
    assert full(options(path)) == 0
    table = submitted(folder)
    assert list(table) == columns
    assert list(table.idxmax(axis=1)) == [f"{prefix}{name}" for name in CLASSES[N_TRAIN:]]


def test_targets_are_in_the_column_of_their_name_and_others_by_position_with_a_warning(folder: Path) -> None:
    labels = {"a": X, "b": X + 100}
    path = write(folder, labels, {"b": 0, "a": 0}, metric="rmse", submission_columns=["b", "a"])
    assert full(options(path)) == 0
    assert submitted(folder)["b"].min() > 50 > submitted(folder)["a"].max()
    path = write(folder, labels, {"v": 0, "u": 0}, metric="rmse", submission_columns=["u", "v"])
    lines = prepare(load_config(str(path)).competition).report["said"]
    assert any(line.startswith("WARNING") and line.endswith("u = a, v = b") for line in lines)


def test_columns_of_which_some_match_are_refused_with_both_orders(folder: Path) -> None:
    columns = ["prob_low", "prob_mid", "other"]
    path = write(
        folder, {"y": CLASSES}, dict.fromkeys(columns, 0.3), problem_type="multiclass", metric="log_loss",
        submission_columns=columns,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"submission_columns prob_low, prob_mid, other.*high, low, mid"):
        load_config(str(path))


def test_external_predictions_and_answers_are_read_by_name(folder: Path) -> None:
    """The files have the columns of the sample, whose order is not that of the classes."""
    ids = [f"r{i:02d}" for i in range(len(X))]
    columns = ["mid", "low", "high"]
    table = pd.DataFrame({"id": ids} | {name: np.where(name == CLASSES, 0.8, 0.1) for name in columns})
    (folder / "external").mkdir()
    table[:N_TRAIN].to_csv(folder / "external" / "oof.csv", index=False)
    table[N_TRAIN:].to_csv(folder / "external" / "test.csv", index=False)
    path = write(
        folder, {"y": CLASSES}, dict.fromkeys(columns, 0.3), {"kind": "file", "folder": "external"},
        problem_type="multiclass", metric="log_loss", submission_columns=columns,
    )  # fmt: skip
    assert full(options(path)) == 0
    assert list(submitted(folder).idxmax(axis=1)) == list(CLASSES[N_TRAIN:])


def test_cells_keep_what_distinguishes_large_numbers_and_small_ones() -> None:
    large = rounded(pd.Series(1.7e9 + np.arange(5) * 1.25e-3))
    assert all(after - before == pytest.approx(1.25e-3, rel=1e-3) for before, after in pairwise(large))
    assert rounded(pd.Series([3.123456789e-9, 0.1])) == [3.123457e-09, 0.1]
    assert rounded(pd.Series([123.456789012, 123.456789012])) == [123.456789012] * 2
    assert len(repr(rounded(pd.Series(np.random.default_rng(0).normal(size=9)))[0])) <= 12


def test_labels_near_a_large_number_are_submitted_with_their_signal(folder: Path) -> None:
    path = write(folder, {"y": 1.7e9 + 50 * X}, {"y": 0}, metric="rmse")
    assert full(options(path)) == 0
    error = submitted(folder)["y"] - (1.7e9 + 50 * X[N_TRAIN:])
    assert error.abs().max() < 20


WORDS = np.array(["calm", "hateful", "rude"])[X.astype(int)]


def test_numbers_in_the_sample_of_word_classes_are_a_warning_and_classes_say_which_is_which(
    folder: Path,
) -> None:
    sample = {"y": [0, 1, 2] * 4}
    section = {"problem_type": "multiclass", "metric": "accuracy"}
    path = write(folder, {"y": WORDS}, sample, **section)
    (line,) = [
        line for line in prepare(load_config(str(path)).competition).report["said"] if "WARNING" in line
    ]
    assert "0, 1, 2" in line and "calm, hateful, rude" in line and "classes:" in line
    path = write(folder, {"y": WORDS}, sample, classes={"calm": 0, "rude": 1, "hateful": 2}, **section)
    assert full(options(path)) == 0
    number = {"calm": 0, "rude": 1, "hateful": 2}
    assert list(submitted(folder)["y"]) == [number[name] for name in WORDS[N_TRAIN:]]


@pytest.mark.parametrize("sample", [0, 0.5, "calm"])
def test_a_sample_with_one_repeated_cell_is_no_warning(folder: Path, sample: Any) -> None:
    path = write(folder, {"y": WORDS}, {"y": sample}, problem_type="multiclass", metric="accuracy")
    assert not any("WARNING" in line for line in prepare(load_config(str(path)).competition).report["said"])


def test_booleans_with_numbers_in_the_sample_are_a_hint_to_a_metric_of_labels(folder: Path) -> None:
    path = write(folder, {"y": X > 1}, {"y": [0, 1] * 6}, problem_type="binary", metric="roc_auc")
    (line,) = [
        line for line in prepare(load_config(str(path)).competition).report["said"] if "WARNING" in line
    ]
    assert "False, True" in line and "--metric" in line


def test_too_few_columns_are_an_error_in_words(folder: Path) -> None:
    columns = ["low", "mid"]
    path = write(
        folder, {"y": CLASSES}, dict.fromkeys(columns, 0.3), problem_type="multiclass", metric="log_loss",
        submission_columns=columns,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="submission_columns must have"):
        load_config(str(path))


@pytest.mark.parametrize("form", ["training", "sample"])
def test_answers_may_have_the_labels_of_either_table(
    folder: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number of a class in the sample is that of another one in the training table."""
    number = X.astype(int) + 1
    path = write(
        folder, {"y": number}, {"y": [0, 1, 2] * 4}, problem_type="multiclass", metric="accuracy",
        classes={1: 0, 2: 1, 3: 2}, answers="answers.csv",
    )  # fmt: skip
    ids = [f"r{i:02d}" for i in range(N_TRAIN, len(X))]
    shift = 0 if form == "training" else -1
    pd.DataFrame({"id": ids, "y": number[N_TRAIN:] + shift}).to_csv(folder / "answers.csv", index=False)
    assert full(options(path)) == 0
    assert list(submitted(folder)["y"]) == list(number[N_TRAIN:] - 1)
    assert "test_score: 1.000," in capsys.readouterr().out
