"""Learning-rate schedules against values computed by hand."""

import pytest

from models.training.optimizer import SCHEDULES, with_warmup

TWO_DEGREES = 0.99939082701909576  # cos(pi / 90)


@pytest.mark.parametrize(
    ("name", "warmup", "total", "rates"),
    [
        ("constant", 0.1, 100, {0: 1 / 11, 4: 5 / 11, 10: 1, 55: 1, 99: 1}),
        ("linear", 0.1, 100, {0: 1 / 11, 4: 5 / 11, 10: 1, 55: 0.5, 99: 1 / 90}),
        ("cosine", 0.1, 100, {0: 1 / 11, 10: 1, 55: 0.5, 99: (1 - TWO_DEGREES) / 2}),
        ("polynomial", 0.1, 100, {0: 1 / 11, 10: 1, 55: 0.25, 99: 1 / 8100}),
        (
            "one_cycle", 0.1, 100,
            {0: 0.04 + 0.96 / 11, 10: 1, 55: 0.50005, 99: 1e-4 + 0.9999 * (1 - TWO_DEGREES) / 2},
        ),
        ("cosine_with_restarts", 0.0, 90, {0: 1, 15: 0.5, 30: 1, 60: 1}),
        ("warmup_stable_decay", 10, 110, {4: 5 / 11, 10: 1, 90: 1, 95: 0.75, 109: 0.05}),
        ("linear", 0.0, 4, {0: 1, 1: 0.75, 3: 0.25}),
    ],
)  # fmt: skip
def test_after_a_rise_by_equal_parts_the_other_steps_follow_the_schedule(name, warmup, total, rates):
    rate = with_warmup(name, warmup, total, cycles=3, decay=0.2)
    assert {step: rate(step) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0.99, 5), (0.5, 1)])
def test_every_step_moves_the_weights_and_none_exceeds_the_peak(name, warmup, total):
    values = [with_warmup(name, warmup, total)(step) for step in range(total)]
    assert min(values) > 0
    assert max(values) == pytest.approx(1.0)


def test_a_warm_up_in_steps_takes_at_most_half_of_a_run_that_a_budget_has_shortened():
    rate = with_warmup("linear", 100, 20)
    assert [rate(step) for step in (0, 9, 10, 15)] == pytest.approx([1 / 11, 10 / 11, 1.0, 0.5])
