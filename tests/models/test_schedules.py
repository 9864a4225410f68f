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
    assert rate(10) - rate(9) == pytest.approx(rate(1) - rate(0))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0.06, 84), (0.99, 5), (0.5, 1)])
def test_every_step_moves_the_weights_and_none_exceeds_the_peak(name: str, warmup: float, total: int) -> None:
    values = [with_warmup(name, warmup, total)(step) for step in range(total)]
    assert min(values) > 0
    assert max(values) == pytest.approx(1.0)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])


def test_restarts_holding_and_a_run_without_warm_up() -> None:
    assert [with_warmup("linear", 0.0, 4)(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    rate = with_warmup("cosine_with_restarts", 0.0, 90, cycles=3)
    assert [rate(step) for step in (0, 15, 30, 60)] == pytest.approx([1, 0.5, 1, 1])
    rate = with_warmup("warmup_stable_decay", 10, 110, decay=0.2)
    assert [rate(step) for step in (4, 10, 90, 95, 100, 109)] == pytest.approx(
        [5 / 11, 1, 1, 0.75, 0.5, 0.05]
    )
    with pytest.raises(ConfigError, match="the run has 20"):
        with_warmup("linear", 20, 20)
