"""The kinds of stages: for each, the class of its settings, and the module and class that implement it.

To add a kind, write a module `models/stages/KIND.py` with a subclass of `models.stage.Stage` (of
`models.stages.tabular.FeatureStage` for one model per target on features), and an entry of `STAGE_KINDS`.
`tests/models/test_new_kind.py` does this with a booster of scikit-learn.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from models.bert_config import BertConfig
from models.neural_config import GnnConfig, Unimol2Config, UnimolConfig
from models.stage import Stage
from models.stages.catboost import Catboost
from models.stages.custom import CustomConfig
from models.stages.file import File
from models.stages.gp import Gp
from models.stages.lightgbm import Lightgbm
from models.stages.sklearn import Sklearn


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
    "unimol": StageKind(UnimolConfig, "models.stages.unimol", "Unimol"),
    "unimol2": StageKind(Unimol2Config, "models.stages.unimol2", "Unimol2"),
    "gnn": StageKind(GnnConfig, "models.stages.gnn", "Gnn"),
    "bert": StageKind(BertConfig, "models.stages.bert", "Bert"),
    "lightgbm": StageKind(Lightgbm, "models.stages.lightgbm", "Lightgbm"),
    "catboost": StageKind(Catboost, "models.stages.catboost", "Catboost"),
    "sklearn": StageKind(Sklearn, "models.stages.sklearn", "Sklearn"),
    "gp": StageKind(Gp, "models.stages.gp", "Gp"),
    "file": StageKind(File, "models.stages.file", "File"),
    "custom": StageKind(CustomConfig, "models.stages.custom", "Custom"),
}
"""Value of the key `kind` in the YAML -> the kind of stage."""
