"""Test rows that differ from training rows: the error of held-out rows like them, and the score to expect.

The training rows that look most like the test table are held out together, and one model of one stage is
trained on others. Its error there, divided by the error of the models of one seed in ordinary folds, tells
how much larger the error of the test rows may be. The model enters neither a submission nor a choice.
docs/benchmarks.md has how often that holds.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from competition.dataset import REFIT_FOLD
from competition.metrics import Metric
from core.files import derive_seed, digest, read_json, sha256_of
from core.types import Array
from core.user_code import changed_files, opened_files, short_ref, user_code_files
from folds.comparison import Comparison, ErrorRatio, read_comparison, write_comparison
from models.inputs.fingerprints import molecule_features
from models.job_folder import REPORT
from models.jobs.plan import JobPlan
from models.jobs.run_job import predict_rows
from submissions.blend.candidates import single_column
from submissions.blend.scoring import Scorer
from submissions.blend.selection import cross_fit, fit_on
from submissions.columns import stage_alone
from submissions.config import Config
from submissions.manifest import ExpectedShift
from submissions.run import Run, finished_part, open_run

Score = TypeVar("Score", float, Array)


def cached_descriptors(cache: Path, smiles: list[str]) -> Array:
    """Return RDKit's descriptors of molecules, (n_molecules, n_descriptors), which stages read too."""
    (descriptors,) = molecule_features(["descriptors"], 0, cache)
    return np.concatenate(descriptors.load(smiles)).astype(np.float64)


def expected_under_shift(comparison: Comparison) -> ExpectedShift | None:
    """Return what to expect of test rows that differ from training rows; None if they do not.

    Some test rows may look like training rows, so the factor of the error is a power of the measured ratio.
    """
    shift = comparison.adversarial_validation
    measured = comparison.error_ratio
    if shift is None or not shift.is_clear:
        return None
    factor = None
    if measured is not None and measured.factor is not None:
        factor = measured.factor**shift.strength
    sentence = (
        f"Test rows differ from training rows (AUC {shift.auc:.2f}, most in {shift.first_features(2)})."
    )
    return ExpectedShift(sentence=sentence, factor=factor)


def measure_error_ratio(config: Config, plan: JobPlan, comparison: Comparison, seconds: float) -> None:
    """Add the error of rows like test rows to the comparison of the tables, if they differ.

    The error that was measured before is kept if it is of the same stage and metric, or if no stage is fast
    enough now.

    Args:
        seconds: longest time of a fold of the stage to compare.
    """
    shift = comparison.adversarial_validation
    if shift is None or not shift.like_test:
        return
    run = open_run(config, first_seeds(finished_part(plan)))
    stage = best_fast_stage(run, seconds)
    previous = comparison.error_ratio
    if previous and is_measured_with(run, previous) and stage in (previous.stage, None):
        return
    measured = ErrorRatio(standard_error=None, seconds=seconds)
    if stage is not None:
        measured = error_ratio(run, stage, np.isin(run.columns.ids, shift.like_test))
    made_from = digest_of_measurement(run, measured.stage)
    opened = opened_files(config.competition.metric)
    measured = measured.model_copy(update={"made_from": made_from, "opened": opened})
    write_comparison(plan.paths, comparison.model_copy(update={"error_ratio": measured}))


def digest_of_measurement(run: Run, stage: str) -> str:
    """Return the digest of the metric and the jobs with which the error ratio of a stage is measured."""
    metric = run.config.competition.metric
    code = [sha256_of(file) for file in user_code_files(metric)]
    first_seed = [job.seed for job in run.plan.jobs_of_stage(stage)][:1]
    return digest([short_ref(metric), code, run.plan.keys.get(stage), first_seed])


def is_measured_with(run: Run, measured: ErrorRatio) -> bool:
    """Return whether an error ratio is of a stage and of the metric of a run, and not of earlier settings."""
    is_same = measured.made_from == digest_of_measurement(run, measured.stage)
    return is_same and not changed_files(run.config.competition.metric, measured.opened)


def comparison_for(run: Run) -> Comparison | None:
    """Return the comparison of the tables of a run, without what is of earlier settings; None without one."""
    comparison = read_comparison(run.paths) if run.config.competition.has_test_table else None
    if comparison is None or comparison.error_ratio is None:
        return comparison
    is_of_run = is_measured_with(run, comparison.error_ratio)
    return comparison if is_of_run else comparison.model_copy(update={"error_ratio": None})


def digest_of_shift(run: Run) -> str | None:
    """Return the digest of what was measured of the shift of the test rows; None if nothing was."""
    comparison = comparison_for(run)
    return comparison.digest_of_shift if comparison else None


def first_seeds(plan: JobPlan) -> JobPlan:
    """Return the jobs of one seed of each stage: a mean over several has a smaller error than one model."""
    seeds = {name: plan.jobs_of_stage(name)[0].seed for name in plan.stages}
    return replace(plan, jobs=[job for job in plan.jobs if job.seed == seeds[job.stage]])


def best_fast_stage(run: Run, seconds: float) -> str | None:
    """Return the best stage with folds of at most `seconds` each without a GPU; None without one."""
    scores = {}
    for name, stage in run.config.stages.items():
        jobs = [job for job in run.plan.jobs_of_stage(name) if job.fold != REFIT_FOLD]
        took = max(read_json(job.folder / REPORT)["seconds"] for job in jobs)
        is_alone = stage.is_trained and not stage.gpu
        if is_alone and took <= seconds:
            alone = stage_alone(run.columns, name).scored
            scores[name] = run.columns.gain(run.columns.score(alone))
    finite = {name: score for name, score in scores.items() if np.isfinite(score)}
    return max(finite, key=finite.__getitem__, default=None)


def error_ratio(run: Run, stage: str, is_held_out: NDArray[np.bool_]) -> ErrorRatio:
    """Return the error of one model on rows that are held out together, over the error in ordinary folds.

    The latter is the error of one seed. The model has the seed of these folds, and their mean number of
    training rows unless fewer rows are left. What comes after a model, such as thresholds, is fitted without
    the rows that it is scored on, in both errors.

    Args:
        run: with one seed of the stage.
        is_held_out: (n_rows,), of the training table. Rows without a fold are scored in neither error.
    """
    data = replace(run.columns, preds=run.columns.stage_oof(stage)[:, None])
    one_column = partial(single_column, data, 0)
    in_folds = error_with_standard_error(data, cross_fit(data, one_column).scored)
    unknown = ErrorRatio(stage=stage, standard_error=None)
    if in_folds is None:
        return unknown
    jobs = [job for job in run.plan.jobs_of_stage(stage) if job.fold != REFIT_FOLD]
    n_rows = float(np.mean([job.n_rows for job in jobs]))
    is_untrained = is_held_out | surplus_rows(data, is_held_out, n_rows)
    y_pred = np.full_like(data.preds, np.nan)
    with TemporaryDirectory() as folder:
        job = replace(jobs[0], fold=run.plan.n_folds, folder=Path(folder), dependencies=())
        y_pred[is_untrained, 0] = predict_rows(job, run.plan, is_untrained)
    others = replace(data, folds=np.where(is_held_out, -1, data.folds))
    fitted = fit_on(others, others.all_folds, one_column(others.all_folds))
    is_scored = is_held_out & data.has_fold
    shifted = np.full((len(data.y), len(run.task.scored_columns)), np.nan)
    shifted[is_scored] = fitted.predict(y_pred[is_scored])
    like_test = replace(data, folds=np.where(is_scored, 0, -1))
    of_shifted = error_with_standard_error(like_test, shifted) if is_scored.any() else None
    if of_shifted is None:
        return unknown
    ratio = of_shifted[0] / in_folds[0]
    # As if the two errors were independent: rows in both make it a little too large.
    standard_error = ratio * np.hypot(of_shifted[1] / of_shifted[0], in_folds[1] / in_folds[0])
    has_error = np.isfinite(standard_error)
    return ErrorRatio(stage=stage, ratio=ratio, standard_error=float(standard_error) if has_error else None)


def surplus_rows(scorer: Scorer, is_held_out: NDArray[np.bool_], n_rows: float) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of random groups; without them at least `n_rows` rows remain to train on.

    Rows without a fold, which train in every fold, are not in it.
    """
    has_surplus = scorer.has_fold & ~is_held_out
    groups, sizes = np.unique(scorer.groups[has_surplus], return_counts=True)
    order = np.random.default_rng(derive_seed(scorer.seed, "shift")).permutation(len(groups))
    is_surplus = np.cumsum(sizes[order]) <= (~is_held_out).sum() - n_rows
    return has_surplus & np.isin(scorer.groups, groups[order[is_surplus]])


def error_with_standard_error(scorer: Scorer, scored: Array) -> tuple[float, float] | None:
    """Return the error of what is scored, (n_rows, n_scored), and its standard error; None unless above 0."""
    error = error_of(scorer.metric, scorer.score(scored))
    if error is None or not 0 < error < np.inf:
        return None
    std = float(scorer.resampled({"": scored})[""].std())
    return error, std if scorer.n_groups > 1 else np.nan  # all resamples of one group are equal


def error_of(metric: Metric, score: Score) -> Score | None:
    """Return the error of a score, or of several: the score itself, or 1 minus the score.

    Applied twice, it returns the score. None for a user-defined metric with an unknown greatest score.
    """
    if not metric.greater_is_better:
        return score
    return None if metric.table_score else 1 - score
