"""Fit and predict of every stage that trains a network: `NeuralStage.fit` and `NeuralStage.predict`.

What a kind of stage adds is a backbone and encoded rows. Here are the columns before the head, the labels
and their weights, a second try with another seed, and smaller batches if the memory is too small.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import set_seed

from competition.dataset import Dataset
from core.errors import DataError
from core.files import derive_seed
from core.modules import load
from core.types import Array
from models.context import Context
from models.hardware import free_gpu_memory, is_out_of_memory
from models.job_folder import write_notes
from models.stage import FEATURES
from models.targets import with_bounds
from models.training.batches import Batches, EncodedDataset, micro_batch_size
from models.training.network import Encoded, Network, predict_network
from models.training.neural_stage import COLUMNS, SCALING, NeuralStage
from models.training.trainer import Trainer

Result = TypeVar("Result")


def fit(stage: NeuralStage, train: Dataset, folder: Path, context: Context) -> None:
    """Train a network and write everything that prediction needs into `folder`.

    A network that is not better than a constant prediction is trained once more with another seed.
    """
    train_with = functools.partial(train_network, train=train, folder=folder)
    is_better, used = with_smaller_batches(stage, functools.partial(train_with, context=context))
    if not is_better:
        other = replace(context, seed=derive_seed(context.seed, "checkpoint_again"))
        is_better, used = with_smaller_batches(used, functools.partial(train_with, context=other))
        note = "not better than a constant prediction with its first seed; trained with another"
        write_notes(folder, [note + ("." if is_better else ", which is not better either.")])
    if used is not stage:
        size = used.batch_size
        n = used.gradient_accumulation_steps
        note = f"the memory is too small for batches of {stage.batch_size} rows: a step has {n} batches of {size}."
        write_notes(folder, [note])


def train_network(stage: NeuralStage, train: Dataset, folder: Path, context: Context) -> bool:
    """Train a network with one seed, and return whether it is better than a constant prediction."""
    network, encoded_train = prepare(stage, train, folder, context)
    names = np.array([*context.task.targets, *auxiliary_targets(stage, context)])
    unlabelled = names[np.isnan(encoded_train.y).all(axis=0)]
    if len(unlabelled):  # with `extra_rows: ignore`, for example
        note = f"no training row has a label of the auxiliary targets {', '.join(unlabelled)}"
        write_notes(folder, [f"{note}, so their heads are not trained"])
    return make_trainer(stage, network, folder, context).fit(encoded_train)


def predict(stage: NeuralStage, rows: Dataset, folder: Path, context: Context) -> Array:
    """Return the predictions of rows, (n_rows, n_outputs)."""
    encoded = encode_rows(stage, rows, folder, context, seed=0)
    network = make_network(stage, stage.backbone(folder, context), encoded(0), context)
    y_pred, _ = with_smaller_batches(
        stage, lambda smaller: predict_network(network, encoded, smaller, folder, context.task)
    )
    return y_pred


def auxiliary_targets(stage: NeuralStage, context: Context) -> list[str]:
    """Return the auxiliary targets that the stage learns."""
    return context.auxiliary if stage.learns_auxiliary_targets else []


def prepare(
    stage: NeuralStage, train: Dataset, folder: Path, context: Context
) -> tuple[Network, EncodedDataset]:
    """Return the network with the weights to start from, and the encoded rows."""
    set_seed(context.seed)
    if stage.reads_features:
        load(FEATURES).fit_encoders(train, stage, context, folder)
    if stage.reads_columns(context):
        load(SCALING).fit_scaling(column_blocks(train, stage, context, folder), folder)
    backbone = stage.initial_backbone(train, folder, context)
    encoded_train = encode_with_labels(stage, train, folder, context)
    return make_network(stage, backbone, encoded_train.encoded(0), context), encoded_train


def make_network(stage: NeuralStage, backbone: Any, batches: Batches, context: Context) -> Network:
    """Return a backbone with a head for all outputs and auxiliary targets.

    Args:
        batches: encoded rows, for the number of molecules and of columns before the head.
    """
    n_columns = 0 if batches.columns is None else batches.columns.shape[1]
    n_outputs = len([*context.task.outputs, *auxiliary_targets(stage, context)])
    return Network(backbone, n_outputs, stage.head_rates, batches.n_molecules, n_columns)


def make_trainer(stage: NeuralStage, network: Network, folder: Path, context: Context) -> Trainer:
    """Return the trainer of a network of a stage."""
    held_out = None
    if context.held_out is not None:
        held_out = encode_rows(stage, context.held_out.rows, folder, context, seed=0)
    return Trainer(network, stage, folder, context, held_out)


def encode_with_labels(stage: NeuralStage, rows: Dataset, folder: Path, context: Context) -> EncodedDataset:
    """Return encoded rows with the labels of targets and auxiliary targets, and their weights in the loss."""
    auxiliary = auxiliary_targets(stage, context)
    y = rows.y
    if auxiliary and rows.auxiliary is not None:
        y = np.hstack([y, rows.auxiliary])
    sides = np.zeros_like(y)
    if rows.bounds is not None:
        y, sides = with_bounds(y, rows.bounds[:, : y.shape[1]])
    weights = np.ones_like(y) * (1.0 if rows.weights is None else rows.weights[:, None])
    weights[:, rows.y.shape[1] :] *= stage.auxiliary_weight
    encoded = encode_rows(stage, rows, folder, context, context.seed)
    n = stage.n_augmentations[0]
    return EncodedDataset(lambda number: encoded(number % n if n else number), y, weights, sides)


def encode_rows(stage: NeuralStage, rows: Dataset, folder: Path, context: Context, seed: int) -> Encoded:
    """Return a function from the augmentation to the encoded rows, with the columns before the head."""
    columns = None
    if stage.reads_columns(context):
        blocks = column_blocks(rows, stage, context, folder)
        columns = load(SCALING).scaled_matrix(blocks, folder).astype(np.float32)

    @functools.lru_cache(maxsize=stage.n_augmentations[0] or 1)
    def encoded(number: int) -> Batches:
        batches = stage.encode(rows, folder, context, number, seed)
        return batches if columns is None else replace(batches, columns=columns)

    return encoded


def with_smaller_batches(
    stage: NeuralStage, function: Callable[[NeuralStage], Result]
) -> tuple[Result, NeuralStage]:
    """Call a function with a stage, and with smaller batches as long as the memory is too small.

    Returns:
        The result, and the settings that it was computed with.
    """
    while True:
        try:
            return function(stage), stage
        except RuntimeError as error:
            stage = halve_batch_size(stage, error)
        finally:
            free_gpu_memory()


def halve_batch_size(settings: NeuralStage, error: RuntimeError) -> NeuralStage:
    """Return settings with at most half as many rows per forward pass, after running out of memory.

    Raises:
        RuntimeError: the error, if it has another cause.
        DataError: if a single row is too large.
    """
    if not is_out_of_memory(str(error)):
        raise error
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    rows_per_pass = min(settings.batch_size, micro_batch_size(device_type, settings.precision))
    if rows_per_pass == 1:
        raise DataError(
            "the memory is too small for a single row. "
            "Set gradient_checkpointing: true, or shorten the inputs; finished folds are kept."
        ) from error
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    batch_size = max(n for n in range(1, rows_per_pass // 2 + 1) if n_rows % n == 0)
    return settings.model_copy(
        update={"batch_size": batch_size, "gradient_accumulation_steps": n_rows // batch_size}
    )


def column_blocks(rows: Dataset, stage: NeuralStage, context: Context, folder: Path) -> dict[str, Any]:
    """Return the unscaled features, numbers and categories that are concatenated before the head."""
    blocks: dict[str, Any] = {}
    if stage.reads_features:
        blocks |= load(FEATURES).feature_blocks(rows, stage, context, folder)
    if stage.use_tabular_columns:
        blocks |= load(COLUMNS).table_blocks(rows, context)
    return blocks
