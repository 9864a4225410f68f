"""Only the embeddings of tokens that the training rows have are trained, and nothing else changes by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
import transformers
from torch import nn

from competition.tables import Rows
from models.stages import bert
from models.training import seen
from tests.models.encoders import context, fit, stage, table


def few_words() -> Rows:
    rows = table()
    rows.inputs["note"] = ["red green" if i % 2 else "blue red" for i in range(len(rows))]
    return rows


def test_all_weights_become_what_they_become_when_all_tokens_are_trained(tmp_path: Path, published: Path) -> None:
    config = stage(weights=str(published), weight_decay=0, average="ema", epochs=2)

    def fitted(folder: Path) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """Predictions for rows with words that the training rows do not have, and the weights."""
        model = fit(folder, config, context(texts=["note"]), few_words())
        return model.predict(table(seed=3), folder), safetensors.torch.load_file(folder / "weights.safetensors")

    y_pred, own = fitted(tmp_path / "own")
    with mock.patch.object(bert, "train_only"):
        y_all, all_tokens = fitted(tmp_path / "all")
    assert own.keys() == all_tokens.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, all_tokens[name], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(y_pred, y_all, rtol=1e-3)


def test_a_token_that_is_not_trained_is_read_as_it_came_and_one_that_is_as_it_became() -> None:
    whole = nn.Embedding(6, 2)
    part = seen.SeenEmbedding(whole, torch.tensor([1, 4]))
    with torch.no_grad():
        part.weight.copy_(torch.tensor([[10.0, 11.0], [40.0, 41.0]]))
    vectors = part(torch.tensor([[4, 0], [1, 5]]))
    assert vectors[:, 0].tolist() == [[40, 41], [10, 11]]
    assert torch.equal(vectors[:, 1], whole.weight[[0, 5]])
    vectors.sum().backward()
    assert part.weight.grad is not None
    assert part.weight.grad.tolist() == [[1, 1], [1, 1]]
    assert whole.weight.grad is None


def test_all_tokens_are_trained_where_later_epochs_have_others_or_most_are_seen(
    tmp_path: Path, published: Path
) -> None:
    def is_seen(**changes: Any) -> bool:
        model = bert.Bert(stage(**changes), context(["SMILES"], ["note"]))
        backbone: Any = model.start(few_words(), tmp_path)
        return isinstance(backbone.encoder.get_input_embeddings(), seen.SeenEmbedding)

    own = {"weights": str(published)}
    assert is_seen(**own)
    assert not is_seen(**own, extra_rows="pretrain")  # the extra rows are not among those that `start` sees
    assert not is_seen(enumerate_smiles=True, columns=["SMILES"])  # each epoch has other tokens
    for n_seen in (49, 50):
        encoder = transformers.AutoModel.from_pretrained(published)
        seen.train_only(encoder, np.arange(n_seen))
        assert isinstance(encoder.get_input_embeddings(), seen.SeenEmbedding) is (n_seen < 50)
