"""Pretrained encoders: what is loaded, what is refused, and that their dropout is off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from competition.errors import ConfigError
from models.inputs import encoders
from models.stages import bert
from models.training.dropout import audit, rates
from tests.models.encoders import TINY, context, fit, needs_rxnfp, publish, stage, table


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture
def own(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def change_weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(change(state), metadata={"format": "pt"}))


def test_pretrained_weights_arrive_in_the_encoder_and_its_heads_are_left_behind(published: Path) -> None:
    with encoders.gathered({path.name: path for path in published.iterdir()}, "mine") as folder:
        encoder = encoders.load_encoder(folder, "mine", 0.0)
    state = safetensors.torch.load_file(published / "model.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[f"bert.{name}"]), name
    assert {name for name in state if not name.startswith(("cls.", "bert.pooler."))} == {
        f"bert.{name}" for name in encoder.state_dict()
    }


def load(folder: Path) -> Any:
    with encoders.gathered({path.name: path for path in folder.iterdir()}, "mine") as gathered:
        return encoders.load_encoder(gathered, "mine", 0.0)


def test_a_renamed_key_is_a_config_error_that_names_both_names(own: Path) -> None:
    key = "bert.encoder.layer.0.output.dense.weight"
    change_weights(
        own, lambda state: {("bert.encoder.layer.0.out.weight" if k == key else k): v for k, v in state.items()}
    )
    with pytest.raises(ConfigError) as error:
        load(own)
    assert "1 missing (encoder.layer.0.output.dense.weight)" in str(error.value)
    assert "1 with no place (" in str(error.value)
    assert "encoder.layer.0.out.weight" in str(error.value)


def test_a_key_of_another_shape_is_a_config_error(own: Path) -> None:
    key = "bert.embeddings.position_embeddings.weight"
    change_weights(own, lambda state: {**state, key: state[key][:10].clone()})
    with pytest.raises(ConfigError, match=r"1 of another shape \(embeddings\.position_embeddings\.weight\)"):
        load(own)


def test_a_checkpoint_of_something_else_is_a_config_error(own: Path) -> None:
    change_weights(own, lambda state: {f"visual.{k}": v for k, v in state.items()})
    with pytest.raises(ConfigError, match="missing"):
        load(own)


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_a_config_error(absent: str, own: Path, tmp_path: Path) -> None:
    (own / absent).unlink()
    with pytest.raises(ConfigError, match=r"weights .*must (be|have)"):
        fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))


def test_an_old_bin_file_is_read_without_running_what_is_in_it(own: Path) -> None:
    state = safetensors.torch.load_file(own / "model.safetensors")
    (own / "model.safetensors").unlink()
    torch.save(state, own / "pytorch_model.bin")
    encoder = load(own)
    assert torch.equal(encoder.state_dict()["embeddings.LayerNorm.weight"], state["bert.embeddings.LayerNorm.weight"])

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (own / "was_here",)  # type: ignore[return-value]

    torch.save({**state, "x": Evil()}, own / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load(own)
    assert not (own / "was_here").exists()


def test_weights_in_half_precision_are_trained_in_float32(own: Path, tmp_path: Path) -> None:
    change_weights(own, lambda state: {name: tensor.bfloat16() for name, tensor in state.items()})
    values = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**values, "dtype": "bfloat16"}))
    fitted = fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))
    state = safetensors.torch.load_file(tmp_path / "job" / "weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert np.isfinite(fitted.predict(table(), tmp_path / "job")).all()


@needs_rxnfp
def test_rxnfp_loads_whole_though_its_config_names_no_model(tmp_path: Path) -> None:
    from models.inputs.weights import find_weights

    encoder, tokens = encoders.pretrained(stage(weights="rxnfp"), 0.0)
    state = torch.load(find_weights("rxnfp")["pytorch_model.bin"], weights_only=True)
    assert {f"bert.{name}" for name in encoder.state_dict()} == {
        name for name in state if not name.startswith(("cls.", "bert.pooler."))
    }
    assert all(torch.equal(tensor, state[f"bert.{name}"]) for name, tensor in encoder.state_dict().items())
    assert max(rates(encoder).values()) == 0
    assert type(encoder).__name__ == "BertModel"


@needs_rxnfp
def test_words_for_a_vocabulary_of_atoms_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"are unknown to it\. Name other columns"):
        fit(tmp_path, stage(weights="rxnfp", epochs=1), context(["SMILES"], ["note"]))


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (transformers.BertConfig(**TINY, max_position_embeddings=20), 20),
        (transformers.RobertaConfig(**TINY, max_position_embeddings=20, pad_token_id=1), 18),
        (transformers.ModernBertConfig(**TINY, max_position_embeddings=20, pad_token_id=0), 20),
    ],
)
def test_roberta_loses_two_positions_to_its_padding(config: Any, positions: int) -> None:
    encoder = transformers.AutoModel.from_config(config)
    assert encoders.position_limit(encoder) == positions
    encoder(input_ids=torch.full((1, positions), 5), attention_mask=torch.ones(1, positions, dtype=torch.long))


FAMILIES = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 32},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1, "pad_token_id": 0},
    "mpnet": {},
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
}


def family(name: str, rate: float) -> Any:
    known = {} if name in ("distilbert", "gpt2") else {k: v for k, v in TINY.items() if k != "vocab_size"}
    config = transformers.AutoConfig.for_model(name, vocab_size=60, **known, **FAMILIES[name])
    encoders.set_config_rates(config, rate)
    return bert.BertBackbone(encoders.without_pooler(transformers.AutoModel.from_config(config)), "mean")


BATCH = {"input_ids": torch.arange(5, 25).reshape(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.long)}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_dropout_of_every_family_can_be_switched_off_and_on(name: str) -> None:
    audit(family(name, 0.0), BATCH)
    dropping = family(name, 0.3).train()
    assert max(rates(dropping).values()) == 0.3
    assert not torch.equal(dropping(**BATCH), dropping(**BATCH))


def test_backbone_dropout_reaches_a_pretrained_encoder(published: Path, tmp_path: Path) -> None:
    for rate in (0.0, 0.2):
        encoder, _ = encoders.pretrained(stage(weights=str(published)), rate)
        assert set(rates(encoder).values()) == {rate}
    fitted = fit(tmp_path, stage(weights=str(published), backbone_dropout=0.2), context(texts=["note"]))
    assert np.array_equal(fitted.predict(table(), tmp_path), fitted.predict(table(), tmp_path))
