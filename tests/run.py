"""What `./run.sh test` runs: lint, format, types, tests. `--all` has the long tests too; other words go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys

import joblib

MOST_WORKERS = 8
"""Each has its own copy of torch in memory."""


def main() -> int:
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return 0
    everything = "--all" in arguments
    rest = [argument for argument in arguments if argument != "--all"]
    python = [sys.executable, "-m"]
    parallel = ["-n", str(min(joblib.cpu_count(), MOST_WORKERS)), "--dist", "loadfile", "--no-loadscope-reorder"]
    commands = [
        [*python, "ruff", "check", "."],
        [*python, "ruff", "format", "--check", "."],
        [*python, "mypy"],
        [*python, "pytest", "-q", *parallel, *([] if everything else ["-m", "not slow"]), "--durations=10", *rest],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for command in commands:
        print("$", " ".join(command[2:]), flush=True)
        status = subprocess.run(command, env=environment, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
