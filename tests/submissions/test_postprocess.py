"""Post-processing: each step by hand, kept where it helps and only there, and blind to the fold that it predicts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from competition.errors import ConfigError
from competition.files import read_table, read_text_table, write_table
from competition.metrics import METRICS, Metric
from submissions import write
from submissions.apply import predict_run
from submissions.config import load_config
from submissions.crossfit import Rule, cross_fit, fit_of
from submissions.postprocess import FITTED, Chain, apply_steps, choose_steps, fit_steps
from submissions.run import Run
from submissions.stacker import STACKS
from submissions.target import Target
from tests.submissions.fakes import TARGETS, columns_like, fake_competition, prepare_and_fake_jobs, run_steps
from tests.submissions.test_crossfit import rule

STEPS = list(FITTED)


def ids(n: int) -> np.ndarray:
    return np.array([f"input {i}" for i in range(n)])


def after(names: list[str], y_pred: list[float], y: list[float], new: list[float], inputs: list[str] | None = None):
    steps = fit_steps(names, np.array(y_pred), np.array(y), ids(len(y)))
    return apply_steps(steps, np.array(new), np.array(inputs or ids(len(new)))).tolist()


def test_clip_cuts_to_the_range_of_the_labels() -> None:
    assert after(["clip"], [0, 0, 0], [1, 3, np.nan], [-5, 2, 9]) == [1, 2, 3]


def test_shift_and_scale_are_the_least_squares_line() -> None:
    assert after(["shift_scale"], [0, 1, 2], [1, 3, 5], [0, 10]) == pytest.approx([1, 21])
    assert after(["shift_scale"], [2, 2], [3, 5], [2, 3]) == pytest.approx([4, 5])  # equal predictions: a shift alone


def test_isotonic_pools_what_falls_and_is_straight_between() -> None:
    # Labels 1, 3, 2 over 0, 1, 2 rise as 1, 2.5, 2.5; beyond the ends the function is constant.
    assert after(["isotonic"], [0, 1, 2], [1, 3, 2], [-1, 0.5, 1.5, 7]) == pytest.approx([1, 1.75, 2.5, 2.5])


def test_round_goes_to_the_nearest_level_where_labels_are_few_values_often_repeated() -> None:
    y = [1.0, 2.0, 4.0] * 10
    assert after(["round"], y, y, [0, 1.4, 1.5, 1.6, 3.1, 9]) == [1, 1, 1, 2, 4, 4]
    assert fit_steps(["round"], np.array(y[:20]), np.array(y[:20]), ids(20)) == []  # not ten rows for each
    assert fit_steps(["round"], np.arange(999.0), np.arange(999.0) % 51, ids(999)) == []  # more than fifty


def test_equal_inputs_get_the_mean_of_their_predictions() -> None:
    assert after(["average_equal_inputs"], [0], [0], [1, 2, 6], ["a", "b", "a"]) == [3.5, 2, 3.5]
    equal = [0.1, 0.1, 0.1]
    assert after(["average_equal_inputs"], [0], [0], equal, ["a"] * 3) == equal  # to the last digit


def test_each_step_is_fitted_on_what_the_one_before_it_makes() -> None:
    steps = fit_steps(["shift_scale", "clip"], np.array([0.0, 1, 2]), np.array([1.0, 3, 5]), ids(3))
    assert [step["step"] for step in steps] == ["shift_scale", "clip"]
    assert apply_steps(steps, np.array([10.0]), ids(1)).tolist() == [5]
    assert fit_steps(STEPS, np.zeros(3), np.full(3, np.nan), ids(3)) == []  # no label, nothing to fit


def test_steps_read_back_from_json_predict_the_same_bytes() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 200).astype(float)
    y_pred, inputs = y + rng.normal(size=200), rng.choice(ids(150), 200)
    steps = fit_steps(STEPS, y_pred, y, inputs)
    assert len(steps) == len(STEPS)
    again = apply_steps(json.loads(json.dumps(steps)), y_pred, inputs)
    assert again.tobytes() == apply_steps(steps, y_pred, inputs).tobytes()


def chain_of(y_pred: np.ndarray, y: np.ndarray, names: list[str] = STEPS, metric: str = "rmse") -> Chain:
    folds = np.arange(len(y)) % 5
    return choose_steps(rule(y, folds, metric), names, y_pred[:, None], ids(len(y)), folds >= 0)


def kept(chain: Chain) -> list[str]:
    return [tried.step for tried in chain.tried[0] if tried.kept]


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_isotonic_is_kept_where_predictions_are_bent_and_its_score_is_that_of_the_kept(metric: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    chain = chain_of(np.exp(truth), truth + 0.2 * rng.normal(size=400), ["isotonic"], metric)
    (tried,) = chain.tried[0]
    assert tried.kept
    assert METRICS[metric].better(tried.score_with, tried.score_without)
    assert tried.fitted is not None


def test_steps_are_not_kept_where_predictions_are_labels_and_noise() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=200)
        found += kept(chain_of(y_pred, y_pred + 0.5 * rng.normal(size=200)))
    assert len(found) <= 6  # of 100; one standard error is not much


@pytest.mark.parametrize(("beyond", "is_kept"), [(0.01, False), (0.5, True)])
def test_a_gain_of_less_than_a_thousandth_keeps_no_step(beyond: float, is_kept: bool) -> None:
    """Predictions beyond the labels' range gain from being cut, each for sure and in sum next to nothing."""
    y = np.tile(np.linspace(0, 1, 24), 20)
    y_pred = y + np.where(np.arange(480) // 24 % 2, 0.1, -0.1) * (y > 0.2) * (y < 0.8) + beyond * (y == 1)
    (tried,) = chain_of(y_pred, y, ["clip"]).tried[0]
    assert tried.score_without - tried.score_with > 3 * tried.standard_error
    assert tried.kept == is_kept


def test_an_isotonic_map_has_to_gain_twice_as_clearly_as_other_steps() -> None:
    between = dict.fromkeys(("isotonic", "shift_scale"), 0)
    for name, seed in itertools.product(between, range(40)):
        rng = np.random.default_rng(seed)
        y_pred = rng.normal(size=100)
        bent = np.sign(y_pred) * np.abs(y_pred) ** 1.4 if name == "isotonic" else 1.1 * y_pred
        (tried,) = chain_of(bent, y_pred + 0.5 * rng.normal(size=100), [name]).tried[0]
        clear = (tried.score_without - tried.score_with) / tried.standard_error
        assert tried.kept == (clear > (2 if name == "isotonic" else 1))
        between[name] += 1 < clear <= 2
    assert min(between.values()) > 0


def test_a_step_that_is_left_out_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    y_pred = rng.normal(size=200)
    chain = chain_of(y_pred, y_pred + rng.normal(size=200), ["round"])
    assert kept(chain) == []
    assert chain.apply(y_pred[:, None], ids(200)).tobytes() == y_pred.tobytes() == chain.cross_fitted.tobytes()


def test_a_score_that_is_defined_with_a_step_alone_keeps_it() -> None:
    def score(y: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.nanmean((y - y_pred) ** 2)) if (y_pred >= 0).all() else float("nan")

    y = np.random.default_rng(0).random(50)
    folds, y_pred = np.arange(50) % 5, y - 0.01 * (np.arange(50) == 7) - y * (np.arange(50) == 7)
    judged = dataclasses.replace(rule(y, folds), metric=Metric("own", False, None, score))
    assert kept(choose_steps(judged, ["clip"], y_pred[:, None], ids(50), folds >= 0)) == ["clip"]


def test_targets_have_steps_of_their_own_and_missing_labels_are_left_out() -> None:
    rng = np.random.default_rng(0)
    truth, folds = rng.normal(size=(300, 2)), np.arange(300) % 5
    y, y_pred = truth.copy(), truth + 0.3 * rng.normal(size=(300, 2))
    y[::4, 1] = np.nan
    y_pred[:, 1] = np.exp(y_pred[:, 1])
    found = choose_steps(rule(y, folds), ["isotonic"], y_pred, ids(300), folds >= 0)
    assert [[tried.kept for tried in of_target] for of_target in found.tried] == [[False], [True]]
    labelled = ~np.isnan(y[:, 1])
    alone = choose_steps(
        rule(y[labelled, 1], folds[labelled]), ["isotonic"], y_pred[labelled, 1:], ids(225), labelled[labelled]
    )
    assert found.tried[1][0].fitted == alone.tried[0][0].fitted


def test_labels_of_a_fold_change_no_step_and_no_prediction_that_is_made_without_it() -> None:
    columns, y, folds = columns_like("independent", 200)
    columns, folds, fold = np.exp(columns), np.arange(200) % 4, 1
    own = folds == fold
    changed = np.where(own, 30 - 5 * y, y)

    def of(labels: np.ndarray) -> tuple[Rule, dict, np.ndarray]:
        predictions = {
            name: cross_fit([Target(columns, labels, folds, METRICS["rmse"], trials=5)], fit_of(name), 4)
            for name in ("mean", "convex", "shrunk_ridge")
        }
        judged = rule(labels, folds)
        return judged, predictions, write.procedure(judged, predictions, STEPS, ids(200), 4)[0]

    (judged, predictions, before), (judged_2, predictions_2, after_change) = of(y), of(changed)
    np.testing.assert_array_equal(before[own], after_change[own])
    assert (before[~own] != after_change[~own]).any()  # the canary sings where it may
    assert (before[own] != predictions["shrunk_ridge"].cross_fitted[own]).any()  # and there is a step to hear it
    chains = [
        choose_steps(judge, STEPS, part["shrunk_ridge"].nested[fold], ids(200), ~own)
        for judge, part in ((judged, predictions), (judged_2, predictions_2))
    ]
    assert json.dumps(chains[0].stored()) == json.dumps(chains[1].stored())
    np.testing.assert_array_equal(chains[0].cross_fitted, chains[1].cross_fitted)


def test_without_its_fold_a_row_is_corrected_by_steps_of_the_other_folds() -> None:
    folds, y = np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 2.0, 5.0])
    judged = dataclasses.replace(rule(y, folds), margin=0.0)
    y_pred = np.array([-9.0, 9.0, 3.0, 4.0])[:, None]
    found = choose_steps(judged, ["clip"], y_pred, ids(4), folds >= 0)
    assert found.cross_fitted[:, 0].tolist() == [2, 5, 1, 1]  # each fold in the range of the other one
    assert found.tried[0][0].score_with == pytest.approx(np.sqrt((4 + 16 + 1 + 16) / 4))
    assert found.tried[0][0].fitted == {"step": "clip", "low": 0, "high": 5}


@pytest.fixture
def bent(tmp_path: Path) -> Run:
    """A run whose predictions are a bent function of the labels."""
    path = fake_competition(tmp_path, folds={"n_folds": 5}, submissions={"stack": False})
    prepare_and_fake_jobs(path, lambda y: np.exp(y / 3))
    return run_steps(path)


def test_what_is_submitted_is_post_processed_and_its_score_is_stored(bent: Run) -> None:
    selection = bent.part("choice")
    assert "isotonic" in [tried["step"] for tried in selection["postprocessing"]["height"] if tried["kept"]]
    chosen = selection["candidates"][selection["chosen"]]
    assert selection["cross_fitted_score"] < chosen["cross_fitted_score"]
    assert selection["procedure"]["cross_fitted_score"] < chosen["cross_fitted_score"]
    assert (bent.folder / "submission.csv").read_bytes() != (bent.folder / "blend.csv").read_bytes()
    labels = read_table(bent.paths.train, ["id", "__input"])["height"]
    predicted = read_table(bent.folder / "submission.csv", ["id"])["height"]
    assert predicted.between(labels.min(), labels.max()).all()


def test_a_stored_run_repeats_its_post_processing_on_new_rows(bent: Run) -> None:
    loaded = bent.columns
    found = predict_run(bent, loaded.test, loaded.test_inputs, np.empty((30, 0)))
    written = read_table(bent.folder / "submission.csv", ["id"]).set_index("id").loc[loaded.test_ids, TARGETS]
    np.testing.assert_allclose(found, written, rtol=1e-6)


def test_without_steps_the_submission_is_its_twin(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, submissions={"postprocess": []})
    prepare_and_fake_jobs(path, lambda y: np.exp(y / 3))
    run = run_steps(path)
    selection = run.part("choice")
    twin = "blend.csv" if selection["chosen"] not in STACKS else "stack.csv"
    assert (run.folder / "submission.csv").read_bytes() == (run.folder / twin).read_bytes()
    assert selection["postprocessing"] == {"height": [], "depth": []}
    assert not (run.folder / "known_labels.csv").exists()


def test_with_three_folds_nothing_is_tried_and_that_is_said(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path, lambda y: np.exp(y / 3))
    run = run_steps(path)
    selection = run.part("choice")
    assert selection["postprocessing"] == {"height": [], "depth": []}
    assert "post-processing: none; its honest score needs 4 folds or more" in write.describe(run, selection)


def test_known_labels_are_used_where_they_are_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    assert "known_labels" not in load_config(str(path)).submissions.postprocess
    train, test = read_text_table(tmp_path / "train.csv"), read_text_table(tmp_path / "test.csv")
    train.loc[[0, 1], ["x", "z", "height"]] = [["7", "8", "10"], ["7", "8", "13"]]
    train.loc[[0, 1], "depth"] = ""
    test.loc[4, ["x", "z"]] = ["7", "8"]
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "test.csv", test)
    prepare_and_fake_jobs(path)
    before = read_table(run_steps(path).folder / "submission.csv", ["id"])
    path = fake_competition(tmp_path, submissions={"postprocess": ["known_labels"]})
    write_table(tmp_path / "train.csv", train)
    write_table(tmp_path / "test.csv", test)
    run = run_steps(path)
    found = read_table(run.folder / "submission.csv", ["id"])
    assert found.loc[4, "height"] == 11.5 != before.loc[4, "height"]
    plain = read_table(run.folder / "blend.csv", ["id"])
    assert found.loc[4, "depth"] == plain.loc[4, "depth"]  # its label is missing
    assert found.drop(4).equals(plain.drop(4))
    said = "\n".join(write.describe(run, run.part("choice")))
    assert "known_labels: 1 test rows have the mean label of their input; no score here knows of it" in said


def test_the_submission_is_held_against_the_best_single_stage_and_the_run_before(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    first = run_steps(path)
    before = first.part("choice")
    assert before["against"]["previous_run"] is None
    single, score = before["against"]["best_single"], before["procedure"]["cross_fitted_score"]
    assert single["stage"] == "good"
    columns = first.columns
    assert single["cv_score"] == pytest.approx(METRICS["rmse"](columns.y, columns.oof_of("good")))
    assert single["difference"] == pytest.approx(score - single["cv_score"])
    assert single["standard_error"] > 0
    second = run_steps(fake_competition(tmp_path, submissions={"default": "mean", "margin": 9.0}))
    found = second.part("choice")
    previous = found["against"]["previous_run"]
    assert previous["run"] == first.name != second.name
    assert previous["difference"] == pytest.approx(found["procedure"]["cross_fitted_score"] - score)
    worse = f"against the run before, {first.name}: {previous['difference']:#.5g} worse"
    assert worse in "\n".join(write.describe(second, found))
    file = second.folder / "cross_fitted.csv"
    write_table(file, read_table(file, ["id"]).iloc[1:])
    third = run_steps(fake_competition(tmp_path, submissions={"default": "mean"}))
    found = third.part("choice")
    assert found["against"]["previous_run"] is None  # it has other ids
    assert "against the run before: there is none with the same" in "\n".join(write.describe(third, found))


def test_a_step_that_is_named_twice_or_unknown_is_an_error(tmp_path: Path) -> None:
    for steps, message in ((["clip", "clip"], "must name each once; clip stands there again"), (["klip"], "'clip'")):
        with pytest.raises(ConfigError, match=message):
            load_config(str(fake_competition(tmp_path, submissions={"postprocess": steps})))
