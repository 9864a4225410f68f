"""Pre-training of Uni-Mol: its labels, and which molecules take no part."""

import sys

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from models.networks.unimol import UnimolBackbone, read_vocabulary
from models.stages.unimol import Unimol
from studies import pretrain

SMILES = ["CCO", "c1ccccc1O", "CC(=O)NC", "CCCCN", "OCC(N)C", "CC#N", "c1ccncc1", "CCOC(C)=O"]
STAGE = Unimol(
    kind="unimol", layers=2, width=32, heads=4, remove_hydrogens=True, epochs=8, batch_size=4, learning_rate=3e-3,
)  # fmt: skip


def test_labels_of_orbitals_are_of_the_first_molecules_only_and_labels_are_standardised(
    tmp_path,
):
    labels = pretrain.computed_labels(SMILES[:3], STAGE.cache(tmp_path), n_orbitals=2)
    orbitals = labels[:, -pretrain.N_ORBITALS * pretrain.TIMES :]
    assert np.isfinite(orbitals[:2]).all() and np.isnan(orbitals[2]).all()
    scaled = pretrain.standardised(np.array([[0.0, 1.0, 5.0], [1.0, 1.0, np.nan], [2.0, 1.0, 7.0]]))
    np.testing.assert_allclose(scaled, [[-(1.5**0.5), -1], [0, np.nan], [1.5**0.5, 1]])


def test_molecules_of_competitions_take_no_part_and_the_weights_fit_the_stage(tmp_path, monkeypatch, capsys):
    (tmp_path / "data" / "one").mkdir(parents=True)
    pd.DataFrame({"id": [0, 1], "smiles": ["OCC", "[Na+].Oc1ccccc1"]}).to_csv(tmp_path / "data/one/train.csv")
    pd.DataFrame({"SMILES": [*SMILES, "CCCO", "CCCCO", "CCN", "CCCN"]}).to_csv(tmp_path / "molecules.csv")
    settings = pretrain.Pretraining(STAGE, n_qm9=0, n_molecules=12, n_orbitals=5)
    monkeypatch.setitem(pretrain.PRETRAININGS, "unimol_small", settings)
    call = ["", "unimol_small", "--molecules", "molecules.csv", "--evaluation", "data", "--work", "work"]
    monkeypatch.setattr(sys, "argv", call)
    monkeypatch.chdir(tmp_path)
    pretrain.main()
    backbone = UnimolBackbone(read_vocabulary({}), STAGE.architecture, STAGE.layers, STAGE.width, STAGE.heads)
    backbone.load_state_dict(load_file("work/unimol_small.safetensors"))
    epochs = pd.read_csv("work/unimol_small.csv")
    assert list(epochs["epoch"]) == list(range(1, 9))
    assert epochs["loss"].iloc[-1] < epochs["loss"].iloc[0]
    message = "10 molecules, none of them among the 4 of the evaluation sets"
    assert message in capsys.readouterr().out
    assert pretrain.skeleton("OCC") == pretrain.skeleton("CC[18OH]") != pretrain.skeleton("OCCC")
    assert pretrain.skeleton("C(") == ""
