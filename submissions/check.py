"""Check everything before any work: `./run.sh check [COMPETITION]`.

Reads: the whole YAML, the raw tables, the weights that stages start from. Never the answers.
Writes: nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import command
from competition.config import CompetitionConfig
from competition.errors import ConfigError, DataError
from competition.metrics import load_metric
from competition.paths import Paths
from competition.prepare import describe, prepare
from competition.tables import own_rows
from folds.splitters import divide
from models.config import RegressorStage, TextStage
from models.inputs.template import read_template, require_molecules
from models.inputs.weights import digest_of_weights
from models.jobs.plan import code_digest
from models.jobs.ray_workers import require_cluster
from models.regressors import require_weights
from models.settings import CustomStage, FileStage, NeuralStage, Stage
from models.stage import molecule_columns, require_inputs
from models.stages.custom import load_custom
from models.stages.file import FOLD_MARKS, check_predictions
from models.training.labels import require_log1p
from models.training.machine import cpu_has_bf16, require_precision, usable_gpus
from models.weight_sets import WEIGHT_SETS
from submissions.config import Config, load_config


def check(config: Config, here: bool = True) -> str:
    """Check a whole configuration with its tables and weights; returns what was found, in words.

    Args:
        here: whether this machine trains, and has to have the precision of the stages.

    Raises:
        DataError, SubmissionError: for the first thing wrong in the tables.
        ConfigError: for what no stage can do with these tables and files, all stages at once.
    """
    competition = config.competition
    prepared = prepare(competition)
    own = own_rows(prepared.train)
    folds = divide(
        config.folds, own, competition.id, competition.targets, competition.smiles, competition.group,
        competition.seed,
    ).folds  # fmt: skip
    _check_metric(competition, own[competition.targets].to_numpy(dtype=np.float64), folds)
    lines, mistakes = [describe(prepared.report)], []
    has_gpu = bool(usable_gpus())  # whether it has bf16 only torch knows; the stage asks it
    for name, stage in config.stages.items():
        weights, mark = getattr(stage, "weights", None), None
        doubts: list[str] = []
        try:
            require_inputs(stage, competition)
            _check_columns(stage, config, prepared.train)
            _check_training(stage, config, own)
            if here and isinstance(stage, NeuralStage):
                require_precision(stage.precision, has_gpu, has_gpu or cpu_has_bf16())
            digest_of_weights(weights)
            if isinstance(stage, CustomStage):
                load_custom(stage)
            if isinstance(stage, FileStage):
                mark, doubts = check_predictions(stage, competition, prepared, folds)
        except ConfigError as error:
            mistakes.append(f"stages.{name}: {error}")
            continue
        except DataError as error:  # of predictions made elsewhere, a line for each mistake in their files
            mistakes += [f"stages.{name}: {line}" for line in str(error).splitlines()]
            continue
        code_digest(stage)
        known = WEIGHT_SETS.get(weights or "")
        said = f" from {weights}" if weights else ""
        said += f" ({known.labels}: check that they are not this competition's)" if known and known.labels else ""
        said += f", {len(set(stage.seeds)) * (int(folds.max()) + 1 + (stage.final_fit != 'folds'))} jobs"
        lines.append(f"stage {name}: {stage.kind}{said}" + (f"; {mark}: {FOLD_MARKS[mark]}" if mark else ""))
        lines += [f"WARNING stage {name}: {doubt}" for doubt in doubts]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return "\n".join(lines)


def _check_metric(competition: CompetitionConfig, y: NDArray[np.float64], folds: NDArray[np.int64]) -> None:
    """A metric must be a finite number for predictions near the labels, wherever a run takes it: on all rows, on those
    of each fold, and on rows drawn with repetition."""
    rng = np.random.default_rng(0)
    metric = load_metric(competition.metric, competition.greater_is_better)
    y_pred = np.where(np.isnan(y), np.nanmean(y, axis=0), y)
    near = y_pred + 0.1 * np.nanstd(y, axis=0) * rng.normal(size=y.shape)
    y_pred = np.where(near > metric.above, near, y_pred)
    subsets: dict[str, NDArray[np.int64]] = {"all rows that are scored": np.flatnonzero(folds >= 0)}
    subsets |= {f"the rows of fold {fold}": np.flatnonzero(folds == fold) for fold in range(int(folds.max()) + 1)}
    subsets["rows drawn with repetition"] = rng.integers(len(y), size=len(y))
    for named, rows in subsets.items():
        score = metric(y[rows], y_pred[rows])
        equal = [
            name
            for name, part in zip(competition.targets, y[rows].T, strict=True)
            if len(np.unique(part[~np.isnan(part)])) < 2
        ]
        if not np.isfinite(score) and equal and named == "all rows that are scored":
            raise ConfigError(
                f"each target must have two different labels for the metric {metric.name}; on {named} "
                f"{', '.join(equal)} has not. Take it out of competition.targets, or choose another metric."
            )
        if not np.isfinite(score) and not equal:  # within a fold R2 and correlations may have no value to give
            raise ConfigError(
                f"the metric {metric.name} must be a finite number for predictions near the labels; on {named} "
                f"({len(rows)}) it is {score}. Correct the function (NaN in y_true is a missing label), or choose "
                "another competition.metric."
            )


def _check_columns(stage: object, config: Config, train: pd.DataFrame) -> None:
    competition = config.competition
    kind = getattr(stage, "kind", "")
    if kind in ("gnn", "unimol", "unimol2"):
        molecule_columns(getattr(stage, "columns", []), competition.smiles, kind)
    if isinstance(stage, TextStage):
        template = read_template(stage, competition)
        if enumerates := getattr(stage, "enumerate_smiles", False):
            require_molecules(template, enumerates == "order")
            if enumerates == "order" and not any("." in text for text in template.texts(train, " ")):
                raise ConfigError(
                    "enumerate_smiles: order needs cells or sides of a reaction with several molecules; there are none "
                    f"in {', '.join(template.columns)}. Set true, for other spellings, or leave it out."
                )


def _check_training(stage: Stage, config: Config, own: pd.DataFrame) -> None:
    """What the labels and weights of the training rows forbid, known before a fold is trained."""
    competition = config.competition
    if stage.target_transform == "log1p":
        require_log1p(own[competition.targets].to_numpy(dtype=np.float64))
    extra = stage.extra_rows != "ignore" and any(table.weight != 1 for table in competition.extra_train)
    if isinstance(stage, RegressorStage) and (competition.weight or extra or stage.pseudo_labels):
        require_weights(stage.regressor)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    if args.shard:
        raise ConfigError(
            "--shard is for the jobs alone: run ./run.sh train with --shard I/N on each of N machines, and then "
            "./run.sh full without it on one of them."
        )
    if args.executor == "ray":
        require_cluster(args.ray_address)
    found = check(load_config(args.competition, args.seed), here=args.executor == "local")
    print(f"{Paths.of(args.competition).name}: checked\n{found}")


if __name__ == "__main__":
    command.run(main)
