"""Learning-rate schedules: pure functions of (step, total_steps) that give the multiplier of the peak rate.

`step` counts optimizer steps from 0 to total_steps - 1; each function is 1 at step 0 unless it says
otherwise.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any


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
