"""Masked-language pre-training: what is masked, what is learned, from which rows, and that it can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.errors import ConfigError
from competition.files import read_json
from models.config import BertStage
from models.inputs.tokens import learn_smiles_tokens, tokens_of_weights
from models.stages.bert import Bert
from models.training import mlm, trainer
from models.training.checkpoint import Checkpoint
from models.training.mlm import NOT_CHOSEN, mask_and_ordinary, masked
from tests.models.encoders import SMILES, context, fit, publish, stage, table

PRETRAINED = {"pretrain_epochs": 3, "pretrain_learning_rate": 5e-3, "columns": ["SMILES"]}


def test_fifteen_percent_are_chosen_of_which_most_are_masked_and_some_random_and_some_as_they_were() -> None:
    ids, ordinary = np.r_[2, np.full(20_000, 7), 3], np.arange(5, 500)
    replaced, labels = masked(ids, 4, ordinary, np.random.default_rng(0))
    chosen = labels != NOT_CHOSEN
    assert chosen.mean() == pytest.approx(0.15, abs=1e-3)
    assert (labels[chosen] == 7).all()
    assert (replaced[~chosen] == ids[~chosen]).all()
    shares = [(replaced[chosen] == 4).mean(), (replaced[chosen] == 7).mean()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.03)


def test_special_tokens_are_never_chosen_nor_put_in_and_a_short_text_still_has_one_to_guess() -> None:
    tokens = learn_smiles_tokens(SMILES)
    mask_id, ordinary = mask_and_ordinary(tokens)
    assert mask_id == tokens.tokenizer.token_to_id("[MASK]")
    assert not set(ordinary) & {tokens.tokenizer.token_to_id(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")}
    for number in range(50):
        labels = masked(tokens.encode(["C"], 8)[0][0], mask_id, ordinary, np.random.default_rng(number))[1]
        assert (labels != NOT_CHOSEN).tolist() == [False, True, False]


def test_a_tokenizer_without_a_mask_is_a_config_error(tmp_path: Path) -> None:
    import transformers

    tokens = tokens_of_weights(publish(tmp_path), transformers.AutoTokenizer.from_pretrained)
    bare = learn_smiles_tokens(SMILES).tokenizer.to_str().replace("[MASK]", "[EMPTY]")
    with pytest.raises(ConfigError, match=r"a token for a mask.*pretrain_epochs: 0"):
        mask_and_ordinary(replace(tokens, tokenizer=type(tokens.tokenizer).from_str(bare)))


def test_pre_training_lowers_its_loss_and_changes_the_encoder_and_its_decoder_is_left_behind(tmp_path: Path) -> None:
    config = stage(**{**PRETRAINED, "pretrain_epochs": 25})
    fit(tmp_path / "a", config, context(["SMILES"]), table(60))
    history = read_json(tmp_path / "a" / mlm.FILE)["history"]
    losses = [epoch["train_loss"] for epoch in history]
    assert len(losses) == 25
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    fresh, taught = (started(stage(**{**PRETRAINED, "pretrain_epochs": n}), tmp_path / str(n)) for n in (0, 1))
    assert fresh.keys() == taught.keys()
    changed = {name.split(".")[1] for name in fresh if not torch.equal(fresh[name], taught[name])}
    assert changed == {"embeddings", "encoder"}
    assert not (tmp_path / "0" / mlm.FILE).exists()


def started(config: BertStage, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir()
    trainer.seed_everything(0)
    return Bert(config, context(["SMILES"])).start(table(), folder).state_dict()


def test_the_decoder_is_the_encoders_own_embeddings() -> None:
    embeddings = torch.nn.Embedding(11, 6)
    decoder = mlm.TiedDecoder(embeddings, 8)
    assert {name: tuple(p.shape) for name, p in decoder.named_parameters()}.get("bias") == (11,)
    assert not any(tuple(p.shape) == (11, 6) for p in decoder.parameters())
    assert decoder(torch.zeros(3, 8), embeddings.weight).shape == (3, 11)


def read_in_pre_training(monkeypatch: Any, tmp_path: Path, **changes: Any) -> int:
    ctx = replace(context(["SMILES"]), unlabelled=table(7, seed=1).without_labels())
    fit(tmp_path, stage(**{**PRETRAINED, **changes}), ctx, table(24))
    return int(read_json(tmp_path / mlm.FILE)["rows"])


def test_inputs_without_labels_are_read_only_where_the_settings_ask_for_them(monkeypatch: Any, tmp_path: Path) -> None:
    assert read_in_pre_training(monkeypatch, tmp_path / "a") == 24
    assert read_in_pre_training(monkeypatch, tmp_path / "b", pretrain_on="all_inputs") == 31
    vocabularies = [read_json(tmp_path / name / "tokenizer.json")["model"]["vocab"] for name in "ab"]
    assert vocabularies[0] == vocabularies[1]


def test_pre_training_sees_another_spelling_in_each_epoch_where_spellings_are_enumerated(
    monkeypatch: Any, tmp_path: Path
) -> None:
    for name, enumerate_smiles, n_forms in (("a", False, 1), ("b", True, 3)):
        seen = []

        def pretrain(backbone: Any, tokens: Any, items: Any, *rest: Any, seen: Any = seen) -> None:
            seen += [np.concatenate(items(epoch)).tobytes() for epoch in (1, 2, 3)]

        monkeypatch.setattr("models.stages.bert.pretrain", pretrain)
        fit(tmp_path / name, stage(**PRETRAINED, enumerate_smiles=enumerate_smiles), context(["SMILES"]))
        assert len(set(seen)) == n_forms


def test_a_killed_pre_training_goes_on_to_the_same_bytes(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("models.training.checkpoint.SECONDS_BETWEEN", 0.0)
    config, ctx = stage(**PRETRAINED, enumerate_smiles=True), context(["SMILES"])
    fit(tmp_path / "whole", config, ctx)
    save, saved = Checkpoint.save, []

    def save_once(self: Checkpoint, facts: dict[str, Any]) -> None:
        save(self, facts)
        saved.append(self.path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_once)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", config, ctx)
    assert saved == ["checkpoint_mlm.pt"]
    monkeypatch.setattr(Checkpoint, "save", save)
    Bert(config, ctx).fit(table(), None, tmp_path / "killed")
    for name in (mlm.FILE, trainer.WEIGHTS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
