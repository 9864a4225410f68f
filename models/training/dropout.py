"""Switch dropout off inside a backbone, and verify that it is off before a fold trains.

Why off: in regression, dropout inside a network changes the variance of its activations between training and
inference, which biases predictions (Li et al., arXiv 1801.05134); CommonLit's and FB3's winners set it to 0.
Why verify: `unimol_tools` has 46 rates as plain numbers, which a loop over nn.Dropout modules misses.
"""

import torch
from torch import Tensor, nn

from core.errors import ConfigError

RATE_NAMES = (
    "dropout", "emb_dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "residual_dropout",
    "pair_dropout", "attn_dropout", "dropout_p", "dropout_prob", "drop_prob", "droppath_prob", "layerdrop",
)  # fmt: skip


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


@torch.no_grad()
def audit(backbone: nn.Module, batch: dict[str, Tensor]) -> None:
    """Run one batch twice in training mode and once in evaluation mode; all three outputs must be the same.

    Matrices that start at 0, such as B of an adapter, would hide a dropout before them: they are not 0 meanwhile.
    """
    was_training = backbone.training
    zeros = [p for p in backbone.parameters() if p.requires_grad and p.ndim > 1 and not p.any()]
    for parameter in zeros:
        parameter.fill_(0.01)
    first, second, expected = (backbone.train(mode)(**batch).float() for mode in (True, True, False))
    for parameter in zeros:
        parameter.zero_()
    backbone.train(was_training)
    tolerance = 0.0 if expected.device.type == "cpu" else 1e-5 * float(expected.abs().max())
    if any(bool((output - expected).abs().max() > tolerance) for output in (first, second)):
        on = [f"{path} = {rate:g}" for path, rate in rates(backbone).items() if rate > 0]
        raise ConfigError(
            "backbone_dropout is 0, but the outputs of the backbone differ between training and evaluation mode: "
            f"{', '.join(on) or 'all rates are 0, so a module drops in its forward pass'}. Set those rates to 0 "
            "in the module of the stage, or set backbone_dropout."
        )
