"""How long jobs take, and what is trained in a given time, on a machine with a clock of its own."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.files import write_json, write_table
from models.inputs.cache import Cache
from models.job_folder import PROGRESS
from models.jobs import budget as budget_module
from models.jobs import pace as pace_module
from models.jobs import scheduler
from models.jobs.budget import Budget
from models.jobs.budget_stages import (
    HAS_ENDED,
    MIN_RESERVE,
    Clock,
    min_epochs,
    with_more_seeds,
)
from models.jobs.job import Job
from models.jobs.job_files import write_failure
from models.jobs.pace import Paces, makespan
from models.jobs.plan import make_plan
from models.jobs.progress import NOTHING_DONE
from models.jobs.scheduler import JobResult, Resources, Task
from models.stages.gnn import Gnn
from models.stages.lightgbm import Lightgbm
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, FakeProcesses, planned
from tests.models.jobs.user_stages import Memoriser

NET = {**GNN, "epochs": 10}
Seconds = Callable[[Job, Any], float]


class Killed(BaseException):
    """Stands for the death of the driver."""


class Machine(FakeProcesses):
    """A machine whose jobs take no time, but move a clock.

    Args:
        seconds: of a job, by its stage's settings; infinite for one that hangs.
        fails: jobs, by their titles, that fail when their time is over.
        killed_at: time at which the driver dies.
        part_seconds: of each part of the cache of descriptors, in their order, and then of all further ones.

    Attributes:
        started: (time, title, epochs) of each job that started.
    """

    def __init__(self, seconds, cores=1, cards=(), fails=(), killed_at=math.inf, part_seconds=(0.0,)):
        super().__init__(cores, cards)
        self.seconds, self.fails, self.killed_at = seconds, fails, killed_at
        self.part_seconds = list(part_seconds)
        self.now = 0.0
        self.times: dict[Task, tuple[float, float]] = {}
        self.started: list[tuple[float, str, int | None]] = []

    def submit(self, task):
        seconds = 0.0  # of a part of a cache
        if task.folder is not None:
            job, plan, _ = task.arguments
            stage = plan.stages[job.stage]
            seconds = self.seconds(job, stage)
            self.started.append((self.now, job.title, getattr(stage, "epochs", None)))
        elif task.group.startswith("descriptors"):
            seconds = self.part_seconds.pop(0) if len(self.part_seconds) > 1 else self.part_seconds[0]
        self.times[task] = (self.now, self.now + seconds)
        return super().submit(task)

    def announce(self, waiting): ...

    def wait(self, futures, timeout, when):
        """Move the clock to the next end of a job, or by `timeout`."""
        running = {task: each.future for task, each in self.running.items() if not each.future.done()}
        self.now = min(self.now + timeout, *(self.times[task][1] for task in running))
        if self.now >= self.killed_at:
            raise Killed
        for task, future in running.items():
            started, end = self.times[task]
            if end <= self.now:
                future.set_result(self.publish(task, end - started))
        return SimpleNamespace(done={future for future in futures if future.done()})

    def publish(self, task, seconds):
        if task.folder is None:
            cache, keys = task.arguments
            cache.folder.mkdir(parents=True, exist_ok=True)
            np.savez(cache.shard(keys), keys=np.frombuffer(json.dumps(keys).encode(), np.uint8))
            return JobResult(task.name, seconds=seconds)
        job, jobs, _ = task.arguments
        if job.title in self.fails:
            return write_failure(job.folder, JobResult(job.title, "failed", "error", "ValueError: no"))
        write_json(job.folder / "report.json", {"seconds": seconds, "files": {}})
        write_table(job.test_file(jobs.test_key), pd.DataFrame({"id": ["a"]}))
        return JobResult(job.title, seconds=seconds, lines=("",))

    def progress(self, folder):
        """Networks say what they have done; other stages do not."""
        for task in self.running:
            started, end = self.times[task]
            if task.folder == folder:
                progress = {**NOTHING_DONE, "started": started}
                if "net" in task.group and end < math.inf:
                    seconds = self.now - started
                    progress |= {"done": seconds, "total": end - started, "seconds": seconds}
                return progress
        return NOTHING_DONE


@pytest.fixture
def machine_of(monkeypatch):
    """Makes machines, the last of which has the clock."""

    def make(seconds, **settings):
        made = Machine(seconds, **settings)
        clock = SimpleNamespace(
            monotonic=lambda: made.now, time=lambda: made.now, strftime=lambda *_: "00:00", localtime=id
        )
        for module in (scheduler, pace_module, budget_module):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(scheduler, "wait", made.wait)
        monkeypatch.setattr(pace_module, "read_progress", made.progress)
        return made

    return make


def by_epoch(**seconds):
    """Seconds of a job, or of each epoch of one, by the name of its stage."""
    return lambda job, stage: seconds[job.stage] * getattr(stage, "epochs", 1)


def plan_of(folder, *names):
    """Stages of these names: networks of ten epochs, and trees."""
    return planned(folder, stages={name: NET if "net" in name else TREES for name in names})


def budget_of(job_plan, machine, seconds):
    """A budget for the stages of a plan; it starts now, and reserves 10 s and 4 %."""
    jobs = make_plan(job_plan.competition, with_more_seeds(job_plan.stages))
    early = min(5.0, max(2.0, 0.01 * seconds))
    return Budget(jobs, machine, Clock(machine.now + early, seconds))


def spent(job_plan, machine, seconds):
    """A budget after its time is over or nothing more fits."""
    budget = budget_of(job_plan, machine, seconds)
    budget.train(lambda: None)
    return budget


def is_finished(jobs, stage, seed):
    return all(job.has_predicted(jobs.test_key) for job in jobs.jobs_of_stage(stage) if job.seed == seed)


def trained(budget):
    """Epochs and finished seeds of each stage, such as `net: 7 epochs, 0; trees: 0 1`."""
    jobs = budget.current_plan
    texts = []
    for name, stage in jobs.stages.items():
        epochs = f"{stage.epochs} epochs, " if "net" in name else ""
        seeds = [f"{seed}" for seed in stage.seeds if is_finished(jobs, name, seed)]
        texts.append(f"{name}: {epochs}{' '.join(seeds)}")
    return "; ".join(texts)


@pytest.mark.parametrize(
    ("seconds", "machine", "expected", "left_out"),
    [
        # of three folds each: 30 s of trees, 90 s of networks, and both again, then 30 s of trees
        ({"trees": 10, "net": 3}, {}, "trees: 0 1 2; net: 10 epochs, 0 1", {}),
        ({"net": 8.8, "trees": 10}, {}, "net: 7 epochs, 0; trees: 0 1", {}),
        ({"net_a": 8, "net_b": 2.5}, {"cores": 4, "cards": ["0"]}, "net_a: 7 epochs, 0; net_b: 10 epochs, 0", {}),
        (
            {"net": 100, "trees": 10}, {}, "trees: 0 1 2 3 4",
            {"net": "0 of 3 jobs were finished when time ran out; its 3 jobs of about 8.33 min would end about "
                    "23.2 min too late, with 4.28 min left of the budget"},
        ),
        ({"net": 40}, {}, "net: 1 epochs, 0", {}),  # three folds take 132 s, with two epochs 264
        (
            {"hangs": math.inf, "trees": 10}, {}, "trees: 0 1 2 3 4",
            {"hangs": "its first job took more than 1.55 min, too long for 3 such jobs, with 3.08 min left of "
                      "the budget"},
        ),
        (
            {"trees": 70, "hangs": math.inf}, {}, "trees: 0",
            {"hangs": "its first job took more than 23 s, too long for 3 such jobs, with 45 s left of the budget"},
        ),
    ],
    ids=[
        "all fits, and so do more seeds", "most of the time only if no other stage waits",
        "two networks for one card",
        "a network that does not fit", "the only network, with one epoch", "a stage that hangs",
        "a stage that takes most of the time, before one that hangs",
    ],
)  # fmt: skip
def test_stages_are_trained_with_the_epochs_and_seeds_that_fit_into_300_s_and_others_are_reported(
    seconds, machine, expected, left_out, tmp_path, machine_of
):
    budget = spent(plan_of(tmp_path, *seconds), machine_of(by_epoch(**seconds), **machine), 300)
    assert trained(budget) == expected
    assert {stage: reason for stage, _, reason in budget.decisions.left_out} == left_out


@pytest.mark.parametrize(("n_bytes", "expected"), [(9, "trees: 0"), (1e6, "trees: 0 1 2 3 4")])
def test_more_seeds_start_only_if_the_disk_has_room_for_them(
    tmp_path, machine_of, monkeypatch, n_bytes, expected
):
    """Reports and predictions of three jobs have some kilobytes."""
    monkeypatch.setattr("shutil.disk_usage", lambda root: SimpleNamespace(free=1e9 + n_bytes))
    budget = spent(plan_of(tmp_path, "trees"), machine_of(by_epoch(trees=1)), 300)
    assert trained(budget) == expected


def test_a_network_that_does_not_fit_starts_again_with_fewer_epochs_as_soon_as_its_pace_is_measured(
    tmp_path, machine_of, capsys
):
    machine, job_plan = machine_of(by_epoch(net=10)), plan_of(tmp_path, "net")
    budget = spent(job_plan, machine, 300)
    assert trained(budget) == "net: 7 epochs, 0"  # 210 of the 278 s, 300 would be too many
    assert [(now, epochs) for now, _, epochs in machine.started] == [(0, 10), (20, 7), (90, 7), (160, 7)]
    assert budget.states["net"].epochs_of_all == "7 of 10 epochs"
    tried = {job.folder for plan in budget.tried_plans for job in plan.jobs}
    assert {job.folder for job in [*job_plan.jobs, *budget.current_plan.jobs]} < tried
    pace = (
        "stage net  7 of 10 epochs, about 1.17 min a job; its jobs and all earlier ones end in about 3.5 min"
    )
    assert pace in capsys.readouterr().out


def test_five_folds_of_a_shortened_network_on_four_cards_fit_into_the_budget(tmp_path, machine_of):
    """The fifth fold starts when another one has ended: the time is that of two folds."""
    job_plan = planned(tmp_path, stages={"net": NET}, folds={"n_folds": 5})
    machine = machine_of(by_epoch(net=20), cores=8, cards=["0", "1", "2", "3"])
    assert trained(spent(job_plan, machine, 300)) == "net: 5 epochs, 0"


def test_the_baseline_is_trained_first_with_nothing_beside_it_and_gets_no_more_seeds(tmp_path, machine_of):
    """Also if it is not the first stage, and if no other stage fits."""
    stages = {"net": NET, "baseline": {"kind": "baseline"}, "trees": TREES}
    machine = machine_of(by_epoch(net=100, baseline=2, trees=10), cores=2)
    budget = spent(planned(tmp_path, stages=stages), machine, 300)
    assert trained(budget).startswith("baseline: 0; trees: 0 1")
    first = [(now, title) for now, title, _ in machine.started[:5]]
    assert first == [
        (0, "baseline/seed_0/fold_0"), (0, "baseline/seed_0/fold_1"), (2, "baseline/seed_0/fold_2"),
        (4, "net/seed_0/fold_0"), (4, "trees/seed_0/fold_0"),
    ]  # fmt: skip
    assert [stage for stage, *_ in budget.decisions.left_out] == ["net"]


def test_a_baseline_that_is_not_finished_in_time_takes_the_time_of_the_last_submission(tmp_path, machine_of):
    """Three folds of 20 s: of 70 s, 12.8 s are reserved for the last submission."""
    stages = {"baseline": {"kind": "baseline"}, "trees": TREES}
    machine = machine_of(by_epoch(baseline=20, trees=10))
    budget = spent(planned(tmp_path, stages=stages), machine, 70)
    assert trained(budget) == "baseline: 0"
    assert (machine.now, budget.training_deadline) == (pytest.approx(60, abs=1), pytest.approx(70 - 12.8))


def test_a_baseline_that_is_slow_has_the_cores_alone_for_a_tenth_of_the_time(tmp_path, machine_of):
    stages = {"baseline": {"kind": "baseline"}, "trees": TREES}
    machine = machine_of(by_epoch(baseline=200, trees=10), cores=4)
    spent(planned(tmp_path, stages=stages), machine, 600)
    assert [now for now, title, _ in machine.started if title.startswith("trees")][0] == 60


def test_a_stage_whose_inputs_took_long_is_tried_again_when_they_fit(
    tmp_path, machine_of, monkeypatch, capsys
):
    """While one part of sixteen takes 30 s, it seems that all do. Of 100 s, 14 are reserved."""
    monkeypatch.setattr(Cache.__init__, "__defaults__", (5, *Cache.__init__.__defaults__[1:]))
    stages = {"slow": {**TREES, "features": ["descriptors"]}, "others": {**TREES, "features": ["morgan"]}}
    machine = machine_of(by_epoch(slow=2, others=2), cores=2, part_seconds=[30, 2])
    budget = spent(planned(tmp_path, stages=stages), machine, 100)
    assert "stage slow  left out: its inputs take about" in capsys.readouterr().out
    assert trained(budget).startswith("slow: 0")


def test_a_stage_is_tried_again_when_another_one_has_computed_its_inputs(
    tmp_path, machine_of, monkeypatch, capsys
):
    """The first stage is left out for inputs that the second one, for which nothing waits, computes."""
    monkeypatch.setattr(Cache.__init__, "__defaults__", (5, *Cache.__init__.__defaults__[1:]))
    trees = {**TREES, "features": ["descriptors"]}
    machine = machine_of(by_epoch(first=2, second=2), cores=2, part_seconds=[30, 2])
    budget = spent(planned(tmp_path, stages={"first": trees, "second": trees}), machine, 100)
    assert "stage first  left out: its inputs take about" in capsys.readouterr().out
    assert trained(budget).startswith("first: 0")
    assert "second: 0" in trained(budget)


def test_a_stage_that_nearly_fits_is_trained_all_the_same_if_nothing_else_does(tmp_path, machine_of, capsys):
    """After the first fold of 90 s two are to take 198 s with their margin, and 188 s are left."""
    budget = spent(plan_of(tmp_path, "trees"), machine_of(by_epoch(trees=90)), 300)
    assert trained(budget) == "trees: 0"
    assert "stage trees  trained although it may not fit, since nothing else does" in capsys.readouterr().out


def test_a_network_with_its_fewest_epochs_may_take_all_of_the_time_beside_a_stage_with_more_seeds(
    tmp_path, machine_of
):
    """With 5 of 10 epochs of 14 s, three folds take 231 s with their margin, more than nine tenths of what is left."""
    budget = spent(plan_of(tmp_path, "trees", "net"), machine_of(by_epoch(trees=1, net=14)), 300)
    assert trained(budget).startswith("trees: 0") and "net: 5 epochs, 0" in trained(budget)


def test_a_network_for_whose_fewest_epochs_there_is_no_time_takes_what_other_seeds_leave(
    tmp_path, machine_of
):
    """Three folds of 5 epochs of 25 s would take 375 s; those of two epochs take 165 s after the trees' 15."""
    budget = spent(plan_of(tmp_path, "trees", "net"), machine_of(by_epoch(trees=1, net=25)), 300)
    assert trained(budget) == "trees: 0 1 2 3 4; net: 2 epochs, 0"


def test_a_stage_with_a_slow_first_job_is_not_left_out_for_stages_that_are_finished(tmp_path, machine_of):
    """Three folds of 100 s would not fit, but only the first one takes so long."""
    stages = {"fast": {"kind": "gp"}, "slow": {"kind": "gp"}}

    def seconds(job, stage):
        return 100 if (job.stage, len(machine.started)) == ("slow", 3) else 2

    machine = machine_of(seconds)
    assert trained(spent(planned(tmp_path, stages=stages), machine, 300)) == "fast: 0; slow: 0"
    assert machine.now < 150


@pytest.mark.parametrize(("seconds", "finished"), [(95, "trees: 0"), (97.5, "")])
def test_a_job_that_is_nearly_finished_may_use_time_that_is_reserved_for_the_last_submission(
    tmp_path, machine_of, seconds, finished
):
    """Three folds take 285 or 292 s. Of 300 s, 22 are reserved, and three submissions of 3 s take 9 of them."""
    budget = budget_of(plan_of(tmp_path, "trees"), machine_of(by_epoch(trees=seconds)), 300)
    budget.submission_seconds = 3.0
    budget.train(lambda: None)
    assert trained(budget) == finished


def test_a_failure_is_no_matter_of_time_and_the_same_command_retries_it(tmp_path, machine_of):
    job_plan, seconds = plan_of(tmp_path, "trees", "others"), by_epoch(trees=10, others=20)
    budget = spent(job_plan, machine_of(seconds, fails=("trees/seed_0/fold_1",)), 200)
    assert trained(budget) == "trees: ; others: 0 1"
    assert not budget.decisions.left_out
    machine = machine_of(seconds)
    spent(job_plan, machine, 200)
    assert [title for _, title, _ in machine.started] == ["trees/seed_0/fold_1", "trees/seed_0/fold_2"]


def test_after_a_kill_the_same_command_goes_on_with_the_same_epochs_and_after_the_end_trains_nothing(
    tmp_path, machine_of, capsys
):
    job_plan = plan_of(tmp_path, "net", "trees")
    with pytest.raises(Killed):
        spent(job_plan, machine_of(by_epoch(net=8, trees=10), killed_at=120), 300)
    seconds = by_epoch(net=1, trees=10)  # it is faster now
    capsys.readouterr()
    machine = machine_of(seconds)
    budget = spent(job_plan, machine, 300)
    assert capsys.readouterr().out.startswith("stage net  1 of 15 jobs are finished\n")
    assert trained(budget).startswith("net: 7 epochs, 0")
    assert machine.started[0][1:] == ("net/seed_0/fold_1", 7)
    assert len({title for _, title, _ in machine.started}) == len(machine.started)
    idle_machine = machine_of(seconds)
    repeated = spent(job_plan, idle_machine, 300)
    assert not idle_machine.started
    assert (repeated.current_plan, repeated.decisions.left_out) == (
        budget.current_plan,
        budget.decisions.left_out,
    )
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines == ["stage trees  15 of 15 jobs are finished", HAS_ENDED]
    assert trained(spent(job_plan, machine_of(seconds), 400)).startswith("net: 10 epochs, 0")


def test_other_seeds_after_an_ended_budget_are_trained(tmp_path, machine_of):
    seconds = by_epoch(trees=10)
    spent(plan_of(tmp_path, "trees"), machine_of(seconds), 300)
    for seeds in ([7], [11, 12, 13, 14, 15, 16]):
        job_plan = planned(tmp_path, stages={"trees": {**TREES, "seeds": seeds}})
        budget = spent(job_plan, machine_of(seconds), 300)
        assert trained(budget).startswith(f"trees: {seeds[0]}")


def test_what_another_command_has_finished_counts_even_if_no_time_is_left(tmp_path, machine_of):
    job_plan, seconds = plan_of(tmp_path, "net", "trees"), by_epoch(net=100, trees=10)
    first = spent(job_plan, machine_of(seconds), 300)
    idle_machine = machine_of(seconds)
    budget = spent(job_plan, idle_machine, 10)
    assert not idle_machine.started
    assert trained(budget) == trained(first) == "trees: 0 1 2 3 4"
    assert [stage for stage, *_ in budget.decisions.left_out] == ["net"]


def test_the_folds_of_a_shortened_network_count_for_another_budget_and_beside_another_stage(
    tmp_path, machine_of
):
    seconds = by_epoch(net=25, trees=10, more=10)
    first = spent(plan_of(tmp_path, "net", "trees"), machine_of(seconds), 1000)
    assert trained(first).startswith("net: 8 epochs, 0")
    for names in (("net", "trees"), ("net", "trees", "more")):
        assert "net: 8 epochs, 0" in trained(spent(plan_of(tmp_path, *names), machine_of(seconds), 400)), (
            names
        )


def test_for_another_test_table_finished_jobs_take_no_time_and_keep_their_epochs_and_seeds(
    tmp_path, machine_of
):
    def plan(tables):
        return planned(tmp_path, tables=tables, stages={"net": NET, "trees": TREES})

    train, test = mixed_tables()
    training = by_epoch(net=25, trees=10)
    first = trained(spent(plan((train, test)), machine_of(training), 1000))
    other = plan((train, test.assign(note="other words")))
    for budget in (1000, 300):
        machine = machine_of(lambda job, stage: 3.0 if job.finished else training(job, stage))
        predicted = trained(spent(other, machine, budget))
        assert predicted.split("; ")[0] == first.split("; ")[0] == "net: 8 epochs, 0"


def test_a_seed_that_is_cut_off_by_the_deadline_is_left_out_and_stays_so(tmp_path, machine_of):
    def seconds(job, stage):
        return 20.0 if job.seed == 0 else 29.0  # the second seed is slower than expected

    job_plan, machine = plan_of(tmp_path, "trees"), machine_of(seconds)
    budget = spent(job_plan, machine, 156)
    assert machine.now == pytest.approx(156 - 16.24)  # 10 s and 4 %
    assert trained(budget) == "trees: 0"
    assert budget.decisions.left_out == [("trees", 1, "2 of 3 jobs were finished when time ran out")]
    assert budget_of(job_plan, machine_of(seconds), 156).decisions.left_out == budget.decisions.left_out


def test_a_stage_whose_first_seed_was_cut_off_is_finished_by_the_same_command(tmp_path, machine_of):
    def seconds(job, stage):
        return 20.0 if job.fold == 0 else 60.0  # the later folds are slower than the probe

    job_plan = plan_of(tmp_path, "trees")
    results = [trained(spent(job_plan, machine_of(seconds), 100)) for _ in range(2)]
    assert results == ["", "trees: 0"]


def test_in_blocks_of_time_the_largest_fold_decides_and_is_not_ended_for_being_slow(
    tmp_path, machine_of, capsys
):
    """The time grows with the cube of the rows; the blocks before the folds are 1/4, 2/4 and 3/4 of the rows."""
    train, test = mixed_tables()
    job_plan = planned(
        tmp_path,
        tables=(train.assign(day=range(60)), test.assign(day=range(60, 80))),
        stages={"cubic": TREES},
        folds={"kind": "time", "n_folds": 3},
        competition={"time": "day"},
    )
    assert [job.n_rows for job in job_plan.jobs] == [15, 30, 45]
    machine = machine_of(lambda job, _: 100 * (job.n_rows / 45) ** 3)
    budget = spent(job_plan, machine, 300)
    assert trained(budget) == "cubic: 0"
    assert machine.started[0][1] == "cubic/seed_0/fold_2"
    assert "stage cubic  about 1.67 min a job" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(25))
def test_whatever_jobs_take_training_ends_in_time_and_everything_is_finished_or_reported(
    seed, tmp_path, machine_of
):
    draw = random.Random(seed)
    names = [f"{draw.choice(['net', 'trees'])}_{i}" for i in range(draw.randint(1, 5))]
    mean = {name: math.exp(draw.uniform(0, 5)) / (10 if name.startswith("net") else 1) for name in names}
    slowdown = draw.choice([1.0, 1.85])  # of a machine that others use later on
    fails = tuple(f"{name}/seed_0/fold_{draw.randint(0, 2)}" for name in names if draw.random() < 0.2)

    def seconds(job, stage):
        noise = random.Random(job.title).uniform(0.8, 1.25)
        return mean[job.stage] * getattr(stage, "epochs", 1) * noise * (slowdown if machine.now > 60 else 1.0)

    total = draw.choice([60, 300, 1000])
    machine = machine_of(seconds, cores=draw.choice([1, 2, 4]), fails=fails)
    budget = budget_of(plan_of(tmp_path, *names), machine, total)
    results = budget.train(lambda: None)
    assert machine.now <= budget.clock.end - MIN_RESERVE + 1e-6
    jobs = budget.current_plan
    left_out_seeds = {(stage, seed) for stage, seed, _ in budget.decisions.left_out}
    for name in names:
        statuses = {result.status for title, result in results.items() if title.startswith(f"{name}/")}
        failed = "failed" in statuses
        finished = [s for s in range(5) if name in jobs.stages and is_finished(jobs, name, s)]
        assert failed or finished or (name, None) in left_out_seeds or (name, 0) in left_out_seeds
        if name in jobs.stages and not failed:
            assert set(jobs.stages[name].seeds) <= set(finished)
            assert not {(name, s) for s in jobs.stages[name].seeds} & left_out_seeds


def test_a_network_has_at_least_half_of_its_epochs_or_sees_40000_rows():
    net = Gnn(kind="gnn", epochs=50)
    assert [min_epochs(net, n_rows) for n_rows in (800, 4000, 100_000)] == [25, 10, 1]
    assert min_epochs(Lightgbm(kind="lightgbm"), 800) == 1
    assert [net.with_share_of_epochs(share).epochs for share in (0.35, 0.001)] == [18, 1]


def test_seeds_are_added_to_what_depends_on_them():
    stages = {f"{n}": Lightgbm(kind="lightgbm", seeds=range(7, 7 + n)) for n in (1, 9)}
    stages["own"] = Memoriser(kind="a.py:Memoriser")
    seeds = {name: stage.seeds for name, stage in with_more_seeds(stages).items()}
    assert seeds == {"1": [7, 0, 1, 2, 3], "9": list(range(7, 16)), "own": [0]}


def test_the_time_reserved_for_the_end_grows_with_the_last_submission(tmp_path, machine_of):
    budget = budget_of(planned(tmp_path), machine_of(by_epoch(trees=1)), 300)
    assert budget.training_deadline == 300 - 22
    budget.submission_seconds = 20.0
    assert budget.training_deadline == 300 - 60


def test_without_a_budget_all_is_trained_and_a_line_says_when_each_stage_ends_once_it_is_measured(
    tmp_path, machine_of, capsys
):
    """After the first job five of 20 s are left, then three of 40 s; what ends in less than 30 s has no line."""
    machine = machine_of(by_epoch(first=20, net=4, quick=1))
    stages = {"first": {**TREES, "seeds": [0, 4]}, "net": NET, "quick": TREES}
    job_plan = planned(tmp_path, stages=stages)
    capsys.readouterr()
    budget = Budget(job_plan, machine, Clock())
    budget.train(lambda: None)
    assert trained(budget) == "first: 0 4; net: 10 epochs, 0; quick: 0"
    assert budget.decisions.left_out == list(job_plan.paths.root.glob("budget*")) == []
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("stage")] == [
        "stage first  about 20 s a job; its jobs and all earlier ones end in about 1.67 min, at 00:00",
        "stage net  about 40 s a job; its jobs and all earlier ones end in about 1.83 min, at 00:00",
    ]


ONE, HALF = Resources(), Resources(1, 0.5)


def test_each_job_starts_when_there_is_room_for_it_on_a_card_or_the_cores():
    assert makespan([(5, ONE), (10, Resources(2)), (1, ONE)], Resources(2)) == 16
    assert makespan([(10, Resources(8))], Resources(2)) == 10
    assert makespan([(10, HALF)] * 3 + [(8, ONE)] * 2, Resources(2, 1)) == 15
    assert makespan([(10, HALF)] * 3, Resources(2)) == 20
    assert makespan([(100, Resources(1, 1.0))] * 5, Resources(8, 4)) == 200  # not 125


START = 1000.0
Report = Callable[[float, int, float], None]


@pytest.fixture
def task(tmp_path):
    return Task("net/0", len, group="net", folder=tmp_path)


@pytest.fixture
def report(tmp_path, monkeypatch):
    """So many seconds after its start the task reports its steps, and the seconds that it has trained."""
    clock = SimpleNamespace(now=START)
    for name in ("monotonic", "time"):
        monkeypatch.setattr(pace_module.time, name, lambda: clock.now)

    def write(seconds, done, trained, before=0.0, to_predict=0.0):
        clock.now = START + seconds
        of_steps = {"done": done, "total": 100, "to_predict": to_predict}
        record = {**of_steps, "seconds": trained, "before": before, "started": START}
        write_json(tmp_path / PROGRESS, record)

    return write


def test_a_pace_is_that_of_jobs_that_ended_or_else_of_the_progress_of_one_that_runs(task, report):
    """Its first step is done after 6 s of imports. The next take 2 s each, and from the 7th on one second."""
    paces = Paces({task: START}, {"net"}, {})
    assert paces.pace("net") is None
    for done, seconds, expected in ((1, 8, None), (4, 14, None), (6, 18, 206), (15, 27, 142), (16, 28, 112)):
        report(seconds, done, seconds)
        assert paces.pace("net") == (pytest.approx(expected, abs=1) if expected else None)
        assert paces.is_final("net") == (done == 16)
    # Fewer epochs do not shorten the 7 s of imports.
    assert paces.scaled("net", 0.1) == pytest.approx(7 + 10.5)
    assert Paces({task: START}, set(), {}).pace("net") is None  # the progress of others differs in rows
    paces.add("net", JobResult("net/1", "failed", "error", seconds=1))
    paces.add("net", JobResult("net/2", seconds=50))
    assert paces.pace("net") == 50
    paces.add("net", JobResult("net/3", seconds=20))
    paces.add("net", JobResult("net/4", seconds=20))
    assert paces.pace("net") == 30
    assert paces.remaining([task]) == [(84, ONE)]  # its own progress knows better


def test_a_pace_has_the_time_of_the_predictions_which_fewer_epochs_do_not_shorten(task, report):
    """Steps of a second each, and as many predictions as 50 steps take."""
    paces = Paces({task: START}, {"net"}, {})
    for done in (1, 6, 16):
        report(done, done, done, to_predict=50)
        paces.pace("net")
    assert paces.pace("net") == 150
    assert paces.scaled("net", 0.1) == 50 + 10
    report(100, 100, 100, to_predict=50)
    assert paces.remaining([task]) == [(50, ONE)]
    report(120, 100, 100, to_predict=50)  # there was no report for 20 s
    assert paces.remaining([task]) == [(30, ONE)] and paces.pace("net") == 150


def test_the_seconds_of_a_job_begin_after_the_imports_of_its_worker(task, report, tmp_path):
    trees = replace(task, group="trees")
    paces = Paces({trees: START - 20}, set(), {})
    assert paces.elapsed(trees) == 0
    report(3, 0, 0)
    assert paces.elapsed(trees) == 3
    (tmp_path / PROGRESS).unlink()
    report(5, 0, 0)
    paces.running[trees] = START + 4  # the report is of an earlier attempt
    assert paces.elapsed(trees) == 1


def test_seconds_of_an_earlier_attempt_are_no_speed_of_the_one_that_continues_it(task, report):
    """80 of 100 steps took 900 s on a busy machine, and a kill lost 10 more; now a step takes one second."""
    paces = Paces({task: START}, {"net"}, {})
    report(0.5, 90, 899)  # of before the kill
    paces.pace("net")
    for seconds, done in ((1, 80), (10, 81), (15, 86), (25, 96)):
        report(seconds, done, 899 + seconds, before=899)
        paces.pace("net")
    assert paces.remaining([task]) == [(pytest.approx(4), ONE)]
    assert paces.pace("net") == pytest.approx(26 + 4 + 80, abs=2)
