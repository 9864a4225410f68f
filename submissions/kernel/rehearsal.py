"""Predict some rows with all of a pack, in this one process, and tell what was imported.

`python -m submissions.kernel.rehearsal NAME ROWS OUT` from the code of a pack; OUT gets the distributions as JSON.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import metadata
from pathlib import Path

from competition import command
from competition.files import write_json
from competition.paths import PROJECT, Pack
from models.jobs import predict as models_predict
from models.jobs.tasks import Task
from submissions.kernel.offline import link_work, set_environment
from submissions.predict import predict


class InThisProcess:
    """Stands in for `models.jobs.executor.Executor`, whose workers' imports would be out of sight."""

    def __init__(self, n_workers: int | None, n_tasks: int) -> None:
        pass

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, tasks: list[Task], noun: str) -> None:
        """Run tasks one by one."""
        for task in tasks:
            task.function(*task.arguments)


def imported() -> list[str]:
    """Distributions of all modules that this process has imported."""
    distributions = metadata.packages_distributions()
    top_level = {module.partition(".")[0] for module in sys.modules}
    return sorted({name for module in top_level for name in distributions.get(module, [])})


def main() -> None:
    """Command line."""
    name, rows, out = sys.argv[1:]
    pack = Pack(PROJECT.parent)
    with tempfile.TemporaryDirectory(prefix="rehearsal_") as work:
        set_environment(pack, Path(work))
        link_work(pack, Path(work))
        vars(models_predict)["Executor"] = InThisProcess
        predict(name, Path(rows), n_workers=1)
    write_json(Path(out), imported())


if __name__ == "__main__":
    command.run(main)
