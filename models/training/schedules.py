"""Learning-rate schedules: the factor of the learning rate in each step after the warm-up.

To add one, write a function here and name it in `SCHEDULES`; its arguments after the first two are settings
of `TrainingSettings`. A schedule of a user is a function in a file next to the YAML, `schedule:
mine.py:function`.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from core.errors import ConfigError
from core.user_code import load_user_code, short_ref, user_code_errors


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
    """Return half a cosine from 1 to 1e-4; the warm-up before it starts at 1/25 (`WARMUP_STARTS`).

    Source: Smith and Topin, Super-Convergence, 2018, with the end points of PyTorch's OneCycleLR.
    """
    return 1e-4 + (1 - 1e-4) * cosine(step, total_steps)


def cosine_with_restarts(step: int, total_steps: int, cycles: int) -> float:
    """Return half a cosine from 1 to 0, `cycles` times. Source: Loshchilov and Hutter, SGDR, ICLR 2017."""
    return 0.5 * (1.0 + math.cos(math.pi * ((cycles * step / total_steps) % 1.0)))


def warmup_stable_decay(step: int, total_steps: int, decay: float) -> float:
    """Return 1, then a straight line to 0 over the last `decay` share.

    Source: Hu et al., MiniCPM, arXiv 2404.06395.
    """
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
WARMUP_STARTS = {one_cycle: 1 / 25}
"""Schedule -> factor at which its warm-up starts, if that is not 0."""


def settings_of(name: str) -> set[str]:
    """Return the settings that a schedule has besides the warm-up; a schedule of a user has none."""
    function = SCHEDULES.get(name, constant)
    return {*inspect.signature(function).parameters} - {"step", "total_steps"}


ALL_SETTINGS = set[str]().union(*map(settings_of, SCHEDULES))
"""Settings that some schedules have."""


def load_schedule(name: str) -> Callable[..., float]:
    """Return a schedule of `SCHEDULES`, or a user-defined one, `file.py:name`, with checked results."""
    if name in SCHEDULES:
        return SCHEDULES[name]
    function = load_user_code("schedule", name, "schedule(step, total_steps)")

    def checked(step: int, total_steps: int) -> float:
        with user_code_errors(name, "return the factor of the learning rate"):
            factor = float(function(step, total_steps))
        if not 0 <= factor < math.inf:
            raise ConfigError(
                f"{short_ref(name)} must return the factor of the learning rate, a finite number from 0 on; "
                f"got {factor} in step {step} of {total_steps}."
            )
        return factor

    return checked


def with_warmup(settings: Any, total_steps: int) -> Callable[[int], float]:
    """Return a schedule after a linear warm-up, as a function of the step.

    The warm-up ends at 1; it starts one step above 0, or above the schedule's `WARMUP_STARTS`. The schedule
    then runs over the remaining steps, so that its last step is just above its end point.

    Args:
        settings: `TrainingSettings` with the name of the schedule and its settings. A warm-up below 1 is a
            share of all steps, else a number of steps, limited to half of all steps.
    """
    function = load_schedule(settings.schedule)
    schedule = partial(function, **settings.model_dump(include=settings_of(settings.schedule)))
    warmup = settings.warmup
    warmup_steps = round(warmup * total_steps) if warmup < 1 else min(round(warmup), total_steps // 2)
    warmup_steps = min(warmup_steps, total_steps - 1)
    start = WARMUP_STARTS.get(function, 0.0)

    def multiplier(step: int) -> float:
        step = min(step, total_steps - 1)  # torch asks once more after the last step
        if step < warmup_steps:
            return start + (1 - start) * (step + 1) / (warmup_steps + 1)
        return schedule(step - warmup_steps, max(total_steps - warmup_steps, 1))

    return multiplier
