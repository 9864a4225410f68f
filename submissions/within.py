"""Training and submissions in a given time: `./run.sh full --budget 2h`, or what would be trained, with --plan.

The time counts from the start of the command to the files. Each stage is measured for some seconds; the plan has small
versions of all stages before full versions of a few; a submission is written when the first stage has finished, and
again as others do. The same command again goes on with the same plan, or gives the same files.

Writes below within/<time>-<digest>/: measured/ (what each stage costs), plan.txt and three YAMLs of the
competition: begun/NAME.yaml with the epochs and seeds that have begun, so_far/NAME.yaml of the latest submission on
the way, and NAME.yaml of the last one, which every verb takes like another.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from argparse import Namespace
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from competition import command
from competition.durations import in_words
from competition.errors import ConfigError, DataError
from competition.files import digest, read_table, sha256_of, table_digest, write_atomically
from competition.paths import Paths, shown
from competition.yaml_files import dump_yaml
from models.config import load_stages
from models.jobs.budget import PROBE, Planner, Stages, Within, measured, with_all_seeds
from models.jobs.cluster import make_executor
from models.jobs.plan import Plan, plan, require_answer
from models.jobs.resume import resume
from models.jobs.scheduler import Executor
from submissions.config import Config, relocated
from submissions.run import (
    LEFT_OUT,
    SUBMISSION_FILE,
    describe_left_out,
    latest_run,
    left_out_of,
    name_of_latest,
)

SUBMIT, REPORT = "submissions.build_submission", "submissions.report"
RESERVE = (10.0, 0.04)
"""Seconds, and share of the time, that are kept for blend, stack, files and report."""
EARLY, MOST_EARLY = 0.01, 5.0
"""Share of the time, and most seconds, by which the command ends before it, in case the machine is slow then."""
LAST = 3.0
"""Seconds of the last submission, over those of one on the way, which has no stack and is written beside training."""
SHARE_ON_THE_WAY = 0.1
"""Most of the time that submissions on the way take."""
COUNTS = 0.02
"""Weight in the submission from which the time of a column is said to be well spent."""


class Timed:
    """One command with a budget: its time, its folder, and the submissions that it writes.

    end: time.monotonic() at which all has ended.
    """

    def __init__(self, config: Config, paths: Paths, folder: Path, budget: float, end: float, reuse: bool) -> None:
        self.config, self.paths, self.folder, self.budget, self.end = config, paths, folder, budget, end
        self.options = ["--reuse"] * reuse
        self.runs_before = {*paths.latest_run.parent.glob("*")}
        self.took, self.last = 0.0, time.monotonic()
        self.thread = threading.Thread()
        self.process: subprocess.Popen[str] | None = None
        self.within: Within | None = None
        self.latest_before = name_of_latest(paths)
        self.on_way: list[Path] = []  # folders of the submissions on the way
        early = min(MOST_EARLY, max(1.0, EARLY * budget))
        self.timer = threading.Timer(max(0.0, end - time.monotonic() - early), self.over)
        self.timer.daemon = True
        self.timer.start()

    def write(self, part: str, stages: Stages) -> Path:
        """A YAML of the competition with these stages; on the way without its stack, for time."""
        document = self.config.model_dump(mode="json", exclude_unset=True, exclude={"stages"})
        if part == "so_far":
            document.setdefault("submissions", {})["stack"] = False
        document["stages"] = {name: stage.model_dump(mode="json", exclude_unset=True) for name, stage in stages.items()}
        file = self.folder / part / f"{self.paths.name}.yaml"
        write_atomically(file, dump_yaml(document))
        return file

    def on_the_way(self, stages: Stages) -> None:
        """Write a submission of what is finished, unless one is being written or was just now."""
        if not self.thread.is_alive() and time.monotonic() - self.last >= self.took / SHARE_ON_THE_WAY:
            file = self.write("so_far", stages)
            self.thread = threading.Thread(target=self._submit, args=(file, list(stages)), daemon=True)
            self.thread.start()

    def _submit(self, file: Path, names: list[str]) -> None:
        started, said = time.monotonic(), None
        process = self.start(SUBMIT, file, *self.options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while said is None:
            with suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=1.0)
            self.last = time.monotonic()
            self.took = self.last - started
            if self.within:
                self.within.end_at(self.end - RESERVE[0] - LAST * self.took)
        if process.returncode:
            print(f"no submission of {', '.join(names)} yet:\n{said}", flush=True)
            return
        self.on_way.append(self.paths.run(name_of_latest(self.paths)))
        print(f"submission of {', '.join(names)}: {shown(self.on_way[-1] / SUBMISSION_FILE)}", flush=True)

    def start(self, step: str, file: Path, *options: str, **how: Any) -> subprocess.Popen[str]:
        """A step on a YAML, in a process of its own."""
        call = [sys.executable, "-m", step, str(file), *options]
        self.process = subprocess.Popen(call, text=True, **how)
        return self.process

    def finish(self, file: Path, left_out: str | None) -> None:
        """Submission and report of all that is finished; submissions on the way are no runs of their own.

        left_out: for the report; None if nothing was trained, and the run has it.
        """
        if self.thread.is_alive():
            self.thread.join()
        if self.on_way and self.latest_before:  # what the last one is compared with
            write_atomically(self.paths.latest_run, self.latest_before)
        elif self.on_way:
            self.paths.latest_run.unlink()
        self._wait(self.start(SUBMIT, file, *self.options))
        if left_out is not None:
            write_atomically(self.paths.run(name_of_latest(self.paths)) / LEFT_OUT, left_out)
        self._wait(self.start(REPORT, file))
        self.timer.cancel()
        for run in {*self.on_way} - self.runs_before - {self.paths.run(name_of_latest(self.paths))}:
            shutil.rmtree(run)

    def _wait(self, process: subprocess.Popen[str]) -> None:
        if status := process.wait():
            if status < 0:  # `over` has ended it, and ends this process
                self.timer.join()
            sys.exit(status)

    def over(self) -> None:
        """End the command, since its time is over, with the submission that there is; workers end with this process."""
        if self.process:
            self.process.kill()
        said = f"The budget of {in_words(self.budget)} is over"
        if (latest := name_of_latest(self.paths)) not in ("", self.latest_before):
            self.on_way.append(self.paths.run(latest))  # the last one may be written, and only its report not
        if self.on_way:
            write_atomically(self.paths.latest_run, self.on_way[-1].name)
            print(f"{said}; the latest submission stands: {shown(self.on_way[-1] / SUBMISSION_FILE)}", flush=True)
            os._exit(0)
        what = "there is no new submission; finished jobs are kept" if self.within else "nothing has begun to train"
        print(f"DataError: {said}, and {what}. Run it again, or give it more time.", file=sys.stderr, flush=True)
        os._exit(2)


def spent(timed: Timed, spent_by_group: dict[str, float], n_cores: int, seconds: float) -> str:
    """How the seconds of the workers were spent, of a command that took `seconds` on so many cores."""
    total, weights = seconds * n_cores, latest_run(timed.paths.name).weights
    used = {column.partition(":")[0] for of in weights.values() for column, w in of.items() if abs(w) >= COUNTS}
    others = set(timed.config.stages) - used
    probes = sum(seconds for group, seconds in spent_by_group.items() if group.startswith(PROBE))
    parts = {"other columns": sum(spent_by_group.get(name, 0.0) for name in others), "probes": probes}
    well = sum(spent_by_group.values()) - sum(parts.values())
    parts = {f"columns with a weight of at least {COUNTS}, and caches": well, **parts}
    parts["idle, blends and what was cut off"] = max(0.0, total - sum(parts.values()))
    return "Time of the workers: " + ", ".join(f"{value / total:.0%} {name}" for name, value in parts.items()) + "."


def planned(timed: Timed, todo: Plan, stages: Stages, earlier: Stages, executor: Executor, deadline: float) -> Planner:
    """Measure the stages, and print and write what fits; a DataError where nothing does."""
    print(f"measuring {len(stages)} stages ...", flush=True)
    costs = measured(todo, executor, timed.folder / "measured", timed.budget)
    capacity = executor.capacity()
    cores, gpus = capacity.cpus, int(capacity.gpus)
    planner = Planner(costs, todo.n_folds, len(read_table(timed.paths.train)), cores, gpus)
    chosen, asked = planner.decide(stages, deadline - time.monotonic()) | earlier, timed.config.stages
    lines = [*planner.described(chosen, {name: stage for name, stage in asked.items() if name in stages})]
    lines += [f"  {name}: no part of it, has pseudo_labels" for name in asked if name not in stages]
    kept = f"{in_words(timed.end - deadline)} of it for blend, files and report"
    if not chosen:
        raise DataError("\n".join([f"No stage fits into {in_words(timed.budget)}, {kept}:", *lines]))
    machine = f"cores: {cores}, GPUs: {gpus}, {in_words(timed.budget + time.monotonic() - timed.end)} gone, {kept}"
    said = "\n".join([f"Plan for {in_words(timed.budget)} ({machine}); what jobs take changes it:", *lines])
    print(said, flush=True)
    write_atomically(timed.folder / "plan.txt", said + "\n")
    return planner


def run(args: Namespace, config: Config, paths: Paths) -> int:
    """Train what fits into `args.budget`, and build submissions and report of it; returns the exit status."""
    began = time.monotonic() - (time.time() - float(os.environ.get("RUN_STARTED") or time.time()))
    stages = with_all_seeds(dict(config.stages))
    if not stages:
        raise ConfigError("--budget plans stages without pseudo_labels, and here each has some. Run it without.")
    settings = relocated(config.model_dump(), lambda path: path.name)  # wherever the next session has the files
    made_of = [settings, *map(table_digest, (paths.train, paths.test)), sha256_of(paths.folds)]
    folder = paths.root / "within" / f"{args.budget:.0f}s-{digest(made_of, 8)}"
    timed = Timed(config, paths, folder, args.budget, began + args.budget, args.reuse)
    deadline = timed.end - RESERVE[0] - RESERVE[1] * args.budget
    ended, final = folder / "ended", folder / f"{paths.name}.yaml"
    executor = make_executor(args.executor, args.ray_address, args.workers)
    with command.training(paths), closing(executor):
        if args.earlier:
            resume(args.earlier, paths)

        def plan_of(found: Stages) -> Plan:
            return plan(config.competition, found, paths, args.reuse)

        begun, left_out = folder / "begun" / final.name, None
        earlier = load_stages(str(begun)) if begun.exists() else {}
        if ended.exists() and not args.plan and all(job.finished for job in plan_of(load_stages(str(final))).jobs):
            timed.write("", load_stages(str(final)))
        else:
            todo = plan_of(stages)
            if not args.reuse and not args.retrain:
                require_answer(plan_of({**stages, **earlier}))
            planner = planned(timed, todo, stages, earlier, executor, deadline)
            if args.plan:
                timed.timer.cancel()
                return 0
            timed.within = Within(
                stages, earlier, plan_of, planner, executor, deadline, partial(timed.write, "begun"), timed.on_the_way
            )
            timed.within.train()
            left_out = "".join(f"{line}\n" for line in timed.within.left_out())
            print(left_out, end="", flush=True)
            if not timed.within.finished:
                raise DataError(f"No stage has finished in {in_words(args.budget)}. Finished jobs are kept.")
            timed.write("", timed.within.finished)
    timed.finish(final, left_out)
    if timed.within:
        write_atomically(ended, "")
        print(spent(timed, timed.within.queue.seconds, timed.within.planner.cores, time.monotonic() - began))
        jobs = [job for jobs_of_seed in timed.within.jobs.values() for job in jobs_of_seed]
        failed = left_out_of(replace(timed.within.todo, jobs=jobs), timed.within.queue.results)
        failed = [seed for seed in failed if seed.reason != "time"]
        if failed:
            print(describe_left_out(failed))
            return 3
    return 0
