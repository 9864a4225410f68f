"""Adapters of the bert stage on a decoder in the shape of Qwen3 and on an encoder, of width 32 with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from core.errors import ConfigError
from core.files import read_json, sha256_of
from models import job_folder
from models.inputs.base_models import BASE_MODEL
from models.inputs.weights import digest_of_weights
from models.stages.bert import Bert
from models.training import trainer
from models.training.network import audit, halve_frozen
from models.training.optimizer import layers_of, make_optimizer
from tests.models import encoders
from tests.models.encoders import fit, table
from tests.models.made import build_stage

RANK = 4
N_ADAPTER = {"decoder": 2 * (64 + 48 + 48 + 64 + 3 * 80), "published": 4 * 64 + 2 * 96}
"""Inputs and outputs of all linear layers. The decoder has two layers, and in each two heads of 16 and one of keys and
values; the encoder has one.
"""
N_HEAD = 32 + 1


@pytest.fixture(params=["decoder", "published"])
def base(request):
    """Return the folder of a base model; its name begins with that of the model."""
    return Path(request.getfixturevalue(request.param))


def stage(weights, **changes):
    lora = {"rank": RANK, "alpha": 8, **changes.pop("lora", {})}
    settings = {"weights": str(weights), "lora": lora, "pooling": "last", "columns": ["note"]}
    return encoders.stage(**{**settings, "use_tabular_columns": False, **changes})


def context(**changes):
    return replace(encoders.context(["SMILES"], ["note"]), **changes)


def prepare(config, folder):
    """Return the network and the encoded rows that the trainer gets."""
    return build_stage(config, context()).prepare(table(), folder)


def test_only_the_adapter_and_the_head_learn_and_are_stored(base, tmp_path):
    before = {path.name: sha256_of(path) for path in base.iterdir()}
    rates = {"learning_rate": 1e-2, "head_learning_rate": 3e-2}
    config = stage(base, epochs=40, lora={"rank": 16, "alpha": 32}, **rates)
    rows = table(32)
    y_pred = fit(tmp_path, config, context(), rows).predict(rows, tmp_path)
    assert np.corrcoef(y_pred[:, 0], rows.y[:, 0])[0, 1] ** 2 > 0.9
    assert {path.name: sha256_of(path) for path in base.iterdir()} == before
    stored = load_file(tmp_path / job_folder.WEIGHTS)
    assert all(tensor.dtype == torch.float32 for tensor in stored.values())
    name = next(name for name in N_ADAPTER if base.name.startswith(name))
    assert sum(tensor.numel() for tensor in stored.values()) == 16 * N_ADAPTER[name] + N_HEAD
    record = read_json(tmp_path / BASE_MODEL)
    assert record == {"name": base.name, "revision": None, "digest": digest_of_weights(str(base))}


def test_only_the_named_layers_have_an_adapter(decoder, tmp_path):
    network, _ = prepare(stage(decoder, lora={"layers": ["q_proj", "v_proj"]}), tmp_path)
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 2 * RANK * (64 + 48) + N_HEAD


def test_another_base_model_or_a_missing_adapter_is_an_error(decoder, tmp_path):
    weights = tmp_path / "weights"
    encoders.publish_decoder(weights)
    fitted = fit(tmp_path / "job", stage(weights), context())
    network, _ = prepare(stage(decoder), tmp_path)
    state = network.state_dict()
    name = next(name for name in state if "lora_A" in name)
    del state[name]
    with pytest.raises(RuntimeError, match=name):
        network.load_state_dict(state)
    (weights / "config.json").write_text((weights / "config.json").read_text() + " ")
    with pytest.raises(
        ConfigError, match=r"differ from the base model weights that the adapter in .*job was"
    ):
        fitted.predict(table(6), tmp_path / "job")


def stop_at_5(done, total):
    if done == 5:
        raise KeyboardInterrupt


def test_a_killed_job_goes_on_to_the_same_bytes_from_a_checkpoint_without_the_base_model(
    base, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer.Checkpoint, "due", lambda self: True)
    settings = {"layer_decay": 0.5, "gradient_checkpointing": True}
    config, whole, killed = stage(base, epochs=2, **settings), tmp_path / "whole", tmp_path / "killed"
    fit(whole, config, context())
    with pytest.raises(KeyboardInterrupt):
        fit(killed, config, context(progress=stop_at_5))
    parts = torch.load(next(killed.glob("checkpoint_*.pt")), weights_only=True)["parts"]
    stored = load_file(whole / job_folder.WEIGHTS)
    assert sorted(parts["network"]) == sorted(stored)
    assert len(parts["optimizer"]["state"]) == len(stored)
    fit(killed, config, context())
    for name in (job_folder.WEIGHTS, job_folder.TRAINING):
        assert sha256_of(killed / name) == sha256_of(whole / name), name


def test_nothing_of_the_base_model_is_in_the_optimizer_and_its_layers_are_found(decoder, tmp_path):
    network, _ = prepare(stage(decoder), tmp_path)
    assert list(layers_of(network.backbone)) == ["encoder.layers.0", "encoder.layers.1"]
    groups = make_optimizer(network, stage(decoder)).param_groups
    n_numbers = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert n_numbers == RANK * N_ADAPTER["decoder"] + N_HEAD


class Dropping(nn.Module):
    """A matrix A of an adapter, with a dropout that has no rate to read."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix
        self.weight = matrix.weight

    def forward(self, x):
        return self.matrix(torch.dropout(x, 0.5, self.training))


def test_the_audit_finds_a_dropout_before_a_matrix_that_starts_at_0(decoder, tmp_path):
    network, encoded = prepare(stage(decoder), tmp_path)
    batch = encoded.encoded(0).batch(np.arange(4), torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    audit(network.backbone, batch)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    query: Any = network.backbone.encoder.layers[1].self_attn.q_proj
    query.lora_A["default"] = Dropping(query.lora_A["default"])
    with pytest.raises(ConfigError, match="all rates are 0, so a module drops"):
        audit(network.backbone, batch)


def test_the_audit_accepts_what_torch_computes_by_other_kernels_in_evaluation():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    audit(torch.nn.TransformerEncoder(layer, 2), {"src": torch.randn(64, 30, 16)})
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.001, batch_first=True)
    with pytest.raises(ConfigError, match=r"differ by .*layers\.1\.dropout2\.p = 0\.001"):
        audit(torch.nn.TransformerEncoder(layer, 2), {"src": torch.randn(64, 30, 16)})


def test_a_frozen_matrix_that_bf16_holds_is_stored_so_and_multiplies_to_the_same_numbers(decoder, tmp_path):
    network, train = prepare(stage(decoder), tmp_path)
    of_base = [
        part.weight
        for part in network.modules()
        if isinstance(part, nn.Linear) and not part.weight.requires_grad
    ]
    for weight in of_base:
        weight.data = weight.data.bfloat16().float()
    of_base[0].data += 1e-6  # which bf16 does not hold
    batch = train.encoded(0).batch(np.arange(4), torch.device("cpu"))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = network(batch)
        halve_frozen(network)
        assert torch.equal(network(batch), expected)
    assert [weight.dtype for weight in of_base] == [torch.float32, *[torch.bfloat16] * (len(of_base) - 1)]
    trained = {parameter.dtype for parameter in network.parameters() if parameter.requires_grad}
    assert trained == {torch.float32}


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_of_text(decoder, tmp_path):
    _, encoded = prepare(stage(decoder), tmp_path)
    batch = encoded.encoded(0).batch(np.arange(8), torch.device("cpu"))
    end = PreTrainedTokenizerFast.from_pretrained(tmp_path).convert_tokens_to_ids("<|im_end|>")
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {end}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {}}, "lora requires weights"),
        ({"weights": "minilm", "quantization": "nf4"}, "quantization requires lora"),
        ({"weights": "minilm", "lora": {"dropout": 0.1}}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Bert.model_validate({"kind": "bert", **changes})


def test_the_learning_rate_of_adapters_is_higher():
    settings = {"kind": "bert", "weights": "minilm"}
    assert Bert.model_validate({**settings, "lora": {}}).learning_rate == 2e-4
    assert Bert.model_validate(settings).learning_rate == 5e-5
