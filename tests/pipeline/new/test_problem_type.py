"""What `./run.sh new` takes the targets for: problem type, classes, metric."""

import pytest

from core.errors import DataError
from pipeline.new.detect import detect
from pipeline.new.problem_type import choose_problem
from tests.submissions.made_up import files_in, write_labels

NUMBERS = ",".join(str(k / 7) for k in range(60))


def problem(folder, labels, sample="0", **options):
    """Guess the problem of a target `y` with some labels in turn, 60 or more in all, or of several targets;
    `sample` has the cells of the sample.
    """
    columns = labels if isinstance(labels, dict) else {"y": labels}
    n = max(60, *(len(text.split(",")) for text in columns.values()))
    rows = {name: (text.split(",") * 60)[:n] for name, text in columns.items()}
    write_labels(folder, rows, sample if isinstance(sample, dict) else dict.fromkeys(columns, sample))
    return choose_problem(detect(files_in(folder)), **options)


@pytest.mark.parametrize(
    ("labels", "sample", "problem_type", "classes", "metric"),
    [
        ("0,1", "0", "binary", "0,1", "roc_auc"),
        ("0.0,1.0,", "0.5", "binary", "0,1", "roc_auc"),
        ("0,1", "", "binary", "0,1", "roc_auc"),
        ("True,False", "0.5", "binary", "False,True", "roc_auc"),
        ("True,False", "False", "binary", "False,True", "accuracy"),
        ("spam,Ham", "0.5", "binary", "Ham,spam", "roc_auc"),  # by its name
        ("insoluble,soluble,soluble", "0.5", "binary", "insoluble,soluble", "roc_auc"),  # by the name in the other
        ("a,b,b", "0", "binary", "b,a", "roc_auc"),  # the rarer one
        ("a,b,b,b,b", "b", "binary", "b,a", "f1"),
        ("a b,c", "a b", "binary", "a b,c", "accuracy"),
        (">30,<30", "<30", "binary", "<30,>30", "accuracy"),
        ("r,p,q", "p", "multiclass", "p,q,r", "accuracy"),
        ("p,p,p,p,p,p,q,r", "p", "multiclass", "p,q,r", "f1_macro"),
        ("r,p,q", {"y_r": 0, "y_p": 0, "y_q": 1}, "multiclass", "p,q,r", "log_loss"),
        ("r,p,q,s", "p q r", "multiclass", "p,q,r,s", "map_at_3"),
        ("1,2,3,4", "1", "ordinal", "1,2,3,4", "quadratic_kappa"),
        ("0,1,2,3", "0", "multiclass", "0,1,2,3", "accuracy"),  # codes of classes
        ("1.0,2.0,3.0,", "0", "ordinal", "1,2,3", "quadratic_kappa"),
        ("1,2,3,4", "2.5", "regression", "", "rmse"),  # means in the sample
        ("1,2,4,5", "1", "regression", "", "rmse"),  # a gap
        (",".join(["1,2,3"] * 20 + ["4"]), "1", "regression", "", "rmse"),  # a rare grade
        (",".join(map(str, range(20))), "0", "regression", "", "rmse"),
        (NUMBERS, "0", "regression", "", "rmse"),
        (f"{NUMBERS},>10,<= 0.5,≥3e1", "0", "regression", "", "rmse"),
        (",".join([*[">10"] * 31, ">", NUMBERS]), "0", "regression", "", "rmse"),  # half of them, one without number
        ({"a": "0,1,", "b": "NA,0,1"}, "0", "multilabel", "0,1", "roc_auc"),
        ({"a": "yes,no", "b": "no"}, "0.5", "multilabel", "no,yes", "roc_auc"),
        ({"a": "yes,no,NA", "b": "no"}, "0.5", "multilabel", "no,yes", "roc_auc"),
        ({"a": "0,1", "b": NUMBERS}, "0", "regression", "", "r2"),
        ({"a": "0,7", "b": "0,14.7"}, "0", "regression", "", "r2"),  # deviations differ by a factor of 2.1
        ({"a": "0,7", "b": "0,13.3"}, "0", "regression", "", "rmse"),
    ],
)  # fmt: skip
def test_problem_type_classes_and_metric_follow_from_labels_and_sample(
    tmp_path, labels, sample, problem_type, classes, metric
):
    guess = problem(tmp_path, labels, sample)
    assert (guess.type, ",".join(guess.classes), guess.metric) == (problem_type, classes, metric)
    assert guess.reasons["type"].startswith("GUESS: ") and guess.reasons["metric"].startswith("GUESS")


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ("0,1", {"metric": "rmse"}, "regression"),
        ("1,2,3", {"metric": "f1_macro"}, "multiclass"),
        ("1,2,4", {"metric": "qwk"}, "ordinal"),
        ("p,q,r", {"metric": "quadratic_kappa"}, "ordinal"),
        ("0,1", {"metric": "quadratic_kappa"}, "binary"),
        ("0,1", {"metric": "map_at_2"}, "multiclass"),
        ("1,2,3", {"metric": "mine.py:score"}, "ordinal"),
        ("1,2,3", {"metric": "accuracy", "problem_type": "multiclass"}, "multiclass"),
        ("1,2,3", {"metric": "rmse", "problem_type": "regression"}, "regression"),
    ],
)
def test_a_named_metric_selects_between_types_and_a_named_type_overrules(tmp_path, labels, options, expected):
    guess = problem(tmp_path, labels, **options)
    assert (guess.type, guess.metric) == (expected, options["metric"])
    assert guess.reasons["type"].startswith("set with" if "problem_type" in options else "GUESS: ")


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ("p,q,r", {"metric": "rmse"}, r"'y' \('p', 'q', 'r'\) suit multiclass.* not --metric rmse \(regr"),
        ("p,q,r", {"problem_type": "binary"}, "not --problem-type binary"),
        ("p", {}, "all labels of 'y' are 'p', so there is nothing to predict"),
        ("", {}, "all labels of 'y' are missing"),
        (",".join(f"text {k}" for k in range(60)), {}, "are neither numbers nor classes"),
        (f"{NUMBERS},ND,~1," + ",".join([">3"] * 30), {}, r"not finite numbers: row .*'ND'.*'~1'\. Rewrite"),
        ({"a": "p,q", "b": "r,s"}, {}, "all targets have the same two classes"),
        (f"1,2 5,,4,{NUMBERS}", {}, r"'y' has .* row 3 \(id '1'\): '2 5'"),
    ],
)
def test_labels_that_fit_to_nothing_are_one_sentence(tmp_path, labels, options, words):
    with pytest.raises(DataError, match=words) as error:
        problem(tmp_path, labels, "p", **options)
    assert "\n" not in str(error.value)


def test_a_class_of_a_single_row_may_be_a_typo_and_is_reported(tmp_path):
    labels = ",".join(["yes,no"] * 30 + ["n0"])
    assert "one row each of 'n0'" in problem(tmp_path, labels, "yes").reasons["classes"]


def test_the_column_of_each_class_follows_the_order_of_the_classes(tmp_path):
    guess = problem(tmp_path, "active,inactive", {"p_active": 0, "p_inactive": 1})
    assert (guess.classes, guess.submission_columns) == (["inactive", "active"], ["p_inactive", "p_active"])


@pytest.mark.parametrize(
    ("labels", "sample", "needs"),
    [
        ("a,b", "0.5", "probabilities"),
        ("a,b", "a", "classes"),
        ("a,b,c", "0", "classes"),
        (NUMBERS, "0", None),
    ],
)  # fmt: skip
def test_a_user_defined_metric_is_given_what_the_sample_requires(tmp_path, labels, sample, needs):
    assert problem(tmp_path, labels, sample, metric="mine.py:score").needs == needs


def test_a_sample_that_mixes_the_classes_may_ask_for_labels(tmp_path):
    mixed = {"y": ["0", "1"] * 10}
    assert "--metric f1 if labels are submitted" in problem(tmp_path, "0,1", mixed).reasons["metric"]
    assert "the sample has 0: --metric f1" in problem(tmp_path, "0,1", "0").reasons["metric"]
    assert "--metric f1" not in problem(tmp_path, "0,1", "0.5").reasons["metric"]
