"""Pretrained encoders: what is loaded, what is refused, and that their dropout is off."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from core.errors import ConfigError
from models.inputs.weights import find_weights
from models.networks import encoders
from models.training.network import audit, rates
from tests.models.encoders import TINY, context, fit, needs_rxnfp, stage, table


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def load(folder: Path, rate: float = 0.0) -> Any:
    return encoders.pretrained(stage(weights=str(folder)), rate)[0]


def assert_all_weights(encoder: Any, state: dict[str, torch.Tensor]) -> None:
    """Every published weight has arrived, and heads are left behind."""
    prefixed = {f"bert.{name}": tensor for name, tensor in encoder.state_dict().items()}
    assert prefixed.keys() == {name for name in state if not name.startswith(("cls.", "bert.pooler."))}
    assert all(torch.equal(tensor, state[name]) for name, tensor in prefixed.items())


def test_pretrained_weights_arrive_in_the_encoder_and_its_heads_are_left_out(published: Path) -> None:
    assert_all_weights(load(published), safetensors.torch.load_file(published / "model.safetensors"))
    assert set(rates(load(published, 0.2)).values()) == {0.2}


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_a_config_error(absent: str, copied: Path) -> None:
    (copied / absent).unlink()
    with pytest.raises(ConfigError, match="weights"):
        load(copied)


@pytest.mark.parametrize(
    "wrong", ["encoder.layer.0.output.dense.weight", "embeddings.position_embeddings.weight"]
)
def test_weights_that_lack_a_part_or_have_it_in_another_shape_are_a_config_error(
    wrong: str, copied: Path
) -> None:
    state = safetensors.torch.load_file(copied / "model.safetensors")
    tensor = state.pop(f"bert.{wrong}")
    if "position" in wrong:
        state[f"bert.{wrong}"] = tensor[:10].clone()
    safetensors.torch.save_file(state, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=wrong):
        load(copied)


def test_an_old_bin_file_is_read_without_running_what_is_in_it(copied: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (copied / "was_here",)

    state = safetensors.torch.load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(state, copied / "pytorch_model.bin")
    assert torch.equal(
        load(copied).state_dict()["embeddings.LayerNorm.weight"], state["bert.embeddings.LayerNorm.weight"]
    )
    torch.save({**state, "x": Evil()}, copied / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load(copied)
    assert not (copied / "was_here").exists()


@needs_rxnfp
def test_rxnfp_loads_completely_though_its_config_names_no_model_and_transposed_tensors_are_saved(
    tmp_path: Path,
) -> None:
    state = torch.load(find_weights("rxnfp")["pytorch_model.bin"], weights_only=True)
    assert_all_weights(encoders.pretrained(stage(weights="rxnfp"), 0.0)[0], state)
    fitted = fit(
        tmp_path, stage(weights="rxnfp", columns=["SMILES"], max_length=16), context(["SMILES"]), table(8)
    )
    assert np.isfinite(fitted.predict(table(4), tmp_path)).all()


FAMILIES = {
    "bert": {},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    "albert": {"embedding_size": 32},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1, "pad_token_id": 0},
    "mpnet": {},
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
}
BATCH = {
    "input_ids": torch.arange(5, 25).reshape(2, 10),
    "attention_mask": torch.ones(2, 10, dtype=torch.long),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_dropout_of_every_family_can_be_switched_off_and_on(name: str) -> None:
    sizes = {} if name in ("distilbert", "gpt2") else {k: v for k, v in TINY.items() if k != "vocab_size"}
    for rate in (0.0, 0.3):
        config = transformers.AutoConfig.for_model(name, vocab_size=60, **sizes, **FAMILIES[name])
        encoders.set_config_rates(config, rate)
        backbone = encoders.BertBackbone(encoders.new_encoder(config), "mean").train()
        assert max(rates(backbone).values()) == rate
        if rate == 0:
            audit(backbone, BATCH)
        else:
            assert not torch.equal(backbone(**BATCH), backbone(**BATCH))
