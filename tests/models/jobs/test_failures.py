"""Jobs that fail: what is kept, what goes on, and what the next run does."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.files import read_json
from models.jobs.budget_stages import FailurePolicy
from models.jobs.job_files import attempt_folder, read_failure
from models.jobs.local import LocalExecutor
from models.jobs.progress import describe_loss, share_done
from models.jobs.train import train
from tests.models.jobs.common import STAGES, TREES, InlineExecutor, planned


def failing(how: str, **settings: Any) -> dict[str, Any]:
    """The block of a stage that fails in fold 2 of 3."""
    return {"kind": f"{STAGES}:Failing", "how": how, **settings}


def test_a_failing_stage_harms_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        "hangs": "timeout: not finished after 30 s (--job-timeout)",
    }
    plan = planned(tmp_path, stages={how: failing(how) for how in expected} | {"trees": TREES})
    with closing(LocalExecutor(2, cards=[])) as executor:
        results = train(plan, executor, FailurePolicy(job_timeout=30.0))
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


def test_the_next_run_retries_a_failed_job_after_other_stages_and_points_out_the_same_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    message = "fails/seed_0/fold_2 failed (error), the same error as in the previous run"
    assert message in capsys.readouterr().out
    mend.touch()
    train(plan, InlineExecutor())
    assert all(job.finished for job in plan.jobs)
    left = {path.name for job in plan.jobs for path in job.folder.iterdir()}
    assert not left & {"failed.json", "traceback.txt", "progress.json"}


def test_failed_jobs_can_be_left_out_and_a_failure_can_end_the_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, stages={"fails": failing("raises", fold=0), "trees": TREES})
    results = train(plan, InlineExecutor(), FailurePolicy(fail_fast=True))
    assert [result.reason for result in results.values()] == ["error", *["group"] * 2, *["time"] * 3]
    assert results["trees/seed_0/fold_0"].error == "stopped by --fail-fast"
    executor = InlineExecutor()
    results = train(plan, executor, FailurePolicy(skip_failed=True))
    assert [task.group for task in executor.tasks if task.folder is not None] == ["trees"] * 3
    assert "fold 2 has no molecules" in results["fails/seed_0/fold_0"].error


def test_a_disk_without_room_ends_the_run_and_marks_no_job_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, stages={"fails": failing("raises", fold=0), "trees": TREES})
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == ".probe":
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        train(plan, InlineExecutor())
    assert raised.value.errno == 28
    assert not read_failure(plan.jobs[0].folder)


def test_a_record_that_a_stage_or_a_kill_has_damaged_ends_no_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, stages={"fails": failing("raises", fold=0)})
    folder = attempt_folder(plan.jobs[0].folder)
    folder.mkdir(parents=True)
    for content in ("", '["error"]', '{"reason": "error"}'):
        (folder / "failed.json").write_text(content)
        assert read_failure(plan.jobs[0].folder)["error"] == "its record is damaged"
    (folder / "progress.json").write_text('{"done": null}')
    (folder / "losses.csv").write_bytes(b"epoch,loss\n1,\xff\n")
    assert (share_done(folder), describe_loss(folder)) == (0.0, "")
