"""The kinds of stages: for each, the class of its settings, and the module and class that implement it.

To add a kind, write a settings class (in `models/feature_config.py`), which
overrides what `models.stage.Stage` answers otherwise, a module `models/stages/KIND.py` with a class
that has `fit` and `predict`, and an entry of `STAGE_KINDS`.
`tests/models/test_new_kind.py` does this with a booster of scikit-learn.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from models.feature_config import CatboostConfig, GpConfig, LightgbmConfig, SklearnConfig
from models.stage import Stage
from models.stages.bert import Bert
from models.stages.custom import CustomConfig
from models.stages.file import FileConfig
from models.stages.gnn import Gnn
from models.stages.unimol import Unimol
from models.stages.unimol2 import Unimol2


@dataclass(frozen=True)
class StageKind:
    """A kind of stage.

    Attributes:
        config: class of its settings.
        module: module that implements it. It is imported when a stage is built, since most import a
            large library.
        class_name: class in `module`, which is called with the settings and a `Context`.
    """

    config: type[Stage]
    module: str
    class_name: str

    @property
    def file(self) -> Path:
        """File of the module, which is not imported."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None
        return Path(str(spec.origin))


STAGE_KINDS = {
    "unimol": StageKind(Unimol, "models.stages.unimol", "Unimol"),
    "unimol2": StageKind(Unimol2, "models.stages.unimol2", "Unimol2"),
    "gnn": StageKind(Gnn, "models.stages.gnn", "Gnn"),
    "bert": StageKind(Bert, "models.stages.bert", "Bert"),
    "lightgbm": StageKind(LightgbmConfig, "models.stages.lightgbm", "Lightgbm"),
    "catboost": StageKind(CatboostConfig, "models.stages.catboost", "Catboost"),
    "sklearn": StageKind(SklearnConfig, "models.stages.sklearn", "Sklearn"),
    "gp": StageKind(GpConfig, "models.stages.gp", "Gp"),
    "file": StageKind(FileConfig, "models.stages.file", "File"),
    "custom": StageKind(CustomConfig, "models.stages.custom", "Custom"),
}
"""Value of the key `kind` in the YAML -> the kind of stage."""
