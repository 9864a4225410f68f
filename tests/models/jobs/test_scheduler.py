"""The loop that places tasks: what runs where at each instant, and what follows when a task fails."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.jobs.scheduler import DiskFull, JobResult, Queue, Resources, Task, run, run_task
from tests.models.jobs.common import FakeProcesses, InlineExecutor


def nothing() -> None: ...


def names(tasks: Any) -> list[str]:
    return [task.name for task in tasks]


def stage_tasks(stage: str, n: int, **settings: Any) -> list[Task]:
    return [Task(f"{stage}/{i}", nothing, group=stage, **settings) for i in range(n)]


def failing(*failed: str, reason: Any = "error") -> Callable[[Task], JobResult]:
    """The outcome of tasks, of which some fail."""
    failures = {name: JobResult(name, "failed", reason, "ValueError: no") for name in failed}
    return lambda task: failures.get(task.name, JobResult(task.name))


def statuses(results: dict[str, JobResult]) -> dict[str, tuple[str, str]]:
    return {name: (result.status, result.reason) for name, result in results.items()}


@pytest.mark.parametrize("seed", range(30))
def test_every_task_ends_in_one_status_and_the_machine_is_never_overbooked(seed: int) -> None:
    """Random tasks on a random machine, of which random ones fail, are killed once, or twice."""
    rng = random.Random(seed)
    cards = [str(card) for card in range(rng.randint(0, 2))]
    tasks = []
    for stage in range(4):
        resources = Resources(rng.randint(1, 3), rng.choice([0.0, 0.25, 0.5, 1.0]))
        tasks += stage_tasks(f"s{stage}", 5, resources=resources)
    outcomes = {
        task.name: rng.choice(["ok"] * 8 + ["error", "killed once", "killed twice"]) for task in tasks
    }
    starts: dict[str, int] = {}

    def outcome(task: Task) -> JobResult | Exception:
        starts[task.name] = starts.get(task.name, 0) + 1
        if outcomes[task.name] == "error":
            return JobResult(task.name, "failed", "error", "ValueError: no")
        n_deaths = {"killed once": 1, "killed twice": 2}.get(outcomes[task.name], 0)
        return RuntimeError("died") if starts[task.name] <= n_deaths else JobResult(task.name)

    executor = FakeProcesses(rng.randint(1, 4), cards, seed, outcome)
    results = run(Queue(tasks), executor, "tasks")
    assert sorted(results) == sorted(names(tasks))
    final_failures = {"error": "error", "killed twice": "killed"}
    for task in tasks:
        result = results[task.name]
        statuses_of_group = [results[other.name].status for other in tasks if other.group == task.group]
        if result.status == "ok":
            assert outcomes[task.name] in ("ok", "killed once")
        elif result.status == "failed":
            assert result.reason == final_failures[outcomes[task.name]]
        else:
            assert result.reason == "group"
            assert "failed" in statuses_of_group
            assert task.name not in starts or outcomes[task.name].startswith("killed")
    for running in executor.moments:
        placements = list(running.values())
        assert sum(placement.resources.cpus for placement in placements) <= executor.capacity().cpus
        for card in cards:
            assert sum(p.resources.gpus for p in placements if p.slot.card == card) <= 1
        assert all((placement.slot.card != "") == (placement.resources.gpus > 0) for placement in placements)
        if any(task.runs_alone for task in running):
            assert len(running) == 1


def test_a_failed_task_skips_the_rest_of_its_group_and_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    consumer = Task("consumer", nothing, group="c", wait_for_files=(tmp_path / "never",))
    tasks = [*stage_tasks("a", 3), *stage_tasks("b", 3), consumer]
    results = run(Queue(tasks), FakeProcesses(1, outcome=failing("a/1")), "tasks")
    assert statuses(results) == {
        "a/0": ("ok", ""),
        "a/1": ("failed", "error"),
        "a/2": ("skipped", "group"),
        **{f"b/{i}": ("ok", "") for i in range(3)},
        "consumer": ("skipped", "dependency"),
    }
    assert results["a/2"].error == "a/1 failed"


def test_a_failed_part_of_a_cache_lets_the_other_parts_and_its_jobs_run() -> None:
    parts = stage_tasks("cache", 3, skips_group=False)
    job = Task("job", nothing, group="a", wait_for_groups=frozenset({"cache"}))
    executor = FakeProcesses(2, outcome=failing("cache/0"))
    results = run(Queue([job, *parts]), executor, "tasks")
    assert [name for name, result in results.items() if result.status == "ok"] == [
        "cache/1",
        "cache/2",
        "job",
    ]
    assert names(executor.moments[-1]) == ["job"]


def test_a_killed_task_is_tried_once_more_last_and_alone(capsys: pytest.CaptureFixture[str]) -> None:
    deaths = [RuntimeError("died")]

    def outcome(task: Task) -> Any:
        return deaths.pop() if task.name == "a/0" and deaths else JobResult(task.name)

    executor = FakeProcesses(2, outcome=outcome)
    results = run(Queue([*stage_tasks("a", 3), *stage_tasks("b", 3)]), executor, "tasks")
    assert {result.status for result in results.values()} == {"ok"}
    assert names(executor.moments[-1]) == ["a/0"]
    message = "a/0: its worker died (RuntimeError: died); tried once more, alone"
    assert message in capsys.readouterr().out


def test_a_task_that_others_wait_for_is_retried_before_them(tmp_path: Path) -> None:
    """Last means last of what can run: a refit that waits for the killed fold does not block it."""
    file = tmp_path / "fold"
    deaths = [RuntimeError("died")]

    def outcome(task: Task) -> Any:
        if deaths:
            return deaths.pop()
        file.touch()
        return JobResult(task.name)

    tasks = [Task("fold", nothing, group="a"), Task("refit", nothing, group="a", wait_for_files=(file,))]
    results = run(Queue(tasks), FakeProcesses(2, outcome=outcome), "tasks")
    assert statuses(results) == {"fold": ("ok", ""), "refit": ("ok", "")}


def test_a_task_that_ran_out_of_a_shared_card_gets_the_full_card_once() -> None:
    executor = FakeProcesses(4, ["0"], outcome=failing("a/0", reason="memory"))
    results = run(Queue(stage_tasks("a", 1, resources=Resources(1, 0.25))), executor, "tasks")
    assert [next(iter(moment)).resources.gpus for moment in executor.moments] == [0.25, 1.0]
    assert statuses(results) == {"a/0": ("failed", "memory")}


def test_six_halves_run_four_at_once_on_two_cards_and_never_with_a_full_one() -> None:
    halves = stage_tasks("half", 6, resources=Resources(1, 0.5))
    executor = FakeProcesses(16, ["2", "GPU-5f0e"])
    run(Queue([*halves, *stage_tasks("whole", 1, resources=Resources(1, 1.0))]), executor, "tasks")
    assert max(map(len, executor.moments)) == 4
    placed = [placement.slot.card for placement in executor.moments[0].values()]
    assert sorted(placed) == ["2", "2", "GPU-5f0e", "GPU-5f0e"]
    for moment in executor.moments:
        full_cards = [placement.slot.card for task, placement in moment.items() if task.group == "whole"]
        assert not [p for task, p in moment.items() if task.group == "half" and p.slot.card in full_cards]


def test_trees_use_the_other_cores_while_networks_use_the_card() -> None:
    networks = stage_tasks("network", 2, resources=Resources(1, 1.0))
    executor = FakeProcesses(8, ["0"])
    run(Queue([*networks, *stage_tasks("trees", 12)]), executor, "tasks")
    first = executor.moments[0]
    assert [task.group for task in first] == ["network", *["trees"] * 6]
    assert [placement.slot.card for placement in first.values()] == [
        "0",
        *[""] * 6,
    ]  # with two cores for the network


def test_without_a_card_networks_fill_the_cores() -> None:
    executor = FakeProcesses(5)
    run(Queue(stage_tasks("network", 5, resources=Resources(1, 1.0))), executor, "tasks")
    assert len(executor.moments[0]) == 5


def test_a_task_larger_than_the_machine_runs_alone() -> None:
    large = Task("large", nothing, resources=Resources(cpus=64))
    executor = FakeProcesses(4)
    results = run(Queue([*stage_tasks("a", 3), large]), executor, "tasks")
    assert results["large"].status == "ok"
    assert [names(moment) for moment in executor.moments if large in moment] == [["large"]]


def test_tasks_start_in_their_order_and_a_blocked_one_holds_no_core() -> None:
    blocked = Task("blocked", nothing, wait_for_groups=frozenset({"a"}), group="b")
    executor = FakeProcesses(1)
    run(Queue([blocked, *stage_tasks("a", 2), *stage_tasks("c", 2)]), executor, "tasks")
    assert [names(moment) for moment in executor.moments] == [["a/0"], ["a/1"], ["blocked"], ["c/0"], ["c/1"]]


def test_more_tasks_are_requested_when_a_core_is_idle_until_there_are_none() -> None:
    batches = [stage_tasks("b", 1), stage_tasks("c", 2)]
    n_running: list[int] = []
    executor = FakeProcesses(2)

    queue = Queue(stage_tasks("a", 1))

    def more() -> bool:
        n_running.append(len(executor.running))
        queue.waiting += batches.pop(0) if batches else []
        return bool(queue.waiting)

    queue.more = more
    results = run(queue, executor, "tasks")
    assert sorted(results) == ["a/0", "b/0", "c/0", "c/1"]
    assert n_running[0] == 1


def test_at_the_deadline_running_tasks_are_cancelled_and_waiting_ones_skipped() -> None:
    queue = Queue(stage_tasks("a", 3))
    executor = FakeProcesses(2)
    cancelled: list[Task] = []
    executor.announce = lambda waiting: None  # type: ignore[method-assign]  # nothing ends
    executor.cancel = cancelled.append  # type: ignore[method-assign,assignment]
    queue.deadline = time.monotonic() + 0.2
    results = run(queue, executor, "tasks")
    assert names(cancelled) == ["a/0", "a/1"]
    assert set(statuses(results).values()) == {("skipped", "time")}


def test_a_task_over_its_time_fails_and_frees_its_worker() -> None:
    queue = Queue([*stage_tasks("a", 2), *stage_tasks("b", 1)], job_timeout=0.05)
    executor = FakeProcesses(1)
    executor.announce = lambda waiting: time.sleep(0.1)  # type: ignore[method-assign]  # nothing ends
    results = run(queue, executor, "tasks")
    assert statuses(results) == {
        "a/0": ("failed", "timeout"),
        "a/1": ("skipped", "group"),
        "b/0": ("failed", "timeout"),
    }


def test_a_worker_that_cannot_write_ends_the_run() -> None:
    executor = FakeProcesses(1, outcome=failing("a/0", reason="disk"))
    with pytest.raises(DiskFull, match="ValueError: no"):
        run(Queue(stage_tasks("a", 2)), executor, "tasks")


def test_a_default_dtype_that_a_task_sets_does_not_reach_the_next_one() -> None:
    import torch

    run_task("doubles", torch.set_default_dtype, (torch.float64,), on_card=False)
    assert torch.get_default_dtype() == torch.float32


def test_a_thousand_tasks_are_placed_in_two_seconds_of_the_driver() -> None:
    started = time.process_time()
    results = run(Queue(stage_tasks("a", 1000)), InlineExecutor(4), "tasks")
    assert len(results) == 1000
    assert time.process_time() - started < 2
