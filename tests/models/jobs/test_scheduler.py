"""The loop that places tasks: what runs where at each instant, and what follows when a task fails."""

import math
import random
from collections import Counter

import pytest

from models.jobs import scheduler
from models.jobs.scheduler import JobResult, Queue, Resources, Task, run, run_task
from tests.models.jobs.common import FakeProcesses


def nothing(): ...


def names(tasks):
    return [task.name for task in tasks]


def stage_tasks(stage, n, **settings):
    return [Task(f"{stage}/{i}", nothing, group=stage, **settings) for i in range(n)]


def failing(*failed, reason="error"):
    """The outcome of tasks, of which some fail."""
    failures = {name: JobResult(name, "failed", reason, "ValueError: no") for name in failed}
    return lambda task: failures.get(task.name, JobResult(task.name))


def statuses(results):
    return {name: (result.status, result.reason) for name, result in results.items()}


@pytest.mark.parametrize("seed", range(30))
def test_every_task_ends_in_one_status_and_the_machine_is_never_overbooked(seed):
    """Random tasks on a random machine, of which random ones fail, are killed once, or twice."""
    rng = random.Random(seed)
    cards = [str(card) for card in range(rng.randint(0, 2))]
    tasks = []
    for stage in "abcd":
        resources = Resources(rng.randint(1, 3), rng.choice([0.0, 0.25, 0.5, 1.0]))
        tasks += stage_tasks(stage, 5, resources=resources)
    n_deaths = {task.name: rng.choice([0] * 8 + [1, 2]) for task in tasks}
    raises = {task.name for task in tasks if rng.random() < 0.1}
    starts: Counter[str] = Counter()

    def outcome(task):
        starts[task.name] += 1
        if starts[task.name] <= n_deaths[task.name]:
            return RuntimeError("died")
        return failing(*raises)(task)

    executor = FakeProcesses(rng.randint(1, 4), cards, seed, outcome)
    results = run(Queue(tasks), executor)
    assert sorted(results) == sorted(names(tasks))
    failed_groups = {task.group for task in tasks if results[task.name].status == "failed"}
    for task in tasks:
        deaths, status = n_deaths[task.name], statuses(results)[task.name]
        if status == ("skipped", "group"):
            assert task.group in failed_groups and starts[task.name] <= min(1, deaths)
        elif deaths == 2:
            assert status == ("failed", "killed")
        else:
            assert status == (("failed", "error") if task.name in raises else ("ok", ""))
    for running in executor.moments:
        placed = list(running.values())
        assert sum(each.resources.cpus for each in placed) <= executor.capacity().cpus
        for card in cards:
            assert sum(each.resources.gpus for each in placed if each.slot.card == card) <= 1
        assert all((each.slot.card != "") == (each.resources.gpus > 0) for each in placed)
        assert len(running) == 1 or not any(task.runs_alone for task in running)


def test_a_failed_part_of_a_cache_lets_the_other_parts_and_its_jobs_run():
    parts = stage_tasks("cache", 3, skips_group=False)
    job = Task("job", nothing, group="a", wait_for_groups=frozenset({"cache"}))
    executor = FakeProcesses(2, outcome=failing("cache/0"))
    results = run(Queue([job, *parts]), executor)
    assert {name for name, result in results.items() if result.status != "ok"} == {"cache/0"}
    assert names(executor.moments[-1]) == ["job"]


def test_a_killed_task_is_tried_once_more_alone_after_all_but_those_that_wait_for_it(tmp_path, capsys):
    deaths, file = [RuntimeError("died")], tmp_path / "fold"

    def outcome(task):
        return deaths.pop() if task.name == "fold" and deaths else JobResult(task.name)

    fold = Task("fold", nothing, group="a", on_end=lambda result: file.touch())
    refit = Task("refit", nothing, group="a", wait_for_files=(file,))
    executor = FakeProcesses(2, outcome=outcome)
    results = run(Queue([fold, refit, *stage_tasks("b", 3)]), executor)
    assert set(statuses(results).values()) == {("ok", "")}
    assert [names(moment) for moment in executor.moments[-2:]] == [["fold"], ["refit"]]
    message = "fold: its worker died (RuntimeError: died); tried once more, alone"
    assert message in capsys.readouterr().out


def test_a_killed_task_that_is_not_tried_again_has_failed_so_that_others_can_take_its_place():
    ended: list[JobResult] = []
    task = Task("interim", nothing, is_retried=False, on_end=ended.append)
    executor = FakeProcesses(2, outcome=lambda task: RuntimeError("died"))
    run(Queue([task]), executor)
    assert [(result.status, result.reason) for result in ended] == [("failed", "killed")]


def test_a_task_that_ran_out_of_a_shared_card_gets_the_full_card_once():
    executor = FakeProcesses(4, ["0"], outcome=failing("a/0", reason="memory"))
    results = run(Queue(stage_tasks("a", 1, resources=Resources(1, 0.25))), executor)
    assert [next(iter(moment)).resources.gpus for moment in executor.moments] == [0.25, 1.0]
    assert statuses(results) == {"a/0": ("failed", "memory")}


CARD, HALF = Resources(1, 1.0), Resources(1, 0.5)
ECC = "AcceleratorError: CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(("reason", "error"), [("error", ECC), ("memory", "CUDA out of memory")])
def test_a_card_on_which_each_task_fails_gets_one_which_another_card_repeats(reason, error, capsys):
    tried = []

    def outcome(task):
        is_bad = executor.running[task].slot.card == "2"
        tried.append((task.name, is_bad))
        return JobResult(task.name, "failed", reason, error) if is_bad else JobResult(task.name)

    executor = FakeProcesses(8, ["0", "1", "2", "3"], outcome=outcome)
    results = run(Queue(stage_tasks("a", 12, resources=CARD)), executor)
    assert set(statuses(results).values()) == {("ok", "")}
    (failed,) = [name for name, is_bad in tried if is_bad]
    assert capsys.readouterr().out == f"{failed}: {error}; tried once more, on another GPU if there is one\n"


def test_a_task_that_fails_on_a_second_card_is_at_fault_itself_and_no_card_is_avoided():
    executor = FakeProcesses(6, ["0", "1", "2"], outcome=failing("a/0", reason="memory"))
    results = run(
        Queue([*stage_tasks("a", 1, resources=CARD), *stage_tasks("b", 9, resources=CARD)]), executor
    )
    assert [name for name, result in results.items() if result.status == "failed"] == ["a/0"]
    assert executor.bad_cards == set()


@pytest.mark.parametrize(
    ("cores", "cards", "tasks", "placed"),
    [
        (16, ["2", "GPU-5f0e"], [HALF] * 6 + [CARD], "2 2 GPU-5f0e GPU-5f0e"),
        (8, ["0"], [CARD] * 2 + [Resources()] * 12, "0 core core core core core core"),
        (5, [], [CARD] * 6, "core core core core core"),
        (4, [], [Resources(64), Resources()], "core"),
    ],
    ids=[
        "halves of cards",
        "trees beside a network that has two cores",
        "no card",
        "more cores than there are",
    ],
)
def test_tasks_fill_cards_and_the_other_cores(cores, cards, tasks, placed):
    executor = FakeProcesses(cores, cards)
    queue = Queue([Task(f"{i}", nothing, resources=resources) for i, resources in enumerate(tasks)])
    assert set(statuses(run(queue, executor)).values()) == {("ok", "")}
    first = executor.moments[0].values()
    assert " ".join(sorted(placement.slot.card or "core" for placement in first)) == placed


def test_tasks_start_in_their_order_and_a_blocked_one_holds_no_core():
    blocked = Task("blocked", nothing, wait_for_groups=frozenset({"a"}), group="b")
    executor = FakeProcesses(1)
    run(Queue([blocked, *stage_tasks("a", 2), *stage_tasks("c", 2)]), executor)
    assert [names(moment) for moment in executor.moments] == [["a/0"], ["a/1"], ["blocked"], ["c/0"], ["c/1"]]


def test_a_task_that_ends_at_the_deadline_counts():
    executor, queue = FakeProcesses(2), Queue(stage_tasks("a", 2))

    def watch():
        executor.fits(Resources())  # forgets the task that has ended
        executor.announce([])  # ends the other one
        queue.deadline = -math.inf

    queue.watch = watch
    assert statuses(run(queue, executor)) == {"a/0": ("ok", ""), "a/1": ("ok", "")}


class QuickTasks(FakeProcesses):
    """The running task ends as soon as the queue has seen that its core is not idle."""

    def fits(self, resources):
        is_idle = super().fits(resources)
        for task, placement in self.running.items():
            placement.future.set_result(JobResult(task.name))
        return is_idle

    def announce(self, waiting): ...


def test_a_core_that_becomes_idle_during_the_search_is_for_the_first_task():
    queue, asked = Queue(stage_tasks("a", 4)), []
    queue.more = lambda: asked.append(names(queue.waiting))
    assert list(run(queue, QuickTasks(1))) == ["a/0", "a/1", "a/2", "a/3"]
    assert asked == [[]]


def test_without_losses_a_line_names_what_runs_one_task_of_each_group(monkeypatch, capsys):
    monkeypatch.setattr(scheduler, "SECONDS_BETWEEN_LINES", 0)
    run(Queue([*stage_tasks("a", 3), *stage_tasks("b", 1)]), FakeProcesses(4, seed=1))
    assert capsys.readouterr().out.splitlines()[0] == "running: a/2; b/0"


def test_a_default_dtype_that_a_task_sets_does_not_reach_the_next_one():
    import torch

    run_task("doubles", torch.set_default_dtype, (torch.float64,), on_card=False)
    assert torch.get_default_dtype() == torch.float32
