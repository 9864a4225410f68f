"""A kind of stage that a contributor adds: a class in a module, and an entry of the registry."""

import importlib
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from models.jobs.plan import code_files, library_versions
from models.registry import KINDS, make_stage
from tests.models import made

CODE = """
from typing import Any, Literal

import numpy as np
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor

from models.stage import Stage


class Histogram(Stage):
    packages = ("scikit-learn",)
    kind: Literal["histogram"]
    parameters: dict[str, Any] = {}

    def fit(self, train, folder, context):
        has_label = ~np.isnan(train.y[:, 0])
        booster = HistGradientBoostingRegressor(random_state=context.seed % 2**31, **self.parameters)
        booster.fit(train.inputs[context.numeric][has_label], train.y[has_label, 0])
        skops.io.dump(booster, folder / "booster.skops")

    def predict(self, rows, folder, context):
        names = skops.io.get_untrusted_types(file=folder / "booster.skops")
        return skops.io.load(folder / "booster.skops", trusted=names).predict(rows.inputs[context.numeric])
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return the file of the kind `histogram`, which is in the registry."""
    path = tmp_path / "histogram.py"
    path.write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setitem(KINDS, "histogram", "histogram:Histogram")
    yield path
    del sys.modules["histogram"]


def test_a_new_kind_of_stage_is_a_class_and_an_entry_of_the_registry(file, tmp_path):
    stage = make_stage({"kind": "histogram", "parameters": {"max_iter": 20}})
    x = np.linspace(0, 1, 300)
    train = made.rows(np.where(np.arange(300) % 10 == 0, np.nan, 50 + 10 * x), x=x)  # a tenth has no label
    fitted = made.fitted(stage, made.context(tmp_path, numeric=["x"]), train, tmp_path / "job")
    y_pred = fitted.predict(made.rows(x=[0.25, 0.75]), tmp_path / "job")
    assert y_pred.ravel() == pytest.approx([52.5, 57.5], abs=0.5)


def test_a_new_kind_of_stage_is_retrained_after_an_edit_and_with_another_version_of_its_library(
    file,
):
    stage = make_stage({"kind": "histogram"})
    digests = code_files(stage, made.context(Path("unused")))
    assert library_versions(stage)["scikit-learn"] == metadata.version("scikit-learn")
    file.write_text(CODE.replace("class Histogram", "# a comment\nclass Histogram"))
    assert code_files(stage, made.context(Path("unused"))) == digests
    file.write_text(CODE.replace("Regressor(random", "Regressor(max_depth=3, random"))
    assert code_files(stage, made.context(Path("unused"))) != digests
