"""Model selection: fit all candidates, compare them, choose one and its post-processing.

Nothing is written here; `submissions.build_submission` does that.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from competition.dataset import INPUT_KEY, without_extra_rows
from competition.errors import DataError
from competition.files import derive_seed, read_table
from competition.task import raw_rows_for
from competition.types import Array
from competition.user_code import short_ref
from submissions.blend.candidates import ALWAYS_CLASSIFICATION, ALWAYS_REGRESSION, get_candidate
from submissions.blend.cross_fitting import CrossFitted, cross_fit
from submissions.blend.decision_rules import Decision, apply_decision
from submissions.blend.postprocess import PostprocessChain, choose_steps
from submissions.blend.selection_rule import (
    SelectionResult,
    SelectionRule,
    apply_rule,
    compare_to_default,
    cross_fitted_scored,
    select_candidate,
)
from submissions.blend.stacks import LIGHTGBM_STACK, StackCandidate
from submissions.blend.weight_problem import BlendData
from submissions.predictor import SubmissionModel
from submissions.run import Run, by_complexity, name_of_latest, scored_rows

MIN_FOLDS = 4
"""Number of folds that post-processing needs: with three, nested blends, which exclude two folds,
are fitted on one fold only.
"""


@dataclass(frozen=True)
class ScoredCandidate:
    """A fitted candidate and its predictions.

    Attributes:
        predictions: predictions of all training rows, with the fitted predictor.
        scored: what the metric scores of them: labels, or the predictions themselves.
        decision: makes labels from predictions; None if the metric scores predictions.
    """

    predictions: CrossFitted
    scored: CrossFitted
    decision: Decision | None

    def predict(self, preds: Array) -> Array:
        """Return labels or predictions (n_rows, n_scored) for base predictions (n_rows, n_models, n_outputs)."""
        return apply_decision(self.decision, self.predictions.fitted.predict(preds))


@dataclass(frozen=True)
class Selection(SelectionResult):
    """The candidates and the choice among them.

    Attributes:
        candidates: name -> candidate, from simple to complex.
        chosen_blend: the candidate that would be chosen without the stack.
        steps: post-processing of the chosen candidate.
        cross_fitted: what the metric scores of the training rows, (n_rows, n_scored); each fold is predicted
            by what was chosen and fitted without it.
        chosen_without_fold: the candidate that was chosen without each fold.
    """

    candidates: dict[str, ScoredCandidate]
    chosen_blend: str
    steps: PostprocessChain
    cross_fitted: Array
    chosen_without_fold: list[str]


def selection_rule(run: Run) -> SelectionRule:
    """Return the selection rule with the settings of a run."""
    settings, stage_preds = run.config.submissions, run.stage_predictions
    competition = run.config.competition
    return SelectionRule(
        metric=run.metric,
        task=run.task,
        y=stage_preds.y,
        folds=stage_preds.folds,
        groups=stage_preds.groups,
        default=short_ref(run.config.default_blend),
        margin=settings.margin,
        n_resamples=settings.bootstrap,
        seed=competition.seed,
        rows=raw_rows_for(run.metric, competition.train, competition.id, stage_preds.ids),
    )


def blend_data(run: Run, preds: Array) -> BlendData:
    """Return base predictions (n_rows, n_models, n_outputs) with labels and settings, for the candidates."""
    settings, stage_preds, seed = run.config.submissions, run.stage_predictions, run.config.competition.seed
    seeds = tuple(derive_seed(seed, "blend", name) for name in run.task.targets)
    return BlendData(
        preds,
        stage_preds.y,
        stage_preds.folds,
        run.metric,
        settings.weights,
        settings.trials,
        settings.weight_trials,
        seeds,
        run.task.has_probabilities,
    )


def candidates_of(run: Run, data: BlendData) -> list[str]:
    """Return the blends to compare: the standard ones, then those of the YAML."""
    if not data.has_probabilities:
        always = list(ALWAYS_REGRESSION)
        if data.convex_objective is None:  # then only a search optimizes the metric itself
            always.append("optuna")
    else:
        always = list(ALWAYS_CLASSIFICATION)
        if data.metric.kind == "ranks" and data.outputs_per_target == 1:
            always.append("mean_of_ranks")
    return list(dict.fromkeys([*always, *run.config.blends]))


def fit_candidates(run: Run, rule: SelectionRule) -> dict[str, ScoredCandidate]:
    """Fit all blends and, unless it is disabled, the stack on the default blend; from simple to complex."""
    data = blend_data(run, run.stage_predictions.oof)
    predictions = {
        short_ref(blend): cross_fit(get_candidate(blend), data) for blend in candidates_of(run, data)
    }
    if run.config.submissions.stack:
        stack = cross_fit(StackCandidate(get_candidate(run.config.default_blend)), data)
        predictions[LIGHTGBM_STACK] = _without_unvalidated_corrections(rule, stack, predictions[rule.default])
    return {
        name: ScoredCandidate(candidate, rule.as_scored(candidate), rule.fit_decision(candidate.cross_fitted))
        for name, candidate in by_complexity(predictions).items()
    }


def _without_unvalidated_corrections(
    rule: SelectionRule, stack: CrossFitted, default: CrossFitted
) -> CrossFitted:
    """Return the stack without its corrections of outputs in which cross-fitting corrects no held-out row.

    Such corrections were never validated.
    """
    is_validated = (stack.cross_fitted != default.cross_fitted)[rule.has_fold].any(axis=0)
    in_sample = np.where(is_validated, stack.in_sample, default.in_sample)
    return replace(stack, in_sample=in_sample, fitted=stack.fitted.only(is_validated))


def select(run: Run, rule: SelectionRule) -> Selection:
    """Fit all candidates, compare them with the default, and choose one with its post-processing."""
    candidates = fit_candidates(run, rule)
    scored = {name: candidate.scored for name, candidate in candidates.items()}
    result = select_candidate(rule, scored)
    excluded = (*result.same_as_default, LIGHTGBM_STACK)
    blends = {name: candidate for name, candidate in result.comparisons.items() if name not in excluded}
    steps = [step for step in run.config.postprocess if step != "known_labels"]
    if run.plan.n_folds < MIN_FOLDS:
        steps = []
    y_pred, chosen_without_fold = cross_fit_procedure(rule, scored, steps)
    return Selection(
        **vars(result),
        candidates=candidates,
        chosen_blend=apply_rule(rule, blends)[0],
        steps=choose_steps(rule, steps, scored[result.chosen].cross_fitted),
        cross_fitted=y_pred,
        chosen_without_fold=chosen_without_fold,
    )


def cross_fit_procedure(
    rule: SelectionRule, scored: dict[str, CrossFitted], steps: list[str]
) -> tuple[Array, list[str]]:
    """Repeat the selection without each fold; return the predictions, and the chosen candidate of each fold.

    For fold k the candidate is chosen, and its post-processing is chosen and fitted, on the rows of the other
    folds. These have nested predictions, fitted without their own fold and without fold k. The chosen
    candidate, fitted without fold k, then predicts fold k. Rows with fold -1 are NaN.

    Args:
        scored: name -> what the metric scores of a candidate. Labels are made by a decision rule that was
            fitted without the same folds.
    """
    y_pred = np.full(scored[rule.default].in_sample.shape, np.nan)
    chosen_without_fold = []
    for fold in range(len(scored[rule.default].nested)):
        name = select_candidate(rule, scored, fold).chosen
        in_fold = rule.folds == fold
        chain = choose_steps(rule.on_rows(~in_fold), steps, scored[name].nested[fold])
        y_pred[in_fold] = chain.apply(scored[name].cross_fitted[in_fold])
        chosen_without_fold.append(name)
    return y_pred, chosen_without_fold


def submission_model(run: Run, selection: Selection) -> SubmissionModel:
    """Return the chosen candidate with its post-processing, as one model."""
    chosen = selection.candidates[selection.chosen]
    return SubmissionModel(
        candidate=chosen.predictions.fitted.predict,
        decision=chosen.decision,
        steps=selection.steps.fitted,
        input_labels=input_labels(run) if "known_labels" in run.config.postprocess else None,
    )


def input_labels(run: Run) -> pd.DataFrame:
    """Return the mean label, or the most frequent class, per input of the training table (the index)."""
    task, train = run.task, without_extra_rows(read_table(run.paths.train))
    truth = pd.DataFrame(task.one_hot(train[task.targets].to_numpy()), index=train[INPUT_KEY])
    means = truth.groupby(level=0).mean().dropna(how="all")
    labels = task.default_labels(means.to_numpy()) if task.scores_labels else means.to_numpy()
    return pd.DataFrame(labels, means.index, task.scored_columns)


def leave_stages_out(
    run: Run, rule: SelectionRule, all_stages: Array, groups: dict[str, list[str]]
) -> dict[str, dict[str, float]]:
    """Return the score of the default blend refitted without each group of stages, and the paired difference.

    Args:
        all_stages: what the metric scores of the default blend of all stages, (n_rows, n_scored).
        groups: name of the group -> its stages; a group of all stages is left out of the result.
    """
    stage_preds = run.stage_predictions
    predictions = {"all stages": all_stages}
    for name, stages in groups.items():
        is_left = ~np.any([stage_preds.stage_mask(stage) for stage in stages], axis=0)
        if is_left.any():
            data = blend_data(run, stage_preds.oof[:, is_left])
            predictions[name] = cross_fitted_scored(rule, get_candidate(run.config.default_blend), data)
    if len(predictions) == 1:
        return {}
    compared = compare_to_default(replace(rule, default="all stages"), predictions)
    return {name: asdict(compared[name]) for name in groups if name in predictions}


def compare_to_best_stage(rule: SelectionRule, y_pred: Array, stages: dict[str, Array]) -> dict[str, Any]:
    """Return the paired difference of the submission to the best stage.

    The best stage is chosen on the same rows, which favours it a little.
    """
    scores = {stage: rule.score(stage_pred) for stage, stage_pred in stages.items()}
    best = max(scores, key=lambda stage: np.nan_to_num(rule.gain(scores[stage]), nan=-np.inf))
    return {"cv_score": scores[best], **_against(rule, y_pred, best, stages[best])}


def compare_to_previous_run(run: Run, rule: SelectionRule, y_pred: Array) -> dict[str, Any] | None:
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
    return _against(rule, y_pred, name, before.to_numpy()) if before.notna().all(axis=1).any() else None


def _against(rule: SelectionRule, y_pred: Array, name: str, other: Array) -> dict[str, Any]:
    """Return `name`, the `difference` to the score of `other` on the rows of both, and its `standard_error`."""
    both = rule.has_fold & np.isfinite(other).all(axis=1)
    rule_on_both = replace(rule, default="other").on_rows(both)
    paired = compare_to_default(rule_on_both, {"other": other, "this": y_pred})["this"]
    return {"name": name, "difference": paired.difference, "standard_error": paired.standard_error}
