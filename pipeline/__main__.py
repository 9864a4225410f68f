"""`python -m pipeline COMMAND`, which run.sh calls."""

from core import cli
from pipeline.commands import main

cli.run(main)
