"""The optimizer with rates per layer of the backbone and learning-rate schedules.

A layer is a member of the longest numbered list of the backbone (`encoder.layer.7`, `layers.3`), in any
library.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.training.network import Network
from models.training.settings import TrainingSettings

INPUT_PARTS = ("embed", "emb_layer_norm", "gbf", "atom_feature", "edge_feature", "se3_invariant_kernel")
"""Parts of the names of parameters before all layers."""


def layers_of(backbone: nn.Module) -> dict[str, nn.Module]:
    """Return name -> layer of a backbone, from the input; {} if it has no list of equal modules."""
    equal = {}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(set(map(type, module))) == 1:
            equal[name] = module
    name = max(equal, key=lambda name: sum(p.numel() for p in equal[name].parameters()), default="")
    return {f"{name}.{i}": layer for i, layer in enumerate(equal.get(name, []))}


def recompute_layers(backbone: nn.Module) -> None:
    """Recompute each layer in the backward pass, instead of storing its activations."""
    for layer in layers_of(backbone).values():
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def make_optimizer(network: Network, settings: TrainingSettings) -> torch.optim.AdamW:
    """Return AdamW without decay of norms, biases and other vectors, with rates per layer and of the head.

    Source of the layer-wise rates: Howard and Ruder, ULMFiT, ACL 2018.
    """
    layers = list(layers_of(network.backbone))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = settings.head_learning_rate or settings.learning_rate
            if name.startswith("backbone."):
                below = len(layers) - _depth(name.removeprefix("backbone."), layers)
                rate = settings.learning_rate * settings.layer_decay**below
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()],
        fused=True,  # one pass over the weights: a sixth of the time on a CPU
    )


def _depth(name: str, layers: list[str]) -> int:
    """Return the number of a parameter's layer, from 1.

    It is 0 for parameters before all layers, such as embeddings and, in Uni-Mol, the features of atoms and
    pairs, and the number of layers for parameters after them.
    """
    for i, layer in enumerate(layers, start=1):
        if name.startswith(f"{layer}."):
            return i
    return 0 if any(part in name for part in INPUT_PARTS) else len(layers)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of the settings, whose `step` is called after each step of the optimizer."""
    multiplier = with_warmup(settings.schedule, settings.warmup, total_steps, settings.cycles, settings.decay)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)


def constant(step: int, total_steps: int) -> float:
    """Return 1 in all steps."""
    return 1.0


def linear(step: int, total_steps: int) -> float:
    """Return a straight line from 1 to 0: the practice for fine-tuning BERT (Devlin et al. 2019)."""
    return 1.0 - step / total_steps


def cosine(step: int, total_steps: int) -> float:
    """Return half a cosine from 1 to 0. Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts."""
    return 0.5 * (1.0 + math.cos(math.pi * step / total_steps))


def polynomial(step: int, total_steps: int) -> float:
    """Return a parabola (1 - x)^2 from 1 to 0: more of the steps at small rates than `linear`."""
    return (1.0 - step / total_steps) ** 2


def one_cycle(step: int, total_steps: int) -> float:
    """Return half a cosine from 1 to 1e-4; the warm-up before it starts at 1/25 (`with_warmup`).

    Source: Smith and Topin, Super-Convergence, 2018, with the end points of PyTorch's OneCycleLR.
    """
    return 1e-4 + (1 - 1e-4) * cosine(step, total_steps)


def cosine_with_restarts(step: int, total_steps: int, cycles: int = 3) -> float:
    """Return half a cosine from 1 to 0, `cycles` times. Source: Loshchilov and Hutter, SGDR, ICLR 2017."""
    return 0.5 * (1.0 + math.cos(math.pi * ((cycles * step / total_steps) % 1.0)))


def warmup_stable_decay(step: int, total_steps: int, decay: float = 0.2) -> float:
    """Return 1, then a straight line to 0 over the last `decay` share. Source: Hu et al., MiniCPM, arXiv 2404.06395."""
    return min(1.0, (total_steps - step) / (decay * total_steps))


SCHEDULES: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        constant,
        linear,
        cosine,
        cosine_with_restarts,
        polynomial,
        one_cycle,
        warmup_stable_decay,
    )
}


def with_warmup(
    name: str, warmup: float, total_steps: int, cycles: int = 3, decay: float = 0.2
) -> Callable[[int], float]:
    """Return a schedule after a linear warm-up, as a function of the step.

    The warm-up ends at 1; it starts one step above 0, or above 1/25 for `one_cycle`. The schedule then runs
    over the remaining steps, so that its last step is just above its end point.

    Args:
        warmup: below 1 a share of all steps, else a number of steps, of which at most half are used.
    """
    parameters: dict[str, Any] = {
        "cosine_with_restarts": {"cycles": cycles},
        "warmup_stable_decay": {"decay": decay},
    }
    schedule = partial(SCHEDULES[name], **parameters.get(name, {}))
    warmup_steps = round(warmup * total_steps) if warmup < 1 else min(round(warmup), total_steps // 2)
    warmup_steps = min(warmup_steps, total_steps - 1)
    start = 1 / 25 if name == "one_cycle" else 0.0

    def multiplier(step: int) -> float:
        if step < warmup_steps:
            return start + (1 - start) * (step + 1) / (warmup_steps + 1)
        return schedule(step - warmup_steps, max(total_steps - warmup_steps, 1))

    return multiplier
