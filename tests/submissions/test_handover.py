"""The handover names everything that is needed to make the submission again, and is made from what was
written down.
"""

from pathlib import Path

from competition.files import read_json, sha256_of, write_json
from competition.revision import revision
from submissions.handover import handover
from tests.submissions.fakes import run_of


def test_files_seeds_times_and_machines_are_those_of_the_run(done: Path) -> None:
    run, folder = run_of(done), done.parent
    text = handover(run)
    for file in (folder / "train.csv", folder / "test.csv", run.folder / "submission.csv"):
        assert f"| `{file.name}` | {sha256_of(file)} |" in text
    assert f"revision {revision()}" in text
    assert "./run.sh train mixed.yaml " in text and "./run.sh predict mixed.yaml " in text
    assert f"`predict` prints the run that it uses, which is {run.name} " in text
    assert "| good | lightgbm | 0 | 3 | 4.5 s |" in text  # three jobs of 1.5 s
    assert "- 9 jobs: not recorded" in text
    assert "## Outside data\n\n- none" in text and f"- python {run.stored['versions']['python']}\n" in text
    assert str(folder) not in text
    for i, job in enumerate(run.plan.jobs):
        on = {"cores": 2, "gpu": "T4"} if i == 0 else {"cores": 2}
        write_json(job.folder / "report.json", {**read_json(job.folder / "report.json"), "machine": on})
    run.config.competition.train.unlink()
    text = handover(run)
    assert "| `train.csv` | missing |" in text
    assert "- 8 jobs: cores " in text and "- 1 jobs: cores " in text
    assert text.count(", gpu T4") == 1
