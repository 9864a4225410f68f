"""Message passing: published weights, atom features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from chemprop.nn import BondMessagePassing
from pydantic import ValidationError
from rdkit import Chem

from competition.errors import ConfigError
from competition.tables import Rows
from competition.task import Task
from models.config import GnnStage
from models.stage import Context
from models.stages.gnn import Gnn, atom_features

ROWS = Rows(
    ["a", "b", "c"], pd.DataFrame({"s": ["CCO", "c1ccccc1", "CC(=O)[O-].[Na+]"]}), np.array([[1.0], [2.0], [4.0]])
)


def stage(**changes: Any) -> Gnn:
    config = GnnStage.model_validate({"kind": "gnn", "hidden_width": 8, "epochs": 1, "batch_size": 2, **changes})
    return Gnn(config, Context(["s"], [], [], [], Task(["y"]), 1, Path("unused")))


def published(folder: Path, **changes: Any) -> Path:
    """A file as CheMeleon is published: the shape's settings and the weights."""
    torch.manual_seed(5)
    shape = {"d_v": 72, "d_e": 14, "d_h": 24, "depth": 4, "dropout": 0.3, "activation": "relu", "d_vd": None}
    part = BondMessagePassing(**shape)
    torch.save(
        {"hyper_parameters": {**shape, "cls": "x"}, "state_dict": part.state_dict(), **changes}, folder / "mp.pt"
    )
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
    path.unlink()  # what prediction needs is in the job's folder
    assert one.restore(tmp_path).message_passing.W_i.out_features == 24


def test_a_stage_with_published_weights_trains_and_predicts(tmp_path: Path) -> None:
    one = stage(weights=str(published(tmp_path)))
    one.fit(ROWS, None, tmp_path)
    assert np.isfinite(one.predict(ROWS, tmp_path)).all()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = published(tmp_path)
    content = torch.load(path, weights_only=True)
    shape, state = content["hyper_parameters"], content["state_dict"]
    lacking = {name: tensor for name, tensor in state.items() if not name.startswith("W_o")}
    for wrong in (
        {**content, "hyper_parameters": {}},
        {**content, "hyper_parameters": {**shape, "d_h": 8}},
        {**content, "state_dict": lacking},
        [content],
    ):
        torch.save(wrong, path)
        with pytest.raises(ConfigError, match="must hold hyper_parameters and the state_dict"):
            stage(weights=str(path)).start(ROWS, tmp_path)
    path.write_text("no weights")
    with pytest.raises(ConfigError, match="must hold hyper_parameters and the state_dict"):
        stage(weights=str(path)).start(ROWS, tmp_path)
    other = {**{name: value for name, value in shape.items() if name != "cls"}, "d_v": 133}
    torch.save({"hyper_parameters": other, "state_dict": BondMessagePassing(**other).state_dict()}, path)
    with pytest.raises(ConfigError, match="must read 72 numbers of an atom and 14 of a bond.*reads 133 and 14"):
        stage(weights=str(path)).start(ROWS, tmp_path)


def test_atom_features_are_those_of_each_atom_and_finite() -> None:
    molecule = Chem.MolFromSmiles("CC(=O)[O-].[Na+]")
    found = atom_features(molecule, ["gasteiger", "crippen", "tpsa", "labute", "estate"])
    assert found.shape == (5, 6)
    assert np.isfinite(found).all()
    assert found[3, 0] < found[1, 0]  # the charged oxygen is more negative than the carbon
    from rdkit.Chem import Crippen, rdMolDescriptors

    ethanol = Chem.MolFromSmiles("CCO")
    shares = atom_features(ethanol, ["crippen", "tpsa"])
    assert shares[:, 2].tolist() == pytest.approx([0, 0, rdMolDescriptors.CalcTPSA(ethanol) / 20])
    hydrogens = Chem.AddHs(ethanol)
    assert atom_features(hydrogens, ["crippen"])[:, 0].sum() == pytest.approx(Crippen.MolLogP(ethanol), abs=1e-4)


def test_atom_features_reach_the_network(tmp_path: Path) -> None:
    one = stage(atom_features=["gasteiger", "crippen"])
    one.fit(ROWS, None, tmp_path)
    assert one.restore(tmp_path).message_passing.W_i.in_features == 72 + 3 + 14
    assert one.predict(ROWS, tmp_path).shape == (3, 1)


def test_published_weights_and_atom_features_do_not_go_together() -> None:
    with pytest.raises(ValidationError, match="chemprop's own atom features"):
        stage(weights="chemeleon", atom_features=["tpsa"])


def test_a_sum_beside_the_mean_counts_atoms_and_a_mean_alone_does_not(tmp_path: Path) -> None:
    rings = Rows(["a", "b"], pd.DataFrame({"s": ["C1CCCCC1", "C1CCCCCCCCCCC1"]}), None)  # all atoms alike
    differences = {}
    for aggregation in (["mean"], ["mean", "norm"]):
        one = stage(aggregation=aggregation)
        backbone = one.start(ROWS, tmp_path).eval()
        six, twelve = backbone(**one.encode(rings, tmp_path, 0, 0).batch(np.arange(2), torch.device("cpu")))
        differences[len(aggregation)] = float((six - twelve).detach().abs().max())
    assert differences[1] < 1e-6 < 1e-4 < differences[2]
