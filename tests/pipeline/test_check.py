"""What `./run.sh check` finds before any work: mistakes, each in one sentence, and what is worth knowing."""

import math
import re
from contextlib import nullcontext

import numpy as np
import pytest
import yaml

from competition.config import load_competition
from competition.prepare import prepare, write_prepared
from core.errors import ConfigError, DataError, UserError
from folds import kinds
from models.hardware import Card
from models.training import neural_stage
from pipeline import check as check_step
from pipeline import commands
from pipeline.check import check_all, require_visible_gpu
from submissions.config import load_config
from tests.competition.small import write_small
from tests.models.encoders import publish, publish_decoder
from tests.pipeline.made import X, checked, of_x, written

ROWS = np.arange(60)


def refused(message):
    return pytest.raises(ConfigError, match=message) if message else nullcontext()


def test_a_good_competition_is_described_with_its_jobs(tmp_path):
    path = written(tmp_path, competition="answers: not there.csv")  # no step before the report opens it
    path.write_text(path.read_text() + "\nsubmissions:\n  # default: mean\n")  # empty but for a comment
    assert load_config(str(path)).default_blend == "shrunk_ridge"
    output = checked(path)
    assert "60 training rows, 20 test rows" in output
    assert "stage trees: lightgbm; 3 jobs" in output


def test_it_runs_while_another_command_writes_its_first_tables(tmp_path):
    config = load_config(str(written(tmp_path)))
    config.competition.paths.train.parent.mkdir(parents=True)
    config.competition.paths.train.touch()  # and no report about the tables yet
    assert "stage trees: lightgbm" in check_all(config, reuse=False)


def test_train_ends_with_the_words_of_check_before_any_job(tmp_path, monkeypatch):
    path = of_x(tmp_path, X, stage="kind: lightgbm, parameters: {num_leaves: many}")
    with pytest.raises(ConfigError) as of_check:
        checked(path)
    monkeypatch.setattr(commands, "make_executor", None)  # no worker starts
    with pytest.raises(ConfigError, match="num_leaves") as of_train:
        commands.main(["train", str(path)])
    assert str(of_train.value) == str(of_check.value)


def test_a_column_that_gives_the_label_is_a_warning(tmp_path):
    path = of_x(tmp_path, labels=(X * 2.2).round(2), pounds=X, settings="numeric: [x, pounds]")
    lines = [line for line in checked(path).splitlines() if "the column" in line]
    assert [line.split(" predicts")[0] for line in lines] == [
        "WARNING: the column 'x'", "WARNING: the column 'pounds'",
    ]  # fmt: skip
    assert "take it out of competition.numeric" in lines[1]


# Stages


@pytest.mark.parametrize(
    ("stage", "competition", "message"),
    [
        ("kind: gnn", "smiles: []", "a stage of kind gnn requires"),
        ("kind: unimol2", "smiles: []", "a stage of kind unimol2 requires"),
        ("kind: bert, template: '{note} {colour}'", "", r".*\(SMILES, note, site\); got colour"),
        (
            "kind: sklearn, features: [{encoder: rxnfp, template: '{colour}'}]", "",
            r".*\(SMILES, note, site\); got colour",
        ),
        ("kind: bert, columns: [note], enumerate_smiles: true", "", "enumerate_smiles requires"),
        ("kind: gnn, weights: unimol_small", "", ".* unimol_small are of kind unimol, but gnn is req"),
        ("kind: bert, weights: unimol_small", "", ".* unimol_small are of kind unimol, but bert is req"),
        (
            "kind: unimol2, architecture: 84m, weights: unimol_small", "",
            ".* unimol_small are of kind unimol, but unimol2 is req",
        ),
        (
            "kind: lightgbm, features: [{encoder: unimol_small}]", "",
            ".* bert or use or gnn or minimol is required here. Choose from minilm, use_multilingual, .*, minimol",
        ),
        (
            "kind: lightgbm, features: []", "numeric: [], text: [], categorical: []",
            "features is empty, and all input columns are molecules",
        ),
        ("kind: lightgbm, parameters: {num_leaves: many}", "", "lightgbm rejects .*num_leaves.*many"),
        ("kind: lightgbm, parameters: {bagging_fraction: 1.5}", "", "lightgbm rejects .*bagging_fraction"),
        ("kind: lightgbm, parameters: {objective: tweedie, max_bin: 63, monotone_constraints: [1, 0]}", "", None),
        ("kind: sklearn, parameters: {C: -1}", "", "estimator: .*'C' parameter of SVR must be"),
        ("kind: gnn, layer_decay: 0.9", "", "message passing repeats one layer"),
        ("kind: gnn, loss: 'own.py:absent'", "", r"gnn\.loss: there is no file .*own\.py"),
        ("kind: sklearn, target_transform: log1p", "", r".*above -1; got -\d"),
        (
            "kind: sklearn, estimator: sklearn.neighbors.KNeighborsRegressor", "weight: pH, numeric: []",
            ".*KNeighborsRegressor has no sample_weight",
        ),
        ("kind: bert, weights: DECODER, columns: [note], lora: {}", "", None),
        (
            "kind: bert, weights: DECODER, columns: [note], lora: {}, quantization: nf4", "",
            "quantization: nf4 requires the package bitsandbytes",
        ),
        (
            "kind: bert, weights: DECODER, columns: [note], lora: {layers: [query]}", "",
            r"lora\.layers names query, which .* does not have",
        ),
        (
            "kind: bert, weights: DECODER, columns: [note], pooling: cls", "",
            r"pooling: cls reads the first token, .*a decoder\)\. Set pooling: last",
        ),
        (
            "kind: lightgbm, features: [{encoder: DECODER, columns: [note], layers: [2, 3]}]", "",
            r".* has the layers 1 to 2, but layers is \[2, 3\]",
        ),
    ],
)  # fmt: skip
def test_what_a_stage_can_never_do_is_reported_before_any_training(
    tmp_path, stage, competition, message, monkeypatch
):
    monkeypatch.setattr("models.inputs.base_models.find_spec", lambda name: None)
    if "DECODER" in stage:
        stage = stage.replace("DECODER", str(publish_decoder(tmp_path / "decoder")))
    path = written(tmp_path, {"pH": 1.0}, stages=f"s: {{{stage}}}", competition=competition)
    with refused(message and rf"stages\.s: {message}"):
        checked(path)


BINARY_GRADE = "targets: [grade], problem_type: binary, classes: [low, high], metric: roc_auc"
NAMED = "targets: [grade], problem_type: multiclass, metric: f1_macro"
GRADED = "targets: [grade], problem_type: ordinal, classes: [low, middle, high], metric: quadratic_kappa"
WET = "targets: [wet], problem_type: binary, metric: roc_auc"


@pytest.mark.parametrize(
    ("stage", "competition", "message"),
    [
        (
            "loss: mae",
            NAMED,
            r"loss: mae does not fit problem type multiclass; remove it .*\(cross_entropy\)",
        ),
        ("loss: cross_entropy", GRADED, r"loss: cross_entropy does not fit .*; remove it .*\(mse\)"),
        ("loss: mse", WET, r"loss: mse does not fit .*; remove it .*\(bce\)"),
        (
            "",
            f"{NAMED}, auxiliary_targets: [z]",
            "auxiliary_targets cannot be learned with a multiclass target",
        ),
        ("auxiliary_weight: 0", f"{NAMED}, auxiliary_targets: [z]", None),
        ("loss: mae", f"{GRADED}, auxiliary_targets: [z]", None),
    ],
)
def test_what_does_not_go_with_the_classes_that_a_network_learns_is_reported_before_any_training(
    tmp_path, stage, competition, message
):
    grades = np.array(["low", "middle", "high"])[ROWS % 3]
    path = written(
        tmp_path, {"grade": grades, "wet": ROWS % 2, "z": 0.5}, stages=f"s: {{kind: gnn, {stage}}}",
        competition=competition,
    )  # fmt: skip
    with refused(message and f"s: {message}"):
        checked(path)


@pytest.mark.parametrize(
    ("estimator", "warned"),
    [
        ("estimator: sklearn.neural_network.MLPRegressor, parameters: {early_stopping: true}", True),
        ("estimator: sklearn.linear_model.RidgeCV", True),
        ("estimator: sklearn.ensemble.GradientBoostingRegressor, parameters: {n_iter_no_change: 5}", True),
        ("estimator: sklearn.neural_network.MLPRegressor", False),
        ("estimator: sklearn.ensemble.HistGradientBoostingRegressor", False),  # early above 10,000 rows
    ],
)
def test_an_estimator_that_holds_out_rows_by_itself_is_reported_where_folds_have_groups(
    tmp_path, estimator, warned
):
    reasons = {"group": "keep the groups of 60 rows together", "time": "hold out the latest", "kfold": None}
    for kind, reason in reasons.items():
        path = written(
            tmp_path, {"plate": [f"p{i // 5}" for i in ROWS], "day": ROWS}, stages=f"s: {{kind: sklearn, {estimator}}}",
            competition="group: plate, time: day", folds=f"kind: {kind}, n_folds: 3",
        )  # fmt: skip
        words = f" holds out some training rows by itself and cannot {reason}"
        assert (words in checked(path)) is (warned and reason is not None)


def test_an_svc_of_a_preset_is_not_reported_where_folds_have_groups(tmp_path):
    """It calibrates its probabilities on rows that it holds out."""
    plates = [f"p{i // 5}" for i in ROWS]
    path = written(
        tmp_path, {"wet": ROWS % 2, "plate": plates}, stages="s: {kind: sklearn, estimator: sklearn.svm.SVC}",
        competition=f"{WET}, group: plate", folds="kind: group, n_folds: 3",
    )  # fmt: skip
    assert "holds out some" not in checked(path)


def test_a_precision_that_this_machine_has_not_is_reported_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.neural_stage.cards_in_new_process", lambda: ([], ""))
    monkeypatch.setattr("models.training.neural_stage.cpu_has_bf16", lambda: False)
    stages = "half: {kind: gnn, precision: fp16}, b: {kind: gnn, precision: bf16}"
    path = written(tmp_path, stages=stages)
    with refused(r"(?s)half: precision fp16 needs a GPU.*b: precision bf16 needs a GPU"):
        checked(path)
    checked(path, here=False)  # other machines train
    cards = [Card("0", 80.0, True)]
    monkeypatch.setattr("models.training.neural_stage.cards_in_new_process", lambda: (cards, ""))
    checked(path)


def test_many_rows_for_a_gaussian_process_are_reported_before_any_training(tmp_path, monkeypatch):
    path, words = written(tmp_path, stages="gp: {kind: gp}"), "gp; the time of an exact Gaussian process"
    assert words not in checked(path)
    monkeypatch.setattr("models.stages.gp.MANY_ROWS", 20)
    assert words in checked(path)


def test_too_many_rows_for_the_memory_of_the_machine_that_trains_are_an_error(tmp_path, monkeypatch):
    """Of 60 rows, 40 train the models of a fold."""
    monkeypatch.setattr("models.stages.gp.memory_bytes", lambda: 10)
    path = written(tmp_path, stages="gp: {kind: gp}")
    with pytest.raises(ConfigError, match="Gaussian process of 40 training rows needs .* GiB of memory"):
        checked(path)
    assert "stage gp" in checked(path, here=False)


@pytest.mark.parametrize(("max_rows", "counted"), [(60, "4 of 80"), (30, "3 of 50")])
def test_texts_that_will_be_cut_are_counted_in_both_tables(tmp_path, monkeypatch, max_rows, counted):
    """Two special tokens are added to the words. Of 60 training rows every second one is looked at, of 30."""
    monkeypatch.setattr("models.features.MAX_CHECKED_ROWS", max_rows)
    weights = publish(tmp_path / "published")
    short = f"{{kind: bert, max_length: 8, weights: {weights}, template: '{{note}} red red'}}"
    long = f"{{kind: sklearn, features: [{{encoder: {weights}, max_length: 9, columns: [note]}}]}}"
    notes = ["red blue old new fast"] * 3 + ["red blue old new"] * 57
    changed = {"note": notes}, {"note": notes[2:22]}
    output = checked(written(tmp_path, *changed, stages=f"short: {short}, long: {long}"))
    words = f"{counted} tokenized texts have more than 8 tokens and will be cut"
    assert f"WARNING: {words}; 3 jobs" in output
    assert output.count("will be cut") == 1


def test_texts_of_another_language_are_unknown_to_an_encoder(tmp_path, monkeypatch):
    """Two of five tokens are, with those around the text."""
    monkeypatch.setattr("models.features.MAX_CHECKED_ROWS", 7)
    weights = publish(tmp_path / "published")
    notes = {"note": ["\u72d0 red \u72d0"] * 60}, {"note": ["\u72d0 red \u72d0"] * 20}
    output = checked(
        written(tmp_path, *notes, stages=f"s: {{kind: bert, weights: {weights}, columns: [note]}}")
    )
    assert "WARNING: 40% of the tokens are unknown to" in output


# Functions of the user

USERS = """
import time
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

def nowhere(y_true, y_pred):
    return float("nan")

def not_in_a_fold(y_true, y_pred):
    return float("nan") if len(y_true) < 60 else 1.0

def not_for_repeated_rows(y_true, y_pred):
    return float("nan") if len(y_true) == 60 and len(set(y_true[:, 0])) < 48 else 1.0

def exits(y_true, y_pred):
    exit(3)

def endless(*arrays):
    while True:
        pass

def slow(y_true, y_pred):
    time.sleep(0.02)
    return 1.0
"""


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("candidates", "seen", None),
        ("candidates", "short", r"must return weights \(2,\) or a dataclass"),
        ("candidates", "flat", r"must .*predictions of shape \(100, 2\), got \(100,\)"),
        ("candidates", "nan", r"must .*expected finite predictions"),
        ("candidates", "no_json", r"must return a dataclass of numbers, .*not JSON"),
        ("postprocess", "shift", None),
        ("postprocess", "first", "must return predictions of the shape of its argument"),
        ("metric", "nowhere", "is nan for predictions near the labels on all rows"),
        ("metric", "not_in_a_fold", ".*on the rows of fold 0"),
        ("metric", "not_for_repeated_rows", ".*on rows drawn with rep"),
        ("metric", "exits", ".*SystemExit"),
    ],
)
def test_functions_of_the_user_are_tried_before_any_training(tmp_path, key, name, message):
    (tmp_path / "mine.py").write_text(USERS)
    values = {
        "candidates": f"candidates: ['mine.py:{name}']",
        "postprocess": f"postprocess: 'mine.py:{name}'",
        "metric": f"metric: 'mine.py:{name}', greater_is_better: true",
    }
    section = "competition" if key == "metric" else "submissions"
    stages = "a: {kind: lightgbm}, b: {kind: lightgbm}"
    with refused(message and rf"mine\.py:{name} {message}"):
        checked(written(tmp_path, stages=stages, **{section: values[key]}))


@pytest.mark.parametrize("settings", [
    {"submissions": "candidates: ['mine.py:endless']"},
    {"submissions": "postprocess: 'mine.py:endless'"},
    {"competition": "metric: 'mine.py:endless', greater_is_better: true"},
    {"folds": "kind: 'mine.py:endless'"},
    {"stages": "s: {kind: gnn, schedule: 'mine.py:endless'}"},
])  # fmt: skip
def test_a_function_of_the_user_that_does_not_end_is_reported_with_its_line(tmp_path, monkeypatch, settings):
    (tmp_path / "mine.py").write_text(USERS)
    for module in (check_step, kinds, neural_stage):
        monkeypatch.setattr(module, "MAX_SECONDS", 1)
    with refused(r"mine\.py:endless must .*TimeoutError in line \d+: not finished after 1 s"):
        checked(written(tmp_path, **settings))


@pytest.mark.parametrize("greater_is_better", [True, False])
def test_the_wrong_direction_of_a_metric_is_a_warning(tmp_path, greater_is_better):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nmae = lambda y_true, y_pred: np.nanmean(abs(y_true - y_pred))\n"
    )
    metric = f"metric: 'mine.py:mae', greater_is_better: {str(greater_is_better).lower()}"
    said = checked(written(tmp_path, competition=metric))
    assert ("greater_is_better: true prefers; set the other direction" in said) == greater_is_better
    assert ("prefers" in said) == greater_is_better


def test_a_loss_of_the_user_that_returns_its_mean_is_reported_before_any_training(tmp_path):
    (tmp_path / "mine.py").write_text("mean = lambda outputs, y: abs(outputs - y).mean()\n")
    with refused(r"stages\.s: loss: your function must return the error per label, \(2, 2\)"):
        checked(written(tmp_path, stages="s: {kind: gnn, loss: 'mine.py:mean'}"))


def test_a_slow_metric_is_tried_on_fewer_rows(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(USERS)
    monkeypatch.setattr(check_step, "SECONDS_OF_METRIC", 0.01)
    said = checked(written(tmp_path, competition="metric: 'mine.py:slow', greater_is_better: true"))
    assert re.search(r"mine\.py:slow: a call takes 0\.\d+ s, so it was tried on 1 of 5 sets of rows", said)


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        ("import numpy\n\nRATE = numpy.absent\n", r"mine\.py must .*AttributeError in line 3 of helpers\.py"),
        ("def rate(:\n", r"mine\.py must .*SyntaxError.*\(helpers\.py, line 1\)"),
        ("def rate(y):\n    return y.absent\n", r"mine\.py:score must .*AttributeError in line 2 of helpers\.py"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_module_that_the_users_code_imports_is_reported_with_its_line(
    tmp_path, helper, message
):
    (tmp_path / "helpers.py").write_text(helper)
    (tmp_path / "mine.py").write_text(
        "import helpers\n\ndef score(y_true, y_pred):\n    return helpers.rate(y_true)\n"
    )
    path = written(tmp_path, competition="metric: 'mine.py:score', greater_is_better: true")
    with refused(message):
        checked(path)


# Tables


def test_a_target_that_cannot_be_scored_is_refused(tmp_path):
    with refused("the metric pearson is nan .* all rows .* In these rows mu has only one label"):
        checked(written(tmp_path, {"mu": 1.0}, competition="metric: pearson"))
    columns = {"mu": np.where(ROWS < 20, 1.0, np.nan), "round": np.where(ROWS < 20, -1, ROWS < 40)}
    roles = "metric: pearson, fold_column: round"
    with refused("on all rows that are scored .* In these rows mu has only one label"):
        checked(written(tmp_path, columns, competition=roles, folds="kind: column"))


def test_what_no_table_may_have_is_reported_before_any_training(tmp_path):
    with pytest.raises(DataError, match=r"row 5 .*: '1e\+300'"):
        checked(written(tmp_path, {"lumo": [0.0, 1.0, 2.0, 1e300] * 15}))
    path = written(tmp_path, test={"SMILES": "no molecule"}, competition="unparsable: drop")
    with pytest.raises(DataError, match="has no row with readable molecules"):
        checked(path)


def test_two_yaml_files_of_one_name_do_not_share_products(tmp_path):
    def prepared(path):
        config = load_competition(str(path))
        write_prepared(prepare(config), config)

    first, second = (written(tmp_path / name) for name in "ab")
    for path in (first, first):
        prepared(path)
    with refused("was made from .* Rename one"):
        prepared(second)
    first.unlink()
    prepared(second)


# Classes


def of_classes(folder, labels, sample="", settings="", stage="kind: lightgbm"):
    """24 rows with these labels in turn; the lines of `sample` are a header and cells in turn, beside the id."""
    cells = labels.split(",")
    train = [f"r{i},{'C' * (i // 2 + 1)}{'O' * (i % 2)},{cells[i % len(cells)]}" for i in range(24)]
    header, *lines = (sample or "y;0").split(";")
    rows = [f"t{i},{lines[i % len(lines)]}" for i in (1, 2)]
    competition = {"problem_type": "binary", "metric": "roc_auc", **yaml.safe_load(f"{{{settings}}}")}
    stages = {"s": yaml.safe_load(f"{{{stage}}}")}
    return write_small(
        folder, ["id,SMILES,y", *train], None, [f"id,{header}", *rows], stages=stages, **competition
    )


MULTI = "problem_type: multiclass, metric: accuracy"
COLUMNS = "submission_columns: [a, b, c]"
OWN = "metric: 'own.py:score', greater_is_better: true"


@pytest.mark.parametrize(
    ("labels", "sample", "settings", "words"),
    [
        ("a,b,c", "y;a;d", MULTI, r"sample\.csv has the classes 'd', the training table has 'a', 'b', 'c'"),
        ("a,b,c", "a,b,c,d;0,0,0,1", f"{MULTI}, {COLUMNS}", "must have the columns id, a, b, c; got id, a, b, c, d"),
        (
            "a,b,c", "a,b,c,d;0,0,0,1", f"{MULTI}, submission_columns: [a, b, c, d]",
            "must have 1 columns, .*, or 3, one per class; got 4",
        ),
        ("1", "", "", r"takes two classes .* training labels\); got 1 \(1\)"),
        ("0.3,0.7,0.1", "", "", r"binary takes two classes .* got 3 \(0\.1, 0\.3, 0\.7\)"),
        ("0,1", "", "problem_type: regression, metric: log_loss", "log_loss scores .*, and this is regression"),
        (
            "a,b,c", "", "problem_type: multiclass, metric: f1",
            "the metric f1 scores .* binary, multilabel, and this is multi",
        ),
        (
            "a,b,c", "", "problem_type: multiclass, metric: log_loss",
            "log_loss .* so the sample needs a column per class",
        ),
        (
            "a,b,c", "", "classes: [a, b]",
            r"none of the classes \('a', 'b'\): row 4 \(id 'r2'\): 'c', .* 3 more\. Correct",
        ),
        (
            "a,b,c", "", f"{MULTI}, classes: [a, b, c, d]",
            r"train\.csv has no row of 'd', which is in competition\.classes",
        ),
        ("0,1", "", "classes: ['0', '1', '1.0']", "classes: must not have duplicates; got 1 twice"),
        ("0,1", "", "problem_type: regression, classes: ['0', '1']", "regression takes no classes"),
        ("0,1", "", "targets: [y, SMILES], smiles: []", "binary has one target, got 2; several"),
        (", ", "", "classes: ['0', '1']", "has no label at all for y"),
        (
            "a,b c", "", "problem_type: multiclass, metric: map_at_3",
            "separated by spaces, and 'b c' has a space",
        ),
        ("0,1", "", OWN, "needs must be set for a user-defined metric"),
        (
            "1,2,3", "", f"{OWN}, problem_type: ordinal, metric_needs: probabilities", "needs must be classes",
        ),
        (
            "0" + 11 * "," + ",1" + 11 * ",", "", "",
            "target 'y' must have labels among the training rows of every fold, and those of one have 1",
        ),
    ],
)  # fmt: skip
def test_bad_classes_are_refused_in_one_sentence(tmp_path, labels, sample, settings, words):
    with pytest.raises(UserError, match=words) as error:
        checked(of_classes(tmp_path, labels, sample, settings))
    message = str(error.value)
    assert len(message.splitlines()) == (2 if "1 error(s):" in message else 1)


@pytest.mark.parametrize(
    ("labels", "sample", "settings"),
    [
        ("0,1", "", ""),
        ("1.0,0.0,", "y;1", "classes: [0, 1], metric: f1"),
        ("False,True", "y;false;TRUE", "classes: [false, true], metric: mcc"),
        ("no,yes", "y;no", "classes: ['no', 'yes'], metric: accuracy"),
        ("0,1", "n,p;0.5,0.5", "submission_columns: [n, p]"),
        ("a,b,c", "a,b,c;.3,.3,.4", f"problem_type: multiclass, metric: log_loss, {COLUMNS}"),
        ("a,b,c", "a,b,c;.3,.3,.4", f"problem_type: multiclass, metric: map_at_2, {COLUMNS}"),
        ("a,b,c", "y;a b;c a", "problem_type: multiclass, metric: map_at_2"),
        ("1,2,5", "y;1", "problem_type: ordinal, metric: qwk"),
    ],
)
def test_labels_and_layouts_that_go_together_are_accepted(tmp_path, labels, sample, settings):
    assert "\nproblem_type " in checked(of_classes(tmp_path, labels, sample, settings))


def test_a_good_competition_of_classes_is_described_with_what_may_surprise(tmp_path):
    path = of_classes(tmp_path, "no, no ,yes,,," + ",no" * 18, settings="metric: log_loss")
    lines = checked(path).splitlines()
    assert lines[0] == "24 training rows, 2 test rows"
    assert {"y: no 20, yes 1", "problem_type binary, where 'yes' is the positive class"} <= {*lines}
    assert "missing labels: y 3" in lines
    assert (
        "y: some folds have no row of 'yes' (1 rows); their scores by fold tell nothing about these classes"
        in lines
    )
    assert any(
        re.match("WARNING: y: no row of 'yes' trains the models of fold [012], which", line) for line in lines
    )


USER_METRICS = """
import numpy as np
from sklearn.metrics import log_loss

def probabilities(y_true, y_pred):
    assert y_pred.shape == (len(y_true), 3) and np.allclose(y_pred.sum(axis=1), 1) and (y_pred > 0).all()
    return float((y_pred.argmax(axis=1) == y_true[:, 0]).mean())

def classes(y_true, y_pred):
    assert y_pred.shape == y_true.shape and set(y_pred[:, 0]) <= {0, 1, 2}
    return float((y_pred == y_true).mean())

def needs_both(y, p):
    return log_loss(y[:, 0], p[:, 0])
"""


PER_CLASS = "a,b,c;.3,.3,.4", f"problem_type: multiclass, {COLUMNS}, metric_needs: probabilities"
NAMES = "y;a", "problem_type: multiclass, metric_needs: classes"


@pytest.mark.parametrize(
    ("function", "labels", "sample", "settings", "message"),
    [
        ("probabilities", "a,b,c", *PER_CLASS, None),
        ("classes", "a,b,c", *NAMES, None),
        ("probabilities", "a,b,c", *NAMES, "must return one number"),
        ("classes", "a,b,c", *PER_CLASS, "must return one number"),
        (
            "needs_both",
            "0,1",
            "y;0",
            "metric_needs: probabilities",
            "(?s)must return one number.* only one label",
        ),
    ],
)
def test_a_user_defined_metric_is_tried_on_what_it_needs_and_on_rows_without_a_rare_class(
    tmp_path, function, labels, sample, settings, message
):
    (tmp_path / "own.py").write_text(USER_METRICS)
    roles = f"metric: 'own.py:{function}', greater_is_better: true, {settings}"
    with refused(message):
        checked(of_classes(tmp_path, labels, sample, roles))


@pytest.mark.parametrize(
    ("budget", "gpu", "is_refused"),
    [
        (math.inf, None, True),
        (7200.0, None, True),
        (600.0, None, False),
        (600.0, True, True),
        (math.inf, False, False),
    ],
)
def test_a_long_run_on_a_machine_whose_card_torch_does_not_see_is_refused(
    tmp_path, monkeypatch, budget, gpu, is_refused
):
    monkeypatch.setattr(check_step, "why_no_gpu", lambda: "torch sees no GPU")
    setting = {} if gpu is None else {"gpu": gpu}
    config = load_config(str(write_small(tmp_path, stages={"gnn": {"kind": "gnn", **setting}})))
    with pytest.raises(ConfigError, match="stages.gnn.gpu=false") if is_refused else nullcontext():
        require_visible_gpu(config, budget)
