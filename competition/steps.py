"""Run steps one after the other in one process: `python -m competition.steps STEP ... -- OPTIONS`.

Each is a module with a command line of its own, `python -m STEP OPTIONS`, and leaves files for the next. Together they
start Python, and import the libraries, once.
"""

import sys
from importlib import import_module

from competition import command


def main() -> None:
    """Command line; the first step that fails ends it."""
    end = sys.argv.index("--")
    steps, options = sys.argv[1:end], sys.argv[end + 1 :]
    status = 0
    for step in steps:
        sys.argv = [step.removesuffix(".__main__").rpartition(".")[2], *options]
        status = max(status, command.run(import_module(step).main))
        sys.stdout.flush()
    sys.exit(status)


if __name__ == "__main__":
    main()
