"""Which weights are trained, how fast, and which are kept: layers, rates, averages.

A layer is a member of the longest numbered list of the backbone (`encoder.layer.7`, `layers.3`), whatever the library.
"""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from competition.errors import ConfigError
from models.settings import NeuralStage
from models.training.heads import Network


def layers_of(backbone: nn.Module) -> dict[str, nn.Module]:
    """Layers of a backbone by name, from the input on; empty where it has no list of equal parts."""
    lists = {name: part for name, part in backbone.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 0}
    equal = {name: part for name, part in lists.items() if len({type(layer) for layer in part}) == 1}
    if not equal:
        return {}
    name = max(equal, key=lambda name: sum(p.numel() for p in equal[name].parameters()))
    return {f"{name}.{i}": layer for i, layer in enumerate(equal[name])}


def prepare_layers(backbone: nn.Module, settings: NeuralStage) -> None:
    """Re-initialise top layers, freeze parts, and recompute activations, as the settings say.

    Source: Zhang et al., Revisiting Few-sample BERT Fine-tuning, ICLR 2021 (re-initialised top layers).

    Raises:
        ConfigError: for a layer or a part that is not there.
    """
    layers = layers_of(backbone)
    if settings.reinitialise_layers > len(layers):
        raise ConfigError(
            f"reinitialise_layers must be at most the backbone's number of layers; found "
            f"{settings.reinitialise_layers}, and it has {len(layers)}. Lower it."
        )
    for layer in list(layers.values())[len(layers) - settings.reinitialise_layers :]:
        layer.apply(_initialise)
    for prefix in settings.freeze:
        found = [p for name, p in backbone.named_parameters() if name.startswith(prefix)]
        if not found:
            parts = sorted({".".join(name.split(".")[:3]) for name, _ in backbone.named_parameters()})
            raise ConfigError(f"freeze must name parts of the backbone; {prefix!r} is none of {', '.join(parts)}.")
        for parameter in found:
            parameter.requires_grad_(False)
    if settings.checkpoint_layers:
        if not layers:
            raise ConfigError("checkpoint_layers needs a backbone with layers; this one has none. Remove it.")
        for layer in layers.values():
            layer.forward = partial(_recomputed, layer, layer.forward)


def _recomputed(layer: nn.Module, forward: object, *args: object, **kwargs: object) -> object:
    """The layer's forward pass, its activations recomputed when gradients are needed."""
    if layer.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)  # type: ignore[arg-type]
    return forward(*args, **kwargs)  # type: ignore[operator]


def _initialise(module: nn.Module) -> None:
    """BERT's initial weights."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()


def make_optimizer(network: Network, settings: NeuralStage) -> torch.optim.AdamW:
    """AdamW; no decay on norms, biases and other vectors; rates by layer, and the head's own where one is set.

    Source of the layer-wise rates: Howard and Ruder, ULMFiT, ACL 2018.

    Raises:
        ConfigError: if layer_decay is set and the backbone has no layers.
    """
    layers = list(layers_of(network.backbone))
    if settings.layer_decay < 1 and not layers:
        raise ConfigError("layer_decay needs a backbone with layers; this one has none. Remove it.")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.head_learning_rate or settings.learning_rate
        if name.startswith("backbone."):
            depth = _depth(name.removeprefix("backbone."), layers)
            rate = settings.learning_rate * settings.layer_decay ** (len(layers) - depth)
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
            for (rate, decays), parameters in groups.items()
        ],
        fused=True,  # one pass over the weights: a sixth of the time on a CPU
    )


def _depth(name: str, layers: list[str]) -> int:
    """Layers below and including the one that a parameter belongs to: 0 for embeddings, all for what stands behind."""
    for i, layer in enumerate(layers):
        if name.startswith(f"{layer}."):
            return i + 1
    return 0 if re.search(r"embed", name) else len(layers)


def make_average(network: Network, settings: NeuralStage) -> AveragedModel | None:
    """The average of weights that is kept instead of the last ones, by PyTorch's `swa_utils`.

    Sources: Polyak and Juditsky 1992 (moving average); Izmailov et al., SWA, UAI 2018 (mean of epochs).
    """
    if settings.average == "none":
        return None
    if settings.average == "last_epochs":
        return AveragedModel(network)
    return AveragedModel(network, avg_fn=partial(moving_average, decay=settings.ema_decay))


def moving_average(old: Tensor, new: Tensor, n_averaged: Tensor | int, decay: float) -> Tensor:
    """The old average moved towards the new weights; faster in the first steps, or the start would stay in it."""
    n = int(n_averaged)
    return torch.lerp(old, new, 1 - min(decay, (1 + n) / (10 + n)))
