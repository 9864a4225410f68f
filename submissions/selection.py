"""Model selection: fit all candidates, compare them, and choose one.

Nothing is written here; `submissions.build_submission` does that.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from competition.task import raw_rows_for
from core.errors import DataError
from core.types import Array
from core.user_code import short_ref
from models.stage import Stage
from submissions.blend.candidates import ALWAYS, LIGHTGBM_STACK, complexity, fit_candidate, mean
from submissions.blend.data import Blend, BlendData, FoldSet
from submissions.blend.selection import Comparison, CrossFit, Scorer, cross_fit, select
from submissions.blend.serialization import Predictor
from submissions.blend.stack import Stack, fit_stack
from submissions.run import Run, name_of_latest, scored_rows

MEAN = "mean"


@dataclass(frozen=True)
class Selection:
    """The candidates and the choice among them.

    Attributes:
        candidates: name -> fitted candidate, from simple to complex.
        compared: name -> comparison with the default.
        default: name of the default candidate.
        chosen: name of the candidate to submit.
        chosen_blend: the candidate that would be chosen without the stack.
        reason: one sentence that explains the choice.
        same_as_default: candidates that predict exactly what the default predicts; they cannot be chosen.
        failed: a line per candidate that could not be fitted.
    """

    candidates: dict[str, CrossFit]
    compared: dict[str, Comparison]
    default: str
    chosen: str
    chosen_blend: str
    reason: str
    same_as_default: list[str]
    failed: list[str]


def scorer_of(run: Run) -> Scorer:
    """Return what scores predictions of the training rows of a run."""
    stage_preds = run.stage_predictions
    competition = run.config.competition
    return Scorer(
        metric=run.metric,
        task=run.task,
        y=stage_preds.y,
        folds=stage_preds.folds,
        groups=stage_preds.groups,
        seed=competition.seed,
        rows=raw_rows_for(run.metric, competition.train, competition.id, stage_preds.ids),
    )


def blend_data(run: Run, scorer: Scorer) -> BlendData:
    """Return the columns of a run with labels and settings, for the candidates."""
    stage_preds = run.stage_predictions
    return BlendData(
        preds=stage_preds.oof,
        y=stage_preds.y,
        folds=stage_preds.folds,
        metric=run.metric,
        task=run.task,
        rows=scorer.rows,
        n_trials=run.config.submissions.trials,
        seed=run.config.competition.seed,
    )


def fit_candidates(run: Run, data: BlendData) -> tuple[dict[str, CrossFit], list[str]]:
    """Fit all blends and, unless it is disabled, the stack on the default blend.

    A candidate that raises is left out; the mean takes the place of a default that raises.

    Returns:
        Name -> candidate from simple to complex, and a line per candidate that could not be fitted.
    """
    candidates: dict[str, CrossFit] = {}
    failed: list[str] = []
    postprocess = run.config.submissions.postprocess or ""

    def try_candidate(name: str, fit: Callable[[FoldSet], Predictor]) -> None:
        try:
            candidates[name] = cross_fit(data, fit, postprocess)
        except Exception as error:
            failed.append(f"WARNING: {name} is left out: {type(error).__name__}: {error}")

    for name in dict.fromkeys([*ALWAYS, run.config.default_blend, *run.config.submissions.candidates]):
        try_candidate(short_ref(name), partial(fit_candidate, name, data))
    default = short_ref(run.config.default_blend)
    if MEAN not in candidates:  # only a user's post-processing can fail there
        candidates[MEAN] = cross_fit(data, partial(mean, data))
    if run.config.submissions.stack and default in candidates:
        try_candidate(LIGHTGBM_STACK, partial(fit_stack, data, run.config.default_blend))
        if LIGHTGBM_STACK in candidates:
            stack = candidates[LIGHTGBM_STACK]
            candidates[LIGHTGBM_STACK] = _without_unvalidated_corrections(stack, candidates[default], data)
    return dict(sorted(candidates.items(), key=lambda item: complexity(item[0]))), failed


def _without_unvalidated_corrections(stack: CrossFit, default: CrossFit, data: BlendData) -> CrossFit:
    """Return the stack without its corrections of outputs in which cross-fitting corrects no held-out row.

    Such corrections were never validated.
    """
    has_fold = data.folds >= 0
    is_validated = (stack.outputs != default.outputs)[has_fold].any(axis=0)
    fitted = stack.whole.predictor
    assert isinstance(fitted, Stack)
    whole = replace(stack.whole, predictor=fitted.only(is_validated))
    in_sample = stack.in_sample.copy()
    in_sample[has_fold] = whole.predict(data.preds[has_fold])
    return replace(stack, whole=whole, in_sample=in_sample)


def select_candidate(run: Run, data: BlendData, scorer: Scorer) -> Selection:
    """Fit all candidates, compare them with the default, and choose one."""
    candidates, failed = fit_candidates(run, data)
    default = short_ref(run.config.default_blend)
    if default not in candidates:
        default = MEAN
    compared = scorer.compare({name: each.scored for name, each in candidates.items()}, default)
    in_sample = candidates[default].in_sample
    same_as_default = [
        name
        for name, each in candidates.items()
        if name != default and np.array_equal(each.in_sample, in_sample, equal_nan=True)
    ]
    margin = run.config.submissions.margin
    eligible = {name: each for name, each in compared.items() if name not in same_as_default}
    blends = {name: each for name, each in eligible.items() if name != LIGHTGBM_STACK}
    chosen, reason = select(scorer, eligible, default, margin)
    return Selection(
        candidates=candidates,
        compared=compared,
        default=default,
        chosen=chosen,
        chosen_blend=select(scorer, blends, default, margin)[0],
        reason=reason,
        same_as_default=same_as_default,
        failed=failed,
    )


def families(stages: dict[str, Stage]) -> dict[str, list[str]]:
    """Return weights -> the stages that use them, for weights of several stages.

    Errors of such stages are correlated, though each of them looks like a model of its own.
    """
    users: dict[str, list[str]] = {}
    for name, stage in stages.items():
        for weights in stage.weight_names():
            users.setdefault(weights, []).append(name)
    return {weights: names for weights, names in users.items() if len(names) > 1}


def ablation(run: Run, data: BlendData, scorer: Scorer, selection: Selection) -> dict[str, dict[str, Any]]:
    """Return the default blend without each stage, and without all stages that start from the same weights.

    It is refitted with the settings that were tuned for all stages.

    Returns:
        Name -> the `stages` that are left out, the `score` without them, the paired `difference` to the default, and
        the `standard_error` of it.
    """
    names = run.stage_predictions.names
    left_out = {stage: [stage] for stage in sorted(names)} | families(dict(run.config.stages))
    default = selection.candidates[selection.default]
    tuned = default.whole.predictor.settings if isinstance(default.whole.predictor, Blend) else []
    scored = {"all stages": default.scored}
    for name, stages in left_out.items():
        is_kept = ~np.isin(names, stages)
        if is_kept.any():
            part = data.with_columns(is_kept, tuned)
            fit = partial(
                fit_candidate, run.config.default_blend if selection.default != MEAN else MEAN, part
            )
            scored[name] = cross_fit(part, fit, default.whole.postprocess).scored
    if len(scored) == 1:
        return {}
    compared = scorer.compare(scored, "all stages")
    return {
        name: {"stages": stages, **asdict(compared[name])}
        for name, stages in left_out.items()
        if name in compared
    }


def compare_to_best_stage(scorer: Scorer, y_pred: Array, stages: dict[str, Array]) -> dict[str, Any]:
    """Return the paired difference of the submission to the best stage.

    The best stage is chosen on the same rows, which favours it a little.
    """
    scores = {stage: scorer.score(stage_pred) for stage, stage_pred in stages.items()}
    best = max(scores, key=lambda stage: np.nan_to_num(scorer.gain(scores[stage]), nan=-np.inf))
    return {"cv_score": scores[best], **_against(scorer, y_pred, best, stages[best])}


def compare_to_previous_run(run: Run, scorer: Scorer, y_pred: Array) -> dict[str, Any] | None:
    """Return the paired difference to the previous run on the rows of both; None if there are none."""
    name = name_of_latest(run.paths)
    if name in ("", run.name):
        return None
    try:
        before = scored_rows(run.paths.run(name), run.task).reindex(
            index=run.stage_predictions.ids, columns=run.task.scored_columns
        )
    except DataError:  # that run is not finished, or its files are gone or changed
        return None
    return _against(scorer, y_pred, name, before.to_numpy()) if before.notna().all(axis=1).any() else None


def _against(scorer: Scorer, y_pred: Array, name: str, other: Array) -> dict[str, Any]:
    """Return `name`, the `difference` to the score of `other` on the rows of both, and its `standard_error`."""
    in_both = np.isfinite(other).all(axis=1)
    on_both = replace(scorer, folds=np.where(in_both, scorer.folds, -1))
    paired = on_both.compare({"other": other, "this": y_pred}, "other")["this"]
    return {"name": name, "difference": paired.difference, "standard_error": paired.standard_error}
