"""The bert stage from rows to predictions, on encoders of one layer and width 32: augmentations, vocabularies,
pretrained weights, what is refused, and that their dropout is off.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from core.errors import ConfigError
from models.context import HeldOut
from models.inputs.weights import find_weights
from models.networks import encoders
from models.training.network import audit, rates
from tests.models import made
from tests.models.encoders import TINY, context, fit, needs_rxnfp, stage, table
from tests.models.made import build_stage


@pytest.fixture
def copied(published, tmp_path):
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


@pytest.mark.parametrize(
    ("column", "rare", "kind"), [("note", "zyzzyva", "texts"), ("SMILES", "[Se]", "smiles")]
)
def test_a_learned_vocabulary_never_sees_what_only_held_out_rows_have(column, rare, kind, tmp_path):
    train, rows = table(), table(seed=1)
    rows.inputs[column] = rare
    ctx: Any = context(**{kind: [column]})
    held_out = HeldOut(rows.without_labels(), lambda y_pred: 0.0)
    fit(tmp_path / "with", stage(), replace(ctx, held_out=held_out), train)
    build_stage(stage(), ctx).initial_backbone(train, tmp_path)
    assert (tmp_path / "with" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("model", ["published", "decoder"])
def test_predict_works_after_the_weights_are_gone_and_nothing_is_printed(model, request, tmp_path, capfd):
    weights = Path(shutil.copytree(request.getfixturevalue(model), tmp_path / "weights"))
    config, job = stage(weights=str(weights), gradient_checkpointing=True), tmp_path / "job"
    y_pred = fit(job, config, context(texts=["note"])).predict(table(), job)
    shutil.rmtree(weights)
    moved = job.rename(tmp_path / "moved")
    restored = build_stage(config, context(texts=["note"], seed=9)).predict(table(), moved)
    assert np.array_equal(restored, y_pred)
    assert capfd.readouterr() == ("", "")


def test_a_roberta_has_positions_from_the_one_after_that_of_its_padding():
    config = transformers.RobertaConfig(**TINY, max_position_embeddings=40, pad_token_id=1)
    assert encoders.position_limit(transformers.RobertaModel(config)) == 38


def test_a_deberta_with_relative_positions_only_reads_texts_of_any_length():
    settings = {**TINY, **FAMILIES["deberta-v2"], "max_position_embeddings": 40}
    limits = []
    for is_biased in (True, False):
        config = transformers.DebertaV2Config(**settings, position_biased_input=is_biased)
        limits.append(encoders.position_limit(transformers.DebertaV2Model(config)))
    assert limits == [40, 2**31]


def load(folder, rate=0.0):
    return encoders.pretrained(stage(weights=str(folder)), rate)[0]


def assert_all_weights(encoder, state):
    """Every published weight has arrived, and heads are left behind."""
    prefixed = {f"bert.{name}": tensor for name, tensor in encoder.state_dict().items()}
    assert prefixed.keys() == {name for name in state if not name.startswith(("cls.", "bert.pooler."))}
    assert all(torch.equal(tensor, state[name]) for name, tensor in prefixed.items())


def test_pretrained_weights_arrive_in_the_encoder_and_its_heads_are_left_out(published):
    assert_all_weights(load(published), safetensors.torch.load_file(published / "model.safetensors"))
    assert set(rates(load(published, 0.2)).values()) == {0.2}


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_is_a_config_error(absent, copied):
    (copied / absent).unlink()
    with pytest.raises(ConfigError, match="weights"):
        load(copied)


@pytest.mark.parametrize(
    "wrong", ["encoder.layer.0.output.dense.weight", "embeddings.position_embeddings.weight"]
)
def test_weights_that_lack_a_part_or_have_it_in_another_shape_are_a_config_error(wrong, copied):
    state = safetensors.torch.load_file(copied / "model.safetensors")
    tensor = state.pop(f"bert.{wrong}")
    if "position" in wrong:
        state[f"bert.{wrong}"] = tensor[:10].clone()
    safetensors.torch.save_file(state, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=wrong):
        load(copied)


def test_an_old_bin_file_is_read_without_running_what_is_in_it(copied):
    class Evil:
        def __reduce__(self):
            return Path.touch, (copied / "was_here",)

    state = safetensors.torch.load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(state, copied / "pytorch_model.bin")
    assert_all_weights(load(copied), state)
    torch.save({**state, "x": Evil()}, copied / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load(copied)
    assert not (copied / "was_here").exists()


@needs_rxnfp
def test_rxnfp_loads_completely_though_its_config_names_no_model_and_transposed_tensors_are_saved(
    tmp_path,
):
    state = torch.load(find_weights("rxnfp")["pytorch_model.bin"], weights_only=True)
    config = stage(weights="rxnfp", columns=["SMILES"], max_length=16)
    assert_all_weights(encoders.pretrained(config, 0.0)[0], state)
    fit(tmp_path, config, context(["SMILES"]), table(8)).predict(table(4), tmp_path)


FAMILIES = {
    "bert": {},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    "albert": {"embedding_size": 32},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1, "pad_token_id": 0},
    "mpnet": {},
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_every_dropout_of_every_family_can_be_switched_off_and_on(name, rate):
    sizes = {} if name in ("distilbert", "gpt2") else TINY
    config = transformers.AutoConfig.for_model(name, **{"vocab_size": 60, **sizes, **FAMILIES[name]})
    encoders.set_config_rates(config, rate)
    backbone = encoders.BertBackbone(encoders.new_encoder(config), "mean").train()
    assert max(rates(backbone).values()) == rate
    batch = {"input_ids": torch.arange(5, 25).reshape(2, 10)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    if rate == 0:
        audit(backbone, batch)
    else:
        assert not torch.equal(backbone(**batch), backbone(**batch))


def test_of_several_texts_the_longest_is_cut_and_no_other_is_lost(tmp_path):
    """As the answer to a long question would be."""
    cells = {"a": ["red green blue " * 20] * 8, "b": ["old", "new"] * 4, "pH": np.zeros(8)}
    table = made.rows(np.arange(8.0), **cells)
    config = stage(max_length=12)
    one = context(texts=["a", "b"])
    fit(tmp_path, config, one, table)
    items = config.encode(table, tmp_path, one, 0, 0).items
    assert {len(ids) for ids in items} == {12}
    assert items[0].tolist() != items[1].tolist() == items[3].tolist()


FEW_WORDS = ["red green", "blue red"] * 12


def test_weights_become_what_they_become_when_the_embeddings_of_all_tokens_are_trained(
    tmp_path, published, monkeypatch
):
    train, ctx = table(), context(texts=["note"])
    train.inputs["note"] = FEW_WORDS
    config = stage(weights=str(published), weight_decay=0, epochs=2)
    fit(tmp_path / "own", config, ctx, train)
    monkeypatch.setattr(encoders, "train_only", lambda *_: None)
    fit(tmp_path / "all", config, ctx, train)
    files = [tmp_path / name / "weights.safetensors" for name in ("own", "all")]
    torch.testing.assert_close(*map(safetensors.torch.load_file, files), rtol=1e-3, atol=1e-5)
