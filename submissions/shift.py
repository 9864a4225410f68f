"""Test rows that differ from training rows: the error of held-out rows like them, and the score to expect.

The training rows that look most like the test table are held out together, and a model of one stage is trained on
the others. Its error there, divided by that of the ordinary folds, tells how much larger the error of the test rows
may be. The model enters neither a submission nor a choice. docs/benchmarks.md has how often that holds.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from competition.dataset import REFIT_FOLD
from competition.metrics import Metric
from core.files import read_json
from core.types import Array
from folds.comparison import Comparison, ErrorRatio, write_comparison
from models.inputs.fingerprints import molecule_features
from models.job_folder import REPORT
from models.jobs.plan import JobPlan
from models.jobs.run_job import predict_rows
from submissions.blend.decision_rules import apply_decision
from submissions.blend.selection import decision_of
from submissions.columns import stage_alone
from submissions.config import Config
from submissions.manifest import ExpectedShift
from submissions.run import Run, finished_part, open_run


def cached_descriptors(cache: Path, smiles: list[str]) -> Array:
    """Return RDKit's descriptors of molecules, (n_molecules, n_descriptors), which stages read too."""
    (descriptors,) = molecule_features(["descriptors"], 0, cache)
    return np.concatenate(descriptors.load(smiles)).astype(np.float64)


def expected_under_shift(comparison: Comparison, metric: Metric, score: float) -> ExpectedShift | None:
    """Return what to expect of test rows that differ from training rows; None if they do not.

    Some test rows may look like training rows, so the factor of the error is a power of the measured ratio.

    Args:
        score: score of ordinary folds.
    """
    shift, measured = comparison.adversarial_validation, comparison.error_ratio
    if shift is None or not shift.is_clear:
        return None
    factor = score_of_rows_like_them = None
    if measured is not None and measured.ratio is not None:
        factor = measured.ratio ** (2 * shift.auc - 1)
        error = error_of(metric, score)
        if error is not None:
            score_of_rows_like_them = error_of(metric, factor * error)
    sentence = (
        f"Test rows differ from training rows (AUC {shift.auc:.2f}, most in {shift.first_features(2)})."
    )
    return ExpectedShift(sentence=sentence, factor=factor, score=score_of_rows_like_them)


def measure_error_ratio(config: Config, plan: JobPlan, comparison: Comparison, seconds: float) -> None:
    """Add the error of rows like test rows to the comparison of the tables, if they differ and it is not known.

    It is measured again if no stage was fast enough, and there is more time now.

    Args:
        seconds: longest time of a fold of the stage whose error is compared.
    """
    shift, known = comparison.adversarial_validation, comparison.error_ratio
    if shift is None or not shift.like_test:
        return
    if known and (known.stage or seconds <= known.seconds):
        return
    run = open_run(config, finished_part(plan))
    measured = ErrorRatio(seconds=seconds)
    stage = cheapest_good_stage(run, seconds)
    if stage is not None:
        ratio = error_ratio(run, stage, np.isin(run.columns.ids, shift.like_test))
        measured = ErrorRatio(stage=stage, ratio=ratio)
    write_comparison(plan.paths, comparison.model_copy(update={"error_ratio": measured}))


def cheapest_good_stage(run: Run, seconds: float) -> str | None:
    """Return the best stage of those whose folds took no longer than `seconds` without a GPU; None without one."""
    scores = {}
    for name, stage in run.config.stages.items():
        jobs = [job for job in run.plan.jobs_of_stage(name) if job.fold != REFIT_FOLD]
        took = max(read_json(job.folder / REPORT)["seconds"] for job in jobs)
        is_alone = stage.is_trained and stage.pseudo_labels is None and not stage.gpu
        if is_alone and took <= seconds:
            alone = stage_alone(run.columns, name).scored
            scores[name] = run.columns.gain(run.columns.score(alone))
    known = {name: score for name, score in scores.items() if np.isfinite(score)}
    return max(known, key=known.__getitem__, default=None)


def error_ratio(run: Run, stage: str, is_held_out: NDArray[np.bool_]) -> float | None:
    """Return the error of a stage on rows that are held out together over its error in ordinary folds.

    None if one of them is no positive number.

    Args:
        is_held_out: (n_rows,), of the training table.
    """
    columns = run.columns
    oof = columns.stage_oof(stage)
    first = run.plan.jobs_of_stage(stage)[0]
    with TemporaryDirectory() as folder:
        job = replace(first, fold=run.plan.n_folds, folder=Path(folder), dependencies=())
        y_pred = np.full_like(oof, np.nan)
        y_pred[is_held_out] = predict_rows(job, run.plan, is_held_out)
    scored, shifted = oof, y_pred
    if columns.task.scores_labels:
        scored = apply_decision(decision_of(columns, oof, columns.has_fold), oof)
        shifted = apply_decision(decision_of(columns, oof, columns.has_fold & ~is_held_out), y_pred)
    alone = replace(columns, folds=np.where(is_held_out, 0, -1))
    of_shifted = error_of(run.metric, alone.score(shifted))
    in_folds = error_of(run.metric, columns.score(scored))
    if of_shifted is None or in_folds is None or not (0 < of_shifted < np.inf and 0 < in_folds < np.inf):
        return None
    return of_shifted / in_folds


def error_of(metric: Metric, score: float) -> float | None:
    """Return the error of a score: the score itself, or how far it is from 1; its own inverse.

    None for a user-defined metric whose greatest score is unknown.
    """
    if not metric.greater_is_better:
        return score
    return None if metric.table_score else 1 - score
