"""What is trained in a given time: what jobs cost, which stages and epochs fit, and what is done when it turns out."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import read_json, read_table, write_json
from competition.tables import Rows
from models.config import CustomStage, LightgbmStage
from models.jobs import budget, measure
from models.jobs.budget import SLOWER, Planner, Within, with_all_seeds
from models.jobs.measure import Cost
from models.jobs.plan import Plan, plan
from models.settings import GnnStage
from tests.models.jobs.common import InlineExecutor, counted, plan_of, trained

TREES = LightgbmStage(kind="lightgbm")
NET = GnnStage(kind="gnn", epochs=10)


def planner(cores: int = 1, gpus: int = 0, **costs: Cost) -> Planner:
    """Of three folds, jobs as fast as their costs."""
    found = Planner(costs, 3, 100, cores, gpus)
    found.took = {name: [(1e9, 1e9)] for name in costs}  # so many that what is measured holds
    return found


def versions(found: dict[str, Any]) -> dict[str, tuple[int | None, int]]:
    """Stage -> epochs and number of seeds."""
    return {name: (getattr(stage, "epochs", None), len(stage.seeds)) for name, stage in found.items()}


def test_jobs_are_taken_by_the_worker_that_is_free_first() -> None:
    seconds = planner(2, trees=Cost(10), net=Cost(2, 3)).seconds
    assert seconds({"trees": TREES}) == pytest.approx(20)  # three folds on two cores
    assert seconds({"trees": TREES, "net": NET}) == pytest.approx(74)  # networks from 10 to 42, 20 to 52, 42 to 74
    assert seconds({"trees": TREES}, before=[(TREES, 25.0)]) == pytest.approx(30)


def test_on_sixteen_cores_and_a_gpu_networks_share_the_gpu_and_trees_the_cores() -> None:
    on_gpu = planner(16, 1, trees=Cost(30), net=Cost(0, 1))
    assert on_gpu.seconds({"net": NET}) == pytest.approx(30)  # three folds of ten epochs, one after the other
    assert on_gpu.seconds({"trees": TREES, "net": NET}) == pytest.approx(30)
    many = {"net": NET.model_copy(update={"seeds": [0, 1, 2]}), "trees": TREES.model_copy(update={"seeds": [0, 1, 2]})}
    assert versions(on_gpu.decide(many, 61)) == {"net": (10, 2), "trees": (None, 3)}


def test_a_refit_waits_for_all_folds() -> None:
    refit = TREES.model_copy(update={"final_fit": "refit"})
    assert planner(8, trees=Cost(10)).seconds({"trees": refit}) == pytest.approx(20)


def test_a_cache_that_two_stages_read_is_filled_once_by_all_cores_and_not_again() -> None:
    cache = {"features": 20.0}
    two = planner(2, a=Cost(2, caches=cache), b=Cost(2, caches=cache))
    assert two.seconds({"a": TREES, "b": TREES}) == pytest.approx(20 / 2 * SLOWER + 6)
    two.filled.add("features")
    assert two.seconds({"a": TREES, "b": TREES}) == pytest.approx(6)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (2, {}),
        (18, {"trees": (None, 1), "first": (5, 1)}),
        (33, {"trees": (None, 1), "first": (10, 1)}),
        (39, {"trees": (None, 1), "first": (7, 1), "second": (5, 1)}),  # one network after the other, up to 70 %
        (48, {"trees": (None, 1), "first": (8, 1), "second": (7, 1)}),
        (54, {"trees": (None, 1), "first": (10, 1), "second": (7, 1)}),
        (66, {"trees": (None, 2), "first": (10, 1), "second": (10, 1)}),  # seeds come last
        (96, {"trees": (None, 2), "first": (10, 2), "second": (10, 1)}),
    ],
)
def test_most_epochs_of_all_come_before_all_epochs_of_a_few_and_these_before_seeds(
    seconds: float, expected: dict[str, Any]
) -> None:
    stages = {"trees": TREES, "first": NET, "second": NET}
    allowed = {name: stage.model_copy(update={"seeds": [0, 1]}) for name, stage in stages.items()}
    found = planner(trees=Cost(1), first=Cost(0, 1), second=Cost(0, 1)).decide(allowed, seconds + 0.01)
    assert versions(found) == expected


def test_a_network_needs_half_of_its_epochs_or_many_rows() -> None:
    few, many = (replace(planner(net=Cost(0, 1)), n_rows=n_rows) for n_rows in (100, 18_000))
    assert versions(few.decide({"net": NET}, 14)) == {}
    assert versions(many.decide({"net": NET}, 14)) == {"net": (4, 1)}
    assert versions(many.decide({"net": NET}, 8)) == {}  # twice 12,000 rows are too few, and four times are enough


def test_what_jobs_took_says_how_long_those_of_their_stage_and_of_others_will() -> None:
    slow = Planner({"a": Cost(10), "b": Cost(20)}, 3, 100, 1, 0)
    assert slow.of_job("a", TREES) == pytest.approx(10 * SLOWER)
    slow.learn("a", TREES, 28 - 2 * SLOWER)  # with 2 s as they were expected: 28 s for 12
    assert slow.of_job("a", TREES) == pytest.approx(10 * 28 / 12)
    assert slow.of_job("b", TREES) == pytest.approx(20 * 28 / 12)
    slow.took = {"a": [(1.0, 10.0)] * 9}
    assert slow.of_job("a", TREES) == pytest.approx(10 * (9 + 2 * SLOWER) / 92)
    assert slow.of_job("b", TREES) == pytest.approx(20 * SLOWER)  # one measured too long says nothing of others


def test_seeds_are_added_to_what_knows_chance_and_labels_of_test_rows_are_left_out() -> None:
    custom = CustomStage.model_construct(kind="custom", code="x.py:X", seeds=[0], pseudo_labels=None)
    stages = {"trees": TREES.model_copy(update={"seeds": [7, 1]}), "mine": custom, "labels": TREES}
    stages["labels"] = TREES.model_copy(update={"pseudo_labels": object()})
    found = with_all_seeds(stages)
    assert {name: stage.seeds for name, stage in found.items()} == {"trees": [7, 1, 0, 2, 3], "mine": [0]}
    seven = {"trees": TREES.model_copy(update={"seeds": list(range(7))})}  # all that the YAML names
    assert versions(planner(trees=Cost(1)).decide(with_all_seeds(seven), 100)) == {"trees": (None, 7)}


def test_costs_by_hand() -> None:
    # Of 64 rows an epoch takes .7 s, their inputs .1 s and what has no rows .1 s; predicting grows with them, too.
    network = measure._cost_of_epochs([(32, 0.5, 0.1), (64, 0.9, 0.2)], 1.6, 640)
    assert (network.job, network.epoch) == pytest.approx((0.1 + 1.0 + 2.0, 7.0))
    noise = measure._cost_of_epochs([(32, 0.5, 0.0), (64, 0.4, 0.0)], 0.3, 640)
    assert (noise.job, noise.epoch) == pytest.approx((0.0, 4.0))  # no free epochs
    # Twice the rows take four times as long: a tenfold table a hundred times.
    kernel = measure._cost([(32, 0.2, 0.05), (64, 0.9, 0.1)], 640)
    assert (kernel.job, kernel.epoch) == pytest.approx((100.0, 0.0))
    # A third of the time is the same for any number of rows: .1 s and .1 / 32 of each.
    fixed = measure._cost([(32, 0.15, 0.05), (64, 0.25, 0.05)], 640)
    assert fixed.job == pytest.approx(0.1 + 2.0)
    unclear = measure._cost([(32, 0.4, 0.0), (64, 0.4, 0.0)], 6400)
    assert unclear.job == pytest.approx(4.0)  # from .4 to 40 s are possible
    steep = measure._cost([(32, 0.01, 0.0), (64, 1.0, 0.0)], 640)
    assert steep.job == pytest.approx(100.0)  # no more than the square


def test_the_first_rows_that_are_measured_have_some_of_each_class_of_each_target() -> None:
    y = np.zeros((100, 2))
    y[[7, 60, 61, 62, 63, 90], 0], y[80:, 1] = 1, np.nan
    rows = Rows([str(i) for i in range(100)], pd.DataFrame(index=range(100)), y)
    order, n_first = measure._order(rows, np.arange(100), has_classes=True)
    assert order[:n_first].tolist() == [*range(5), 7, *range(60, 64)]  # five of each class; of the second target one
    assert sorted(order) == list(range(100))


class Clock:
    """Time that passes where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def measured_job(
    folder: Path, todo: Plan, longest: float, fit: Any, monkeypatch: pytest.MonkeyPatch, predict: float = 0.0
) -> Cost:
    """What stage `a` is said to cost, whose fits are `fit(clock, settings, training rows)`, and which predicts a row in
    `predict` seconds."""
    clock = Clock()

    class Fake:
        def __init__(self, config: Any, context: Any) -> None:
            self.config = config

        def fit(self, train: Rows, valid: Any, folder: Path) -> None:
            fit(clock, self.config, len(train))

        def predict(self, rows: Rows, folder: Path) -> None:
            clock.sleep(predict * len(rows))

    for name in ("FEWEST", "FEWEST_ON_FEATURES"):
        monkeypatch.setattr(measure, name, 6)
    monkeypatch.setattr(measure, "build_stage", Fake)
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "shared_caches", lambda *_: [])
    measure.measure(todo, "a", folder / "cost.json", longest, until=10.0**9)
    return Cost(**read_json(folder / "cost.json"))


def test_boosted_trees_are_measured_on_the_part_that_fits_into_the_time(tmp_path: Path, monkeypatch: Any) -> None:
    todo, seen = replace(plan_of(counted(tmp_path)), stages={"a": TREES}), []

    def fit(clock: Clock, config: LightgbmStage, n: int) -> None:
        seen.append((n, config.max_trees == measure.FEW_TREES))
        clock.sleep(0.05 * n)

    cost, n = measured_job(tmp_path, todo, 1.0, fit, monkeypatch), len(read_table(todo.paths.train)) * 2 / 3
    assert seen == [(6, True), (6, False), (12, False)]
    assert cost.job == pytest.approx(0.6 * (n / 12) ** measure.OF_TREES)


def test_a_network_that_takes_long_is_measured_on_two_parts_and_by_two_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo, seen = replace(plan_of(counted(tmp_path)), stages={"a": NET}), list[tuple[int, int]]()

    def fit(clock: Clock, config: GnnStage, n: int) -> None:
        seen.append((n, config.epochs))
        if len(seen) == 1:
            raise DataError("no labels")
        clock.sleep(1.0 + 0.1 * n * config.epochs)

    cost, n = measured_job(tmp_path, todo, 2.0, fit, monkeypatch), len(read_table(todo.paths.train)) * 2 / 3
    assert seen == [(6, 1), (6, 1), (12, 1), (12, 2)]
    assert cost.epoch == pytest.approx(0.1 * n)


def test_a_stage_is_measured_on_parts_of_its_rows_and_a_part_without_labels_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()

    def fit(clock: Clock, config: Any, n: int) -> None:
        seen.append(n)
        if len(seen) == 1:
            raise DataError("no labels")
        clock.sleep(0.002 * n)

    cost, n = measured_job(tmp_path, plan_of(counted(tmp_path)), 3.0, fit, monkeypatch), max(seen)
    assert seen == [6, 6, 12, 24, n, n][: len(seen)]
    assert cost.job == pytest.approx(0.002 * n)


def test_test_rows_count_where_there_are_more_of_them_than_training_rows(tmp_path: Path, monkeypatch: Any) -> None:
    todo = plan_of(counted(tmp_path))
    rows, test, folds = measure.read_tables(todo)
    many = test.take(np.resize(np.arange(len(test)), 100 * len(rows)))
    monkeypatch.setattr(measure, "read_tables", lambda _: (rows, many, folds))
    cost = measured_job(tmp_path, todo, 3.0, lambda *_: None, monkeypatch, predict=0.1)
    assert cost.job == pytest.approx(0.1 * (len(many) + sum(folds == 2)), rel=0.02)


def within(folder: Path, costs: dict[str, float], seconds: float, begun: Any = None) -> tuple[Within, list, list]:
    """Two stages of 3 folds, of which each job takes no time here, within some seconds on one worker."""
    todo = plan_of(counted(folder, seeds=1))
    stages = {name: stage.model_copy(update={"seeds": [0, 1]}) for name, stage in todo.stages.items()}
    plan_again: Callable[[Any], Plan] = lambda found: plan(todo.competition, found, todo.paths)  # noqa: E731
    of_costs = Planner({name: Cost(cost) for name, cost in costs.items()}, 3, 100, 1, 0)
    begins, ends = list[Any](), list[Any]()
    made = Within(
        stages, begun or {}, plan_again, of_costs, InlineExecutor(1), time.monotonic() + seconds,
        lambda found: begins.append(versions(found)), lambda found: ends.append(versions(found)),
    )  # fmt: skip
    return made, begins, ends


def test_stages_come_one_after_the_other_then_their_seeds_and_each_end_is_told(tmp_path: Path) -> None:
    training, begins, ends = within(tmp_path, {"a": 1.0, "b": 1.0}, 1000)
    training.train()
    one, two = (None, 1), (None, 2)
    assert ends == begins == [{"a": one}, {"a": one, "b": one}, {"a": two, "b": one}, {"a": two, "b": two}]
    assert trained(tmp_path).total() == 12


def test_a_stage_that_there_was_no_time_to_measure_is_left_out_and_said(tmp_path: Path, monkeypatch: Any) -> None:
    todo = plan_of(counted(tmp_path, seeds=1))
    monkeypatch.setattr(budget, "MOST_PROBED", -1.0)
    costs = budget.measured(todo, InlineExecutor(1), tmp_path / "measured", 60)
    planner = Planner(costs | {"a": Cost(1.0)}, 3, 100, 1, 0)
    assert list(planner.decide(todo.stages, 60)) == ["a"]
    assert list(planner.described({"a": todo.stages["a"]}, todo.stages))[1] == (
        "  b: left out, there was no time to measure it"
    )


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    training, _, ends = within(tmp_path, {"a": 1000.0, "b": 1.0}, 60)
    training.train()
    assert ends[0] == {"b": (None, 1)}
    assert set(training.finished) == {"b"}
    assert list(training.left_out()) == ["stage a  left out: it did not fit any more"]


def test_epochs_are_cut_when_it_is_seen_what_jobs_beside_them_take(tmp_path: Path) -> None:
    training, *_ = within(tmp_path, {"a": 3.0, "b": 0.0}, 30)
    training.stages["b"], training.planner.costs["b"] = NET, Cost(0, 1)
    name, stage, seed = training._next() or pytest.fail("nothing fits")
    (first, *_) = training._begin(name, stage, seed)
    assert (name, training._next()) == ("a", None)
    assert first.on_end
    first.on_end(first.function(*first.arguments))
    name, stage, _ = training._next() or pytest.fail("nothing fits")
    assert (name, stage.epochs) == ("b", 7)  # and 5, had that job taken the 3 s that it was said to


def test_what_an_earlier_process_has_begun_comes_first_as_it_was(tmp_path: Path) -> None:
    stage = within(tmp_path, {}, 60)[0].stages["b"].model_copy(update={"seeds": [1]})
    again, begins, ends = within(tmp_path, {"a": 1e9, "b": 1e9}, 60, begun={"b": stage})
    again.planner.learn = lambda *_: None  # type: ignore[method-assign]  # here jobs take no time
    again.train()
    assert ends == begins == [{"b": (None, 1)}]
    assert again.finished["b"].seeds == [1]


def test_what_an_earlier_process_has_finished_counts_when_the_time_is_over(tmp_path: Path) -> None:
    first, *_ = within(tmp_path, {"a": 1.0, "b": 1.0}, 1000)
    first.train()
    again, begins, ends = within(tmp_path, {"a": 1.0, "b": 1.0}, -1, begun=first.finished)
    again.train()
    assert ends == begins  # one submission of all, not first a smaller one
    assert begins == [versions(first.finished)] == [{"a": (None, 2), "b": (None, 2)}]
    assert versions(again.finished) == begins[0]


def test_costs_are_measured_once_and_of_a_cache_by_who_fills_it(tmp_path: Path, monkeypatch: Any) -> None:
    todo, asked = plan_of(counted(tmp_path, seeds=1)), list[str]()

    def measures(plan: Plan, name: str, file: Path, longest: float, until: float) -> None:
        asked.append(name)
        assert longest == 3.0  # a tenth of a minute for two stages
        write_json(file, {"job": 3.0, "caches": {"features": {"a": 7.0, "b": 0.0}[name]}})

    monkeypatch.setattr(budget, "measure", measures)
    cost = Cost(3, caches={"features": 7.0})  # what the probe that filled the cache found
    for _ in range(2):
        assert budget.measured(todo, InlineExecutor(1), tmp_path / "measured", 60) == {"a": cost, "b": cost}
    budget.measured(replace(todo, test_key="another table"), InlineExecutor(1), tmp_path / "measured", 60)
    assert asked == ["a", "b"] * 2
