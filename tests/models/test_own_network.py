"""A user's network in the training loop: the example of docs/own_network.md."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from competition.task import Task
from core.errors import ConfigError
from core.files import PROJECT
from models.registry import make_stage
from tests.models import made

PAGE = (PROJECT / "docs" / "own_network.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SMILES = ["CCO", "CCN", "CCCC", "CCCCl", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "CC#N"]


def rows(n=32):
    """Rows whose target is the number of carbons, in units far from 1, and a number of the table."""
    rng = np.random.default_rng(0)
    smiles, x = rng.choice(SMILES, n), rng.normal(size=n)
    return made.rows([1000 + 50 * text.lower().count("c") for text in smiles] + x, s=smiles, x=x)


def fit(folder, train, code=EXAMPLE, epochs=4, **changes):
    """Return a fitted stage of the class `Mine` of a user's file."""
    (folder / "mine.py").write_text(code)
    stage = make_stage({"kind": f"{folder}/mine.py:Mine", "width": 16, "epochs": epochs, "batch_size": 8})
    context = made.context(folder / "cache", smiles=["s"], numeric=["x"], **changes)
    return made.fitted(stage, context, train, folder / "job")


def test_it_learns_and_predicts_the_same_one_by_one(tmp_path):
    train = rows()
    fitted = fit(tmp_path, train, epochs=40)
    y_pred = fitted.predict(train, tmp_path / "job")
    assert np.corrcoef(y_pred[:, 0], train.y[:, 0])[0, 1] > 0.9
    alone = [fitted.predict(train.take(np.array([i])), tmp_path / "job") for i in range(4)]
    assert np.abs(np.concatenate(alone) - y_pred[:4]).max() < 1e-5 * np.std(train.y)


def test_it_learns_classes(tmp_path):
    task = Task(["y"], problem_type="multiclass", classes=["a", "b", "c"])
    train = replace(rows(), y=np.arange(32.0)[:, None] % 3)
    y_pred = fit(tmp_path, train, task=task).predict(train, tmp_path / "job")
    np.testing.assert_allclose(y_pred.sum(axis=1), np.ones(32))
    assert y_pred.shape == (32, 3) and (y_pred > 0).all()


def test_dropout_modules_are_off(tmp_path):
    code = EXAMPLE.replace("padding=2)\n", "padding=2)\n        self.dropout = nn.Dropout(0.5)\n")
    fit(tmp_path, rows(), code.replace(".relu()", ".relu()\n        hidden = self.dropout(hidden)"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".relu()", ".relu()\n        hidden = torch.dropout(hidden, 0.5, self.training)", "a module drops"),
        ("    def encode", "    def decode", "has no method encode; add it"),
        ("        self.width = width", "        #", "width"),
    ],
)
def test_a_dropout_without_a_rate_a_missing_method_and_a_missing_width_are_named(old, new, message, tmp_path):
    with pytest.raises((ConfigError, ValueError), match=message):
        fit(tmp_path, rows(), EXAMPLE.replace(old, new))


def test_a_stage_without_a_network_does_not_import_torch():
    code = "import sys, models.api; assert 'torch' not in sys.modules; from models.api import Batches"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
