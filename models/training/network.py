"""A network of backbone, hidden layer and head, also for several molecule columns; audit of its dropout.

Why dropout is off in a backbone: in regression, dropout inside a network changes the variance of its
activations between training and inference, which biases predictions (Li et al., arXiv 1801.05134);
CommonLit's and FB3's winners set it to 0. Why that is verified before a fold trains: `unimol_tools` has
46 rates as plain numbers, which a loop over nn.Dropout modules misses.
"""

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
from core.errors import ConfigError
from core.files import read_json
from core.types import Array
from models.hardware import cpu_has_bf16, require_precision
from models.job_folder import TRAINING, WEIGHTS
from models.training.batches import Batches
from models.training.losses import LINKS, exclude_absent_classes
from models.training.settings import TrainingSettings

ROWS_ON_GPU = 8
"""Rows of a prediction on a GPU for each row of a batch in training, which also has gradients."""
Encoded = Callable[[int], Batches]
"""Rows by augmentation; see `EncodedDataset`."""
TOLERANCE = 1e-5
"""Difference of outputs, relative to the largest one, that is rounding and no dropout."""
RATE_NAMES = (
    "dropout", "emb_dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "residual_dropout",
    "pair_dropout", "attn_dropout", "dropout_p", "dropout_prob", "drop_prob", "droppath_prob", "layerdrop",
)  # fmt: skip


class Head(nn.Module):
    """Dropout and one linear layer; with several rates, multi-sample dropout.

    In multi-sample dropout several masks share the linear layer, and the backbone runs once. Their losses are
    averaged and not their outputs: with averaged outputs, the implicit penalty on the weights would shrink by
    the number of masks. Dropout right before the last layer leaves the mean prediction unbiased.

    Source: Inoue, Multi-Sample Dropout for Accelerated Training and Better Generalization, arXiv 1905.09788.
    """

    def __init__(self, width: int, n_outputs: int, rates: list[float]) -> None:
        super().__init__()
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in rates)
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (n_rows, n_outputs), with the first mask in training mode (R-Drop)."""
        return self._outputs(self.dropouts[0], features)

    def loss(self, features: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of features (n_rows, width), the mean over all masks.

        Args:
            loss: maps outputs (n_rows, n_outputs) to a number.
        """
        return torch.stack([loss(self._outputs(dropout, features)) for dropout in self.dropouts]).mean()

    def _outputs(self, dropout: nn.Module, features: Tensor) -> Tensor:
        """Compute outputs in float32, also under autocast: bf16 has two to three digits."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(dropout(features.float()))


class Network(nn.Module):
    """A backbone that maps a batch to pooled features (n_rows, width), a hidden layer, and a head.

    The features of several molecules, and the tensor `columns` (n_rows, n_columns) of a batch, go through one
    hidden layer, so that they can interact. With one molecule and no columns this layer is omitted.

    Args:
        backbone: backbone for one molecule, with the number of its features as `width`.
        n_outputs: number of outputs of the head.
        rates: dropout rates of the head.
        n_molecules: number of molecules of a row.
        n_columns: number of columns of `columns`.
    """

    def __init__(
        self, backbone: Any, n_outputs: int, rates: list[float], n_molecules: int = 1, n_columns: int = 0
    ) -> None:
        super().__init__()
        width = backbone.width
        n_features = width * n_molecules + n_columns
        head = Head(width, n_outputs, rates)
        self.backbone = PerColumn(backbone) if n_molecules > 1 else backbone
        has_join = n_features != width
        self.join = nn.Sequential(nn.Linear(n_features, width), nn.GELU()) if has_join else nn.Identity()
        self.head: Any = head

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the outputs of a batch, (n_rows, n_outputs)."""
        return self.head(self.features(batch))

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the features that the head reads, (n_rows, width)."""
        pooled = self.backbone(**{name: tensor for name, tensor in batch.items() if name != "columns"})
        return self.join(torch.cat([pooled, batch["columns"]], dim=1) if "columns" in batch else pooled)


class PerColumn(nn.Module):
    """Applies one backbone to several molecule columns, and concatenates their pooled features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, **columns: dict[str, Tensor]) -> Tensor:
        """Return features (n_rows, n_columns * width).

        Args:
            columns: for each column the arguments of the backbone for its distinct molecules, and `row`
                (n_rows,): the position of the molecule of each row among them.
        """
        return torch.cat([self._features(**inputs) for inputs in columns.values()], dim=1)

    def _features(self, row: Tensor, **molecules: Tensor) -> Tensor:
        return self.backbone(**molecules)[row]


def rates(module: nn.Module) -> dict[str, float]:
    """Return path -> dropout rate of a module, including rates of 0."""
    all_rates = {}
    for path, part in module.named_modules():
        is_dropout = isinstance(part, nn.modules.dropout._DropoutNd) or type(part).__name__ == "Dropout"
        for name in ("p", *RATE_NAMES) if is_dropout else RATE_NAMES:
            value = part.__dict__.get(name)
            if type(value) in (int, float):
                all_rates[f"{path}.{name}".lstrip(".")] = float(value)
    return all_rates


def set_rates(module: nn.Module, rate: float) -> None:
    """Set all dropout rates above 0 to `rate`; rates of 0 stay."""
    for path, old in rates(module).items():
        if old > 0:
            owner, _, name = path.rpartition(".")
            setattr(module.get_submodule(owner), name, rate)


def halve_frozen(module: nn.Module) -> None:
    """Store the frozen matrices of linear layers in bf16 if it has their numbers, as published decoders are.

    With autocast to bf16 the outputs stay the same; without, such a layer cannot be used.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.weight.dtype == torch.float32:
            halved = part.weight.detach().bfloat16()
            if not part.weight.requires_grad and torch.equal(halved.float(), part.weight):
                part.weight.data = halved


def require_no_batch_norm(backbone: nn.Module) -> None:
    """Raise a ConfigError if a backbone has batch norm, which no dropout rate turns off."""
    names = [
        path for path, part in backbone.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if names:
        raise ConfigError(
            f"{', '.join(names)}: batch norm depends on the other rows of a batch; use LayerNorm or GroupNorm."
        )


@torch.no_grad()
def audit(backbone: nn.Module, batch: dict[str, Tensor]) -> None:
    """Run one batch twice in training mode and once in evaluation mode; all three outputs must be the same.

    Evaluation may round differently, by other kernels of torch. Matrices that start at 0, such as B of an
    adapter, would hide a dropout before them: they are not 0 meanwhile.
    """
    was_training = backbone.training
    zeros = [p for p in backbone.parameters() if p.requires_grad and p.ndim > 1 and not p.any()]
    for parameter in zeros:
        parameter.fill_(0.01)
    first, second, expected = (backbone.train(mode)(**batch).float() for mode in (True, True, False))
    for parameter in zeros:
        parameter.zero_()
    backbone.train(was_training)
    difference = max(float((output - expected).abs().max()) for output in (first, second))
    largest = float(expected.abs().max())
    if difference > TOLERANCE * largest:
        on = [f"{path} = {rate:g}" for path, rate in rates(backbone).items() if rate > 0]
        raise ConfigError(
            f"backbone_dropout is 0, but outputs of the backbone, up to {largest:.3g}, "
            f"differ by {difference:.2g} between training and evaluation mode: "
            f"{', '.join(on) or 'all rates are 0, so a module drops in its forward pass'}. "
            "Remove that dropout from the module, or set backbone_dropout."
        )


def predict_network(
    network: Network, encoded: Encoded, settings: TrainingSettings, folder: Path, task: Task
) -> Array:
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
