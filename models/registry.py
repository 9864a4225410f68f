"""The kinds of stages: for each, the class of its settings, and the module and class that implement it.

To add a kind, write a settings class (in `models/feature_config.py` or `models/neural_config.py`), which
overrides what `models.base_config.StageConfig` answers otherwise, a module `models/stages/KIND.py` with a class
that has the two methods of `models.stage.StageModel`, and an entry of `STAGE_KINDS`.
`tests/models/test_new_kind.py` does this with a booster of scikit-learn.
"""

import importlib.util
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from competition.task import Task
from core.errors import ConfigError
from models.base_config import StageConfig
from models.bert_config import BertConfig
from models.feature_config import CatboostConfig, GpConfig, LightgbmConfig, SklearnConfig
from models.neural_config import GnnConfig, Unimol2Config, UnimolConfig
from models.stage import Context, StageModel
from models.stages.custom import CustomConfig
from models.stages.file import FileConfig


@dataclass(frozen=True)
class StageKind:
    """A kind of stage.

    Attributes:
        config: class of its settings.
        module: module that implements it. It is imported when a stage is built, since most import a
            large library.
        class_name: class in `module`, which is called with the settings and a `Context`.
    """

    config: type[StageConfig]
    module: str
    class_name: str

    @property
    def file(self) -> Path:
        """File of the module, which is not imported."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None
        return Path(str(spec.origin))


STAGE_KINDS = {
    "unimol": StageKind(UnimolConfig, "models.stages.unimol", "Unimol"),
    "unimol2": StageKind(Unimol2Config, "models.stages.unimol2", "Unimol2"),
    "gnn": StageKind(GnnConfig, "models.stages.gnn", "Gnn"),
    "bert": StageKind(BertConfig, "models.stages.bert", "Bert"),
    "lightgbm": StageKind(LightgbmConfig, "models.stages.lightgbm", "Lightgbm"),
    "catboost": StageKind(CatboostConfig, "models.stages.catboost", "Catboost"),
    "sklearn": StageKind(SklearnConfig, "models.stages.sklearn", "Sklearn"),
    "gp": StageKind(GpConfig, "models.stages.gp", "Gp"),
    "file": StageKind(FileConfig, "models.stages.file", "File"),
    "custom": StageKind(CustomConfig, "models.stages.custom", "Custom"),
}
"""Value of the key `kind` in the YAML -> the kind of stage."""


def build_stage(config: StageConfig, context: Context) -> StageModel:
    """Build a stage from its settings, with the wrappers that its targets need.

    Raises:
        ConfigError: the settings do not fit the task.
    """
    task = task_for_stage(config, context.task)
    stage_context = replace(context, task=task)
    kind = STAGE_KINDS[config.kind]
    stage_class = getattr(importlib.import_module(kind.module), kind.class_name)
    if config.target_transform == "none":
        stage: StageModel = stage_class(config, stage_context)
        return stage
    from models.stages import target_wrappers  # here, since it imports torch

    build = partial(stage_class, config)
    return target_wrappers.TargetTransformModel(build, stage_context, config.target_transform)


def task_for_stage(config: StageConfig, task: Task) -> Task:
    """Return the task that a stage learns, and check that its settings fit this task.

    An ordinal task becomes the regression of its levels. Only external predictions keep the ordinal task.

    Raises:
        ConfigError: lists all settings that do not fit.
    """
    stage_task = task
    if task.problem_type == "ordinal" and config.is_trained:
        stage_task = replace(task, problem_type="regression", classes=[], scores_labels=False)
    errors = list(config.config_errors(stage_task.problem_type))
    if errors:
        raise ConfigError("\n".join(errors))
    return stage_task
