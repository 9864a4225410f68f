"""Check everything before any work: `python -m submissions.check [COMPETITION]`.

Reads: the whole YAML, the raw tables, the weights that stages start from. Never the answers.
Writes: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from competition import command
from competition.config import CompetitionConfig
from competition.errors import ConfigError
from competition.metrics import load_metric
from competition.paths import Paths
from competition.prepare import describe, prepare
from competition.tables import own_rows
from folds.splitters import make_folds
from models.config import CustomStage, TextStage
from models.custom import load_custom
from models.jobs import code_digest
from models.stage import molecule_columns
from models.template import read_template, require_molecules
from models.weights import WEIGHT_SETS, digest_of_weights
from submissions.config import Config, load_config


def check(config: Config) -> str:
    """Check a whole configuration with its tables and weights; returns what was found, in words.

    Raises:
        DataError, SubmissionError: for the first thing wrong in the tables.
        ConfigError: for what no stage can do with these tables and files, all stages at once.
    """
    competition = config.competition
    prepared = prepare(competition)
    make_folds(
        config.folds, own_rows(prepared.train), competition.id, competition.targets, competition.smiles,
        competition.group, competition.seed,
    )  # fmt: skip
    _check_metric(competition, own_rows(prepared.train)[competition.targets].to_numpy(dtype=np.float64))
    lines, mistakes = [describe(prepared.report)], []
    for name, stage in config.stages.items():
        weights = getattr(stage, "weights", None)
        try:
            _check_columns(stage, config)
            digest_of_weights(weights)
            if isinstance(stage, CustomStage):
                load_custom(stage)
        except ConfigError as error:
            mistakes.append(f"stages.{name}: {error}")
            continue
        code_digest(stage)
        known = WEIGHT_SETS.get(weights or "")
        said = f" from {weights}" if weights else ""
        said += f" ({known.labels}: check that they are not this competition's)" if known and known.labels else ""
        n_jobs = len(set(stage.seeds)) * (config.folds.n_folds + (stage.final_fit != "folds"))
        lines.append(f"stage {name}: {stage.kind}{said}, {n_jobs} jobs")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return "\n".join(lines)


def _check_metric(competition: CompetitionConfig, y: NDArray[np.float64]) -> None:
    """A metric must be a finite number for predictions that are near the labels."""
    rng = np.random.default_rng(0)
    spread = np.nanstd(y, axis=0)
    y_pred = np.where(np.isnan(y), np.nanmean(y, axis=0), y) + 0.1 * spread * rng.normal(size=y.shape)
    metric = load_metric(competition.metric, competition.greater_is_better)
    score = metric(y, y_pred)
    if not np.isfinite(score) and (spread > 0).all():
        raise ConfigError(
            f"the metric {metric.name} must be a finite number for predictions near the labels; it is {score}. "
            "Correct the function, or choose another competition.metric."
        )


def _check_columns(stage: object, config: Config) -> None:
    competition = config.competition
    kind = getattr(stage, "kind", "")
    if kind in ("gnn", "unimol", "unimol2"):
        molecule_columns(getattr(stage, "columns", []), competition.smiles, kind)
    if isinstance(stage, TextStage):
        template = read_template(
            stage.template, stage.columns, competition.smiles, competition.text, competition.categorical,
            stage.reads_atoms,
        )  # fmt: skip
        if getattr(stage, "enumerate_smiles", False):
            require_molecules(template)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    print(f"{Paths.of(args.competition).name}: checked\n{check(load_config(args.competition, args.seed))}")


if __name__ == "__main__":
    command.run(main)
