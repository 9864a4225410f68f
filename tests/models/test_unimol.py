"""The stages on conformers against unimol_tools itself: parameters, outputs, features, token ids, checkpoints."""

from unittest import mock

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from safetensors.torch import save_file
from unimol_tools.data.conformer import mol2unimolv2

from core.errors import ConfigError
from models.inputs import conformers
from models.inputs.conformers import build_molecule, embed_conformers
from models.job_folder import read_notes
from models.networks import unimol
from models.networks.unimol import UnimolBackbone, encode, read_vocabulary
from models.networks.unimol2 import UNKNOWN, Unimol2Backbone, featurise
from models.networks.unimol_common import collate, load_checkpoint
from models.stages.unimol import Unimol
from models.stages.unimol2 import Unimol2
from models.training.network import audit, rates, set_rates
from tests.models import made
from tests.models.published import PackageModel, PackageModel2, compare, small_unimol2

FILE_ORDER = read_vocabulary({})
METHANOL = np.array(
    [[6, 0, 0, 0], [8, 1.4, 0, 0], [1, -0.5, 1, 0], [1, -0.5, -1, 0], [1, -0.5, 0, 1], [1, 1.8, 0.9, 0]],
    dtype=np.float32,
)
SHORT = {"epochs": 2, "conformers": 2, "batch_size": 3, "learning_rate": 3e-3}
UNIMOL = Unimol(kind="unimol", layers=2, width=16, heads=2, **SHORT)
ITEMS = [encode(METHANOL[:n], FILE_ORDER, False) for n in (6, 2, 4)]
"""Molecules of different lengths, not sorted by them."""


def small_backbone():
    return UnimolBackbone(FILE_ORDER, "compact", layers=2, width=32, heads=4)


def item(smiles):
    """Return the input of Uni-Mol2 for a molecule."""
    molecule = build_molecule(smiles, "all")
    return featurise(molecule, embed_conformers(molecule))


def with_random_weights():
    torch.manual_seed(0)
    with small_unimol2(n_layers=3, pair_width=12):
        backbone = Unimol2Backbone("84m")
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.3)  # many start at 0
    return backbone


def test_token_ids_are_those_of_the_dictionary_file_without_hydrogens_too_and_others_are_unknown():
    """Hand-computed from mol.dict.txt: [PAD] [CLS] [SEP] [UNK] C N O S H ... Li, then [MASK]."""
    assert FILE_ORDER[:9] == ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "C", "N", "O", "S", "H"]
    assert (len(FILE_ORDER), FILE_ORDER[-1]) == (31, "[MASK]")
    item = encode(METHANOL, FILE_ORDER, remove_hydrogens=False)
    assert item["tokens"].tolist() == [1, 4, 6, 8, 8, 8, 8, 2]
    assert np.allclose(item["coordinates"][1:-1].mean(axis=0), 0, atol=1e-6)
    assert (item["coordinates"][[0, -1]] == 0).all()
    odd = np.array([[0, 0, 0, 0], [78, 2, 0, 0]], dtype=np.float32)
    for atoms, expected in ((METHANOL, [1, 4, 6, 2]), (odd, [1, 3, 3, 2]), (METHANOL[2:4], [1, 8, 8, 2])):
        assert encode(atoms, FILE_ORDER, remove_hydrogens=True)["tokens"].tolist() == expected


def test_unimol2_reads_heavy_atoms_only_and_an_open_end_is_an_unknown_atom():
    assert item("*CO")["tokens"].tolist() == [UNKNOWN, 6, 8]
    assert item("[H][H]")["tokens"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "smiles", ["C", "CC(=O)[O-].[Na+]", "c1ccc2[nH]ccc2c1", "C[C@H](N)C(=O)O", "F/C=C/C#N"]
)
def test_features_of_unimol2_are_those_of_the_package(smiles):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(molecule, randomSeed=42)
    reference = mol2unimolv2(molecule)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    conformer = np.c_[numbers, molecule.GetConformer().GetPositions()].astype(np.float32)
    features = featurise(Chem.MolFromSmiles(smiles), conformer)
    names = {"tokens": "src_tokens", "atom_features": "atom_feat", "degree": "degree", "bond_features": "edge_feat",
             "shortest_path": "shortest_path", "coordinates": "src_coord"}  # fmt: skip
    for our_name, their_name in names.items():
        assert np.array_equal(features[our_name], reference[their_name]), our_name


@pytest.mark.parametrize(
    ("architecture", "chunk", "group"), [("molecule", 7, 1), ("oled", 7, 2), ("molecule", 2048, 4)]
)
def test_parameters_and_outputs_of_unimol_are_those_of_the_package(
    architecture, chunk, group, monkeypatch, tmp_path
):
    """With padding, with equal and unequal mirror images, in one chunk of pairs and in several, in groups of some
    rows, with both kernels, whose parameters are not ones and zeros.
    """
    args = getattr(unimol, f"{architecture}_architecture")()
    args.encoder_layers = 3
    args.encoder_embed_dim, args.encoder_ffn_embed_dim, args.encoder_attention_heads = 32, 64, 4
    monkeypatch.setattr(unimol, f"{architecture}_architecture", lambda: args)
    monkeypatch.setattr(unimol, "CPU_CHUNK", chunk)
    monkeypatch.setattr(unimol, "CPU_GROUP", group)
    torch.manual_seed(0)
    backbone = UnimolBackbone(FILE_ORDER, architecture)
    torch.nn.init.normal_(backbone.gbf.mul.weight, 1, 0.3)
    torch.nn.init.normal_(backbone.gbf.bias.weight, 0, 0.3)
    reference = PackageModel(backbone, architecture, args, tmp_path)
    names = {name for name in reference.state_dict() if not name.startswith("classification_head.")}
    assert names == set(backbone.state_dict())
    compare(backbone, unimol.collate(ITEMS), reference, [collate(ITEMS)])


def test_parameters_and_outputs_of_unimol2_are_those_of_the_package_for_each_molecule_alone():
    backbone = with_random_weights()
    reference, ignored = PackageModel2(backbone), Unimol2.ignored_checkpoint_prefixes
    names = {name for name in reference.state_dict() if not name.startswith(ignored)}
    assert names == set(backbone.state_dict())
    items = [item(smiles) for smiles in ("CCOC(C)=O", "C", "CC(=O)[O-].[Na+].O", "c1ccc2ccccc2c1")]
    compare(backbone, collate(items), reference, [collate([each]) for each in items])


@pytest.mark.parametrize("name", ["model.pt", "mine.safetensors"])
def test_a_checkpoint_is_loaded_without_its_heads_and_with_every_parameter(name, tmp_path):
    backbone, file, layer = small_backbone(), tmp_path / name, "encoder.layers.1.fc1.weight"
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in backbone.state_dict().items()}
    state["lm_head.weight"] = torch.zeros(2)

    def load():
        torch.save({"model": state}, file) if file.suffix == ".pt" else save_file(state, file)
        load_checkpoint(backbone, {name: file}, Unimol.ignored_checkpoint_prefixes)

    load()
    assert all((parameter == 0.5).all() for parameter in backbone.parameters())
    state["foreign"] = state.pop(layer)
    with pytest.raises(ConfigError, match=rf"(?s){name} does not have.*{layer}.*foreign"):
        load()


@pytest.mark.parametrize(
    ("make", "batch", "on"),
    [
        (small_backbone, unimol.collate(ITEMS), {"dropout", "self_attn.dropout", "attention_dropout"}),
        (
            with_random_weights,
            collate([item("CCO")]),
            {"attention_dropout", "dropout_module.p", "pair_dropout", "self_attn.dropout"},
        ),
    ],
)
def test_the_audit_finds_the_rates_that_are_no_modules(make, batch, on):
    backbone = make()
    assert {path for path, rate in rates(backbone.encoder.layers[0]).items() if rate > 0} == on
    with pytest.raises(ConfigError, match=r"encoder\.layers\.0\.self_attn\.dropout = 0\.1"):
        audit(backbone, batch)
    set_rates(backbone.eval(), 0.0)
    audit(backbone, batch)
    assert not backbone.training  # the mode it came in
    set_rates(backbone, 0.3)  # a rate of 0 may have been set by the authors
    assert set(rates(backbone).values()) == {0.0}


def test_flat_molecules_are_reported_in_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    stage = made.build_stage(UNIMOL, made.context(tmp_path / "cache", smiles=["s"]))
    stage.initial_backbone(made.rows(s=["CCO", "CO", "CO"]), tmp_path)
    assert read_notes(tmp_path)[0].startswith("2 of 2 training molecules have flat coordinates")


def test_elements_that_the_vocabulary_lacks_are_reported_in_a_note(tmp_path):
    stage = made.build_stage(UNIMOL, made.context(tmp_path / "cache", smiles=["s"]))
    stage.initial_backbone(made.rows(s=["CCO", "*CC[Ir]", "C[Pt]", "[Pt]"]), tmp_path)
    (note,) = read_notes(tmp_path)
    assert note.startswith("3 of 4 training molecules have elements") and note.endswith("lacks them: Ir, Pt")


def test_published_weights_need_their_settings_also_by_the_name_of_their_file():
    with pytest.raises(ValueError, match="need remove_hydrogens: true"):
        Unimol(kind="unimol", architecture="molecule", weights="/mounted/mol_pre_no_h_220816.pt")


def test_a_folder_of_two_checkpoints_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a folder with one; got a.pt, b.pt"):
        load_checkpoint(small_backbone(), {name: tmp_path / name for name in ("a.pt", "b.pt")}, ())


@pytest.mark.parametrize("config", [UNIMOL, Unimol2(kind="unimol2", **SHORT)], ids=["unimol", "unimol2"])
@small_unimol2()
def test_with_two_columns_a_prediction_is_the_mean_over_conformers_in_any_batch(config, tmp_path):
    """Training takes the conformers in turn."""
    molecules, kind = ["CCO", "CCCO", "CC(=O)O", "CCN", "C1CC1"], type(config)
    train = made.rows(np.arange(5.0), a=molecules, b=molecules[::-1])
    test = made.rows(a=["CCCO", "C", "CCO"], b=["O", "CCCl", "C1CC1"])
    with mock.patch.object(kind, "encode", autospec=True, side_effect=kind.encode) as encoded:
        built = made.fitted(config, made.context(tmp_path, smiles=["a", "b"]), train, tmp_path / "job")
    assert {call.args[4] for call in encoded.call_args_list} == {0, 1}
    one, other = made.predictions_per_augmentation(built, 2, test, tmp_path / "job")
    assert np.abs(one - other).max() > 1e-6
    for i in range(3):
        alone = built.predict(test.take(np.array([i])), tmp_path / "job")
        assert alone == pytest.approx((one[[i]] + other[[i]]) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("stage", "settings", "rate"),
    [
        (Unimol, {}, 1e-3),
        (Unimol, {"weights": "unimol_small", "remove_hydrogens": True}, 5e-4),
        (Unimol, {"weights": "unimol_all_h", "architecture": "molecule"}, 1e-4),
        (Unimol2, {"weights": "unimol2_84m"}, 1e-4),
        (Unimol2, {"weights": "unimol2_84m", "learning_rate": 3e-4}, 3e-4),
    ],
)
def test_the_learning_rate_is_that_of_the_weights(stage, settings, rate):
    kind = stage.__name__.lower()
    assert stage.model_validate({"kind": kind, **settings}).learning_rate == rate
