"""Pre-training of Uni-Mol: what is noised, what the losses see, and which molecules take no part."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from models.settings import UnimolStage
from models.stages.unimol import UnimolBackbone, read_vocabulary
from studies.pretrain import __main__ as pretrain
from studies.pretrain import corpus
from studies.pretrain.network import NOT_CHOSEN, Guesses, Molecules, padded

SMILES = ["CCO", "c1ccccc1O", "CC(=O)NC", "CCCCN", "OCC(N)C", "CC#N", "c1ccncc1", "CCOC(C)=O"]
STAGE = UnimolStage(
    kind="unimol", layers=2, width=32, heads=4, remove_hydrogens=True, epochs=8, batch_size=4, learning_rate=3e-3
)


def test_atoms_of_noised_molecules_are_chosen_and_moved_and_the_others_are_as_they_were() -> None:
    tokens = np.tile([1, *[5] * 20, 2], 2000)
    molecules = Molecules(tokens, np.zeros((len(tokens), 3), dtype=np.float32), np.full(2000, 22))
    items = molecules.noised(0.5, 31, np.random.default_rng(0)).items
    is_noised = np.array([item["is_noised"][0] for item in items])
    chosen = np.array([item["symbols"] != NOT_CHOSEN for item in items])
    moved = np.array([np.abs(item["coordinates"]).max(axis=1) > 0 for item in items])
    masked = np.array([item["tokens"] == 30 for item in items])
    assert is_noised.mean() == pytest.approx(0.5, abs=0.04)
    assert chosen[is_noised][:, 1:-1].mean() == pytest.approx(0.15, abs=0.01)
    assert masked[chosen].mean() == pytest.approx(0.8, abs=0.02)
    assert not chosen[~is_noised].any() and not chosen[:, [0, -1]].any()
    np.testing.assert_array_equal(moved, chosen)
    assert not masked[~chosen].any()


def test_the_first_token_is_what_the_stage_pools_and_padding_changes_nothing() -> None:
    vocabulary = read_vocabulary({})
    torch.manual_seed(0)
    network = Guesses(UnimolBackbone(STAGE, vocabulary), len(vocabulary), 3).eval()
    rng = np.random.default_rng(0)
    tokens = [np.array([1, *rng.integers(4, 20, n), 2]) for n in (3, 9)]
    parts = np.concatenate(tokens), rng.normal(size=(16, 3)).astype(np.float32), np.array([5, 11])
    items = Molecules(*parts).noised(0.0, len(vocabulary), rng).items
    whole, alone = ({k: batch[k] for k in ("tokens", "coordinates")} for batch in (padded(items), padded(items[:1])))
    states, added = network(**whole)
    torch.testing.assert_close(states[:, 0], network.backbone(**whole), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[:1, :5], network(**alone)[0], rtol=1e-4, atol=1e-5)
    assert (added[0, 5:] == 0).all() and (added[0, :, 5:] == 0).all() and added.isfinite().all()


def test_molecules_of_competitions_take_no_part_and_the_weights_fit_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "one").mkdir(parents=True)
    pd.DataFrame({"id": [0, 1], "smiles": ["OCC", "[Na+].Oc1ccccc1"]}).to_csv(tmp_path / "data/one/train.csv")
    pd.DataFrame({"SMILES": SMILES}).to_csv(tmp_path / "molecules.csv")
    settings = pretrain.Settings(n_molecules=8, stage=STAGE)
    monkeypatch.setattr(pretrain, "validate", lambda *_: settings)
    call = ["", "unimol_small", "--molecules", "molecules.csv", "--evaluation", "data", "--work", "work"]
    monkeypatch.setattr(sys, "argv", call)
    monkeypatch.chdir(tmp_path)
    pretrain.main()
    UnimolBackbone(STAGE, read_vocabulary({})).load_state_dict(load_file("work/unimol_small.safetensors"))
    losses = pd.read_csv("work/unimol_small.csv")["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert "6 molecules (molecules.csv, sha256" in Path("work/unimol_small.md").read_text()
    assert corpus.skeleton("OCC") == corpus.skeleton("CC[18OH]") != corpus.skeleton("OCCC")
    assert corpus.skeleton("C(") == ""
