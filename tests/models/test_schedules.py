"""Learning-rate schedules against values computed by hand."""

import pytest

from core.errors import ConfigError
from models.jobs.plan import code_files
from models.registry import make_stage
from models.training.schedules import SCHEDULES, with_warmup
from tests.models import made

TWO_DEGREES = 0.99939082701909576  # cos(pi / 90)


def settings(schedule, warmup):
    return make_stage({"kind": "gnn", "schedule": schedule, "warmup": warmup})


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
    rate = with_warmup(settings(name, warmup), total)
    assert {step: rate(step) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0.99, 5), (0.5, 1)])
def test_every_step_moves_the_weights_and_none_exceeds_the_peak(name, warmup, total):
    values = [with_warmup(settings(name, warmup), total)(step) for step in range(total)]
    assert min(values) > 0
    assert max(values) == pytest.approx(1.0)


def test_a_warm_up_in_steps_takes_at_most_half_of_a_run_that_a_budget_has_shortened():
    rate = with_warmup(settings("linear", 100), 20)
    assert [rate(step) for step in (0, 9, 10, 15)] == pytest.approx([1 / 11, 10 / 11, 1.0, 0.5])


@pytest.mark.parametrize(
    ("name", "setting"), [("linear", {"cycles": 5}), ("cosine_with_restarts", {"decay": 0.5})]
)
def test_a_setting_of_another_schedule_is_refused(name, setting):
    (key,) = setting
    with pytest.raises(ValueError, match=f"{key}: no effect with schedule: {name}; remove it"):
        make_stage({"kind": "gnn", "schedule": name, **setting})


def test_an_unknown_schedule_is_an_error_that_lists_all_of_them():
    with pytest.raises(ValueError, match="must be one of constant, .*, or file.py:function"):
        make_stage({"kind": "gnn", "schedule": "exponential"})


MINE = """
def steps(step, total_steps):
    return 1.0 if step < total_steps / 2 else 0.1

def vanishes(step, total_steps):
    return float("nan") if step == 8 else 1.0

def rises(step, total_steps):
    return -step

def ends_at_0(step, total_steps):
    return 1 - (step + 1) / total_steps
"""


def test_a_schedule_of_the_users_follows_the_warm_up_and_its_code_is_in_the_key_of_a_job(tmp_path):
    stage, keys = make_stage({"kind": "gnn", "schedule": f"{tmp_path}/mine.py:steps", "warmup": 2}), []
    for code in (MINE, MINE, MINE.replace("0.1", "0.2")):
        (tmp_path / "mine.py").write_text(code)
        keys.append(code_files(stage, made.context(tmp_path)))
    assert keys[0] == keys[1] != keys[2]
    rate = with_warmup(stage, 12)
    assert [rate(step) for step in (0, 1, 2, 6, 7, 11)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.2, 0.2])


def test_a_schedule_of_the_users_is_not_asked_beyond_the_last_step(tmp_path):
    """torch asks for one more rate after it."""
    (tmp_path / "mine.py").write_text(MINE)
    rate = with_warmup(settings(f"{tmp_path}/mine.py:ends_at_0", 0), 4)
    assert [rate(step) for step in range(5)] == [0.75, 0.5, 0.25, 0, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vanishes", r"mine\.py:vanishes must .* finite number from 0 on; got nan in step 8 of 20"),
        ("rises", r"got -1\.0 in step 1 of 20"),
        ("absent", r"mine\.py must define schedule\(step, total_steps\)"),
    ],
)
def test_what_is_no_learning_rate_is_refused(tmp_path, name, message):
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(ConfigError, match=message):
        list(map(with_warmup(settings(f"{tmp_path}/mine.py:{name}", 0), 20), range(20)))
