"""Test rows that differ from training rows: whether they do, and the error of held-out rows like them.

The training rows that look most like the test table are held out together, and a model of one stage is trained on
the others. Its error there, divided by that of the ordinary folds, tells how much larger the error of the test rows
may be. The model enters neither a submission nor a choice. docs/benchmarks.md has how often that holds.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.dataset import REFIT_FOLD, without_extra_rows
from competition.metrics import Metric
from core.files import derive_seed, read_json, read_table, write_json
from core.paths import Paths
from core.types import Array
from folds.adversarial import adversarial_validation, most_like_test
from folds.diagnose import MIN_SHIFT_AUC, made_from
from models.inputs.fingerprints import molecule_features
from models.job_folder import REPORT
from models.jobs.plan import JobPlan
from models.jobs.run_job import predict_rows
from submissions.blend.decision_rules import apply_decision
from submissions.blend.selection import decision_of
from submissions.columns import stage_alone
from submissions.config import Config
from submissions.run import Run, finished_part, open_run

MAX_TRAIN_ROWS = 20_000
"""Number of training rows above which the tables are not compared."""
SIGMAS = 1.96
"""Standard errors of an interval of 95 %."""


@dataclass(frozen=True)
class MeasuredShift:
    """What folds/held_out.json has about the tables of a competition.

    Attributes:
        auc: of the classifier of training and test rows, with its `standard_error`.
        features: those that it uses most, the first ones first (`folds.adversarial.Shift`).
        stage: stage whose error is compared; "" without one.
        ratio: its error on the rows most like the test table over its error in ordinary folds; None without a stage.
        seconds: without a stage, the limit that the folds of all of them exceeded.
    """

    auc: float
    standard_error: float
    features: list[dict[str, Any]]
    stage: str = ""
    ratio: float | None = None
    seconds: float = 0.0

    @property
    def is_clear(self) -> bool:
        """Whether the lower end of the AUC's interval is above the one from which tables are said to differ."""
        return self.auc - SIGMAS * self.standard_error > MIN_SHIFT_AUC

    @property
    def factor(self) -> float | None:
        """The ratio to expect of the test table, some rows of which may look like training rows."""
        return None if self.ratio is None else self.ratio ** max(0.0, 2 * self.auc - 1)

    @property
    def sentence(self) -> str:
        """What differs."""
        names = ", ".join(str(feature["feature"]) for feature in self.features[:2])
        return f"Test rows differ from training rows (AUC {self.auc:.2f}, most in {names})."


def read_shift(paths: Paths) -> MeasuredShift | None:
    """Return what was measured; None if nothing was, or if tables or folds have changed since."""
    if not paths.held_out.exists():
        return None
    content = read_json(paths.held_out, "made_from")
    if content.pop("made_from") != made_from(paths):
        return None
    return MeasuredShift(**content)


def measure_shift(config: Config, plan: JobPlan, seconds: float) -> None:
    """Write what distinguishes the test rows, unless it is known; an error is printed, since it must not end a run.

    It is measured again if no stage was fast enough for the ratio, and there is more time now.

    Args:
        seconds: longest time of a fold of the stage whose error is compared.
    """
    paths = plan.paths
    known = read_shift(paths)
    if known is not None and (known.stage or not known.is_clear or seconds <= known.seconds):
        return
    try:
        shift = _measure(config, plan, seconds)
    except Exception as error:
        print(f"the shift of the test rows was not measured ({type(error).__name__}: {error})", flush=True)
        return
    if shift is not None:
        write_json(paths.held_out, {"made_from": made_from(paths), **asdict(shift)})


def _measure(config: Config, plan: JobPlan, seconds: float) -> MeasuredShift | None:
    """Return the shift of the test table; None for large tables, and for those with too few rows."""
    competition = config.competition
    table = read_table(plan.paths.train)
    train, test = without_extra_rows(table), read_table(plan.paths.test)
    if len(train) > MAX_TRAIN_ROWS:
        return None
    (descriptors,) = molecule_features(["descriptors"], 0, plan.paths.cache)

    def describe(smiles: list[str]) -> Array:
        return np.concatenate(descriptors.load(smiles)).astype(np.float64)

    seed = derive_seed(competition.seed, "shift")
    found = adversarial_validation(train, test, competition, seed, describe)
    if found is None:
        return None
    shift = MeasuredShift(found.auc, found.standard_error, found.features)
    run = open_run(config, finished_part(plan))
    stage = cheapest_good_stage(run, seconds) if shift.is_clear else None
    if stage is None:
        return replace(shift, seconds=seconds) if shift.is_clear else shift
    is_alike = most_like_test(found.likeness, run.columns.groups[: len(train)])
    ratio = error_ratio(run, stage, np.append(is_alike, np.zeros(len(table) - len(train), dtype=bool)))
    return replace(shift, stage=stage, ratio=ratio)


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
