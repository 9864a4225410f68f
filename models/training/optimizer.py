"""Layers of a backbone, the optimizer with rates per layer, and the moving average of the weights.

A layer is a member of the longest numbered list of the backbone (`encoder.layer.7`, `layers.3`), in any
library.
"""

from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from models.training.network import Network
from models.training.schedules import with_warmup
from models.training.settings import NeuralStage

EMA_DECAY = 0.999
"""Share of the previous average of the weights that each step keeps."""
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


def make_optimizer(network: Network, settings: NeuralStage) -> torch.optim.AdamW:
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
    optimizer: torch.optim.Optimizer, settings: NeuralStage, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of the settings, whose `step` is called after each step of the optimizer."""
    multiplier = with_warmup(settings.schedule, settings.warmup, total_steps, settings.cycles, settings.decay)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)


def make_average(network: Network, settings: NeuralStage) -> AveragedModel | None:
    """Return the moving average of the weights, which starts with them; None without `weight_averaging`."""
    return None if settings.weight_averaging == "none" else MovingAverage(network, EMA_DECAY)


class MovingAverage(AveragedModel):
    """A moving average of the weights of a network (Polyak and Juditsky, 1992), which starts with them.

    The decay is smaller in the first steps, or the average would keep the random start. Frozen weights, which
    the average shares with the network, stay. That of torch waits for the device in each step, for its number.
    """

    def __init__(self, network: Network, decay: float) -> None:
        super().__init__(network)
        self.decay = decay
        saved = network.state_dict()
        self.saved_buffers = [name for name, _ in network.named_buffers() if name in saved]

    def update_parameters(self, model: nn.Module) -> None:
        """Move the averages towards the new weights, in place."""
        n = int(self.n_averaged)  # a buffer on the CPU
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        pairs = zip(self.module.parameters(), model.parameters(), strict=True)
        trained = [(one.detach(), other.detach()) for one, other in pairs if one is not other]
        if trained:
            averages, weights = zip(*trained, strict=True)
            torch._foreach_lerp_(averages, weights, 1 - decay)
        for name in self.saved_buffers:
            self.module.get_buffer(name).copy_(model.get_buffer(name))
        self.n_averaged += 1
