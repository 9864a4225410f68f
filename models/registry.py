"""Which class serves which kind of stage, and which caches a stage shares with others.

A kind of this project is a settings class in `models/config.py` and a file of its name in `models/stages/`.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from competition.errors import ConfigError
from competition.tables import Rows
from competition.task import Task
from models.config import FileStage
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache
from models.inputs.features import stage_features
from models.inputs.frozen import encoder_cache, text_encoders
from models.inputs.template import SEPARATOR, read_template
from models.settings import ConformerStage, Stage
from models.stage import Context, FittedStage


def build_stage(config: Stage, context: Context) -> FittedStage:
    """The stage of a settings block: of the kind `gnn` the class `Gnn` in `models/stages/gnn.py`. Imports no other."""
    kind: str = config.kind  # type: ignore[attr-defined]  # every kind's own settings have it
    module, learns = importlib.import_module(f"models.stages.{kind}"), learned_task(config, context.task)
    of_kind: Callable[[Context], FittedStage] = partial(getattr(module, kind.capitalize()), config)
    told, sources = replace(context, task=learns), predicted_targets(config, learns)
    if not sources and config.target_transform == "none" and config.ordinal != "cumulative":
        return of_kind(told)
    from models.stages import targets  # here, since it imports torch

    stage = targets.WithPredictedTargets(of_kind, told, sources) if sources else of_kind(told)
    if config.ordinal == "cumulative":
        return targets.Cumulative(stage, len(learns.targets))
    return stage if config.target_transform == "none" else targets.Transformed(stage, config.target_transform)


def learned_task(config: Stage, task: Task) -> Task:
    """The task as a stage sees it: its grades are numbers to regress, or are there to be exceeded, a target for each.

    Only predictions made elsewhere are of the grades themselves. What of its settings does not go with it is refused.
    """
    learns = task
    if task.problem_type == "ordinal" and not isinstance(config, FileStage):
        learns = replace(task, problem_type="regression", classes=[], decides=False)
        if config.ordinal == "cumulative":
            above = [f"{task.targets[0]}>{grade}" for grade in task.classes[:-1]]
            learns = replace(learns, problem_type="multilabel", targets=above, classes=["0", "1"])
    mistakes = list(config.mistakes(learns.problem_type))
    sources = predicted_targets(config, learns)
    if unknown := [name for name in sources if name not in task.targets]:
        mistakes.append(f"predicted_targets names {', '.join(unknown)}; the targets are {', '.join(task.targets)}")
    if sources and len(task.targets) < 2:
        mistakes.append("predicted_targets is of several targets, and there is one; leave it out")
    if config.ordinal == "cumulative" and task.problem_type != "ordinal":
        mistakes.append(f"ordinal is of ordered grades, and problem_type is {task.problem_type}; leave it out")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return learns


def predicted_targets(config: Stage, task: Task) -> list[str]:
    """The targets whose predictions a stage reads as features."""
    named = getattr(config, "predicted_targets", [])
    return task.targets if named == "all" else list(named)


def shared_caches(config: Stage, context: Context, tables: Sequence[Rows]) -> list[tuple[Cache, list[str]]]:
    """The caches that the jobs of a stage read, each with the molecules or texts of some rows, sorted and once each.

    They are filled before the jobs start. Without torch, since the parent process of all workers asks.
    """

    def molecules(columns: list[str]) -> list[str]:
        return sorted({smiles for rows in tables for column in columns for smiles in rows.inputs[column]})

    found = [(cache, molecules(context.smiles)) for cache in stage_features(config, context)]
    if isinstance(config, ConformerStage):
        conformers = conformer_cache(context.cache, **config.conformer_settings)
        found.append((conformers, molecules(config.columns or context.smiles)))
    for encoder in text_encoders(config):
        template = read_template(encoder, context)
        texts = {text for rows in tables for text in template.texts(rows.inputs, SEPARATOR)}
        found.append((encoder_cache(encoder, context.cache), sorted(texts)))
    return found
