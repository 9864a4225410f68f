"""A kind of stage that a contributor adds: a class in a module and an entry of the registry."""

import importlib
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigError
from models.config import StagesConfig
from models.jobs.plan import code_files, library_versions
from models.registry import STAGE_KINDS, StageKind
from tests.models import made

CODE = """
from typing import Literal

import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor

from models.inputs import feature_blocks
from models.stages.tabular import FeatureStage, library_seed


class Histogram(FeatureStage):
    packages = ("scikit-learn",)
    kind: Literal["histogram"]

    def library_errors(self):
        return ValueError, TypeError

    def fit_features(self, train, folder, context):
        pass  # numbers need no fit

    def build_features(self, rows, folder, context):
        return feature_blocks.numeric_block(rows, context)

    def fit_target(self, data, target, path, context):
        booster = HistGradientBoostingRegressor(random_state=library_seed(context), **self.parameters)
        booster.fit(data.x, data.y, sample_weight=data.weights)
        skops.io.dump(booster, path.with_suffix(".skops"))
        return {}

    def predict_target(self, x, path, context):
        names = skops.io.get_untrusted_types(file=path.with_suffix(".skops"))
        return skops.io.load(path.with_suffix(".skops"), trusted=names).predict(x)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of the kind `histogram`, which is in the registry."""
    (tmp_path / "histogram.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("histogram")
    kind = StageKind(module.Histogram, "histogram", "Histogram")
    monkeypatch.setitem(STAGE_KINDS, "histogram", kind)
    yield module
    del sys.modules["histogram"]


def test_a_new_kind_of_stage_is_a_class_in_a_module_and_an_entry_of_the_registry(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"boosted": {"kind": "histogram", "parameters": {"max_iter": 20}}}
    with pytest.raises(ValueError, match="'histogram' found using 'kind' does not match"):
        StagesConfig.model_validate({"stages": stages})  # its module was imported before the entry was added
    monkeypatch.delitem(sys.modules, "models.config")
    config = importlib.import_module("models.config").StagesConfig(stages=stages).stages["boosted"]
    rng = np.random.default_rng(0)
    x = rng.uniform(size=300)
    y = np.where(rng.uniform(size=300) < 0.1, np.nan, 50 + 10 * x)  # a tenth has no label
    train, test = made.rows(y, x=x), made.rows(x=[0.25, 0.75])
    context = made.context(tmp_path, numeric=["x"])
    stage = made.fitted(config, context, train, tmp_path / "job")
    assert np.allclose(stage.predict(test, tmp_path / "job").ravel(), [52.5, 57.5], atol=0.5)
    config.parameters["max_iter"] = "many"
    with pytest.raises(ConfigError, match="histogram rejects .*max_iter"):
        made.fitted(config, context, train, tmp_path / "job")


def test_a_new_kind_of_stage_is_retrained_after_an_edit_and_with_another_version_of_its_library(
    module: Any,
) -> None:
    config = module.Histogram(kind="histogram")
    digests = code_files(config)
    assert library_versions(config)["scikit-learn"] == metadata.version("scikit-learn")
    path = STAGE_KINDS["histogram"].file
    path.write_text(CODE.replace("# numbers need no fit", "# a comment"))
    assert code_files(config) == digests
    path.write_text(
        CODE.replace("HistGradientBoostingRegressor(", "HistGradientBoostingRegressor(max_depth=3, ")
    )
    assert code_files(config) != digests
