"""Prediction with a trained network, and the device and precision of a process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn

from competition.task import Task
from core.files import read_json
from core.types import Array
from models.job_folder import TRAINING, WEIGHTS
from models.training.batches import Batches
from models.training.hardware import cpu_has_bf16, require_precision
from models.training.losses import LINKS, exclude_absent_classes
from models.training.network import Network
from models.training.settings import NeuralStage

ROWS_ON_GPU = 8
"""Rows of a prediction on a GPU for each row of a batch in training, which also has gradients."""
Encoded = Callable[[int], Batches]
"""Rows by augmentation; see `EncodedDataset`."""


def predict(network: Network, encoded: Encoded, settings: NeuralStage, folder: Path, task: Task) -> Array:
    """Return predictions (n_rows, n_outputs) with the weights in `folder`.

    They are in the units of the targets, or probabilities of classes; a class without training rows has
    probability 0. They are means over augmentations.
    """
    network.load_state_dict(load_file(folder / WEIGHTS))
    # On a CPU always float32, which every processor has, and which does not depend on the batch. `auto` is
    # float32 on a GPU as well, so that both predict the same. The GPU of a notebook may not support bf16.
    on_gpu = {"auto": "float32", "bf16": "auto"}.get(settings.precision, settings.precision)
    accelerator = make_accelerator(on_gpu if torch.cuda.is_available() else "float32")
    network.to(accelerator.device)
    training = read_json(folder / TRAINING)
    set_seed(training["seed"])
    passes = []
    for number in range(settings.n_augmentations[1]):
        passes.append(forward(network, encoded(number), settings.batch_size, accelerator))
    return as_predictions(passes, training, task)


def as_predictions(passes: list[Tensor], training: dict[str, Any], task: Task) -> Array:
    """Return predictions (n_rows, n_outputs), the mean over forward passes.

    Args:
        passes: outputs of each pass, (n_rows, n_outputs and auxiliary targets).
        training: content of training.json: mean and scale of the labels, and the classes with training rows.
        task: what is learned.
    """
    outputs = torch.stack(passes).double()
    if task.problem_type in LINKS:
        outputs = LINKS[task.problem_type](exclude_absent_classes(outputs, training["classes"]))
    n_outputs = len(task.outputs)
    mean = np.array(training["mean"])[:n_outputs]
    scale = np.array(training["scale"])[:n_outputs]
    return outputs[..., :n_outputs].numpy().mean(axis=0) * scale + mean


def forward(network: nn.Module, batches: Batches, batch_size: int, accelerator: Accelerator) -> Tensor:
    """Return outputs (n_rows, n_outputs), standardised numbers or logits, in the order of the rows."""
    network.eval()
    is_on_gpu = accelerator.device.type == "cuda"
    # A batch of one row is what is left after running out of memory.
    plan = batches.sorted_plan(batch_size * (ROWS_ON_GPU if is_on_gpu and batch_size > 1 else 1))
    # Not in inference mode: what a network caches here, such as angles of positions, is used in training.
    with torch.no_grad(), accelerator.autocast():
        outputs = [network(batches.batch(rows, accelerator.device)).float() for rows in plan]
    return torch.cat(outputs).cpu()[np.argsort(np.concatenate(plan))]


def make_accelerator(precision: str, **tracker: Any) -> Accelerator:
    """Return an accelerator with the device of this process and a precision.

    Args:
        precision: setting of the stage.
        tracker: arguments of `tracker_arguments`.
    """
    has_gpu = torch.cuda.is_available()
    # torch reports bf16 for a T4 too, which emulates it slowly (pytorch issue 148322).
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_gpu else cpu_has_bf16()
    if precision == "auto":
        gpu_precision = "bf16" if has_bf16 else "fp16"
        precision = gpu_precision if has_gpu else "float32"
    require_precision(precision, has_gpu, has_bf16)
    AcceleratorState._reset_state(True)  # stages of one worker may differ in precision
    mixed = "no" if precision == "float32" else precision
    # A Mac's GPU is left alone: all workers would share it.
    return Accelerator(cpu=not has_gpu, mixed_precision=mixed, **tracker)
