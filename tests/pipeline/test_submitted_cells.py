"""Columns of a submission by name, digits of cells, and labels that the sample has in another form."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from competition.task import match_columns
from core.errors import ConfigError
from core.paths import Paths
from pipeline.full import full
from submissions.submission_file import rounded
from tests.pipeline.made import N_TRAIN, X, of_x, options, said

pytestmark = pytest.mark.usefixtures("jobs_in_process")


def submitted(path):
    assert full(options(path)) == 0
    return pd.read_csv(Paths("mine").submission, index_col=0)


@pytest.mark.parametrize(
    ("columns", "names", "matched"),
    [
        ("b a", "a b", "b a"),
        ("prob_b prob_a", "a b", "b a"),
        ("Not_Toxic Toxic", "toxic not_toxic", "not_toxic toxic"),
        ("class_10 class_1", "1 10", "10 1"),
        ("highrate lowrate", "low high", "high low"),
        ("p_low p_other", "low high", "low -"),
        ("plow other", "low high", "- -"),
        ("No-show_No No-show_Yes", "No Yes", "No Yes"),
        ("spam_ham spam_spam", "spam ham", "ham spam"),
        ("profit value", "E f", "- -"),
        ("prob1 prob0", "0 1", "1 0"),
        ("first second", "low high", "- -"),
    ],
)
def test_a_column_belongs_to_the_class_that_it_is_named_after(columns, names, matched):
    pairs = zip(columns.split(), matched.split(), strict=True)
    expected = {column: name for column, name in pairs if name != "-"}
    assert match_columns(tuple(columns.split()), tuple(names.split())) == expected


CLASSES = np.array(["high", "low", "mid"])[X.astype(int)]


@pytest.mark.parametrize("prefix", ["", "prob_"])
def test_probabilities_are_in_the_column_of_their_class_in_any_order(tmp_path, prefix):
    columns = [f"{prefix}{name}" for name in ("mid", "low", "high")]
    settings = f"problem_type: multiclass, metric: log_loss, submission_columns: {columns}"
    table = submitted(of_x(tmp_path, CLASSES, dict.fromkeys(columns, 0.3), settings))
    assert list(table) == columns
    assert list(table.idxmax(axis=1)) == [f"{prefix}{name}" for name in CLASSES[N_TRAIN:]]


def test_targets_are_in_the_column_of_their_name_and_others_by_position_with_a_warning(
    tmp_path,
):
    labels = {"a": X, "b": X + 100}
    table = submitted(of_x(tmp_path, labels, {"b": 0, "a": 0}, "submission_columns: [b, a]"))
    assert table["b"].min() > 50 > table["a"].max()
    (line,) = said(of_x(tmp_path, labels, {"v": 0, "u": 0}, "submission_columns: [u, v]"), "WARNING")
    assert line.endswith("u = a, v = b")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("prob_low, prob_mid, other", r"submission_columns prob_low, prob_mid, other.*high, low, mid"),
        ("low, mid", "submission_columns must have"),
    ],
)
def test_columns_that_are_too_few_or_of_which_some_match_are_refused(tmp_path, columns, words):
    settings = f"problem_type: multiclass, metric: log_loss, submission_columns: [{columns}]"
    path = of_x(tmp_path, CLASSES, dict.fromkeys(columns.split(", "), 0.3), settings)
    with pytest.raises(ConfigError, match=words):
        said(path)


def test_cells_keep_what_distinguishes_large_numbers_and_small_ones():
    large = rounded(pd.Series(1.7e9 + np.arange(5) * 1.25e-3))
    assert all(after - before == pytest.approx(1.25e-3, rel=1e-3) for before, after in pairwise(large))
    assert rounded(pd.Series([3.123456789e-9, 0.1])) == [3.123457e-09, 0.1]
    assert rounded(pd.Series([123.456789012, 123.456789012])) == [123.456789012] * 2
    assert len(repr(rounded(pd.Series(np.random.default_rng(0).normal(size=9)))[0])) <= 12


def test_labels_near_a_large_number_are_submitted_with_their_signal(tmp_path):
    y = 1.7e9 + 50 * X
    assert (submitted(of_x(tmp_path, y))["y"] - y[N_TRAIN:]).abs().max() < 20


WORDS = np.array(["calm", "hateful", "rude"])[X.astype(int)]
ACCURACY = "problem_type: multiclass, metric: accuracy"


@pytest.mark.parametrize(
    ("labels", "cells", "settings", "words"),
    [
        (WORDS, [0, 1, 2] * 4, ACCURACY, ["0, 1, 2", "calm, hateful, rude", "classes:"]),
        (X > 1, [0, 1] * 6, "problem_type: binary, metric: roc_auc", ["False, True", "--metric"]),
        (WORDS, 0, ACCURACY, []),
        (WORDS, 0.5, ACCURACY, []),
        (WORDS, "calm", ACCURACY, []),
    ],
)
def test_other_labels_in_the_sample_are_a_warning_and_one_repeated_cell_is_none(
    tmp_path, labels, cells, settings, words
):
    lines = said(of_x(tmp_path, labels, cells, settings), "WARNING")
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)


def test_classes_say_which_label_of_the_sample_is_which(tmp_path):
    settings = f"{ACCURACY}, classes: {{calm: 0, rude: 1, hateful: 2}}"
    table = submitted(of_x(tmp_path, WORDS, [0, 1, 2] * 4, settings))
    assert list(table["y"]) == [{"calm": 0, "rude": 1, "hateful": 2}[name] for name in WORDS[N_TRAIN:]]


@pytest.mark.parametrize("shift", [0, -1])
def test_answers_may_have_the_labels_of_the_training_table_or_of_the_sample(tmp_path, shift, capsys):
    """The number of a class in the sample is that of another one in the training table."""
    number = X.astype(int) + 1
    settings = f"{ACCURACY}, classes: {{1: 0, 2: 1, 3: 2}}, answers: answers.csv"
    path = of_x(tmp_path, number, [0, 1, 2] * 4, settings)
    answers = pd.read_csv(tmp_path / "sample.csv").assign(y=number[N_TRAIN:] + shift)
    answers.to_csv(tmp_path / "answers.csv", index=False)
    assert list(submitted(path)["y"]) == list(number[N_TRAIN:] - 1)
    assert "test_score: 1.000," in capsys.readouterr().out
