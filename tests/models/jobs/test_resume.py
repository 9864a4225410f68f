"""Jobs and caches of an earlier machine are taken over whole, from folders that cannot be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.errors import ConfigError
from competition.files import write_json
from competition.paths import Paths
from models.jobs.resume import resume

SEED = "mixed/models/gnn/key/seed_0"


def write(folder: Path, *files: str) -> None:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"earlier {name}")
        if path.name == "report.json":
            write_json(path, {"files": {}})


@pytest.fixture
def attached(tmp_path: Path) -> Path:
    """An earlier output: one finished job, one with a checkpoint, one that was not begun in earnest, a cache."""
    work = tmp_path / "input" / "notebooks" / "me" / "mine" / "work"
    write(work, f"{SEED}/fold_0/report.json", f"{SEED}/fold_0/weights.safetensors", f"{SEED}/fold_0/test/t.parquet")
    write(work, f"{SEED}/.fold_1.aa/checkpoint.pt", f"{SEED}/.fold_1.aa/shape.json", f"{SEED}/.fold_2.aa/shape.json")
    write(work, "cache/conformers-1/a.npz", "other/models/x/report.json")
    for path in [*work.rglob("*"), work]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return tmp_path / "input"


@pytest.fixture
def here() -> Paths:
    return Paths("mixed")


def test_finished_jobs_and_checkpoints_and_caches_come_once_and_can_be_written_beside(
    attached: Path, here: Paths
) -> None:
    assert resume(attached, here) == (1, 1)
    finished = here.job("gnn", "key", 0, 0)
    assert (finished / "weights.safetensors").read_text().startswith("earlier")
    (finished / "test" / "another.parquet").write_text("new")
    (begun,) = finished.parent.glob(".fold_1.*")
    (begun / "checkpoint.pt").unlink()
    assert sorted(path.name for path in finished.parent.iterdir()) == [begun.name, "fold_0"]
    assert (here.cache / "conformers-1" / "a.npz").exists()
    assert not (here.root.parent / "other").exists()
    assert resume(attached, here) == (0, 0)


def test_what_is_finished_or_further_here_stays(attached: Path, here: Paths) -> None:
    write(here.root.parent, f"{SEED}/fold_0/report.json", f"{SEED}/.fold_1.bb/checkpoint.pt")
    (here.job("gnn", "key", 0, 0) / "report.json").write_text("mine")
    assert resume(attached, here) == (0, 0)
    assert (here.job("gnn", "key", 0, 0) / "report.json").read_text() == "mine"


@pytest.mark.parametrize("left", ["fold_0/checkpoint.pt", "fold_0.copied/weights.safetensors"])
def test_a_finished_job_takes_the_place_of_one_that_was_begun_or_half_copied_here(
    attached: Path, here: Paths, left: str
) -> None:
    write(here.root.parent, f"{SEED}/{left}")
    assert resume(attached, here) == (1, 1)
    names = sorted(path.name for path in here.job("gnn", "key", 0, 0).parent.iterdir())
    assert [name.partition(".")[0] or name[1:7] for name in names] == ["fold_1", "fold_0"]
    assert not (here.job("gnn", "key", 0, 0) / "checkpoint.pt").exists()


def test_a_job_that_was_cut_when_it_was_copied_is_left_out_and_trained_again(
    attached: Path, here: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    (report,) = attached.rglob("mixed/models/**/report.json")
    weights = report.with_name("weights.safetensors")
    for path in (report, weights, report.parent):
        path.chmod(0o755)
    write_json(report, {"files": {"weights.safetensors": {"size": 27, "sha256": "..."}}})
    weights.write_text("earlier")
    assert resume(attached, here) == (0, 1)
    assert "1 jobs lack files and are left out" in capsys.readouterr().out
    assert not here.job("gnn", "key", 0, 0).exists()
    weights.write_bytes(bytes(27))
    assert resume(attached, here) == (1, 0)
    report.write_text('{"files": {"we')
    assert resume(attached, here) == (0, 0)


def test_a_kernel_among_the_products_is_not_taken_for_an_earlier_run(attached: Path, here: Paths) -> None:
    (work,) = attached.rglob("work")
    (work / "mixed").chmod(0o755)
    write(work / "mixed/kernel/dataset", "work/mixed/models/x/report.json", "bundle.json")
    write(work / "mixed/.kernel.new/dataset", "work/mixed/models/x/report.json")
    assert resume(attached, here) == (1, 1)
    with pytest.raises(ConfigError, match="none"):
        resume(work / "mixed/kernel/dataset", here)


def test_no_products_or_those_of_two_runs_are_named(here: Paths, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its WORK_DIR, with mixed/models in it"):
        resume(tmp_path / "nothing", here)
    write(tmp_path / "both", "a/mixed/models/x", "b/mixed/models/x")
    with pytest.raises(ConfigError, match=r"both/a, .*both/b\. Name that folder"):
        resume(tmp_path / "both", here)
