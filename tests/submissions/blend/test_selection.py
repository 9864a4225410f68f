"""Cross-fitting and the selection rule: labels of a fold do not reach it, and the default stays unless it is beaten."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import CANDIDATES, fit_candidate
from submissions.blend.data import BlendData
from submissions.blend.scoring import Scorer
from submissions.blend.selection import CrossFit, cross_fit, in_sample_score, min_gain, select
from submissions.blend.stack import fit_stack
from tests.submissions.blend.data import classes, noisy_classes, numbers
from tests.submissions.fakes import columns_like, near_duplicates

NAN = float("nan")
STACK = "lightgbm_stack"
NAMES = [*(name for name in CANDIDATES if name != "shrunk_logits"), STACK]


def fitted(data: BlendData, name: str) -> CrossFit:
    default = "shrunk_logits" if data.task.has_probabilities else "shrunk_ridge"
    return cross_fit(
        data, partial(fit_stack, data, default) if name == STACK else partial(fit_candidate, data, name)
    )


def chosen_of(data: BlendData, names: list[str], margin: float = 1.0) -> str:
    compared = data.compare({name: fitted(data, name).scored for name in names}, "shrunk_ridge")
    return select(data, compared, "shrunk_ridge", margin)[0]


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
@pytest.mark.parametrize("name", NAMES)
def test_labels_of_a_fold_that_would_change_all_weights_do_not_reach_its_predictions(
    name: str, metric: str
) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(120, 2))
    folds = np.arange(120) % 4
    preds = y[:, None] + 0.5 * rng.uniform(-1, 1, size=(120, 3, 2))  # three columns of similar quality
    y[::7, 1] = np.nan
    in_fold = folds == 1
    before = numbers(preds, y, folds, metric, n_trials=8)
    worst = int(np.argmin(before.convex(0, before.all_folds)))
    new_y = np.where(in_fold[:, None] & ~np.isnan(y), 3 * preds[:, worst], y)
    after = replace(before, y=new_y)
    one, other = (fitted(data, name) for data in (before, after))
    np.testing.assert_array_equal(one.scored[in_fold], other.scored[in_fold])
    if name in ("shrunk_ridge", "convex", STACK):  # other rows do change
        assert (one.scored[~in_fold] != other.scored[~in_fold]).any()


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1_macro"])
@pytest.mark.parametrize("name", ["best_single", "convex", "shrunk_logits", STACK])
@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
def test_labels_of_a_fold_reach_neither_its_probabilities_nor_its_thresholds(
    name: str, metric: str, problem_type: str
) -> None:
    preds, y = noisy_classes(problem_type, 200)
    in_fold = np.arange(200) % 5 == 2
    new_y = np.where(in_fold[:, None], (y + 1) % 2, y)
    before, after = (fitted(classes(preds, labels, metric), name) for labels in (y, new_y))
    np.testing.assert_array_equal(before.outputs[in_fold], after.outputs[in_fold])
    np.testing.assert_array_equal(before.scored[in_fold], after.scored[in_fold])


@pytest.mark.parametrize("n_folds", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_with_a_fold_is_predicted_and_no_other_row(name: str, n_folds: int) -> None:
    preds, y, _ = columns_like("independent", 90)
    folds = np.arange(90) % n_folds
    y[::7] = np.nan
    folds[:10] = -1
    preds[:10] = np.nan
    part = fitted(numbers(preds, y, folds, "mae", n_trials=8), name)
    for values in (part.outputs, part.scored):
        assert (np.isfinite(values[:, 0]) == (folds >= 0)).all()


def test_only_for_a_metric_with_a_lower_bound_low_numbers_are_raised_to_the_lowest_label_of_the_other_folds() -> (
    None
):
    y = np.arange(20.0)
    preds = np.stack([2 * y - 10, 2 * y - 10], axis=1)
    raised = fitted(numbers(preds, y, metric="rmsle"), "mean")
    assert raised.scored[:2, 0].tolist() == [
        1,
        0,
    ]  # row 0 is in fold 0, and the other folds have labels from 1
    assert raised.whole.predict(np.array([[[-50.0]] * 2, [[50.0]] * 2]))[:, 0].tolist() == [0, 50]
    assert fitted(numbers(preds, y), "mean").scored[:, 0].tolist() == (2 * y - 10).tolist()


def test_a_function_of_the_users_processes_the_predictions_of_every_candidate(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef to_halves(y_pred):\n    return np.round(2 * y_pred) / 2\n"
    )
    preds, y, folds = columns_like("independent", 60)
    data = numbers(preds, y, folds)
    part = cross_fit(data, partial(fit_candidate, data, "mean"), f"{tmp_path}/mine.py:to_halves")
    assert set(part.scored[:, 0] * 2 % 1) == {0.0}
    assert set(part.whole.predict(preds[:3, :, None])[:, 0] * 2 % 1) == {0.0}


def test_missing_labels_are_masked_in_scores() -> None:
    preds, y, folds = columns_like("independent", 150)
    is_labelled = np.arange(150) % 6 > 0
    sparse = numbers(preds, np.where(is_labelled, y, np.nan), folds)
    labelled = numbers(preds[is_labelled], y[is_labelled], folds[is_labelled])
    for name in ("mean", "shrunk_ridge", STACK):
        scores = [data.score(fitted(data, name).scored) for data in (sparse, labelled)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_a_column_of_noise_does_not_improve_the_cross_fitted_score() -> None:
    gains = []
    for seed in range(4):
        preds, y, folds = columns_like("independent", 200, 3, seed)
        noise = np.random.default_rng(100 + seed).normal(size=(200, 1))
        scores = []
        for columns in (preds, np.hstack([preds, noise])):
            data = numbers(columns, y, folds, n_trials=8)
            part = fitted(data, "shrunk_ridge")
            scores.append((in_sample_score(data, part.whole), data.score(part.scored)))
        (in_sample, without), (with_noise_in_sample, with_noise) = scores
        assert with_noise_in_sample <= in_sample + 1e-3
        gains.append(1 - with_noise / without)
    assert max(gains) < 0.01
    assert np.mean(gains) < 0.003


@pytest.mark.parametrize("seed", [5, 16, pytest.param(25, marks=pytest.mark.slow)])
def test_near_duplicates_and_models_that_memorize_do_not_make_the_stack_win(seed: int) -> None:
    """Seeds of 30 for which larger or less regularized trees were chosen."""
    preds, y, folds = near_duplicates(seed, 600)
    assert np.corrcoef(preds[:, 1], y)[0, 1] > 0.7  # the model does memorize the near-duplicates
    assert chosen_of(numbers(preds, y, folds, n_trials=8), NAMES, margin=2.0) != STACK


# The rule


def rule(y: np.ndarray, folds: np.ndarray, metric: str = "rmse") -> Scorer:
    y = y.reshape(len(folds), -1)
    task = Task([f"y{target}" for target in range(y.shape[1])])
    return Scorer(metric=METRICS[metric], task=task, y=y, folds=folds, groups=np.arange(len(folds)))


def test_rows_of_one_group_count_as_one_in_the_comparison() -> None:
    preds, y, _ = columns_like("independent", 200, 2)
    scored = {"shrunk_ridge": np.repeat(preds[:, :1], 4, axis=0), "mean": np.repeat(preds[:, 1:], 4, axis=0)}
    alone = rule(np.repeat(y, 4), np.zeros(800, dtype=np.int64))
    together = replace(alone, groups=np.repeat(np.arange(200), 4))
    errors = [
        each.compare(scored, "shrunk_ridge").loc["mean", "standard_error"] for each in (alone, together)
    ]
    assert errors[1] == pytest.approx(2 * errors[0], rel=0.25)


@pytest.mark.parametrize(
    ("others", "metric", "margin", "chosen"),
    [
        ({"convex": (-0.1, 0.2)}, "rmse", 1.0, "shrunk_ridge"),  # better, but within one standard error
        ({"convex": (-0.3, 0.2)}, "rmse", 1.0, "convex"),
        ({"convex": (-0.3, 0.2)}, "rmse", 2.0, "shrunk_ridge"),
        ({"convex": (-0.3, 0.2)}, "r2", 1.0, "shrunk_ridge"),  # lower is worse here
        ({"convex": (0.3, 0.2)}, "r2", 1.0, "convex"),
        ({"convex": (-0.3, 0.2), "mean": (-0.4, 0.2)}, "rmse", 1.0, "mean"),
        ({"convex": (-0.3, NAN), "mean": (NAN, 0.1)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (0.0, 0.0)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (-0.0009, 0.0001)}, "rmse", 1.0, "shrunk_ridge"),  # significant, but below 0.1 % of 1 - 0
        ({"convex": (-0.0011, 0.0001)}, "rmse", 1.0, "convex"),
        ({}, "rmse", 1.0, "shrunk_ridge"),
    ],
)
def test_the_default_is_kept_unless_another_is_clearly_better(
    others: dict[str, tuple[float, float]], metric: str, margin: float, chosen: str
) -> None:
    rows = {"shrunk_ridge": (1.0, 0.0, 0.0)}
    for name, (difference, error) in others.items():
        rows[name] = (1 + difference, difference, error)
    compared = pd.DataFrame(rows, ["score", "difference", "standard_error"]).T
    name, reason = select(rule(np.zeros(4), np.arange(4), metric), compared, "shrunk_ridge", margin)
    assert name == chosen
    assert chosen in reason


def test_a_default_without_a_score_is_replaced_by_the_best_candidate_with_a_score() -> None:
    scores = pd.Series({"shrunk_ridge": NAN, "mean": 2.0, "convex": 1.0})
    compared = pd.DataFrame({"score": scores, "difference": NAN, "standard_error": NAN})
    name, reason = select(rule(np.zeros(4), np.arange(4), "rmsle"), compared, "shrunk_ridge", 2.0)
    assert name == "convex"
    assert reason == "convex is selected, since the default shrunk_ridge has no score."


@pytest.mark.parametrize(
    ("metric", "constant_score"),
    [
        ("rmse", np.sqrt(2)),  # labels 0, 0, 3 with the mean 1
        ("mae", 1.0),  # with the median 0
        ("r2", 0.0),
        ("spearman", 0.0),  # undefined for a constant
    ],
)
def test_the_smallest_gain_is_a_thousandth_of_the_gain_of_the_default_over_a_constant(
    metric: str, constant_score: float
) -> None:
    y = np.array([0.0, 0.0, np.nan, 3.0, 99.0])
    scorer = rule(y, np.array([0, 1, 2, 3, -1]), metric)
    assert min_gain(scorer, 0.5) == pytest.approx(abs(0.5 - constant_score) / 1000)
