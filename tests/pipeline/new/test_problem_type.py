"""What `./run.sh new` takes the targets for: problem type, classes, metric."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from pipeline.new.detect import detect
from pipeline.new.problem_type import ProblemGuess, choose_problem
from tests.submissions.made_up import files_in, write_labels

NUMBER = [k / 7 for k in range(80)]


def problem(folder: Path, labels: Any, sample: Any = 0, **options: Any) -> ProblemGuess:
    """Guess the problem of one target `y`, or of several `labels`; `sample` has the cells of the sample."""
    labels = labels if isinstance(labels, dict) else {"y": labels}
    write_labels(folder, labels, sample if isinstance(sample, dict) else dict.fromkeys(labels, sample))
    return choose_problem(detect(files_in(folder)), **options)


def test_the_guessed_metric_follows_how_the_targets_deviate(tmp_path: Path) -> None:
    for scale, metric in ((1.9, "rmse"), (2.1, "r2")):
        guess = problem(tmp_path, {"a": NUMBER[:60], "b": [scale * number for number in NUMBER[:60]]})
        assert (guess.metric, guess.reasons["metric"][:5]) == (metric, "GUESS")


CASES: dict[str, tuple[Any, Any, str, list[str], str]] = {
    "zeros_and_ones": ([0, 1] * 30, 0, "binary", ["0", "1"], "roc_auc"),
    "floats_of_zero_and_one": ([0.0, 1.0, None] * 20, 0.5, "binary", ["0", "1"], "roc_auc"),
    "a_blank_sample": ([0, 1] * 30, "", "binary", ["0", "1"], "roc_auc"),
    "booleans": ([True, False] * 30, 0.5, "binary", ["False", "True"], "roc_auc"),
    "booleans_in_the_sample": ([True, False] * 30, False, "binary", ["False", "True"], "accuracy"),
    "known_words": (["spam", "Ham"] * 30, 0.5, "binary", ["Ham", "spam"], "roc_auc"),
    "the_rarer_one_is_positive": (["a", "b", "b"] * 20, 0, "binary", ["b", "a"], "roc_auc"),
    "rare_names_in_the_sample": (["a", *"bbbb"] * 12, "b", "binary", ["b", "a"], "f1"),
    "names": (list("rpq") * 20, "p", "multiclass", ["p", "q", "r"], "accuracy"),
    "rare_names": ([*"ppppppqr"] * 8, "p", "multiclass", ["p", "q", "r"], "f1_macro"),
    "a_column_per_class": (list("rpq") * 20, {"y_r": 0, "y_p": 0, "y_q": 1}, "multiclass", ["p", "q", "r"], "log_loss"),
    "several_names_in_a_cell": (list("rpqs") * 20, "p q r", "multiclass", ["p", "q", "r", "s"], "map_at_3"),
    "one_cell_names_one": (["a b", "c"] * 30, "a b", "binary", ["a b", "c"], "accuracy"),
    "grades": ([1, 2, 3, 4] * 15, 1, "ordinal", ["1", "2", "3", "4"], "quadratic_kappa"),
    "grades_as_floats": ([1.0, 2.0, 3.0, None] * 15, 0, "ordinal", ["1", "2", "3"], "quadratic_kappa"),
    "grades_with_means_in_the_sample": ([1, 2, 3, 4] * 15, 2.5, "regression", [], "rmse"),
    "grades_with_a_gap": ([1, 2, 4, 5] * 15, 1, "regression", [], "rmse"),
    "a_rare_grade": ([*[1, 2, 3] * 20, 4], 1, "regression", [], "rmse"),
    "counts": ([*range(20)] * 3, 0, "regression", [], "rmse"),
    "numbers": (NUMBER[:60], 0, "regression", [], "rmse"),
    "flags_with_gaps": ({"a": [0, 1, None] * 20, "b": ["NA", 0, 1] * 20}, 0, "multilabel", ["0", "1"], "roc_auc"),
    "named_flags": ({"a": ["yes", "no"] * 30, "b": ["no"] * 60}, 0.5, "multilabel", ["no", "yes"], "roc_auc"),
    "numbers_and_flags": ({"a": [0, 1] * 30, "b": NUMBER[:60]}, 0, "regression", [], "r2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_problem_type_classes_and_metric_follow_from_labels_and_sample(tmp_path: Path, case: Any) -> None:
    labels, sample, *expected = case
    guess = problem(tmp_path, labels, sample)
    assert [guess.type, guess.classes, guess.metric] == expected
    assert guess.reasons["type"].startswith("GUESS: ") and guess.reasons["metric"].startswith("GUESS")


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ([0, 1] * 30, {"metric": "rmse"}, "regression"),
        ([1, 2, 3] * 20, {"metric": "f1_macro"}, "multiclass"),
        ([1, 2, 4] * 20, {"metric": "qwk"}, "ordinal"),
        (list("pqr") * 20, {"metric": "quadratic_kappa"}, "ordinal"),
        ([0, 1] * 30, {"metric": "quadratic_kappa"}, "binary"),
        ([0, 1] * 30, {"metric": "map_at_2"}, "multiclass"),
        ([1, 2, 3] * 20, {"problem_type": "multiclass", "metric": "accuracy"}, "multiclass"),
        ([1, 2, 3] * 20, {"problem_type": "regression"}, "regression"),
        ([1, 2, 3] * 20, {"metric": "mine.py:score"}, "ordinal"),
    ],
)
def test_a_named_metric_selects_between_types_and_a_named_type_overrules(
    tmp_path: Path, labels: list[Any], options: Any, expected: str
) -> None:
    guess = problem(tmp_path, labels, 0, **options)
    assert guess.type == expected
    assert guess.metric == options.get("metric", "rmse")
    assert guess.reasons["type"].startswith("set with" if "problem_type" in options else "GUESS: ")


@pytest.mark.parametrize(
    ("labels", "sample", "options", "words"),
    [
        (
            list("pqr") * 20,
            "p",
            {"metric": "rmse"},
            r"'y' \('p', 'q', 'r'\) fit to multiclass .* --metric rmse \(regr",
        ),
        (list("pqr") * 20, "p", {"problem_type": "binary"}, "not to --problem-type binary"),
        (["p"] * 60, "p", {}, "all labels of 'y' are 'p', so there is nothing to predict"),
        ([None] * 60, 0, {}, "all labels of 'y' are missing"),
        ([f"text {k}" for k in range(60)], "p", {}, "are neither numbers nor classes"),
        (
            [*(f"{k}.5" for k in range(40)), *[">3"] * 18, "ND", "~1"],
            0,
            {},
            r"\('>3', 'ND', '~1'\) are neither",
        ),
        (
            {"a": list("pq") * 30, "b": list("rs") * 30},
            "p",
            {},
            "all targets have the same two classes",
        ),
        (["1", "2,5", "", "4"] * 15, 0, {}, r"'y' has .* row 3 \(id '1'\): '2,5'"),
    ],
)
def test_labels_that_fit_to_nothing_are_one_sentence(
    tmp_path: Path, labels: Any, sample: Any, options: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        problem(tmp_path, labels, sample, **options)
    assert "\n" not in str(error.value)


def test_a_class_of_a_single_row_may_be_a_typo_and_is_reported(tmp_path: Path) -> None:
    assert "one row each of 'n0'" in problem(tmp_path, ["yes", "no"] * 30 + ["n0"], "yes").reasons["classes"]


def test_the_column_of_each_class_follows_the_order_of_the_classes(tmp_path: Path) -> None:
    guess = problem(tmp_path, ["active", "inactive"] * 30, {"p_active": 0, "p_inactive": 1})
    assert (guess.classes, guess.submission_columns) == (["inactive", "active"], ["p_inactive", "p_active"])


def test_a_user_defined_metric_is_given_what_the_sample_requires(tmp_path: Path) -> None:
    needs = [problem(tmp_path, list("ab") * 30, cell, metric="mine.py:score").needs for cell in (0.5, "a")]
    assert needs == ["probabilities", "classes"]
    assert problem(tmp_path, NUMBER[:60], 0, metric="mine.py:score").needs is None


def test_censored_numbers_are_numbers_but_not_names_with_a_sign(tmp_path: Path) -> None:
    censored = [">10", "<= 0.5", "≥3e1", *NUMBER[:57]]
    guess = problem(tmp_path, censored)
    assert (guess.type, guess.classes) == ("regression", [])
    guess = problem(tmp_path, [">10"] * 29 + [">"] + NUMBER[:30])  # half of them, one without its number
    assert (guess.type, guess.classes) == ("regression", [])
    guess = problem(tmp_path, [">30", "<30"] * 30, "<30")
    assert (guess.type, set(guess.classes)) == ("binary", {"<30", ">30"})
    with pytest.raises(
        DataError, match=r"'y' has cells that are not finite numbers: row 61 \(id .*\): 'low'\. "
    ):
        problem(tmp_path, [*censored[:-1], "low"])
