"""The competition's numbers and categories, and features of molecules, as the vector that joins before the head."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import EmbeddingStage
from models.inputs.features import stage_features
from models.settings import NeuralStage
from models.stage import Context

FILE = "columns.json"
Settings = NeuralStage | EmbeddingStage
FURTHEST = 5.0
"""Spreads from the mean at which a value is cut: one odd number must not outweigh all pooled features."""


def fit_columns(train: Rows, config: Settings, context: Context, folder: Path) -> None:
    """Learn means, spreads and categories from the training rows, and write them to `folder`."""
    numbers = _numbers(train, config, context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any number
        mean, scale = np.nan_to_num(np.nanmean(numbers, axis=0)), np.nan_to_num(np.nanstd(numbers, axis=0))
    categories = {name: sorted(set(train.inputs[name])) for name in _categorical(config, context)}
    write_json(
        folder / FILE,
        {
            "mean": mean.tolist(),
            "scale": np.where(scale > 1e-9, scale, 1.0).tolist(),
            "gaps": np.isnan(numbers).any(axis=0).tolist(),
            "categories": categories,
        },
    )


def read_columns(rows: Rows, config: Settings, context: Context, folder: Path) -> NDArray[np.float32]:
    """Standardised numbers, 1 where one is missing (for columns with gaps in training), one-hot categories.

    Returns:
        (n_rows, n_columns); a missing number is the mean, an unseen category all zeros.
    """
    stored: dict[str, Any] = read_json(folder / FILE)
    numbers = _numbers(rows, config, context)
    standardised = np.clip((numbers - np.array(stored["mean"])) / np.array(stored["scale"]), -FURTHEST, FURTHEST)
    parts = [np.nan_to_num(standardised), np.isnan(numbers)[:, np.array(stored["gaps"], dtype=bool)]]
    for name, known in stored["categories"].items():
        parts.append(np.asarray(rows.inputs[name])[:, None] == np.array(known, dtype=object))
    return np.hstack(parts).astype(np.float32)


def _numbers(rows: Rows, config: Settings, context: Context) -> NDArray[np.float64]:
    parts: list[NDArray[Any]] = [np.zeros((len(rows), 0))]
    if config.columns_before_head and context.numeric:
        parts.append(rows.inputs[context.numeric].to_numpy(dtype=np.float64))
    for column in context.smiles:
        for cache in stage_features(config, context.cache):
            parts.append(np.concatenate(cache.load(rows.inputs[column])[0]))
    return np.hstack(parts)


def _categorical(config: Settings, context: Context) -> list[str]:
    return context.categorical if config.columns_before_head else []
