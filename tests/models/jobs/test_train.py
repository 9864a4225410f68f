"""The tasks of a plan, the lines that a person reads, and jobs that fail: what goes on, what the next run does."""

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError
from core.files import read_json, read_table, write_table
from models.hardware import Card
from models.inputs.cache import Cache
from models.jobs.job_files import attempt_folder, read_failure
from models.jobs.local import LocalExecutor
from models.jobs.progress import describe_loss, read_progress
from models.jobs.run_job import predict_test, run_job
from models.jobs.scheduler import JobResult, Task
from models.jobs.tasks import (
    MAX_PARTS,
    cut_into_parts,
    fill,
    is_computed,
    job_tasks,
    lines_about,
    run_in_turn,
)
from models.jobs.train import predict_jobs, train
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, STAGES, TREES, InlineExecutor, planned

UNIMOL = {"kind": "unimol", "epochs": 1}


def many_molecules():
    """250 alkanes, 190 of them to train on."""
    table = pd.concat([mixed_tables()[0]] * 5, ignore_index=True).iloc[:250]
    table = table.assign(id=[f"m{i}" for i in range(250)], SMILES=["C" * (i + 1) for i in range(250)])
    return table.iloc[:190], table.iloc[190:].drop(columns=["lumo", "mu"])


def tasks_of(folder, cores=1, shard=(1, 1), **sections):
    """The tasks of a small competition on a machine of so many cores."""
    plan = planned(folder, **sections).select(shard=shard)
    tables = list(plan.tables.read())
    return job_tasks(plan, plan.jobs, tables, InlineExecutor(cores))


def of_function(tasks, function):
    return [task for task in tasks if task.function == function]


def test_trees_fill_sixteen_cores_and_networks_ask_for_a_card(tmp_path):
    own = {"kind": "mine.py:Mine"}
    (tmp_path / "mine.py").write_text("from tests.models.jobs.user_stages import Memoriser as Mine\n")
    stages = {"trees": TREES, "graph": GNN, "mine": {**own, "gpu": True}, "kernel": own}
    stages |= {"cores": {**GNN, "gpu": 0}, "quarter": {**GNN, "gpu": 0.25}}
    jobs = of_function(tasks_of(tmp_path, cores=16, stages=stages), run_job)
    assert all(task.arguments[-1] == task.resources.cpus for task in jobs)
    assert {task.resources.cpus for task in jobs if task.group == "trees"} == {5}
    assert {task.group: task.resources.gpus for task in jobs} == {
        "trees": 0, "graph": 1, "mine": 1, "kernel": 0, "cores": 0, "quarter": 0.25
    }  # fmt: skip


def test_molecules_of_one_job_are_parts_for_all_cores_which_no_other_stage_and_no_shard_computes_first(
    tmp_path,
):
    stages = {"one": UNIMOL, "same": {**UNIMOL, "epochs": 2}, "other": {**UNIMOL, "conformers": 2}}
    for i, sizes in enumerate([[100, 100, 50], [100, 50, 100], [50, 100, 100]], start=1):
        tasks = tasks_of(tmp_path, shard=(i, 3), stages=stages, tables=many_molecules())
        parts, jobs = of_function(tasks, fill), of_function(tasks, run_job)
        assert tasks == parts + jobs
        assert [(len(task.arguments[1]), task.resources.gpus) for task in parts] == [
            (n, 0) for n in sizes * 2
        ]
        waits = {task.group: task.wait_for_groups for task in jobs}
        assert waits["one"] == waits["same"] != waits["other"]
        assert {task.group for task in parts} == waits["one"] | waits["other"]


def test_a_million_keys_become_at_most_max_parts_tasks_cut_in_the_same_places_whatever_is_missing(tmp_path):
    cache = Cache(tmp_path, "numbers", {}, list)
    for n, size in ((1000, 100), (100_000, 100), (100_001, 200), (1_000_000, 1000)):
        keys = list(map(str, range(n)))
        parts = cut_into_parts(cache, keys, {*keys})
        assert len(parts) <= MAX_PARTS
        assert list(parts) == list(range(0, n, size))
        assert cut_into_parts(cache, keys, {keys[0], keys[-1]}) == {0: keys[:1], max(parts): keys[-1:]}


def test_a_part_of_several_shards_continues_after_those_that_a_kill_has_left(tmp_path):
    computed = []

    def compute(keys):
        computed.append(keys)
        return [np.zeros(1)] * len(keys)

    cache = Cache(tmp_path, "numbers", {}, compute, per_shard=2)
    cache.compute_shard(["a", "b"])
    task = Task("part", fill, (cache, list("abcde")))
    assert not is_computed(task)
    fill(*task.arguments)
    assert computed == [["a", "b"], ["c", "d"], ["e"]]
    assert is_computed(task)


def test_a_part_of_a_cache_that_failed_is_a_warning_and_its_jobs_compute_it(tmp_path, monkeypatch, capsys):
    """In training and in the prediction of new rows."""

    def fails(cache, keys):
        raise ValueError("no")

    monkeypatch.setattr("models.jobs.tasks.fill", fails)
    trees = {**TREES, "features": ["descriptors"]}
    plan = planned(tmp_path, stages={"trees": trees}, folds={"n_folds": 2})
    train(plan, InlineExecutor())
    assert all(job.finished for job in plan.jobs)
    warning = "failed (error): ValueError: no; its jobs compute it themselves"
    assert capsys.readouterr().out.count(warning) == 1
    new = tmp_path / "new.parquet"
    write_table(new, read_table(plan.paths.test)[:5].assign(SMILES="C" * 30))
    predict_jobs(replace(plan, paths=replace(plan.paths, new_test=new)), InlineExecutor())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if warning in line]
    assert line.startswith("WARNING: descriptors (")


def counted(folder, note=""):
    """A stage that predicts the mean label."""
    return {"level": {"kind": f"{STAGES}:Counted", "log": str(folder / "log"), "note": note}}


def test_a_finished_job_is_a_line_with_its_score_and_its_stage_tells_its_notes_once(tmp_path, capsys):
    """A fold with a single label says why it has no score."""
    (table, test), fold = mixed_tables(), np.arange(60) % 3
    y = table["lumo"].where((fold < 2) | (table.index == 2))
    plan = planned(
        tmp_path,
        tables=(table.assign(part=fold, lumo=y), test),
        competition={"targets": ["lumo"], "metric": "mae", "fold_column": "part"},
        folds={"kind": "column"},
        stages=counted(tmp_path, "9 of 40 texts are cut."),
    )
    capsys.readouterr()
    train(plan, InlineExecutor())
    scores = [f"{abs(y[fold == k] - y[fold != k].mean()).mean():.4f}" for k in range(2)]
    first, second, third = (
        f"stage level  seed 0  fold {k} of 3  valid mae {score}  0 s"
        for k, score in enumerate([*scores, "nan (fewer than two labels)"])
    )
    note = "stage level  9 of 40 texts are cut."
    assert capsys.readouterr().out.splitlines() == [first, note, second, third]
    train(plan, InlineExecutor())
    assert capsys.readouterr().out == "stage level  3 of 3 jobs are finished\n"


def test_the_seconds_of_a_job_include_the_prediction_of_test_rows_which_a_budget_must_know(
    tmp_path, monkeypatch
):
    def predict_slowly(*arguments):
        time.sleep(0.5)
        predict_test(*arguments)

    monkeypatch.setattr("models.jobs.run_job.predict_test", predict_slowly)
    plan = planned(tmp_path, stages={"trees": TREES})
    result = run_job(plan.jobs[0], plan)
    assert result.seconds > 0.5 and read_json(plan.jobs[0].folder / "report.json")["seconds"] > 0.5


def test_a_running_job_is_described_by_its_last_loss(tmp_path):
    (tmp_path / "losses.csv").write_text(
        "epoch,step,loss,learning_rate,seconds,held_out_score\n6,60,0.3,0.1,8.0,0.5\n7,65,0.21,0.1,9.0,\n"
    )
    assert describe_loss(tmp_path) == "epoch 7, loss 0.21, held-out score 0.5 after epoch 6"


def test_the_failure_of_a_killed_job_is_reported_and_written_by_the_driver(tmp_path):
    plan = planned(tmp_path)
    killed = JobResult(plan.jobs[0].title, "failed", "killed", "its worker died (SIGKILL(-9))")
    lines = lines_about(plan.jobs[0], killed, plan.stages["trees"], None)
    assert killed.error in lines[0]
    assert read_failure(plan.jobs[0].folder)["error"] == killed.error


@pytest.mark.parametrize(
    ("gib", "gpu", "note"),
    [
        (0.0, 1, ""),
        (9.0, 1, "gpu: 0.25 trains 4 jobs"),
        (9.0, 0.25, ""),
        (3.0, 1, "gpu: 0.125 trains 8"),
        (40.0, 1, ""),
    ],
)
def test_a_job_says_how_many_of_its_stage_would_fit_on_a_card(tmp_path, gib, gpu, note):
    """Four of 9 GiB take less than four fifths of 80 GiB, and eight do not; a job on the cores says nothing."""
    plan = planned(tmp_path, stages={"graph": {**GNN, "gpu": gpu}})
    ended = JobResult(plan.jobs[0].title, lines=("score",), gpu_gib=gib)
    lines = lines_about(plan.jobs[0], ended, plan.stages["graph"], [Card("0", 80.0, True)])
    assert len(lines) == (2 if note else 1)
    assert note in lines[-1]


def test_a_fold_of_a_metric_of_labels_shows_the_log_loss_of_its_probabilities(tmp_path, capsys):
    """Two folds are without a row of the rare class, whose F1 says nothing: -log(1 - 1 / 40) for each row."""
    table, test = mixed_tables()
    tables = table.assign(rare=["yes", *["no"] * 59]), test
    binary = {"targets": ["rare"], "problem_type": "binary", "metric": "f1"}
    train(planned(tmp_path, competition=binary, tables=tables, stages=counted(tmp_path)), InlineExecutor())
    assert capsys.readouterr().out.count("valid log_loss 0.0253 ") == 2


def test_a_shard_leaves_a_refit_whose_folds_another_shard_has_and_reports_it(tmp_path, capsys):
    plan = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "both"}})
    for i, n_waiting, n_finished in ((1, 1, 1), (2, 0, 2), (3, 0, 3), (1, 0, 4)):
        train(plan.select(shard=(i, 3)), InlineExecutor())
        waits = "1 jobs wait for jobs of other shards: train again when those are finished"
        assert capsys.readouterr().out.count(waits) == n_waiting
        assert sum(job.finished for job in plan.jobs) == n_finished


def failing(how, **settings):
    """The block of a stage that fails in fold 2 of 3."""
    return {"kind": f"{STAGES}:Failing", "how": how, **settings}


def test_a_failing_stage_harms_no_other(tmp_path, capsys):
    """In real processes. That the predictions of others keep their bytes is tested with the command `full`."""
    expected = {
        "leaves_traces": "error: changed the folder and the environment",
        "interrupts": "error: KeyboardInterrupt",
        "silent": "error: SystemExit: 9",
        "raises": "error: fold 2 has no molecules",
        "config": "error: lower the learning_rate",
        "unpicklable": "error: HTTP 404",
        "exits": "error: raised SystemExit",
        "leaves": "killed: its worker died (EXIT(0))",
        "killed": "killed: its worker died (SIGKILL(-9)), most often because memory ran out",
        "segfault": "killed: its worker died (SIGSEGV(-11))",
        "hangs": "timeout: not finished after 15 s (--job-timeout)",
    }
    plan = planned(tmp_path, stages={how: failing(how) for how in expected} | {"trees": TREES})
    with closing(LocalExecutor(2, cards=[])) as executor:
        results = train(plan, executor, job_timeout=15.0)
    failures = {how: results.pop(f"{how}/seed_0/fold_2") for how in expected}
    for how, text in expected.items():
        reason, _, words = text.partition(": ")
        assert failures[how].reason == reason and words in failures[how].error, how
    assert {result.status for result in results.values()} == {"ok"}
    failed_folder = attempt_folder(plan.jobs_of_stage("killed")[2].folder)
    assert read_json(failed_folder / "failed.json")["reason"] == "killed"
    output = capsys.readouterr().out
    assert output.count("tried once more, alone") == 3
    assert f"raises/seed_0/fold_2 failed (error): {failures['raises'].error}" in output


def test_the_next_run_retries_a_failed_job_after_other_stages(tmp_path, capsys):
    mend = tmp_path / "mend"
    stages = {"fails": {**failing("raises", mend=str(mend)), "seeds": [0, 1]}, "trees": TREES}
    plan = planned(tmp_path, stages=stages)
    first = train(plan, InlineExecutor())
    assert [first[f"fails/seed_1/fold_{fold}"].reason for fold in range(3)] == ["group"] * 3
    for job in plan.jobs_of_stage("trees"):
        job.test_file(plan.test_key).unlink()
    executor = InlineExecutor()
    train(plan, executor)
    order = [task.name for task in executor.tasks]
    assert order == [*(f"trees/seed_0/fold_{fold}" for fold in range(3)), "fails/seed_0/fold_2"]
    assert capsys.readouterr().out.count("fails/seed_0/fold_2 failed (error)") == 2
    mend.touch()
    train(plan, InlineExecutor())
    assert all(job.finished for job in plan.jobs)
    left = {path.name for job in plan.jobs for path in job.folder.iterdir()}
    assert not left & {"failed.json", "traceback.txt", "progress.json"}


def test_a_disk_without_room_ends_the_run_and_marks_no_job_as_failed(tmp_path, monkeypatch):
    plan = planned(tmp_path, stages={"fails": failing("raises", fold=0), "trees": TREES})
    write_bytes = Path.write_bytes

    def full(path, content):
        if path.name == ".probe":
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        train(plan, InlineExecutor())
    assert raised.value.errno == 28
    assert not read_failure(plan.jobs[0].folder)


def test_a_record_that_a_stage_or_a_kill_has_damaged_ends_no_run(tmp_path):
    plan = planned(tmp_path, stages={"fails": failing("raises", fold=0)})
    folder = attempt_folder(plan.jobs[0].folder)
    folder.mkdir(parents=True)
    for content in ("", '["error"]', '{"reason": "error"}'):
        (folder / "failed.json").write_text(content)
        assert read_failure(plan.jobs[0].folder)["error"] == "its record is damaged"
    (folder / "progress.json").write_text('{"done": null}')
    (folder / "losses.csv").write_bytes(b"epoch,loss\n1,\xff\n")
    assert (read_progress(folder)["done"], describe_loss(folder)) == (0.0, "")


def test_new_rows_are_predicted_by_networks_first_whose_libraries_take_longest_to_import(tmp_path):
    stages = {"trees": TREES, "network": {"kind": f"{STAGES}:Memoriser", "gpu": 1.0}}
    plan = planned(tmp_path, stages=stages, folds={"n_folds": 2})
    train(plan, InlineExecutor())
    new = tmp_path / "new.parquet"
    write_table(new, read_table(plan.paths.test)[:5])
    executor = InlineExecutor()
    predict_jobs(replace(plan, paths=replace(plan.paths, new_test=new)), executor)
    assert [task.group for task in of_function(executor.tasks, run_in_turn)] == ["network", "trees"]
    executor = InlineExecutor(cores=3)  # more than stages: a task for each job
    write_table(new, read_table(plan.paths.test)[:6])
    predict_jobs(replace(plan, paths=replace(plan.paths, new_test=new)), executor)
    groups = [task.group for task in of_function(executor.tasks, run_job)]
    assert groups == ["network", "network", "trees", "trees"]


def test_an_error_of_new_rows_names_the_fold_that_cannot_predict_them(tmp_path, monkeypatch):
    plan = planned(tmp_path, stages={"trees": TREES}, folds={"n_folds": 2})
    train(plan, InlineExecutor())

    def fails(job, plan, test):
        if job.fold == 1:
            raise ValueError("no")

    monkeypatch.setattr("models.jobs.run_job.predict_test", fails)
    new = tmp_path / "new.parquet"
    write_table(new, read_table(plan.paths.test)[:5])
    with pytest.raises(DataError, match=rf"^{plan.jobs[1].title} failed \(error\): ValueError: no$"):
        predict_jobs(replace(plan, paths=replace(plan.paths, new_test=new)), InlineExecutor())


def test_jobs_of_one_task_do_not_change_each_other(monkeypatch):
    """A stage of the user may leave another folder, or variables of the environment."""
    seen = []

    def changes(job, plan, threads):
        seen.append((Path.cwd(), os.environ.get("MINE")))
        os.chdir("/")
        os.environ["MINE"] = "1"
        return JobResult(job.title)

    monkeypatch.setattr("models.jobs.tasks.run_job", changes)
    run_in_turn([(SimpleNamespace(title=f"fold_{k}"), None, 1) for k in range(2)])
    assert seen == [(Path.cwd(), None)] * 2
