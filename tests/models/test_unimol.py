"""The Uni-Mol stage against unimol_tools itself: parameters, outputs, token ids, checkpoints."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from competition.errors import ConfigError
from competition.files import read_json
from competition.tables import Rows
from competition.task import Task
from models.config import UnimolStage
from models.inputs import conformers
from models.notes import read_notes
from models.stage import Context
from models.stages import pairs
from models.stages.unimol import (
    FOREIGN_KEYS,
    Unimol,
    UnimolBackbone,
    collate,
    encode,
    molecule_architecture,
    oled_architecture,
    read_vocabulary,
)
from models.stages.unimol_shared import load_checkpoint
from models.training.dropout import audit, rates, set_rates
from tests.models.published import PackageModel

FILE_ORDER = read_vocabulary({}, "file")
METHANOL = np.array(
    [[6, 0, 0, 0], [8, 1.4, 0, 0], [1, -0.5, 1, 0], [1, -0.5, -1, 0], [1, -0.5, 0, 1], [1, 1.8, 0.9, 0]],
    dtype=np.float32,
)


def stage(**values: Any) -> UnimolStage:
    return UnimolStage.model_validate({"kind": "unimol", "layers": 2, "width": 32, "heads": 4, **values})


def batch(padding: int = 0) -> dict[str, torch.Tensor]:
    return collate([encode(METHANOL, FILE_ORDER, False), encode(METHANOL[:2], FILE_ORDER, False)], padding)


def backbone(kernel: str) -> UnimolBackbone:
    """A small one with a kernel whose parameters are not the initial ones and zeros."""
    architecture = "molecule" if kernel == "gaussian" else "oled"
    with mock.patch(f"models.stages.unimol.{architecture}_architecture", lambda: small(kernel)):
        ours = UnimolBackbone(stage(architecture=architecture), FILE_ORDER)
    torch.nn.init.normal_(ours.gbf.mul.weight, 1, 0.3)
    torch.nn.init.normal_(ours.gbf.bias.weight, 0, 0.3)
    return ours


def small(kernel: str) -> Any:
    args = oled_architecture() if kernel == "linear" else molecule_architecture()
    args.encoder_layers, args.encoder_embed_dim, args.encoder_ffn_embed_dim, args.encoder_attention_heads = 3, 32, 64, 4
    return args


def test_token_ids_are_those_of_the_dictionary_file() -> None:
    """Hand-computed from mol.dict.txt: [PAD] [CLS] [SEP] [UNK] C N O S H ... Li, then [MASK]."""
    assert FILE_ORDER[:9] == ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "C", "N", "O", "S", "H"]
    assert len(FILE_ORDER) == 31
    assert FILE_ORDER[-1] == "[MASK]"
    tokens, coordinates = encode(METHANOL, FILE_ORDER, remove_hydrogens=False)
    assert tokens.tolist() == [1, 4, 6, 8, 8, 8, 8, 2]
    assert np.allclose(coordinates[1:-1].mean(axis=0), 0, atol=1e-6)
    assert (coordinates[[0, -1]] == 0).all()


def test_checkpoints_of_unimol_tools_itself_have_their_own_order() -> None:
    own = read_vocabulary({}, "unimol_tools")
    assert own[:4] == ["[CLS]", "[UNK]", "[PAD]", "[SEP]"]
    assert own[4:] == FILE_ORDER[4:]


def test_hydrogens_are_left_out_and_unknown_or_open_atoms_are_unk() -> None:
    assert encode(METHANOL, FILE_ORDER, remove_hydrogens=True)[0].tolist() == [1, 4, 6, 2]
    odd = np.array([[0, 0, 0, 0], [78, 2, 0, 0]], dtype=np.float32)
    assert encode(odd, FILE_ORDER, False)[0].tolist() == [1, 3, 3, 2]


@pytest.mark.parametrize("architecture", ["molecule", "oled"])
def test_the_backbone_is_the_model_of_the_package(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same parameters by name and shape, and with the same weights the same output, ids remapped.

    The package's constructor loads a checkpoint, so one with random weights is made first.
    """
    from unimol_tools.models.unimol import UniMolModel

    torch.manual_seed(0)
    ours = UnimolBackbone(stage(architecture=architecture), FILE_ORDER).eval()
    torch.nn.init.normal_(ours.gbf.mul.weight, 1, 0.1)
    torch.nn.init.normal_(ours.gbf.bias.weight, 0, 0.1)
    their_order = read_vocabulary({}, "unimol_tools")
    ours_of_theirs = [FILE_ORDER.index(symbol) for symbol in their_order]
    pairs = [i * 31 + j for i in ours_of_theirs for j in ours_of_theirs]
    state = dict(ours.state_dict())
    state["embed_tokens.weight"] = state["embed_tokens.weight"][ours_of_theirs]
    for name in ("gbf.mul.weight", "gbf.bias.weight", "gbf.w_edge.weight"):
        if name in state:
            state[name] = state[name][pairs]
    torch.save({"model": state}, tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_text("\n".join(s for s in FILE_ORDER if s != "[MASK]"))
    with contextlib.chdir(tmp_path):
        theirs = UniMolModel(3, architecture, str(tmp_path / "model.pt")).eval()
    names = {name for name in theirs.state_dict() if not name.startswith("classification_head.")}
    assert names == set(ours.state_dict())
    our_batch = batch()
    their_id = torch.tensor([their_order.index(symbol) for symbol in FILE_ORDER])
    tokens = their_id[our_batch["tokens"]]
    distance = torch.cdist(our_batch["coordinates"], our_batch["coordinates"])
    edge_type = tokens.unsqueeze(2) * 31 + tokens.unsqueeze(1)
    with torch.no_grad():
        expected = theirs(tokens, distance, our_batch["coordinates"], edge_type, return_repr=True)
        assert torch.allclose(ours(**our_batch), expected, atol=2e-5)


def checkpoint(tmp_path: Path, **changes: Any) -> Path:
    """A checkpoint as published: a `model` entry with foreign pre-training heads, weights all 0.5."""
    state = {name: torch.full_like(t, 0.5) for name, t in UnimolBackbone(stage(), FILE_ORDER).state_dict().items()}
    state |= {"lm_head.dense.weight": torch.zeros(2), "dist_head.dense.weight": torch.zeros(2)}
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save({"model": state}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_loading_a_checkpoint_sets_every_parameter(tmp_path: Path) -> None:
    backbone = UnimolBackbone(stage(), FILE_ORDER)
    load_checkpoint(backbone, {"model.pt": checkpoint(tmp_path)}, FOREIGN_KEYS)
    assert all((parameter == 0.5).all() for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"encoder__layers__1__fc1__weight": None}, "missing: encoder.layers.1.fc1.weight"),
        ({"encoder__layers__9__fc1__weight": torch.zeros(2)}, "foreign: encoder.layers.9.fc1.weight"),
        ({"gbf__mul__weight": torch.zeros(4, 1)}, "another shape: gbf.mul.weight"),
    ],
)
def test_a_checkpoint_with_other_keys_is_refused_by_name(tmp_path: Path, changes: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load_checkpoint(
            UnimolBackbone(stage(), FILE_ORDER), {"model.pt": checkpoint(tmp_path, **changes)}, FOREIGN_KEYS
        )


def test_the_audit_finds_the_rates_that_are_no_modules() -> None:
    backbone = UnimolBackbone(stage(), FILE_ORDER)
    assert sum(rate > 0 for rate in rates(backbone).values()) == 1 + 3 * 2  # embedding; three in each of two layers
    with pytest.raises(ConfigError, match=r"encoder\.layers\.0\.self_attn\.dropout = 0\.1"):
        audit(backbone, batch())
    set_rates(backbone, 0.0)
    audit(backbone, batch())


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_outputs_and_gradients_are_those_of_the_package(
    kernel: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With padding, with equal and unequal mirror images, in one chunk of pairs and in several."""
    monkeypatch.setattr(pairs, "CPU_CHUNK", chunk)
    torch.manual_seed(0)
    ours = backbone(kernel)
    theirs = PackageModel(ours)
    outputs = []
    for network in (ours, theirs):
        set_rates(network, 0.0)
        output = network.train()(**batch())
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        outputs.append(output)
    assert (outputs[0] - outputs[1]).abs().max() < 1e-5 * outputs[1].abs().max()
    largest = max(float(parameter.grad.abs().max()) for parameter in theirs.parameters())
    for (name, parameter), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # The true gradient of one bias is 0, since softmax takes no notice of a shift.
        scale = largest if name == "gbf_proj.linear2.bias" else float(expected.grad.abs().max())
        assert (parameter.grad - expected.grad).abs().max() < 1e-5 * scale, name


def test_under_autocast_the_pair_bias_stays_in_float32() -> None:
    torch.manual_seed(0)
    ours = backbone("gaussian").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bias = pairs.pair_bias(ours.gbf, ours.gbf_proj, **batch(), padding=0)
        half = ours(**batch())
        half.float().sum().backward()
    assert bias.dtype == torch.float32
    assert torch.equal(bias, pairs.pair_bias(ours.gbf, ours.gbf_proj, **batch(), padding=0))
    assert (half - ours(**batch())).abs().max() < 0.05


def test_padding_changes_no_output() -> None:
    torch.manual_seed(0)
    backbone = UnimolBackbone(stage(), FILE_ORDER).eval()
    alone = collate([encode(METHANOL[:2], FILE_ORDER, False)], 0)
    with torch.no_grad():
        assert torch.allclose(backbone(**batch())[1:], backbone(**alone), atol=1e-5)


def test_flat_molecules_are_named_in_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    rows = Rows(["a", "b"], pd.DataFrame({"s": ["CCO", "CO"]}), None)
    config = UnimolStage(kind="unimol")
    built = Unimol(config, Context(["s"], [], [], [], Task(["y"]), 0, tmp_path / "cache"))
    built.count_statuses(rows, tmp_path)
    assert read_json(tmp_path / "conformers.json") == {"flat": 2}
    (note,) = read_notes(tmp_path)
    assert note.startswith("2 of 2 training molecules have flat coordinates")
    assert note.endswith("CCO, CO")
