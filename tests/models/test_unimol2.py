"""The Uni-Mol2 stage against unimol_tools itself, and what both stages on conformers must do beside the
contract.
"""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdDistGeom
from unimol_tools.data.conformer import mol2unimolv2
from unimol_tools.models import unimolv2

from core.errors import ConfigError
from models.inputs.conformers import build_molecule, embed_conformers
from models.networks.unimol2 import UNKNOWN, Unimol2Backbone, featurise
from models.networks.unimol_common import collate
from models.stages.unimol import Unimol
from models.stages.unimol2 import Unimol2
from models.training.network import audit, rates, set_rates
from tests.models import made
from tests.models.made import build_stage
from tests.models.published import PackageModel2, compare, small_unimol2


def stage(**values: Any) -> Unimol2:
    return Unimol2.model_validate({"kind": "unimol2", **values})


def item(smiles: str) -> dict[str, np.ndarray]:
    molecule = build_molecule(smiles, "all", "keep")
    return featurise(molecule, embed_conformers(molecule))


def with_random_weights() -> Unimol2Backbone:
    torch.manual_seed(0)
    with small_unimol2(n_layers=3, pair_width=12):
        backbone = Unimol2Backbone("84m")
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.3)  # many start at 0
    return backbone


@pytest.mark.parametrize(
    "smiles", ["C", "CC(=O)[O-].[Na+]", "c1ccc2[nH]ccc2c1", "C[C@H](N)C(=O)O", "F/C=C/C#N"]
)
def test_features_are_those_of_the_package(smiles: str) -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=42)
    reference = mol2unimolv2(molecule)
    conformer = np.column_stack(
        [[atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions()]
    ).astype(np.float32)
    features = featurise(Chem.MolFromSmiles(smiles), conformer)
    names = {"tokens": "src_tokens", "atom_features": "atom_feat", "degree": "degree", "bond_features": "edge_feat",
             "shortest_path": "shortest_path", "coordinates": "src_coord"}  # fmt: skip
    for our_name, their_name in names.items():
        assert np.array_equal(features[our_name], reference[their_name]), our_name


def test_heavy_atoms_only_and_an_open_end_is_an_unknown_atom() -> None:
    assert item("*CO")["tokens"].tolist() == [UNKNOWN, 6, 8]
    assert item("[H][H]")["tokens"].tolist() == [1, 1]
    heavy = AllChem.MolFromSmiles("[2H]OC")
    assert featurise(heavy, embed_conformers(heavy))["tokens"].tolist() == [8, 6]


def test_outputs_are_those_of_the_package() -> None:
    our_backbone = with_random_weights()
    reference = PackageModel2(our_backbone)
    names = our_backbone.state_dict().keys()
    assert names == {
        name for name in reference.state_dict() if not name.startswith(Unimol2.ignored_checkpoint_prefixes)
    }
    smiles = ["CCOC(C)=O", "CC(=O)[O-].[Na+].O", "c1ccccc1"]
    compare(our_backbone, reference, collate([item(text) for text in smiles]))


@pytest.mark.parametrize("size", ["84m", "310m"])
def test_published_sizes_have_the_parameters_of_the_package(size: str) -> None:
    with torch.device("meta"), mock.patch.object(unimolv2.UniMolV2Model, "load_pretrained_weights"):
        state = Unimol2Backbone(size).state_dict()
        reference = unimolv2.UniMolV2Model(
            1, size.replace("b", "B"), pretrained_model_path="none"
        ).state_dict()
    reference = {
        name: tensor
        for name, tensor in reference.items()
        if not name.startswith(Unimol2.ignored_checkpoint_prefixes)
    }
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: t.shape for name, t in reference.items()
    }


def test_the_audit_reaches_every_rate() -> None:
    """Its own class of dropout; attention and pairs keep theirs as numbers."""
    backbone, batch = with_random_weights(), collate([item("CCO")])
    on = {path for path, rate in rates(backbone.encoder.layers[0]).items() if rate > 0}
    assert on == {"attention_dropout", "dropout_module.p", "pair_dropout", "self_attn.dropout"}
    with pytest.raises(ConfigError, match="pair_dropout = 0.25"):
        audit(backbone, batch)
    set_rates(backbone, 0.0)
    audit(backbone, batch)


SHORT = {"epochs": 2, "conformers": 2, "batch_size": 3, "learning_rate": 3e-3}
UNIMOL = Unimol(kind="unimol", layers=2, width=16, heads=2, **SHORT)


@pytest.mark.parametrize("config", [UNIMOL, stage(**SHORT)], ids=["unimol", "unimol2"])
@small_unimol2()
def test_with_two_columns_and_conformers_a_prediction_is_the_same_in_any_batch(
    config: Any, tmp_path: Path
) -> None:
    """And it is the mean over the conformers, which training takes in turn."""
    molecules = ["CCO", "CCCO", "CC(=O)O", "CCN", "C1CC1"]
    train = made.rows(np.arange(5.0), a=molecules, b=molecules[::-1])
    test = made.rows(a=["CCCO", "C", "CCO"], b=["O", "CCCl", "C1CC1"])
    built: Any = build_stage(config, made.context(tmp_path, smiles=["a", "b"]))
    (tmp_path / "job").mkdir()
    kind = type(config)
    with mock.patch.object(kind, "encode", autospec=True, side_effect=kind.encode) as encoded:
        built.fit(train, tmp_path / "job")
    assert {call.args[4] for call in encoded.call_args_list} == {0, 1}
    y_pred = built.predict(test, tmp_path / "job")
    alone = np.concatenate([built.predict(test.take(np.array([i])), tmp_path / "job") for i in range(3)])
    assert np.abs(alone - y_pred).max() < 1e-5 * np.std(train.y)
    assert np.ptp(y_pred) > 1e-4
    of_each = made.predictions_per_augmentation(built, 2, test, tmp_path / "job")
    assert np.allclose(np.mean(of_each, axis=0), y_pred, atol=1e-6)
    assert np.abs(of_each[0] - of_each[1]).max() > 1e-6
