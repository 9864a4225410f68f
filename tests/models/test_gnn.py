"""Message passing: published weights, and how atoms become a molecule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chemprop.nn import BondMessagePassing

from competition.errors import ConfigError
from competition.tables import Rows
from competition.task import Task
from models.settings import GnnStage
from models.stage import Context
from models.stages.gnn import Gnn

ROWS = Rows(
    ["a", "b", "c"], pd.DataFrame({"s": ["CCO", "c1ccccc1", "CC(=O)[O-].[Na+]"]}), np.array([[1.0], [2.0], [4.0]])
)
SHAPE = {"d_v": 72, "d_e": 14, "d_h": 24, "depth": 4, "dropout": 0.3, "activation": "relu", "d_vd": None}


def stage(**changes: Any) -> Gnn:
    config = GnnStage.model_validate({"kind": "gnn", "hidden_width": 8, "epochs": 1, "batch_size": 2, **changes})
    return Gnn(config, Context(["s"], [], [], [], Task(["y"]), 1, Path("unused")))


def published(folder: Path, **changes: Any) -> Path:
    """A file as CheMeleon is published: the shape's settings and the weights."""
    torch.manual_seed(5)
    shape = {**SHAPE, **changes}
    state = BondMessagePassing(**shape).state_dict()
    torch.save({"hyper_parameters": {**shape, "cls": "x"}, "state_dict": state}, folder / "mp.pt")
    return folder / "mp.pt"


def test_published_weights_decide_the_shape_and_are_what_training_starts_from(tmp_path: Path) -> None:
    path = published(tmp_path)
    one = stage(weights=str(path), width=300)
    backbone = one.start(ROWS, tmp_path)
    known = torch.load(path, weights_only=True)["state_dict"]
    for name, tensor in backbone.message_passing.state_dict().items():
        assert torch.equal(tensor, known[name]), name
    assert backbone.message_passing.depth == 4
    assert backbone.message_passing.dropout.p == 0  # theirs is .3
    one.fit(ROWS, None, tmp_path)
    path.unlink()  # what prediction needs is in the job's folder
    assert np.isfinite(one.predict(ROWS, tmp_path)).all()


@pytest.mark.parametrize("wrong", ["no weights", "no shape", "other width", "a part is missing", "a list"])
def test_a_file_of_something_else_is_refused(wrong: str, tmp_path: Path) -> None:
    path = published(tmp_path)
    content: Any = torch.load(path, weights_only=True)
    match wrong:
        case "no shape":
            content["hyper_parameters"] = {}
        case "other width":
            content["hyper_parameters"]["d_h"] = 8
        case "a part is missing":
            content["state_dict"].popitem()
        case "a list":
            content = [content]
    torch.save(content, path)
    if wrong == "no weights":
        path.write_text(wrong)
    with pytest.raises(ConfigError, match="must hold hyper_parameters and the state_dict"):
        stage(weights=str(path)).start(ROWS, tmp_path)


def test_a_sum_beside_the_mean_counts_atoms_and_a_mean_alone_does_not(tmp_path: Path) -> None:
    rings = Rows(["a", "b"], pd.DataFrame({"s": ["C1CCCCC1", "C1CCCCCCCCCCC1"]}), None)  # all atoms alike
    differences = []
    for aggregation in (["mean"], ["mean", "norm"]):
        one = stage(aggregation=aggregation)
        backbone = one.start(ROWS, tmp_path).eval()
        six, twelve = backbone(**one.encode(rings, tmp_path, 0, 0).batch(np.arange(2), torch.device("cpu")))
        differences.append(float((six - twelve).detach().abs().max()))
    assert differences[0] < 1e-6 < 1e-4 < differences[1]
