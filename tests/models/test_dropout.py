"""The dropout audit: it passes where nothing drops, and names what still does."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import ConfigError
from models.training.network import audit, rates, set_rates

BATCH = {"x": torch.ones(4, 64)}


class Block(nn.Module):
    """Three ways to drop: a module, a float that F.dropout reads, and a number inside `forward`."""

    def __init__(self, module: float = 0.0, attribute: float = 0.0, hidden: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.act = nn.Sequential(nn.Tanh(), nn.Dropout(module))
        self.last = nn.Linear(64, 64)
        self.attention_dropout = attribute
        self._hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.first(x), self.attention_dropout, self.training)
        x = F.dropout(self.act(x), self._hidden, self.training)
        return self.last(x)


@pytest.mark.parametrize(
    ("on", "expected_path"),
    [
        ({"module": 0.1}, r"act\.1\.p = 0\.1"),
        ({"attribute": 0.25}, r"attention_dropout = 0\.25"),
        ({"hidden": 0.1}, "all rates are 0, so a module drops"),
    ],
)
def test_the_audit_names_what_drops(on: dict[str, float], expected_path: str) -> None:
    with pytest.raises(ConfigError, match=expected_path):
        audit(Block(**on), BATCH)


def test_set_rates_finds_modules_and_floats_and_leaves_zeros() -> None:
    backbone = nn.Sequential(Block(module=0.1, attribute=0.2))
    set_rates(backbone, 0.05)
    assert rates(backbone) == {"0.act.1.p": 0.05, "0.attention_dropout": 0.05}
    set_rates(backbone.eval(), 0.0)
    audit(backbone, {"input": BATCH["x"]})
    assert not backbone.training  # the mode it came in
    set_rates(backbone, 0.3)  # what is 0 stays 0: it may have been set so by the authors
    assert set(rates(backbone).values()) == {0.0}
