"""The Uni-Mol stage against unimol_tools itself: parameters, outputs, token ids, checkpoints."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from core.errors import ConfigError
from core.files import PROJECT
from models.inputs import conformers
from models.networks import unimol
from models.networks.unimol import UnimolBackbone, encode, read_vocabulary
from models.networks.unimol_common import collate, load_checkpoint
from models.stage import read_notes
from models.stages.unimol import Unimol
from models.training.network import audit, rates, set_rates
from tests.models import made
from tests.models.published import PackageModel, compare

FILE_ORDER = read_vocabulary({})
METHANOL = np.array(
    [[6, 0, 0, 0], [8, 1.4, 0, 0], [1, -0.5, 1, 0], [1, -0.5, -1, 0], [1, -0.5, 0, 1], [1, 1.8, 0.9, 0]],
    dtype=np.float32,
)


def stage(**values: Any) -> Unimol:
    return Unimol.model_validate({"kind": "unimol", "layers": 2, "width": 32, "heads": 4, **values})


def small_backbone() -> UnimolBackbone:
    return UnimolBackbone(FILE_ORDER, "compact", layers=2, width=32, heads=4)


def batch() -> dict[str, torch.Tensor]:
    """Molecules of different lengths, not sorted by them."""
    return collate([encode(METHANOL[:n], FILE_ORDER, False) for n in (6, 2, 4)])


def both(architecture: str, folder: Path, **size: int) -> tuple[UnimolBackbone, PackageModel]:
    """Ours and the package's, in another size where so asked; their kernel's parameters are not ones and
    zeros.
    """
    torch.manual_seed(0)
    args = (unimol.oled_architecture if architecture == "oled" else unimol.molecule_architecture)()
    args.update(size)
    with mock.patch.multiple(unimol, oled_architecture=lambda: args, molecule_architecture=lambda: args):
        our_backbone = UnimolBackbone(FILE_ORDER, architecture)
    torch.nn.init.normal_(our_backbone.gbf.mul.weight, 1, 0.3)
    torch.nn.init.normal_(our_backbone.gbf.bias.weight, 0, 0.3)
    return our_backbone, PackageModel(our_backbone, architecture, args, folder)


def test_token_ids_are_those_of_the_dictionary_file_without_hydrogens_too_and_others_are_unknown() -> None:
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


@pytest.mark.parametrize("architecture", ["molecule", "oled"])
def test_the_backbone_has_the_parameters_of_the_model_of_the_package(
    architecture: str, tmp_path: Path
) -> None:
    our_backbone, reference = both(architecture, tmp_path)
    names = {name for name in reference.state_dict() if not name.startswith("classification_head.")}
    assert names == set(our_backbone.state_dict())


def test_a_stage_starts_from_a_checkpoint_without_its_heads_and_with_every_parameter(tmp_path: Path) -> None:
    our_backbone, stage_context = (
        small_backbone(),
        made.context(tmp_path / "cache", smiles=["s"]),
    )
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in our_backbone.state_dict().items()}

    def started(state: dict[str, torch.Tensor], name: str = "model.pt") -> Any:
        torch.save({"model": state}, tmp_path / name) if name[-2:] == "pt" else save_file(
            state, tmp_path / name
        )
        return made.build_stage(stage(weights=str(tmp_path / name)), stage_context).initial_backbone(
            made.rows(s=["CCO"]), tmp_path
        )

    for backbone in (
        started({**state, "lm_head.weight": torch.zeros(2)}),
        started(state, "mine.safetensors"),
    ):
        assert all((parameter == 0.5).all() for parameter in backbone.parameters())
    with pytest.raises(ConfigError, match='Unexpected key.*"encoder.layers.9.fc1.weight"'):
        started({**state, "encoder.layers.9.fc1.weight": torch.zeros(2)})
    del state["encoder.layers.1.fc1.weight"]
    with pytest.raises(ConfigError, match='Missing key.*"encoder.layers.1.fc1.weight"'):
        started(state)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt"])
def test_a_damaged_file_of_weights_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match=f"{name} does not have"):
        load_checkpoint(torch.nn.Linear(1, 1), {name: tmp_path / name}, ())


def test_the_small_weights_lie_in_the_project_and_are_worth_more_than_random_ones(tmp_path: Path) -> None:
    table = pd.read_csv(PROJECT / "competition/data/qm9_orbitals/train.csv").head(120)
    rows = made.rows(table["lumo_eV"], s=table["SMILES"])
    same = {
        "remove_hydrogens": True,
        "layers": 6,
        "width": 128,
        "heads": 8,
        "epochs": 2,
        "learning_rate": 5e-4,
    }
    train, held_out, error = rows.take(np.arange(80)), rows.take(np.arange(80, 120)), {}
    for weights in (None, "unimol_small"):
        stage_context, folder = made.context(tmp_path / "cache", smiles=["s"]), tmp_path / str(weights)
        our_backbone = made.fitted(stage(weights=weights, **same), stage_context, train, folder)
        error[weights] = np.abs(our_backbone.predict(held_out, folder) - held_out.y).mean()
    assert error["unimol_small"] < 0.7 * error[None]


def test_the_audit_finds_the_rates_that_are_no_modules() -> None:
    our_backbone = small_backbone()
    assert (
        sum(rate > 0 for rate in rates(our_backbone).values()) == 1 + 3 * 2
    )  # embedding; three in each of two layers
    with pytest.raises(ConfigError, match=r"encoder\.layers\.0\.self_attn\.dropout = 0\.1"):
        audit(our_backbone, batch())
    set_rates(our_backbone, 0.0)
    audit(our_backbone, batch())


@pytest.mark.parametrize(
    ("architecture", "chunk", "group"), [("molecule", 7, 1), ("oled", 7, 2), ("molecule", 2048, 4)]
)
def test_outputs_are_those_of_the_package(
    architecture: str, chunk: int, group: int, monkeypatch: Any, tmp_path: Path
) -> None:
    """With padding, with equal and unequal mirror images, in one chunk of pairs and in several, in groups of some
    rows, with both kernels.
    """
    monkeypatch.setattr(unimol, "CPU_CHUNK", chunk)
    monkeypatch.setattr(unimol, "CPU_GROUP", group)
    small = {
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 4,
    }
    compare(*both(architecture, tmp_path, **small), batch())


def test_flat_molecules_are_reported_in_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    rows = made.rows(s=["CCO", "CO", "CO"])
    made.build_stage(stage(), made.context(tmp_path / "cache", smiles=["s"])).initial_backbone(rows, tmp_path)
    assert read_notes(tmp_path)[0].startswith("2 of 2 training molecules have flat coordinates")
