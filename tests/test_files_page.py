"""docs/files.md: every file that a run leaves is on the page, or among the files of a job."""

import re

from core.files import PROJECT
from core.paths import Paths
from models import job_folder
from pipeline import commands
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import GNN


def test_every_file_of_a_run_is_described(tmp_path, jobs_in_process):
    page = (PROJECT / "docs" / "files.md").read_text()
    path = write_competition(
        tmp_path,
        *mixed_tables(30, 10),
        stages={"gnn": {**GNN, "epochs": 1}, "baseline": {"kind": "baseline"}},
        folds={"n_folds": 2},
        submissions={"trials": 2},
    )
    assert commands.main(["full", str(path)]) == 0
    paths = Paths.for_competition(str(path))
    files = [file.relative_to(paths.root) for file in paths.root.rglob("*") if file.is_file()]
    described = "\n".join(re.findall("`[^`]+`", page)) + str(job_folder.__doc__)
    for file in files:
        folder, name = file.parts[0], re.sub(r"target_\d", "target_<t>", file.name)
        if file.parent.name in ("candidates", "stages"):
            name = f"{file.parent.name}/NAME{file.suffix}"
        elif file.parent.name == "test":
            name = "test/DIGEST.parquet"
        elif file.suffix == ".lock":
            name = "*.lock"
        elif name == f"{paths.name}.yaml":
            name = "NAME.yaml"
        assert folder in described or file.suffix == ".lock", file
        if folder in ("models", "submissions", "folds") or len(file.parts) == 1:
            assert name in described, file
    assert len(files) > 30
