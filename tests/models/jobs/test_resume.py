"""Jobs and caches of an earlier machine are taken over whole, from folders that cannot be written to."""

import pytest

from core.errors import ConfigError
from core.files import write_json
from core.paths import Paths
from models.jobs.job_files import resume

SEED = "mixed/models/gnn/key/seed_0"


def write(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"earlier {name}")
        if path.name == "report.json":
            write_json(path, {"files": {}})


@pytest.fixture
def attached(tmp_path):
    """An earlier output: one finished job, one with a checkpoint, one that was not begun in earnest, a cache.

    Beside them is a kernel with products of its own, which is not taken for an earlier run.
    """
    work = tmp_path / "input" / "notebooks" / "me" / "mine" / "work"
    finished = ("report.json", "weights.safetensors", "test/t.parquet")
    write(work, *(f"{SEED}/fold_0/{name}" for name in finished), "cache/conformers-1/a.npz")
    write(work, f"{SEED}/.fold_1/checkpoint.pt", f"{SEED}/.fold_1/shape.json", f"{SEED}/.fold_2/shape.json")
    write(work / "mixed/kernel/dataset", "work/mixed/models/x/report.json", "bundle.json")
    write(work, "other/models/x/report.json")
    for path in [*work.rglob("*"), work]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return tmp_path / "input"


def test_finished_jobs_checkpoints_and_caches_come_once_and_can_be_written_elsewhere(attached, capsys):
    here = Paths("mixed")
    resume(attached, here)
    assert f"{attached}: 2 jobs were copied" in capsys.readouterr().out
    finished = here.job("gnn", "key", 0, 0)
    assert (finished / "weights.safetensors").read_text().startswith("earlier")
    (finished / "test" / "another.parquet").write_text("new")
    (finished.parent / ".fold_1" / "checkpoint.pt").unlink()
    assert sorted(path.name for path in finished.parent.iterdir()) == [".fold_1", "fold_0"]
    assert (here.cache / "conformers-1" / "a.npz").exists()
    assert not (here.root.parent / "other").exists()
    resume(attached, here)
    assert f"{attached}: 0 jobs were copied" in capsys.readouterr().out


def test_what_is_finished_here_stays_and_what_was_half_copied_is_copied_to_its_end(attached, capsys):
    here = Paths("mixed")
    write(here.root.parent, f"{SEED}/fold_0/weights.safetensors", f"{SEED}/fold_1/report.json")
    resume(attached, here)
    assert f"{attached}: 1 jobs were copied" in capsys.readouterr().out
    report = here.job("gnn", "key", 0, 0) / "report.json"
    report.write_text("mine")
    resume(attached, here)
    assert f"{attached}: 0 jobs were copied" in capsys.readouterr().out
    assert report.read_text() == "mine"


def test_no_products_or_those_of_two_runs_are_reported(tmp_path):
    with pytest.raises(ConfigError, match="its WORK_DIR, with mixed/models.*none"):
        resume(tmp_path / "nothing", Paths("mixed"))
    write(tmp_path / "both", "a/mixed/models/x", "b/mixed/models/x")
    with pytest.raises(ConfigError, match=r"both/a, .*both/b\. Choose one of them"):
        resume(tmp_path / "both", Paths("mixed"))
