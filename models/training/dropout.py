"""Switch dropout off inside a backbone, and prove that it is off before a fold trains.

Why off: in regression, dropout inside a network changes the variance of its activations between training and
inference, which biases predictions (Li et al., arXiv 1801.05134); CommonLit's and FB3's winners set it to 0.
Why a proof: `unimol_tools` keeps 46 of its rates as plain numbers that a sweep over nn.Dropout does not see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from competition.errors import ConfigError

RATE_NAMES = (
    "dropout", "emb_dropout", "attention_dropout", "activation_dropout", "pair_dropout", "drop_prob", "droppath_prob",
)  # fmt: skip


def rates(module: nn.Module) -> dict[str, float]:
    """Every dropout rate in a module by its path, those that are 0 included."""
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) or type(part).__name__ == "Dropout":
            found[f"{path}.p"] = float(part.p)
        for name in RATE_NAMES:
            value = part.__dict__.get(name)
            if isinstance(value, float | int) and not isinstance(value, bool):
                found[f"{path}.{name}".lstrip(".")] = float(value)
    return found


def set_rates(module: nn.Module, rate: float) -> None:
    """Set every dropout rate that is above 0 to `rate`; one that its authors set to 0 stays 0."""
    for path, old in rates(module).items():
        if old > 0:
            owner, _, name = path.rpartition(".")
            setattr(module.get_submodule(owner), name, rate)


def audit(backbone: nn.Module, batch: dict[str, Tensor]) -> None:
    """Run one batch twice in training mode and once in evaluation mode; all three outputs must be the same.

    Raises:
        ConfigError: if the outputs differ; names the modules that drop, or the first whose output differs.
    """
    was_training = backbone.training
    outputs, traces = [], []
    for training in (True, True, False):
        backbone.train(training)
        output, trace = _trace(backbone, batch)
        outputs.append(output)
        traces.append(trace)
    backbone.train(was_training)
    tolerance = 0.0 if outputs[0].device.type == "cpu" else 1e-5 * float(outputs[2].abs().max())
    differs = [bool((output - outputs[2]).abs().max() > tolerance) for output in outputs[:2]]
    if any(differs):
        on = [f"{path} = {rate:g}" for path, rate in rates(backbone).items() if rate > 0]
        first = next((path for path in traces[2] if any(t.get(path) != traces[2][path] for t in traces[:2])), "unknown")
        raise ConfigError(
            "with backbone_dropout 0 a backbone must give the same output in training and evaluation mode, "
            f"and it does not; still dropping: {', '.join(on) or f'no rate is above 0, first difference in {first}'}. "
            "Set those rates to 0 in the stage's file, or set backbone_dropout."
        )


def _trace(backbone: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Output of the backbone, and a fingerprint of every leaf module's output in the order they ran."""
    trace: dict[str, float] = {}

    def hook(path: str) -> object:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and path not in trace:
                trace[path] = float(output.double().sum())

        return record

    leaves = [(path, part) for path, part in backbone.named_modules() if not list(part.children())]
    handles = [part.register_forward_hook(hook(path)) for path, part in leaves]
    try:
        with torch.no_grad():
            return backbone(**batch).float(), trace
    finally:
        for handle in handles:
            handle.remove()
