"""What is trained in a given time, on a machine with a clock of its own."""

import math
import random
import re
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.files import read_json, write_json
from models.jobs import budget as budget_module
from models.jobs import pace as pace_module
from models.jobs import scheduler
from models.jobs.budget import Budget
from models.jobs.budget_stages import (
    HAS_ENDED,
    Clock,
    FailurePolicy,
    epoch_shares,
    with_epochs,
    with_more_seeds,
)
from models.jobs.job_files import write_failure
from models.jobs.plan import Job, JobPlan, make_plan
from models.jobs.scheduler import JobResult, Resources, Task
from models.stage import Stage
from models.stages.gnn import Gnn
from models.stages.lightgbm import Lightgbm
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, planned

NET = {**GNN, "epochs": 10}
Seconds = Callable[[Job, Any], float]


class Killed(BaseException):
    """Stands for the death of the driver."""


class Machine:
    """An executor of so many cores and cards whose jobs take no time, but move a clock.

    Args:
        seconds: of a job, by its stage's settings; infinite for one that hangs.
        fails: jobs, by their titles, that fail when their time is over.
        killed_at: time at which the driver dies.

    Attributes:
        started: (time, title, epochs) of each job that started.
        busy: seconds that cores worked.
    """

    cards = None

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        cores: int,
        seconds: Seconds,
        fails: tuple[str, ...] = (),
        killed_at: float = math.inf,
        n_cards: int = 0,
    ) -> None:
        self.n_cards = n_cards
        self.now = 0.0
        self.cores = self.max_threads = cores
        self.seconds, self.fails, self.killed_at = seconds, fails, killed_at
        self.running: dict[Task, tuple[float, float, Future[JobResult]]] = {}
        self.started: list[tuple[float, str, int | None]] = []
        self.busy = 0.0
        clock = SimpleNamespace(
            monotonic=lambda: self.now, time=lambda: 0.0, strftime=lambda *_: "00:00", localtime=id
        )
        for module in (scheduler, pace_module, budget_module):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(scheduler, "wait", self.wait)
        monkeypatch.setattr(pace_module, "read_progress", self.progress)

    def capacity(self) -> Resources:
        return Resources(self.cores, self.n_cards)

    def fits(self, resources: Resources) -> bool:
        on_cards = sum(task.resources.gpus for task in self.running)
        has_card = self.n_cards == 0 or resources.gpus == 0 or on_cards + resources.gpus <= self.n_cards
        return len(self.running) < self.cores and has_card

    def submit(self, task: Task) -> Future[JobResult]:
        future: Future[JobResult] = Future()
        seconds = 0.0  # of a part of a cache
        if task.folder is not None:
            job, jobs, _ = task.arguments
            stage = jobs.stages[job.stage]
            seconds = self.seconds(job, stage)
            self.started.append((self.now, job.title, getattr(stage, "epochs", None)))
        self.running[task] = (self.now, self.now + seconds, future)
        return future

    def cancel(self, task: Task) -> None:
        self.busy += self.now - self.running.pop(task)[0]

    def announce(self, waiting: list[Task]) -> None: ...

    def close(self) -> None: ...

    def wait(self, futures: Any, timeout: float, when: str) -> Any:
        """Move the clock to the next end of a job, or by `timeout`."""
        self.now = min(self.now + timeout, *(end for _, end, _ in self.running.values()))
        if self.now >= self.killed_at:
            raise Killed
        for task, (started, end, future) in list(self.running.items()):
            if end <= self.now:
                del self.running[task]
                self.busy += end - started
                future.set_result(self.publish(task, end - started))
        return SimpleNamespace(done={future for future in futures if future.done()})

    def publish(self, task: Task, seconds: float) -> JobResult:
        if task.folder is None:
            return JobResult(task.name, seconds=seconds)
        job, jobs, _ = task.arguments
        if job.title in self.fails:
            return write_failure(job.folder, JobResult(job.title, "failed", "error", "ValueError: no"))
        write_json(job.folder / "report.json", {"seconds": seconds, "files": {}})
        job.test_file(jobs.test_key).parent.mkdir()
        job.test_file(jobs.test_key).touch()
        return JobResult(job.title, seconds=seconds, lines=("",))

    def progress(self, folder: Path) -> dict[str, float]:
        """Networks say what they have done; other stages do not."""
        for task, (started, end, _) in self.running.items():
            if task.folder == folder and "net" in task.group and end < math.inf:
                return {"done": self.now - started, "total": end - started, "seconds": self.now - started}
        return {"done": 0, "total": 1, "seconds": 0.0}


def by_epoch(**seconds: float) -> Seconds:
    """Seconds of a job, or of each epoch of one, by the name of its stage."""
    return lambda job, stage: seconds[job.stage] * getattr(stage, "epochs", 1)


def budget_of(job_plan: JobPlan, machine: Machine, seconds: float) -> Budget:
    """A budget for the stages of a plan; it starts now, and reserves 10 s and 4 %."""
    stages = with_more_seeds(job_plan.stages)
    jobs = make_plan(job_plan.competition, stages)
    early = min(5.0, max(2.0, 0.01 * seconds))
    return Budget(jobs, machine, Clock(machine.now + early, seconds))


def is_finished(jobs: JobPlan, stage: str, seed: int) -> bool:
    return all(job.has_predicted(jobs.test_key) for job in jobs.jobs_of_stage(stage) if job.seed == seed)


def trained(budget: Budget) -> dict[str, tuple[int | None, list[int]]]:
    """Stage -> epochs and finished seeds."""
    jobs = budget.current_plan
    return {
        name: (getattr(stage, "epochs", None), [s for s in stage.seeds if is_finished(jobs, name, s)])
        for name, stage in jobs.stages.items()
    }


def test_everything_that_fits_is_trained_in_full_and_more_seeds_use_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(trees=10, net=3))
    budget = budget_of(planned(tmp_path, stages={"trees": TREES, "net": NET}), machine, 300)
    seeds = []
    budget.train(FailurePolicy(), lambda: seeds.append(machine.now))
    # of three folds each: 30 s of trees, 90 s of networks, and both again, then 30 s of trees
    assert trained(budget) == {"trees": (None, [0, 1, 2]), "net": (10, [0, 1])}
    assert seeds == [30, 120, 150, 240, 270]
    assert machine.now <= 300 - 22
    assert not budget.left_out


def test_a_network_that_does_not_fit_starts_again_with_fewer_epochs_as_soon_as_its_pace_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(net=10))
    budget = budget_of(planned(tmp_path, stages={"net": NET}), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"net": (7, [0])}  # 210 of the 278 s, 300 would be too many
    assert [(now, title) for now, title, epochs in machine.started if epochs == 10] == [
        (0, "net/seed_0/fold_0")
    ]
    assert [now for now, _, epochs in machine.started if epochs == 7] == [20, 90, 160]
    assert budget.states["net"].epochs == "7 of 10 epochs"
    assert (
        "stage net  7 of 10 epochs, about 1.17 min a job; its jobs and all earlier ones end in about 3.5 min"
        in capsys.readouterr().out
    )


def test_a_stage_may_take_most_of_the_time_only_if_no_other_waits_or_it_has_no_smaller_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(net=8.8, trees=10))
    budget = budget_of(planned(tmp_path, stages={"net": NET, "trees": TREES}), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"net": (7, [0]), "trees": (None, [0, 1])}  # 185 s, and 264 would be above 60 %


def test_a_network_leaves_time_for_another_one_that_waits_for_the_only_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 4, by_epoch(net_a=8, net_b=2.5), n_cards=1)
    budget = budget_of(planned(tmp_path, stages={"net_a": NET, "net_b": NET}), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"net_a": (7, [0]), "net_b": (10, [0])}  # net_a would fit in full, but alone


def test_a_stage_that_does_not_fit_is_reported_and_those_after_it_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(net=100, trees=10))
    budget = budget_of(planned(tmp_path, stages={"net": NET, "trees": TREES}), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"trees": (None, [0, 1, 2, 3, 4])}
    (left_out,) = budget.left_out
    reason = "its 3 jobs of about 8.33 min need about 23.3 min more than the 4.28 min left of the budget"
    assert left_out == ("net", None, reason)
    assert machine.started[1][:2] == (21, "trees/seed_0/fold_0")  # after twenty seconds of training
    assert f"stage net  left out: {reason}" in capsys.readouterr().out


def test_if_no_stage_fits_the_fastest_of_all_is_trained_until_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(slow=100, net=60, fast=40))
    stages = {"slow": TREES, "net": NET, "fast": TREES}
    job_plan = planned(tmp_path, stages=stages)
    budget = budget_of(job_plan, machine, 200)
    budget.train(FailurePolicy(), lambda: None)
    titles = [title for _, title, _ in machine.started]
    assert titles == [f"{name}/seed_0/fold_0" for name in stages] + [
        "fast/seed_0/fold_1",
        "fast/seed_0/fold_2",
    ]
    assert machine.now == pytest.approx(200 - 18)
    fast = next(reason for stage, _, reason in budget.left_out if stage == "fast")
    assert fast == "2 of 3 jobs were finished when the time was over"
    larger = budget.larger_budgets()["fast"]
    budget = budget_of(job_plan, Machine(monkeypatch, 1, by_epoch(slow=100, net=60, fast=40)), larger)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget)["fast"] == (None, [0])


def test_a_stage_that_never_fits_is_trained_if_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(trees=70))
    budget = budget_of(planned(tmp_path, stages={"trees": TREES}), machine, 180)
    budget.train(FailurePolicy(), lambda: None)
    assert [now for now, _, _ in machine.started] == [0, 70, 140]


def test_the_only_network_is_trained_for_as_few_as_one_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(net=40))
    budget = budget_of(planned(tmp_path, stages={"net": NET}), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"net": (1, [0])}  # three folds take 132 s, with two epochs 264


def test_a_stage_that_was_given_up_is_trained_if_it_fits_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(job: Job, stage: Any) -> float:
        return {"trees": 55.0 if job.fold == 0 else 5.0, "net": 10.0 * getattr(stage, "epochs", 1)}[job.stage]

    machine = Machine(monkeypatch, 2, seconds)
    small = {**NET, "epochs": 8}
    budget = budget_of(planned(tmp_path, stages={"trees": TREES, "net": small}), machine, 200)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget)["net"][1] == [0]


@pytest.mark.parametrize("is_network", [False, True])
def test_a_stage_that_hangs_gives_its_core_back_before_the_time_is_used(
    is_network: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(hangs=math.inf, hangs_net=math.inf, trees=10))
    name = "hangs_net" if is_network else "hangs"
    stages = {name: NET if is_network else TREES, "trees": TREES}
    budget = budget_of(planned(tmp_path, stages=stages), machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"trees": (None, [0, 1, 2, 3, 4])}
    # Until then the two folds after it could have fitted, if twenty seconds of the first were its start.
    assert machine.started[1][0] == pytest.approx((278 + 40) / 3, abs=2)
    assert re.fullmatch(
        r"its first job of 3 was not finished after 1\.\d+ min, with 2\.\d+ min left of the budget",
        budget.left_out[0][2],
    )


def test_a_later_job_that_hangs_is_ended_by_its_time_limit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(job: Job, stage: Any) -> float:
        return math.inf if job.title == "trees/seed_0/fold_1" else 10.0

    machine = Machine(monkeypatch, 1, seconds)
    budget = budget_of(planned(tmp_path, stages={"trees": TREES, "others": TREES}), machine, 300)
    results = budget.train(FailurePolicy(job_timeout=100), lambda: None)
    assert results["trees/seed_0/fold_1"].error == "not finished after 1.67 min (--job-timeout)"
    assert results["trees/seed_0/fold_2"].reason == "group"
    assert machine.started[2][0] == pytest.approx(110, abs=2)
    assert trained(budget) == {"trees": (None, []), "others": (None, [0, 1, 2, 3, 4])}


def test_a_stage_that_fails_is_no_matter_of_time_and_the_same_command_retries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_plan = planned(tmp_path, stages={"trees": TREES, "others": TREES})
    budget = budget_of(
        job_plan, Machine(monkeypatch, 1, by_epoch(trees=10, others=20), ("trees/seed_0/fold_1",)), 200
    )
    results = budget.train(FailurePolicy(), lambda: None)
    assert results["trees/seed_0/fold_1"].reason == "error"
    assert trained(budget) == {"trees": (None, []), "others": (None, [0, 1])}
    assert not budget.left_out
    for skip_failed in (True, False):
        second_machine = Machine(monkeypatch, 1, by_epoch(trees=10, others=20))
        budget = budget_of(job_plan, second_machine, 200)
        budget.train(FailurePolicy(skip_failed=skip_failed), lambda: None)
        tried = [] if skip_failed else ["trees/seed_0/fold_1", "trees/seed_0/fold_2"]
        assert [title for _, title, _ in second_machine.started] == tried


def test_after_a_kill_the_same_command_goes_on_with_the_same_epochs_and_after_the_end_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_plan = planned(tmp_path, stages={"net": NET, "trees": TREES})
    with pytest.raises(Killed):
        budget_of(job_plan, Machine(monkeypatch, 1, by_epoch(net=8, trees=10), killed_at=120), 300).train(
            FailurePolicy(), lambda: None
        )
    faster = Machine(monkeypatch, 1, by_epoch(net=1, trees=10))
    budget = budget_of(job_plan, faster, 300)
    capsys.readouterr()
    budget.train(FailurePolicy(), lambda: None)
    assert capsys.readouterr().out.startswith("stage net  1 of 15 jobs are finished\n")
    assert trained(budget)["net"][0] == 7
    assert faster.started[0][1:] == ("net/seed_0/fold_1", 7)
    assert len({title for _, title, _ in faster.started}) == len(faster.started)
    second_machine = Machine(monkeypatch, 1, by_epoch(net=1, trees=10))
    repeated = budget_of(job_plan, second_machine, 300)
    repeated.train(FailurePolicy(), lambda: None)
    assert not second_machine.started
    assert repeated.current_plan == budget.current_plan
    assert repeated.left_out == budget.left_out
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert re.fullmatch(r"stage net  \d+ of 15 jobs are finished", lines[0])
    assert lines[1:] == ["stage trees  15 of 15 jobs are finished", HAS_ENDED]
    assert read_json(job_plan.paths.budget(300))["ended"]
    other = budget_of(job_plan, Machine(monkeypatch, 1, by_epoch(net=1, trees=10)), 400)
    other.train(FailurePolicy(), lambda: None)
    assert trained(other)["net"][0] == 10


def test_seeds_that_a_command_with_another_time_has_finished_are_all_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_plan = planned(tmp_path, stages={"trees": TREES})
    budget_of(job_plan, Machine(monkeypatch, 1, by_epoch(trees=10)), 160).train(FailurePolicy(), lambda: None)
    second_machine = Machine(monkeypatch, 1, by_epoch(trees=10))
    budget = budget_of(job_plan, second_machine, 200)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"trees": (None, [0, 1, 2, 3, 4])}
    assert {title.split("/")[1] for _, title, _ in second_machine.started} == {"seed_4"}


def test_a_shorter_time_takes_the_network_that_a_longer_one_has_trained_with_fewer_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(net=10))
    job_plan = planned(tmp_path, stages={"net": NET})
    budget_of(job_plan, machine, 300).train(FailurePolicy(), lambda: None)
    short = budget_of(job_plan, machine, 100)
    started = machine.now
    short.train(FailurePolicy(), lambda: None)
    assert trained(short) == {"net": (7, [0])}
    assert machine.now - started == 20  # of the probe with all epochs, until its pace is known


def test_a_seed_that_is_cut_off_by_the_deadline_is_left_out_and_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(job: Job, stage: Any) -> float:
        return 20.0 if job.seed == 0 else 29.0  # the second seed is slower than expected

    job_plan = planned(tmp_path, stages={"trees": TREES})
    machine = Machine(monkeypatch, 1, seconds)
    budget = budget_of(job_plan, machine, 156)
    budget.train(FailurePolicy(), lambda: None)
    assert machine.now == pytest.approx(156 - 16.24)  # 10 s and 4 %
    assert trained(budget) == {"trees": (None, [0])}
    assert budget.left_out == [("trees", 1, "2 of 3 jobs were finished when the time was over")]
    assert budget_of(job_plan, Machine(monkeypatch, 1, seconds), 156).left_out == budget.left_out


def test_a_stage_whose_first_seed_was_cut_off_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(job: Job, stage: Any) -> float:
        return 20.0 if job.fold == 0 else 60.0  # the later folds are slower than the probe

    job_plan = planned(tmp_path, stages={"trees": TREES})
    cut_off = budget_of(job_plan, Machine(monkeypatch, 1, seconds), 100)
    cut_off.train(FailurePolicy(), lambda: None)
    assert trained(cut_off) == {}
    again = budget_of(job_plan, Machine(monkeypatch, 1, seconds), 100)
    again.train(FailurePolicy(), lambda: None)
    assert trained(again) == {"trees": (None, [0])}


def test_in_blocks_of_time_the_largest_fold_decides_and_is_not_ended_for_being_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time grows with the cube of the rows; the blocks before the folds are 1/4, 2/4 and 3/4 of the rows."""
    train, test = mixed_tables()
    tables = (train.assign(day=range(len(train))), test.assign(day=range(60, 60 + len(test))))
    folds = {"kind": "time", "n_folds": 3}
    job_plan = planned(
        tmp_path, tables=tables, stages={"cubic": TREES}, folds=folds, competition={"time": "day"}
    )
    machine = Machine(monkeypatch, 1, lambda job, _: 100 * (job.n_rows / job_plan.jobs[2].n_rows) ** 3)
    budget = budget_of(job_plan, machine, 300)
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"cubic": (None, [0])}
    assert not budget.left_out
    assert machine.started[0][1] == "cubic/seed_0/fold_2"
    assert "stage cubic  about 1.67 min a job" in capsys.readouterr().out


def test_with_fail_fast_the_first_failure_ends_the_training_and_is_no_end_of_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_plan = planned(tmp_path, stages={"trees": TREES, "others": TREES})
    machine = Machine(monkeypatch, 1, by_epoch(trees=10, others=10), fails=("trees/seed_0/fold_1",))
    budget = budget_of(job_plan, machine, 300)
    budget.train(FailurePolicy(fail_fast=True), lambda: None)
    assert machine.now == 20
    assert not read_json(job_plan.paths.budget(300))["ended"]


@pytest.mark.parametrize("seed", range(25))
def test_whatever_jobs_take_training_ends_in_time_and_everything_is_finished_or_reported(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    names = [f"{draw.choice(['net', 'trees'])}_{i}" for i in range(draw.randint(1, 5))]
    stages = {name: NET if name.startswith("net") else TREES for name in names}
    mean = {name: math.exp(draw.uniform(0, 5)) / (10 if name.startswith("net") else 1) for name in names}
    slowdown = draw.choice([1.0, 1.85])  # of a machine that others use later on
    fails = tuple(f"{name}/seed_0/fold_{draw.randint(0, 2)}" for name in names if draw.random() < 0.2)

    def seconds(job: Job, stage: Any) -> float:
        noise = random.Random(job.title).uniform(0.8, 1.25)
        return mean[job.stage] * getattr(stage, "epochs", 1) * noise * (slowdown if machine.now > 60 else 1.0)

    total = draw.choice([60, 300, 1000])
    machine = Machine(monkeypatch, draw.choice([1, 2, 4]), seconds, fails)
    budget = budget_of(planned(tmp_path, stages=stages), machine, total)
    results = budget.train(FailurePolicy(), lambda: None)
    assert machine.now <= budget.training_deadline + 1e-6
    jobs = budget.current_plan
    left_out_seeds = {(stage, seed) for stage, seed, _ in budget.left_out}
    for name in names:
        failed = any(
            result.status == "failed" for title, result in results.items() if title.startswith(f"{name}/")
        )
        finished = [
            s
            for s in range(5)
            if name in jobs.stages and is_finished(jobs, name, s) and jobs.jobs_of_stage(name)
        ]
        assert failed or finished or (name, None) in left_out_seeds or (name, 0) in left_out_seeds
        if name in jobs.stages and not failed:
            assert set(jobs.stages[name].seeds) <= set(finished)
            assert not {(name, s) for s in jobs.stages[name].seeds} & left_out_seeds


def test_a_network_has_at_least_half_of_its_epochs_or_sees_40000_rows() -> None:
    net = Gnn(kind="gnn", epochs=50)
    assert epoch_shares(net, 800) == [1.0, 0.7, 0.5]  # 40,000 rows in 50 epochs
    assert epoch_shares(net, 4000) == [1.0, 0.7, 0.5, 0.35, 0.25]
    assert epoch_shares(Lightgbm(kind="lightgbm"), 4000) == [1.0]
    assert with_epochs(net, 0.35).epochs == 18
    assert with_epochs(Gnn(kind="gnn", epochs=1), 0.5).epochs == 1


def test_seeds_are_added_to_what_depends_on_them_and_labels_of_test_rows_are_left_out() -> None:
    trees = Lightgbm(kind="lightgbm", seeds=[7])
    many = Lightgbm(kind="lightgbm", seeds=list(range(9)))
    own = Stage(kind="a.py:A")
    labels = Lightgbm(kind="lightgbm", pseudo_labels={"stages": ["trees"]})
    stages = with_more_seeds({"trees": trees, "many": many, "own": own, "labels": labels})
    assert {name: stage.seeds for name, stage in stages.items()} == {
        "trees": [7, 0, 1, 2, 3],
        "many": list(range(9)),
        "own": [0],
    }


def test_the_time_reserved_for_the_end_grows_with_the_last_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = budget_of(planned(tmp_path), Machine(monkeypatch, 1, by_epoch(trees=1)), 300)
    assert budget.training_deadline == 300 - 22
    budget.submission_seconds = 20.0
    assert budget.training_deadline == 300 - 60


def test_without_a_budget_every_stage_and_seed_is_trained_in_full_and_nothing_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1, by_epoch(trees=1e5, net=1e5))
    job_plan = planned(tmp_path, stages={"trees": {**TREES, "seeds": [0, 4]}, "net": NET})
    budget = Budget(job_plan, machine, Clock())
    budget.train(FailurePolicy(), lambda: None)
    assert trained(budget) == {"trees": (None, [0, 4]), "net": (10, [0])}
    assert budget.left_out == []
    assert not list(job_plan.paths.root.glob("budget*"))


def test_without_a_budget_a_line_says_when_each_stage_ends_once_it_and_all_before_it_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the first job two of 20 s are left, then two of 40 s; what ends in less than 30 s has no line."""
    machine = Machine(monkeypatch, 1, by_epoch(first=20, second=40, quick=1))
    job_plan = planned(tmp_path, stages={"first": TREES, "second": TREES, "quick": TREES})
    capsys.readouterr()
    Budget(job_plan, machine, Clock()).train(FailurePolicy(), lambda: None)
    assert [line for line in capsys.readouterr().out.splitlines() if line] == [
        "stage first  about 20 s a job; its jobs and all earlier ones end in about 40 s, at 00:00",
        "stage second  about 40 s a job; its jobs and all earlier ones end in about 1.33 min, at 00:00",
    ]
