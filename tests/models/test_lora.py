"""Adapters of the bert stage on a decoder in the shape of Qwen3 and an encoder in the shape of DeBERTa v3, both of
two layers and width 32 with random weights.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from competition.task import Task
from core.errors import ConfigError
from core.files import PROJECT, read_json, sha256_of
from models.inputs.base_models import BASE_MODEL, require_layers, require_pooling, require_quantization
from models.inputs.weights import digest_of_weights
from models.networks.encoders import pooled
from models.stage import read_notes
from models.stages.bert import Bert
from models.training import checkpoint, prediction
from models.training.network import audit, rates
from models.training.optimizer import layers_of, make_optimizer
from tests.models import made
from tests.models.encoders import context, fit, table
from tests.models.encoders import stage as any_stage
from tests.models.made import build_stage

RANK = 4
WIDTH, MLP = 32, 48
QWEN_LAYERS = {"q": (32, 32), "k": (32, 16), "v": (32, 16), "o": (32, 32)}
"""Linear layers of the attention of the decoder, (inputs, outputs): two heads of 16, and one of keys and values."""
N_ADAPTER = {
    "decoder": 2 * RANK * (sum(map(sum, QWEN_LAYERS.values())) + 3 * (WIDTH + MLP)),
    "deberta": 2 * RANK * (4 * 2 * WIDTH + 2 * (WIDTH + MLP)),
}
"""Numbers of an adapter: rank * (inputs + outputs) of all linear layers, in two layers of the model."""


@pytest.fixture(params=["decoder", "deberta"])
def base(request: Any) -> Path:
    """Return the folder of a base model; its name begins with that of the model."""
    return Path(request.getfixturevalue(request.param))


def stage(weights: Path, **changes: Any) -> Bert:
    lora = {"rank": RANK, "alpha": 8, **changes.pop("lora", {})}
    settings = {
        "weights": str(weights),
        "lora": lora,
        "pooling": "last",
        "max_length": 48,
        "columns": ["note"],
    }
    return any_stage(**{**settings, "use_tabular_columns": False, **changes})


def context_of(task: Task | None = None, seed: int = 1) -> Any:
    of_notes = context(["SMILES"], ["note"], seed)
    return replace(of_notes, task=task or of_notes.task, retry_failed_fit=False)


def model_of(weights: Path) -> str:
    return "decoder" if weights.name.startswith("decoder") else "deberta"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}


def trained_names(network: nn.Module) -> list[str]:
    return sorted(name for name, p in network.named_parameters() if p.requires_grad)


def test_adapters_learn_32_rows_by_heart_and_the_base_model_is_unchanged(base: Path, tmp_path: Path) -> None:
    before = digests(base)
    config = stage(
        base, epochs=40, learning_rate=1e-2, lora={"rank": 16, "alpha": 32}, head_learning_rate=3e-2
    )
    rows = table(32)
    y_pred = fit(tmp_path, config, context_of(), rows).predict(rows, tmp_path)
    assert np.corrcoef(y_pred[:, 0], rows.y[:, 0])[0, 1] ** 2 > 0.9  # type: ignore[index]
    assert digests(base) == before
    one = build_stage(config, context_of())
    network = one.backbone(tmp_path)
    of_file = load_file(base / "model.safetensors")
    for name, tensor in network.named_parameters():
        name = name.removeprefix("encoder.").replace(".base_layer", "")
        if "lora_" not in name:
            saved = next(of_file[key] for key in of_file if key.endswith(name))
            assert torch.equal(tensor, saved.float()), name


def test_trained_and_stored_are_the_adapter_and_the_head_alone(base: Path, tmp_path: Path) -> None:
    fitted = fit(tmp_path, stage(base), context_of())
    stored = load_file(tmp_path / prediction.WEIGHTS)
    network, _ = build_stage(stage(base), context_of()).prepare(table(), tmp_path / "again")
    assert sorted(stored) == sorted(network.state_dict()) == trained_names(network)
    n_head = WIDTH + 1
    assert sum(tensor.numel() for tensor in stored.values()) == N_ADAPTER[model_of(base)] + n_head
    assert sum(name.startswith("head.") for name in stored) == 2
    assert all(tensor.dtype == torch.float32 for tensor in stored.values())
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files <= {
        prediction.WEIGHTS,
        "training.json",
        BASE_MODEL,
        "columns.json",
        "losses.csv",
        "notes.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    record = read_json(tmp_path / BASE_MODEL)
    assert record == {"name": base.name, "revision": None, "digest": digest_of_weights(str(base))}
    assert np.isfinite(fitted.predict(table(5), tmp_path)).all()


def test_only_the_named_layers_have_an_adapter(decoder: Path, tmp_path: Path) -> None:
    fit(tmp_path, stage(decoder, lora={"layers": ["q_proj", "v_proj"]}), context_of())
    stored = load_file(tmp_path / prediction.WEIGHTS)
    expected = 2 * RANK * (sum(QWEN_LAYERS["q"]) + sum(QWEN_LAYERS["v"])) + WIDTH + 1
    assert sum(tensor.numel() for tensor in stored.values()) == expected
    with pytest.raises(
        ConfigError, match=r"lora\.layers names query, which .* does not have; its layers are .*q_proj"
    ):
        require_layers(str(decoder), ["q_proj", "query"])


def test_another_process_predicts_the_same_from_the_adapter_and_the_base_model(
    decoder: Path, tmp_path: Path
) -> None:
    weights = Path(shutil.copytree(decoder, tmp_path / decoder.name))
    fitted = fit(tmp_path / "job", stage(weights), context_of(), table(16))
    expected = fitted.predict(table(6, seed=4), tmp_path / "job")
    code = (
        "import json, sys, pathlib; from tests.models.test_lora import *; "
        "one = build_stage(stage(pathlib.Path(sys.argv[1])), context_of(seed=9)); "
        "print(json.dumps(one.predict(table(6, seed=4), pathlib.Path(sys.argv[2])).tolist()))"
    )
    command = [sys.executable, "-c", code, str(weights), str(tmp_path / "job")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
    assert np.array_equal(json.loads(done.stdout), expected)
    (weights / "config.json").write_text((weights / "config.json").read_text() + " ")
    with pytest.raises(
        ConfigError, match=rf"not those of the base model {decoder.name} that the adapter in .*job was"
    ):
        fitted.predict(table(6), tmp_path / "job")


class EveryStep:
    """Stops at a step, after its checkpoint."""

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at

    def __call__(self, done: int, total: int) -> None:
        if done == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self: True)
    return None


EMA = {"weight_averaging": "ema", "layer_decay": 0.5, "gradient_checkpointing": True}


@pytest.mark.parametrize("changes", [{}, EMA])
def test_a_killed_job_goes_on_to_the_same_bytes_from_a_checkpoint_without_the_base_model(
    base: Path, tmp_path: Path, changes: dict[str, Any], every_step: None
) -> None:
    config = stage(base, epochs=2, max_length=16, **changes)
    fit(tmp_path / "whole", config, context_of())
    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", config, replace(context_of(), progress=EveryStep(5)))
    (path,) = (tmp_path / "killed").glob("checkpoint_train_*.pt")
    parts = torch.load(path, weights_only=True)["parts"]
    stored = load_file(tmp_path / "whole" / prediction.WEIGHTS)
    assert sorted(parts["network"]) == sorted(stored)
    assert len(parts["optimizer"]["state"]) == len(stored)
    if changes:
        assert sorted(parts["average"]) == sorted(["n_averaged", *(f"module.{name}" for name in stored)])
    fit(tmp_path / "killed", config, context_of())
    for name in (prediction.WEIGHTS, prediction.TRAINING):
        assert sha256_of(tmp_path / "killed" / name) == sha256_of(tmp_path / "whole" / name), name


def test_an_average_of_adapters_shares_the_base_model(decoder: Path, tmp_path: Path) -> None:
    network, _ = build_stage(stage(decoder), context_of()).prepare(table(), tmp_path)
    average = torch.optim.swa_utils.AveragedModel(network)
    of_network = dict(network.named_parameters())
    for name, parameter in average.module.named_parameters():
        assert (parameter is of_network[name]) == (not parameter.requires_grad), name


def test_layers_have_their_own_rates_and_nothing_of_the_base_model_is_in_the_optimizer(
    decoder: Path, tmp_path: Path
) -> None:
    config = stage(decoder, layer_decay=0.5, learning_rate=1.0, head_learning_rate=3.0)
    network, _ = build_stage(config, context_of()).prepare(table(), tmp_path)
    assert list(layers_of(network.backbone)) == ["encoder.layers.0", "encoder.layers.1"]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(p)]: group["lr"]
        for group in make_optimizer(network, config).param_groups
        for p in group["params"]
    }
    assert sorted(found) == trained_names(network)
    for name, rate in found.items():
        expected = 3.0 if name.startswith("head.") else 0.5 if ".layers.0." in name else 1.0
        assert rate == expected, name


class Dropping(nn.Module):
    """A matrix A of an adapter, with a dropout that has no rate to read."""

    def __init__(self, matrix: nn.Module) -> None:
        super().__init__()
        self.matrix = matrix
        self.weight = matrix.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix(torch.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("where", ["attention", "adapter", "hidden in the adapter"])
def test_the_audit_finds_a_dropout_that_somebody_sets(where: str, decoder: Path, tmp_path: Path) -> None:
    one = build_stage(stage(decoder), context_of())
    network, encoded = one.prepare(table(), tmp_path)
    batches = encoded.encoded(0)
    batch = batches.batch(np.arange(4), torch.device("cpu"))
    batch.pop("columns", None)
    before = {name: p.clone() for name, p in network.named_parameters()}
    audit(network.backbone, batch)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert set(rates(network.backbone).values()) == {0.0}
    attention: Any = network.backbone.encoder.layers[1].self_attn  # type: ignore[union-attr, index]
    if where == "attention":
        attention.attention_dropout, expected = 0.2, r"self_attn\.attention_dropout = 0\.2"
    elif where == "adapter":
        attention.q_proj.lora_dropout["default"] = nn.Dropout(0.3)
        expected = r"q_proj\.lora_dropout\.default\.p = 0\.3"
    else:
        attention.q_proj.lora_A["default"] = Dropping(attention.q_proj.lora_A["default"])
        expected = "all rates are 0, so a module drops"
    with pytest.raises(ConfigError, match=expected):
        audit(network.backbone, batch)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_the_last_real_one_on_both_sides_of_padding(side: str) -> None:
    states = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    if side == "left":
        mask = mask.flip(1)
    expected = [states[0, 1 if side == "right" else 3], states[1, 3]]
    assert torch.equal(pooled(states, mask, "last"), torch.stack(expected))


def test_the_last_token_of_a_decoder_has_read_the_whole_text_and_no_padding(
    decoder: Path, tmp_path: Path
) -> None:
    backbone = (
        build_stage(stage(decoder, lora={"rank": 2}), context_of()).initial_backbone(table(), tmp_path).eval()
    )
    ids, padding = torch.arange(1, 7)[None], torch.tensor([[7, 7, 7]])
    alone = backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    mask = torch.cat([torch.ones_like(ids), torch.zeros_like(padding)], dim=1)
    for flip in (False, True):
        parts = (padding, ids) if flip else (ids, padding)
        padded = backbone(input_ids=torch.cat(parts, dim=1), attention_mask=mask.flip(1) if flip else mask)
        assert (padded - alone).abs().max() < 1e-5
    changed = ids.clone()
    changed[0, 0] = 99
    assert (backbone(input_ids=changed, attention_mask=torch.ones_like(ids)) - alone).abs().max() > 1e-4


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_of_text(decoder: Path, tmp_path: Path) -> None:
    one = build_stage(stage(decoder), context_of())
    one.initial_backbone(table(), tmp_path)
    batches = one.encode(table(), tmp_path, 0, 0)
    batch = batches.batch(np.arange(8), torch.device("cpu"))
    end = PreTrainedTokenizerFast.from_pretrained(tmp_path).convert_tokens_to_ids("<|im_end|>")
    assert (batch["attention_mask"] == 0).any()
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {end}


def test_r_drop_multi_sample_heads_and_a_second_phase_work_with_adapters(base: Path, tmp_path: Path) -> None:
    rows = table(16)
    labelled = replace(rows, y=np.c_[rows.y, -rows.y], extra=np.arange(16) >= 12)
    for name, changes in {
        "r_drop": {"r_drop": 0.5, "pooler_dropout": 0.1},
        "backbone": {"backbone_dropout": 0.1, "r_drop": 0.5},
        "heads": {"head": {"kind": "multi_sample"}, "extra_rows": "pretrain"},
        "averaged": {**EMA, "pooler_dropout": 0.1},
    }.items():
        fitted = fit(tmp_path / name, stage(base, **changes), context_of(Task(["y", "z"])), labelled)
        assert np.isfinite(fitted.predict(rows, tmp_path / name)).all()
        dropping = {rate for path, rate in read_json(tmp_path / name / "training.json")["dropout"].items()
                    if "lora" in path}  # fmt: skip
        assert not dropping, name


def test_an_instruction_stays_in_a_text_that_is_too_long(decoder: Path, tmp_path: Path) -> None:
    template = "Rate: {note}\nRating:"
    rows = made.rows([1.0, 2.0], note=["red " * 30, "blue"])
    texts = {"end": "Rate: red red re\nRating:", "middle": "Rate: d red red \nRating:"}
    for truncation, text in texts.items():
        config = stage(decoder, template=template, truncation=truncation, max_length=24)
        one = build_stage(config, context_of())
        folder = tmp_path / truncation
        folder.mkdir()
        one.initial_backbone(rows, folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        first, second = one.encode(rows, folder, 0, 0).items
        assert tokenizer.decode(first) == text and len(first) == 24
        assert tokenizer.decode(second) == "Rate: blue\nRating:"
        assert read_notes(folder) == ["1 of 2 training texts have more than 24 tokens and were cut."]


def test_decoders_are_fine_tuned_in_full_as_well(decoder: Path, tmp_path: Path) -> None:
    weights = Path(shutil.copytree(decoder, tmp_path / "weights"))
    config = any_stage(weights=str(weights), columns=["note"], pooling="last", gradient_checkpointing=True)
    fitted = fit(tmp_path / "job", config, context_of())
    y_pred = fitted.predict(table(), tmp_path / "job")
    shutil.rmtree(weights)
    assert np.array_equal(build_stage(config, context_of()).predict(table(), tmp_path / "job"), y_pred)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "lora requires weights"),
        ({"lora": None, "quantization": "nf4"}, "quantization requires lora"),
        ({"lora": {"rank": 0}}, "greater than 0"),
        ({"lora": {"dropout": 0.1}}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, decoder: Path) -> None:
    values = {"kind": "bert", "weights": str(decoder), "lora": {}, **changes}
    with pytest.raises(ValueError, match=message):
        Bert.model_validate(values)


def test_the_first_token_of_a_decoder_and_a_package_that_is_missing_are_refused(
    decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"first token, which has seen nothing .*Qwen3ForCausalLM, a decoder"
    ):
        require_pooling(stage(decoder, pooling="cls"))
    monkeypatch.setattr("models.inputs.base_models.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"quantization: nf4 requires the package bitsandbytes, which is not"
    ):
        require_quantization("nf4")


def test_the_rate_of_adapters_is_higher_and_not_in_the_settings_of_other_stages(decoder: Path) -> None:
    assert Bert.model_validate({"kind": "bert", "weights": str(decoder), "lora": {}}).learning_rate == 2e-4
    assert Bert.model_validate({"kind": "bert", "weights": str(decoder)}).learning_rate == 5e-5


def test_a_missing_adapter_is_an_error_and_a_missing_base_model_is_not(decoder: Path, tmp_path: Path) -> None:
    network, _ = build_stage(stage(decoder), context_of()).prepare(table(), tmp_path)
    state = network.state_dict()
    network.load_state_dict(state)
    name = next(name for name in state if "lora_A" in name)
    del state[name]
    with pytest.raises(RuntimeError, match=name):
        network.load_state_dict(state)
