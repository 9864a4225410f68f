"""The step submissions.blend: which candidates it compares, what each stage is worth, seeds as columns."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from competition.errors import ConfigError
from competition.files import read_table
from competition.metrics import METRICS
from submissions import blend, report, stack, write
from submissions.apply import predict_candidate, predict_run
from submissions.blenders import ALWAYS, BLENDERS
from submissions.config import Blender, load_config
from submissions.crossfit import cross_fitted, fit_of
from submissions.run import Run, open_run
from submissions.target import Target
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs

SEVERAL = {
    "good": {"kind": "lightgbm", "seeds": [0, 1]},
    "fair": {"kind": "lightgbm", "seeds": [0, 10, 2]},
    "poor": {"kind": "lightgbm", "num_leaves": 4},
}


def opened(folder: Path, n_train: int = 150, **sections: object) -> Run:
    path = fake_competition(folder, n_train, **sections)
    prepare_and_fake_jobs(path)
    return open_run(str(path))


def test_the_names_in_the_settings_are_the_page_of_blenders() -> None:
    assert list(get_args(Blender)) == list(BLENDERS)


@pytest.mark.parametrize(
    ("metric", "settings", "more"),
    [
        ("rmse", {}, {"shrunk_ridge"}),
        ("mae", {"default": "convex"}, set()),
        ("mae", {"candidates": ["hill_climb", "greedy"]}, {"shrunk_ridge", "greedy", "hill_climb"}),
        ("spearman", {}, {"shrunk_ridge", "optuna"}),
    ],
)
def test_cheap_candidates_always_run_and_others_where_they_are_asked_for_or_needed(
    tmp_path: Path, metric: str, settings: dict, more: set[str]
) -> None:
    run = opened(tmp_path, competition={"metric": metric}, submissions=settings)
    assert blend.candidates_of(run) == [name for name in BLENDERS if name in {*ALWAYS, *more}]


def test_a_blend_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, submissions={"candidates": ["greedy", "averaging"]})
    with pytest.raises(ConfigError, match=r"submissions\.candidates\.1.*'hill_climb'.*averaging"):
        load_config(str(path))


def test_all_candidates_go_all_the_way(tmp_path: Path) -> None:
    asked = {"candidates": list(BLENDERS), "weight_trials": 4}
    run = opened(tmp_path, submissions=asked)
    content = blend.blend(run)
    stack.stack(run)
    selection, _ = write.write(run)
    assert set(content["candidates"]) == set(BLENDERS)
    assert set(selection["candidates"]) == {*BLENDERS, "lightgbm_stack", "ridge_stack"}
    page = report.report(run)
    columns = run.columns
    no_features = np.empty((len(columns.test_ids), 0))
    for name in BLENDERS:
        assert f"| {name} " in page
        assert np.isfinite(predict_candidate(run, name, columns.test, no_features)).all()
    optimism = content["candidates"]["greedy"]
    assert optimism["optimism"] == pytest.approx(optimism["cross_fitted_score"] - optimism["in_sample_score"])


def test_what_a_stage_is_worth_is_the_default_refitted_without_it(tmp_path: Path) -> None:
    run = opened(tmp_path)
    content, columns = blend.blend(run), run.columns
    found, default = content["drop_one"], content["candidates"]["shrunk_ridge"]
    assert list(found) == ["fair", "good", "poor"]
    kept = [columns.names.index(stage) for stage in ("fair", "poor")]
    settings = [run.config.submissions.trials, 0]
    targets = [
        Target(columns.oof[:, kept, t], columns.y[:, t], columns.folds, METRICS["rmse"], *settings) for t in range(2)
    ]
    y_pred = cross_fitted(targets, fit_of("shrunk_ridge"), 3)
    # the sampler's seed is another one here, so the two settings are near and not the same
    assert found["good"]["cross_fitted_score"] == pytest.approx(METRICS["rmse"](columns.y, y_pred), rel=0.02)
    for part in found.values():
        assert part["difference"] == pytest.approx(part["cross_fitted_score"] - default["cross_fitted_score"])
        assert part["standard_error"] > 0
    assert found["good"]["difference"] > 3 * found["good"]["standard_error"]  # the best stage is missed, clearly
    assert found["good"]["difference"] > found["fair"]["difference"] > found["poor"]["difference"]
    assert "shrunk_ridge without a stage: fair" in blend.describe(content)


def test_a_single_stage_cannot_be_dropped(tmp_path: Path) -> None:
    content = blend.blend(opened(tmp_path, stages={"good": {"kind": "lightgbm"}}))
    assert content["drop_one"] == {}
    assert "without a stage" not in blend.describe(content)


def test_seeds_are_one_column_or_several(tmp_path: Path) -> None:
    averaged = opened(tmp_path / "a", stages=SEVERAL)
    separate = open_run(str(fake_competition(tmp_path / "b", stages=SEVERAL, submissions={"seeds": "separate"})))
    one, several = averaged.columns, separate.columns
    assert one.names == ["fair", "good", "poor"]
    assert several.names == ["fair:0", "fair:10", "fair:2", "good:0", "good:1", "poor"]
    for stage in one.names:
        of_seeds = [several.names.index(name) for name in several.names if name.split(":")[0] == stage]
        np.testing.assert_allclose(several.oof[:, of_seeds].mean(axis=1), one.oof_of(stage), rtol=1e-12)
        np.testing.assert_allclose(several.test_of(stage), one.test_of(stage), rtol=1e-12)
    oof = [pd.read_parquet(job.oof_file) for job in separate.plan.of("fair") if job.seed == 10]
    of_seed = {row["id"]: row["depth"] for table in oof for _, row in table.iterrows()}
    assert several.oof[:, 1, 1].tolist() == [of_seed[row_id] for row_id in several.ids]


def test_separate_seeds_go_all_the_way_and_are_dropped_together(tmp_path: Path) -> None:
    run = opened(tmp_path, stages=SEVERAL, submissions={"seeds": "separate", "margin": 100})
    content, columns = blend.blend(run), run.columns
    stack.stack(run)
    write.write(run)
    assert set(content["candidates"]["convex"]["models"]["height"]["weights"]) == set(columns.names)
    assert list(content["drop_one"]) == ["fair", "good", "poor"]
    assert columns.of("fair").tolist() == [True] * 3 + [False] * 3
    written = read_table(run.folder / "submission.csv", ["id"]).set_index("id").loc[columns.test_ids, TARGETS]
    no_features = np.empty((len(columns.test_ids), 0))
    y_pred = predict_run(run, columns.test, columns.test_inputs, no_features)
    np.testing.assert_allclose(y_pred, written, rtol=1e-6)
    weights = content["candidates"][content["default"]]["models"]["height"]["weights"]
    of_stage = sum(weight for name, weight in weights.items() if name.startswith("fair:"))
    assert f"{of_stage:.3f}" in report.report(run)


def test_shared_weights_are_the_same_for_all_targets(tmp_path: Path) -> None:
    run = opened(tmp_path, submissions={"weights": "shared"})
    for name, candidate in blend.blend(run)["candidates"].items():
        height, depth = (candidate["models"][target]["weights"] for target in TARGETS)
        assert height == depth, name
    assert run.name != open_run(str(fake_competition(tmp_path / "other"))).name


def test_with_three_folds_the_default_is_not_replaced_by_a_stand_in(tmp_path: Path) -> None:
    run = opened(tmp_path, 400)
    blend.blend(run)
    stack.stack(run)
    write.write(run)
    selection = run.part("choice")
    assert selection["chosen"] == "shrunk_ridge"
    assert "best_single" not in selection["procedure"]["chosen_without_fold"]
    assert "mean" not in selection["procedure"]["chosen_without_fold"]


def test_a_function_of_the_users_own_is_tuned_on_where_there_is_one_target(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n\n\ndef score(y_true, y_pred):\n    assert y_true.shape[1] == 1\n"
        "    return float(np.nanmean(np.abs(y_true - y_pred) ** 0.5))\n"
    )
    own = {"metric": "own.py:score", "greater_is_better": False, "targets": ["height"], "numeric": ["x", "z"]}
    run = opened(tmp_path, 60, competition=own, submissions={"weight_trials": 3})
    found = blend.blend(run)["candidates"]
    assert found["optuna"]["in_sample_score"] <= found["convex"]["in_sample_score"]
