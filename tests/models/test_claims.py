"""Who is at a job: one process at a time, for as long as it lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from competition.files import write_json
from competition.paths import PROJECT, Paths
from models.jobs import claims as claims_module
from models.jobs.claims import GONE_AFTER, Claims, Owner

PATHS = Paths("shared")


def claim_and_die(name: str) -> None:
    code = (
        "import os\nfrom competition.paths import Paths\nfrom models.jobs.claims import Claims\n"
        f"Claims(Paths('shared')).__enter__().holder({name!r})\nos._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)


def on_another_machine(claims: Claims, name: str, seconds_ago: float) -> Owner:
    """A claim by a process of another machine whose last heartbeat was some seconds ago on the file system's clock."""
    owner = replace(claims.me, id="theirs", host="far", place="far away")
    heart = claims.folder / "owners" / owner.id
    write_json(heart, asdict(owner))
    now = heart.stat().st_mtime
    os.utime(heart, (now - seconds_ago, now - seconds_ago))
    (claims.folder / f"{name}.0").write_text(owner.id)
    return owner


def test_a_job_is_of_the_first_who_claims_it() -> None:
    with Claims(PATHS) as mine, Claims(PATHS) as theirs:
        assert mine.holder("job") is None
        assert theirs.holder("job") == mine.me
        assert mine.holder("job") is None
        assert theirs.holder("other") is None


def test_of_many_who_take_over_from_a_dead_process_one_wins() -> None:
    with Claims(PATHS):  # someone lives, so claims are kept
        claim_and_die("job")
        assert (PATHS.claims / "job.0").exists()
        many = [Claims(PATHS) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            holders = list(pool.map(lambda claims: claims.holder("job"), many))
    assert holders.count(None) == 1
    winner = many.pop(holders.index(None))
    # Only now: who asked while the winner's claim was made, but not yet written, was told of someone unnamed.
    assert {claims.holder("job") for claims in many} == {winner.me}


def test_a_process_of_another_machine_is_gone_when_its_heartbeat_is_old_by_the_clock_of_the_file_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Claims(PATHS) as mine:
        theirs = on_another_machine(mine, "job", 0.5 * GONE_AFTER)
        monkeypatch.setattr(time, "time", lambda: 1e12)  # the clock of this machine is wrong
        assert mine.holder("job") == theirs
        assert str(theirs) == f"far, process {os.getpid()}"
        on_another_machine(mine, "job", GONE_AFTER + 1)
        assert mine.holder("job") is None


def test_a_process_that_slept_too_long_finds_its_job_with_another() -> None:
    with Claims(PATHS) as sleeper, Claims(PATHS) as other:
        assert sleeper.holder("job") is None
        heart = PATHS.claims / "owners" / sleeper.me.id
        os.utime(heart, (0, 0))
        assert other.holder("job") is None
        os.utime(heart)
        assert sleeper.holder("job") == other.me


def test_a_claim_that_says_nothing_yet_counts_from_when_it_was_made() -> None:
    with Claims(PATHS) as mine:
        claim = PATHS.claims / "job.0"
        claim.touch()
        assert mine.holder("job") is not None
        os.utime(claim, (0, 0))
        assert mine.holder("job") is None


def test_the_heart_beats_while_the_process_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT", 0.01)
    with Claims(PATHS) as mine:
        heart = PATHS.claims / "owners" / mine.me.id
        os.utime(heart, (0, 0))
        deadline = time.monotonic() + 5
        while heart.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_a_process_claimed_is_free_once_it_has_ended_and_goes_when_no_one_is_left() -> None:
    with Claims(PATHS) as other:
        with Claims(PATHS) as mine:
            assert mine.holder("job") is None
        assert other.holder("job") is None
        assert sorted(path.name for path in PATHS.claims.glob("job.*")) == ["job.0", "job.1"]
    with Claims(PATHS) as later:
        assert not list(PATHS.claims.glob("job.*"))
        assert [path.name for path in Path(PATHS.claims / "owners").iterdir()] == [later.me.id]
