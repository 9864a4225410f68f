"""What is submitted: all candidates, fitted and compared, the choice among them, and its post-processing.

Everything here is computed from a run in memory; `submissions.build_submission` writes it.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import DataError
from competition.files import derive_seed, read_table
from competition.tables import INPUT_KEY, own_rows
from competition.types import Array
from competition.user_code import label
from submissions.blend.candidates import ALWAYS, ALWAYS_OF_CLASSES, candidate
from submissions.blend.crossfit import (
    Comparison,
    CrossFitted,
    Rule,
    choose,
    compare,
    cross_fit,
    decide,
    labelled,
    scored,
)
from submissions.blend.decisions import Decision
from submissions.blend.postprocess import Chain, choose_steps
from submissions.blend.problem import Matrices
from submissions.blend.stacks import LIGHTGBM_STACK, Stacked
from submissions.predictor import SubmissionModel
from submissions.run import Run, by_complexity, name_of_latest, scored_rows

MIN_FOLDS = 4
"""For post-processing: without a fold, three leave blends of one fold, which vary more than blends of two."""


@dataclass(frozen=True)
class ScoredCandidate:
    """A fitted candidate with what it is compared by.

    predictions: those of all training rows, with the fitted predictor.
    scored: what the metric scores of them: labels, or the predictions themselves.
    decision: makes labels of predictions; None if the metric scores predictions.
    """

    predictions: CrossFitted
    scored: CrossFitted
    decision: Decision | None

    def predict(self, P: Array) -> Array:
        """Labels or predictions, (n_rows, n_scored), for columns P (n_rows, n_columns, n_outputs)."""
        return labelled(self.decision, self.predictions.fitted.predict(P))


@dataclass(frozen=True)
class Selection:
    """The candidates and the choice among them.

    candidates: from simple to complex.
    chosen, chosen_blend: of all candidates, and without the stack.
    same_as_default: candidates that predict what the default predicts, which are not chosen.
    steps: post-processing of the chosen candidate.
    cross_fitted: what the metric scores of the training rows, (n_rows, n_scored); each fold is predicted by what was
        chosen and fitted without it.
    chosen_without_fold: the candidate chosen without each fold.
    """

    candidates: dict[str, ScoredCandidate]
    compared: dict[str, Comparison]
    chosen: str
    reason: str
    same_as_default: list[str]
    chosen_blend: str
    steps: Chain
    cross_fitted: Array
    chosen_without_fold: list[str]


def selection_rule(run: Run) -> Rule:
    """The rule of selection as the YAML sets it."""
    settings, columns = run.config.submissions, run.columns
    return Rule(
        metric=run.metric,
        task=run.task,
        y=columns.y,
        folds=columns.folds,
        groups=columns.groups,
        default=label(run.config.default_blend),
        margin=settings.margin,
        draws=settings.bootstrap,
        seed=run.config.competition.seed,
    )


def matrices_of(run: Run, P: Array) -> Matrices:
    """What the candidates are fitted on: columns P (n_rows, n_columns, n_outputs) with their labels."""
    settings, columns, seed = run.config.submissions, run.columns, run.config.competition.seed
    seeds = tuple(derive_seed(seed, "blend", name) for name in run.task.targets)
    tuned = settings.trials, settings.weight_trials, seeds
    rows = P, columns.y, columns.folds
    return Matrices(*rows, run.metric, settings.weights, *tuned, run.task.has_probabilities)


def candidates_of(run: Run, m: Matrices) -> list[str]:
    """The blends that are compared: those that always are, then those that the YAML names."""
    if not m.has_probabilities:
        always = [*ALWAYS, *([] if m.exact else ["optuna"])]
    else:
        always = [*ALWAYS_OF_CLASSES, *["mean_of_ranks"] * (m.metric.kind == "ranks" and m.n_outputs == 1)]
    return list(dict.fromkeys([*always, *run.config.blends]))


def fit_candidates(run: Run, rule: Rule) -> dict[str, ScoredCandidate]:
    """All blends and, unless the YAML excludes it, the stack on the default blend, from simple to complex."""
    data = matrices_of(run, run.columns.oof)
    predictions = {label(blend): cross_fit(candidate(blend), data) for blend in candidates_of(run, data)}
    if run.config.submissions.stack:
        stack = cross_fit(Stacked(candidate(run.config.default_blend)), data)
        predictions[LIGHTGBM_STACK] = _without_untried_corrections(rule, stack, predictions[rule.default])
    return {
        name: ScoredCandidate(each, rule.judged(each), rule.decision(each.cross_fitted, rule.scored))
        for name, each in by_complexity(predictions).items()
    }


def _without_untried_corrections(rule: Rule, stack: CrossFitted, default: CrossFitted) -> CrossFitted:
    """The stack with corrections of those outputs only in which it corrects a held-out row: others have no score."""
    is_tried = (stack.cross_fitted != default.cross_fitted)[rule.scored].any(axis=0)
    in_sample = np.where(is_tried, stack.in_sample, default.in_sample)
    return replace(stack, in_sample=in_sample, fitted=stack.fitted.only(is_tried))


def select(run: Run, rule: Rule) -> Selection:
    """Fit all candidates, compare each with the default, choose one and its post-processing."""
    candidates = fit_candidates(run, rule)
    predictions = {name: each.scored for name, each in candidates.items()}
    chosen, reason, compared, same = decide(rule, predictions)
    blends = {name: each for name, each in compared.items() if name not in (*same, LIGHTGBM_STACK)}
    steps = [step for step in run.config.postprocess if step != "known_labels"]
    if run.plan.n_folds < MIN_FOLDS:
        steps = []
    y_pred, chosen_without_fold = cross_fit_procedure(rule, predictions, steps)
    return Selection(
        candidates=candidates,
        compared=compared,
        chosen=chosen,
        reason=reason,
        same_as_default=same,
        chosen_blend=choose(rule, blends, rule.scored)[0],
        steps=choose_steps(rule, steps, predictions[chosen].cross_fitted, rule.scored),
        cross_fitted=y_pred,
        chosen_without_fold=chosen_without_fold,
    )


def cross_fit_procedure(rule: Rule, predictions: dict[str, CrossFitted], steps: list[str]) -> tuple[Array, list[str]]:
    """All that `select` does, repeated without each fold: predictions, and the candidate chosen without each fold.

    For fold k the candidate is chosen, and the steps on it are chosen and fitted, on the rows of the other folds, each
    predicted without its fold and fold k. The chosen candidate, refitted without fold k, predicts fold k. If the metric
    scores labels, a decision that was fitted on the other folds has made them. Rows with fold -1 are NaN.
    """
    y_pred = np.full(predictions[rule.default].in_sample.shape, np.nan)
    chosen_without_fold = []
    for fold in range(len(predictions[rule.default].nested)):
        name, *_ = decide(rule, predictions, fold)
        in_fold = rule.folds == fold
        chain = choose_steps(rule, steps, predictions[name].nested[fold], rule.scored & ~in_fold)
        y_pred[in_fold] = chain.apply(predictions[name].cross_fitted[in_fold])
        chosen_without_fold.append(name)
    return y_pred, chosen_without_fold


def submission_model(run: Run, selection: Selection) -> SubmissionModel:
    """The chosen candidate with its post-processing, as one model."""
    chosen = selection.candidates[selection.chosen]
    return SubmissionModel(
        task=run.task,
        candidate=chosen.predictions.fitted.predict,
        decision=chosen.decision,
        steps=selection.steps.fitted,
        known_labels=known_labels(run) if "known_labels" in run.config.postprocess else None,
    )


def known_labels(run: Run) -> pd.DataFrame:
    """Mean label of each input of the training table (its index), or of classes the most probable one."""
    task, train = run.task, own_rows(read_table(run.paths.train))
    truth = pd.DataFrame(task.truth(train[task.targets].to_numpy()), index=train[INPUT_KEY])
    means = truth.groupby(level=0).mean().dropna(how="all")
    labels = task.likeliest(means.to_numpy()) if task.decides else means.to_numpy()
    return pd.DataFrame(labels, means.index, task.scored)


def drop_one(run: Run, rule: Rule, default: Array) -> dict[str, dict[str, float]]:
    """Cross-fitted score of the default blend refitted without each stage, and its paired difference to the whole.

    `default`, (n_rows, n_scored), is what the metric scores of the default blend of all stages.
    """
    columns = run.columns
    stages = sorted(run.config.stages) if len(run.config.stages) > 1 else []
    predictions = {"all stages": default}
    for stage in stages:
        data = matrices_of(run, columns.oof[:, ~columns.of(stage)])
        predictions[stage] = scored(rule, candidate(run.config.default_blend), data)
    compared = compare(replace(rule, default="all stages"), predictions, rule.scored)
    return {stage: asdict(compared[stage]) for stage in stages}


def against_best_stage(rule: Rule, y_pred: Array, stages: dict[str, Array]) -> dict[str, Any]:
    """Paired difference of the submission to the stage with the best score on these rows, which favours it a little."""
    scores = {stage: rule.score(stage_pred) for stage, stage_pred in stages.items()}
    best = max(scores, key=lambda stage: np.nan_to_num(rule.gain(scores[stage]), nan=-np.inf))
    return {"cv_score": scores[best], **_against(rule, y_pred, best, stages[best])}


def against_previous(run: Run, rule: Rule, y_pred: Array) -> dict[str, Any] | None:
    """Paired difference to the latest run before this one, on the rows of both; None if there are none to compare."""
    name = name_of_latest(run.paths)
    if name in ("", run.name):
        return None
    try:
        before = scored_rows(run.paths.run(name), run.task).reindex(index=run.columns.ids, columns=run.task.scored)
    except DataError:  # that run is not finished, or its files are gone or changed
        return None
    return _against(rule, y_pred, name, before.to_numpy()) if before.notna().all(axis=1).any() else None


def _against(rule: Rule, y_pred: Array, name: str, other: Array) -> dict[str, Any]:
    both = rule.scored & np.isfinite(other).all(axis=1)
    paired = compare(replace(rule, default="other"), {"other": other, "own": y_pred}, both)["own"]
    return {"name": name, "difference": paired.difference, "standard_error": paired.standard_error}
