"""Which layers a backbone has, how fast each is trained, and the moving average of the weights.

A layer is a member of the longest numbered list of the backbone (`encoder.layer.7`, `layers.3`), whatever the
library.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.neural_config import NeuralConfig
from models.training.heads import Network

OF_INPUTS = ("embed", "emb_layer_norm", "gbf", "atom_feature", "edge_feature", "se3_invariant_kernel")
"""In the names of parameters that stand before all layers."""


def layers_of(backbone: nn.Module) -> dict[str, nn.Module]:
    """Layers of a backbone by name, from the input on; none where it has no list of equal parts."""
    lists = {name: part for name, part in backbone.named_modules() if isinstance(part, nn.ModuleList)}
    equal = {name: part for name, part in lists.items() if len({type(layer) for layer in part}) == 1}
    name = max(equal, key=lambda name: sum(p.numel() for p in equal[name].parameters()), default="")
    return {f"{name}.{i}": layer for i, layer in enumerate(equal.get(name, []))}


def recompute_layers(backbone: nn.Module) -> None:
    """Have each layer computed again in the backward pass, instead of keeping its activations."""
    for layer in layers_of(backbone).values():
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def make_optimizer(network: Network, settings: NeuralConfig) -> torch.optim.AdamW:
    """AdamW; no decay on norms, biases and other vectors; rates by layer, and the head's own where one is
    set.

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
    """Layers below and including the one that a parameter belongs to: 0 for embeddings and, in Uni-Mol, what
    makes the features of atoms and pairs; all for what stands behind.
    """
    behind = 0 if any(part in name for part in OF_INPUTS) else len(layers)
    return next((i for i, layer in enumerate(layers, start=1) if name.startswith(f"{layer}.")), behind)


def moving_average(
    averages: list[Tensor], weights: list[Tensor], n_averaged: Tensor | int, decay: float
) -> None:
    """Move the averages towards the new weights, in place (Polyak and Juditsky, 1992).

    The decay is smaller in the first steps, or the average would keep the random start.
    """
    n = int(n_averaged)
    torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))
