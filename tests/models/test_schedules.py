"""Learning-rate schedules against values computed by hand."""

import pytest

from core.errors import ConfigError
from models.training.schedules import SCHEDULES, with_warmup

TWO_DEGREES = 0.99939082701909576  # cos(pi / 90)


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        ("constant", 1 / 11, 1.0, 1.0),
        ("linear", 1 / 11, 0.5, 1 / 90),
        ("cosine", 1 / 11, 0.5, (1 - TWO_DEGREES) / 2),
        ("polynomial", 1 / 11, 0.25, 1 / 8100),
        ("one_cycle", 0.04 + 0.96 / 11, 0.50005, 1e-4 + 0.9999 * (1 - TWO_DEGREES) / 2),
    ],
)
def test_after_a_rise_by_equal_parts_in_ten_steps_the_other_ninety_follow_the_schedule(
    name: str, first: float, middle: float, last: float
) -> None:
    rate = with_warmup(name, 0.1, 100)
    assert [rate(step) for step in (0, 10, 55, 99)] == pytest.approx([first, 1.0, middle, last])
    assert rate(4) == pytest.approx(first + 4 * (rate(9) - first) / 9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0.99, 5), (0.5, 1)])
def test_every_step_moves_the_weights_and_none_exceeds_the_peak(name: str, warmup: float, total: int) -> None:
    values = [with_warmup(name, warmup, total)(step) for step in range(total)]
    assert min(values) > 0
    assert max(values) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "warmup", "total", "rates"),
    [
        ("linear", 0.0, 4, {0: 1.0, 1: 0.75, 3: 0.25}),
        ("cosine_with_restarts", 0.0, 90, {0: 1, 15: 0.5, 30: 1, 60: 1}),
        ("warmup_stable_decay", 10, 110, {4: 5 / 11, 10: 1, 90: 1, 95: 0.75, 109: 0.05}),
    ],
)
def test_restarts_holding_and_a_run_without_warm_up(
    name: str, warmup: float, total: int, rates: dict[int, float]
) -> None:
    rate = with_warmup(name, warmup, total, cycles=3, decay=0.2)
    assert {step: rate(step) for step in rates} == pytest.approx(rates)


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="the run has 20"):
        with_warmup("linear", 20, 20)
