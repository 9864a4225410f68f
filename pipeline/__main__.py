"""`python -m pipeline COMMAND`, which run.sh calls."""

import signal

# They wait while modules are imported, which takes seconds, until `cli.run` answers them.
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

from core import cli  # noqa: E402
from pipeline.commands import main  # noqa: E402

cli.run(main)
