"""A user's network in the training loop: the example of docs/own_network.md."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError
from core.files import PROJECT, sha256_of
from core.user_code import load_user_code
from models.context import Context
from models.training.checkpoint import Checkpoint
from tests.models import made

PAGE = (PROJECT / "docs" / "own_network.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SMILES = ["CCO", "CCN", "CCCC", "CCCCl", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "CC#N"]


def stage(folder: Path, code: str = EXAMPLE, **changes: Any) -> Any:
    """Return a stage of the class `Mine` of a user's file."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(code)
    kind = f"{folder / 'mine.py'}:Mine"
    settings = {"kind": kind, "width": 16, "epochs": 4, "batch_size": 8, **changes}
    return load_user_code("kind", kind, "a stage").model_validate(settings)


def rows(n: int = 32) -> Dataset:
    """Rows whose target is the number of carbons, in units far from 1, and a number of the table."""
    rng = np.random.default_rng(0)
    smiles, x = rng.choice(SMILES, n), rng.normal(size=n)
    return made.rows([1000 + 50 * text.lower().count("c") for text in smiles] + x, s=smiles, x=x)


def context(folder: Path, **changes: Any) -> Context:
    return made.context(folder / "cache", **{"smiles": ["s"], "numeric": ["x"], **changes})


def test_it_learns_and_predicts_the_same_for_the_same_seed_and_one_by_one(tmp_path: Path) -> None:
    one = stage(tmp_path, epochs=40)
    predictions = []
    for name in ("first", "second"):
        fitted = made.fitted(one, context(tmp_path), rows(), tmp_path / name)
        predictions.append(fitted.predict(rows(), tmp_path / name))
    y_pred = predictions[0]
    assert np.array_equal(y_pred, predictions[1])
    assert np.corrcoef(y_pred[:, 0], rows().y[:, 0])[0, 1] > 0.9
    alone = [fitted.predict(rows().take(np.array([i])), tmp_path / "second") for i in range(4)]
    assert np.abs(np.concatenate(alone) - y_pred[:4]).max() < 1e-5 * np.std(rows().y)


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
def test_it_learns_classes(problem: Any, tmp_path: Path) -> None:
    classes = ["a", "b"] if problem == "binary" else ["a", "b", "c"]
    task = Task(["y"], problem_type=problem, classes=classes)
    train = replace(rows(), y=np.arange(32.0)[:, None] % len(classes))
    fitted = made.fitted(stage(tmp_path), context(tmp_path, task=task), train, tmp_path / "job")
    y_pred = fitted.predict(train, tmp_path / "job")
    assert y_pred.shape == (32, len(task.outputs))
    assert ((y_pred > 0) & (y_pred < 1)).all()


def test_transformed_targets_are_predicted_in_their_units(tmp_path: Path) -> None:
    one = stage(tmp_path, target_transform="standard")
    y_pred = made.fitted(one, context(tmp_path), rows(), tmp_path / "job").predict(rows(), tmp_path / "job")
    assert y_pred.min() > 900


def test_a_job_that_was_killed_inside_an_epoch_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    one = stage(tmp_path, pooler_dropout=0.3)
    made.fitted(one, context(tmp_path), rows(), tmp_path / "whole")

    def kill_in_step_6(done: int, total: int) -> None:
        if done == 6:  # the second of the four steps of the second epoch
            raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        made.fitted(one, context(tmp_path, progress=kill_in_step_6), rows(), killed)
    steps: list[int] = []
    made.fitted(one, context(tmp_path, progress=lambda done, total: steps.append(done)), rows(), killed)
    assert steps == list(range(6, 17))
    for name in ("weights.safetensors", "training.json"):
        assert sha256_of(killed / name) == sha256_of(tmp_path / "whole" / name), name


def test_dropout_modules_are_off_and_a_dropout_without_a_rate_is_found(tmp_path: Path) -> None:
    module = EXAMPLE.replace("padding=2)\n", "padding=2)\n        self.dropout = nn.Dropout(0.5)\n")
    module = module.replace(".relu()", ".relu()\n        hidden = self.dropout(hidden)")
    made.fitted(stage(tmp_path / "module", module), context(tmp_path), rows(), tmp_path / "module" / "job")
    hidden = EXAMPLE.replace(".relu()", ".relu()\n        hidden = torch.dropout(hidden, 0.5, self.training)")
    with pytest.raises(ConfigError, match="all rates are 0, so a module drops"):
        made.fitted(stage(tmp_path / "hidden", hidden), context(tmp_path), rows(), tmp_path / "job")


def test_a_missing_method_and_a_network_without_a_width_are_named(tmp_path: Path) -> None:
    without_encode = EXAMPLE.partition("    def encode")[0]
    with pytest.raises(ConfigError, match="needs encode"):
        made.fitted(stage(tmp_path / "a", without_encode), context(tmp_path), rows(), tmp_path / "job")
    without_width = EXAMPLE.replace("        self.width = width", "        #")
    with pytest.raises(ConfigError, match="width"):
        made.fitted(stage(tmp_path / "b", without_width), context(tmp_path), rows(), tmp_path / "job")


def test_a_stage_without_a_network_does_not_import_torch() -> None:
    code = "import sys, models.api; assert 'torch' not in sys.modules; from models.api import Batches"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
