"""Masked-language pre-training: what is masked, what is learned, from which rows, and that it can be resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.errors import ConfigError
from competition.files import read_json
from models.inputs.tokens import encode, learn_smiles_tokens
from models.stages.bert import Bert
from models.training import mlm, trainer
from models.training.checkpoint import Checkpoint
from models.training.mlm import NOT_CHOSEN, mask_and_ordinary, masked
from tests.models.encoders import SMILES, context, fit, stage, table

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
    tokenizer = learn_smiles_tokens(SMILES)
    mask_id, ordinary = mask_and_ordinary(tokenizer)
    assert set(ordinary) == set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    for number in range(50):
        labels = masked(encode(tokenizer, ["C"])[0][0], mask_id, ordinary, np.random.default_rng(number))[1]
        assert (labels != NOT_CHOSEN).tolist() == [False, True, False]
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="token for a mask"):
        mask_and_ordinary(tokenizer)


def test_pre_training_lowers_its_loss_and_changes_the_encoder_and_its_decoder_is_left_behind(tmp_path: Path) -> None:
    found = []
    for n_epochs in (0, 10):
        torch.manual_seed(0)
        config = stage(**{**PRETRAINED, "pretrain_epochs": n_epochs, "pretrain_learning_rate": 2e-2})
        found.append(Bert(config, context(["SMILES"])).start(table(60), tmp_path).state_dict())
    losses = [epoch["train_loss"] for epoch in read_json(tmp_path / mlm.FILE)["history"]]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    fresh, taught = found
    assert fresh.keys() == taught.keys()
    changed = {name.split(".")[1] for name in fresh if not torch.equal(fresh[name], taught[name])}
    assert changed == {"embeddings", "encoder"}


@pytest.mark.parametrize(("changes", "n_rows"), [({}, 24), ({"pretrain_on": "all_inputs"}, 31)])
def test_inputs_without_labels_are_read_only_where_the_settings_ask_for_them_and_never_for_a_vocabulary(
    changes: dict[str, Any], n_rows: int, tmp_path: Path
) -> None:
    unlabelled = table(7, seed=1).without_labels()
    unlabelled.inputs["SMILES"] = "[Se]"
    ctx = replace(context(["SMILES"]), unlabelled=unlabelled)
    Bert(stage(**{**PRETRAINED, "pretrain_epochs": 1, **changes}), ctx).start(table(24), tmp_path)
    assert read_json(tmp_path / mlm.FILE)["rows"] == n_rows
    assert "[Se]" not in read_json(tmp_path / "tokenizer.json")["model"]["vocab"]


def test_an_interrupted_pre_training_goes_on_to_the_same_weights(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("models.training.checkpoint.SECONDS_BETWEEN", 0.0)
    config, ctx = stage(**PRETRAINED, enumerate_smiles=True), context(["SMILES"])
    fit(tmp_path / "whole", config, ctx)

    def save_once(self: Checkpoint, beside: Any) -> None:
        save(self, beside)
        assert self.path.name.startswith("checkpoint_mlm")
        raise KeyboardInterrupt

    save = Checkpoint.save
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", save_once)
        fit(tmp_path / "killed", config, ctx)
    fit(tmp_path / "killed", config, ctx)
    for name in (mlm.FILE, trainer.WEIGHTS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
