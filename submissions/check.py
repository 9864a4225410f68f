"""Check everything before any work: `./run.sh check [COMPETITION]`.

Reads: the whole YAML, the raw tables, the weights that stages start from. Never the answers.
Writes: nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import command
from competition.config import CompetitionConfig
from competition.errors import ConfigError, DataError
from competition.metrics import load_metric
from competition.paths import Paths
from competition.prepare import Prepared, describe, prepare
from competition.tables import own_rows
from competition.user_code import load_user_code, user_code
from folds.splitters import divide
from models.config import CustomStage, FileStage, RegressorStage
from models.inputs.template import read_template
from models.inputs.weights import WEIGHT_SETS, digest_of_weights
from models.jobs.plan import code_digest
from models.jobs.ray_workers import require_cluster
from models.regressors import require_weights
from models.settings import NeuralStage, TextStage
from models.stage import molecule_columns, require_inputs
from models.stages.custom import load_custom
from models.stages.file import FOLD_MARKS, check_predictions
from models.training.labels import require_log1p
from models.training.machine import cpu_has_bf16, require_precision, usable_gpus
from submissions.config import Config, load_config


def check(config: Config, here: bool = True) -> str:
    """Check a whole configuration with its tables and weights; returns what was found, in words.

    What is wrong in the tables is named first and alone; what stages cannot do with them, of all stages at once.

    Args:
        here: whether this machine trains, and has to have the precision of the stages.
    """
    competition = config.competition
    prepared = prepare(competition)
    own = own_rows(prepared.train)
    folds = divide(config.folds, own, competition, competition.seed)[0]
    _check_metric(competition, own[competition.targets].to_numpy(dtype=np.float64), folds)
    for where, named in user_code(config.submissions.model_dump(), "submissions"):
        load_user_code(where, named, "what it names")
    lines, mistakes = [describe(prepared.report)], []
    for name, stage in config.stages.items():
        try:
            found = _check_stage(stage, competition, prepared, folds, here)
        except (ConfigError, DataError) as error:  # with a line for each mistake
            mistakes += [f"stages.{name}: {line}" for line in str(error).splitlines()]
            continue
        n_jobs = len(stage.seeds) * (int(folds.max()) + 1 + (stage.final_fit != "folds"))
        lines.append(f"stage {name}: {found}; {n_jobs} jobs")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return "\n".join(lines)


def _check_stage(
    stage: Any, competition: CompetitionConfig, prepared: Prepared, folds: NDArray[np.int64], here: bool
) -> str:
    """What is known of a stage before its first job, in words."""
    if here and isinstance(stage, NeuralStage):
        has_gpu = bool(usable_gpus())  # whether it has bf16 only torch knows; the stage asks it
        require_precision(stage.precision, has_gpu, has_gpu or cpu_has_bf16())
    require_inputs(stage, competition)
    if stage.kind in ("gnn", "unimol", "unimol2"):
        molecule_columns(stage.columns, competition.smiles, stage.kind)
    if isinstance(stage, TextStage):
        template = read_template(stage, competition)
        in_order = getattr(stage, "enumerate_smiles", False) == "order"
        if in_order and not any("." in text for text in template.texts(prepared.train, " ")):
            raise ConfigError(
                "enumerate_smiles: order needs cells or sides of a reaction with several molecules; there are none "
                f"in {', '.join(template.columns)}. Set true, for other spellings, or leave it out."
            )
    if stage.target_transform == "log1p":
        require_log1p(own_rows(prepared.train)[competition.targets].to_numpy(dtype=np.float64))
    extra = stage.extra_rows != "ignore" and any(table.weight != 1 for table in competition.extra_train)
    if isinstance(stage, RegressorStage) and (competition.weight or extra or stage.pseudo_labels):
        require_weights(stage.regressor)
    for setting, named in user_code(stage.model_dump(), stage.kind):
        load_user_code(setting, named, "what it names")
    if isinstance(stage, CustomStage):
        load_custom(stage)
    code_digest(stage)
    weights = getattr(stage, "weights", None)
    digest_of_weights(weights)
    said = stage.kind + (f" from {weights}" if weights else "")
    if weights in WEIGHT_SETS and (labels := WEIGHT_SETS[weights].labels):
        said += f" ({labels}: check that they are not this competition's)"
    mark = check_predictions(stage, competition, prepared, folds) if isinstance(stage, FileStage) else None
    return said + (f"; {mark}: {FOLD_MARKS[mark]}" if mark else "")


def _check_metric(competition: CompetitionConfig, y: NDArray[np.float64], folds: NDArray[np.int64]) -> None:
    """A metric must be a finite number for predictions near the labels, wherever a run takes it: on all rows, on those
    of each fold, and on rows drawn with repetition."""
    rng, metric = np.random.default_rng(0), load_metric(competition.metric, competition.greater_is_better)
    y_pred = np.where(np.isnan(y), np.nanmean(y, axis=0), y)
    near = y_pred + 0.1 * np.nanstd(y, axis=0) * rng.normal(size=y.shape)
    y_pred = np.where(near > metric.above, near, y_pred)
    subsets = {"all rows that are scored": np.flatnonzero(folds >= 0)}
    subsets |= {f"the rows of fold {fold}": np.flatnonzero(folds == fold) for fold in range(int(folds.max()) + 1)}
    subsets["rows drawn with repetition"] = rng.integers(len(y), size=len(y))
    for i, (named, rows) in enumerate(subsets.items()):
        score, labels = metric(y[rows], y_pred[rows]), pd.DataFrame(y[rows], columns=competition.targets)
        equal = list(labels.columns[labels.nunique() < 2])
        if np.isfinite(score) or (equal and i):  # within a fold R2 and correlations may have no value to give
            continue
        what_to_do = "Correct the function (NaN in y_true is a missing label)"
        if equal:
            what_to_do = f"There {', '.join(equal)} has one label alone; take it out of competition.targets"
        raise ConfigError(
            f"the metric {metric.name} is {score} for predictions near the labels on {named} ({len(rows)}), and has "
            f"to be a finite number. {what_to_do}, or choose another competition.metric."
        )


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    if args.executor == "ray":
        require_cluster(args.ray_address)
    found = check(load_config(args.competition, args.seed), here=args.executor == "local")
    print(f"{Paths.of(args.competition).name}: checked\n{found}")


if __name__ == "__main__":
    command.run(main)
