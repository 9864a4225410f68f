"""The submission of a command that has a time."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import NothingToSubmit
from submissions import budget_run
from submissions.build_submission import build_submission
from submissions.run import latest_run
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_of

NONE_WRITTEN: Any = SimpleNamespace(n_written=0)


def test_if_the_last_submission_is_not_built_in_time_that_of_the_finished_stages_takes_its_place(
    tmp_path: Path,
) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    finished = run_of(path)
    with pytest.raises(NothingToSubmit, match="the time of 5 min was over before a submission was built"):
        budget_run._take_latest(finished, NONE_WRITTEN, 300)
    build_submission(finished, interim=True)
    (line,) = budget_run._take_latest(finished, NONE_WRITTEN, 300)
    assert line.endswith("is that of fair, good, poor, without a report")
    latest = latest_run(str(path))
    assert latest.name == finished.name
    assert finished.paths.submission.read_bytes() == (latest.folder / "submission.csv").read_bytes()
    assert not finished.is_built  # it has no stack, so the next command builds it
    build_submission(finished)
    assert "the report was written" in budget_run._take_latest(finished, NONE_WRITTEN, 300)[0]


def test_the_submission_of_another_command_does_not_take_the_place_of_the_last_one(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    finished = run_of(path)
    build_submission(finished, interim=True)
    other = SimpleNamespace(name="other", paths=finished.paths, is_built=False)
    with pytest.raises(NothingToSubmit):
        budget_run._take_latest(other, NONE_WRITTEN, 300)  # type: ignore[arg-type]


def test_seconds_count_as_well_spent_in_caches_and_in_columns_with_weight() -> None:
    spent = {
        "gnn": 40.0,
        "svr": 20.0,
        "lost": 10.0,
        "the conformers (abc)": 10.0,
        "submissions": 5.0,
        "all": 100.0,
    }
    finished: Any = SimpleNamespace(
        worker_seconds=spent,
        weights={"y": {"gnn": 0.9, "svr": 0.01}},
        config=SimpleNamespace(stages={"gnn": None, "svr": None}),
        left_out=[SimpleNamespace(stage="lost")],
    )
    assert budget_run.describe_seconds(finished) == (
        "Time of the workers: 50% for stages with a weight of at least 0.02 and for inputs, 30% for other "
        "stages, 5% for interim submissions and the comparison of tables, 15% idle or for the last submission "
        "and the report."
    )
    assert spent["all"] == 100.0


def test_a_finished_network_with_fewer_epochs_is_listed_with_what_is_left_out() -> None:
    states = {
        name: SimpleNamespace(name=name, share=share, epochs="15 of 30 epochs")
        for name, share in {"gnn": 0.5, "bert": 1.0, "lost": 0.5}.items()
    }
    budget: Any = SimpleNamespace(states=states)
    config: Any = SimpleNamespace(stages={"gnn": None, "bert": None})
    (row,) = budget_run.fewer_epochs(budget, config)
    assert (row.stage, row.seed, row.reason) == ("gnn", None, "epochs")
    assert row.error == "trained for 15 of 30 epochs, since all of them did not fit into the budget"
