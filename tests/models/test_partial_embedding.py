"""Only the embeddings of tokens that the training rows have are trained, and nothing else changes by it."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch

from competition.dataset import Dataset
from models.networks import encoders
from tests.models.encoders import context, fit, stage, table
from tests.models.made import build_stage


def few_words() -> Dataset:
    rows = table()
    rows.inputs["note"] = ["red green" if i % 2 else "blue red" for i in range(len(rows))]
    return rows


def test_all_weights_become_what_they_become_when_all_tokens_are_trained(
    tmp_path: Path, published: Path
) -> None:
    config = stage(weights=str(published), weight_decay=0, weight_averaging="ema", epochs=2)

    def fitted(folder: Path) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """Predictions for rows with words that the training rows do not have, and the weights."""
        model = fit(folder, config, context(texts=["note"]), few_words())
        return model.predict(table(seed=3), folder), safetensors.torch.load_file(
            folder / "weights.safetensors"
        )

    y_pred, state = fitted(tmp_path / "own")
    with mock.patch.object(encoders, "train_only"):
        y_all, all_tokens = fitted(tmp_path / "all")
    assert state.keys() == all_tokens.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, all_tokens[name], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(y_pred, y_all, rtol=1e-3)


def test_all_tokens_are_trained_where_later_epochs_have_others(tmp_path: Path, published: Path) -> None:
    def is_seen(**changes: Any) -> bool:
        model = build_stage(stage(**changes), context(["SMILES"], ["note"]))
        backbone: Any = model.initial_backbone(few_words(), tmp_path)
        return isinstance(backbone.encoder.get_input_embeddings(), encoders.PartiallyTrainedEmbedding)

    assert is_seen(weights=str(published))
    assert not is_seen(weights=str(published), extra_rows="pretrain")  # `start` does not see the extra rows
    assert not is_seen(enumerate_smiles=True, columns=["SMILES"])  # each epoch has other tokens
