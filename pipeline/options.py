"""Options that several commands take, and their values."""

import math
import re
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.overrides import parse_setting, parse_stages
from core.settings import parse_duration


def parse_share(text: str) -> float:
    """Return the share of `--holdout`."""
    if not re.fullmatch(r"0?\.[0-9]+", text) or not 0.05 <= float(text) <= 0.5:
        raise ConfigError(f"--holdout takes a share of the training rows from 0.05 to 0.5; got {text!r}.")
    return float(text)


def parse_shard(text: str) -> tuple[int, int]:
    """Return I and N of `--shard I/N`."""
    i, n = map(int, text.split("/")) if re.fullmatch(r"[0-9]+/[0-9]+", text) else (0, 0)
    if not 1 <= i <= n:
        raise ConfigError(f"--shard takes I/N, such as 1/4 to 4/4 for four machines; got {text!r}.")
    return i, n


def parse_workers(text: str) -> int:
    """Return the number of `--workers`."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ConfigError(f"--workers takes a whole number from 1; got {text!r}.")
    return int(text)


def parse_budget(text: str) -> float:
    """Return the seconds of `--budget`; infinite for none."""
    return math.inf if text == "none" else parse_duration(text)


SHARED: dict[str, dict[str, Any]] = {
    "set": {
        "type": parse_setting,
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "Replace a setting of the YAML, such as stages.gnn.epochs=100. May be repeated.",
    },
    "stages": {
        "type": parse_stages,
        "default": (),
        "metavar": "NAMES",
        "help": "Use only these stages, such as gnn,lightgbm, with a budget in this order.",
    },
    "workers": {
        "type": parse_workers,
        "help": "Number of cores that jobs may use together (default: all).",
    },
    "holdout": {
        "type": parse_share,
        "metavar": "SHARE",
        "help": "Keep this share of the training rows, such as 0.2, out of everything, and score the "
        "finished submission on them (holdout_score). ./run.sh full makes a competition NAME_holdout20; "
        "other commands take the same option to work on it.",
    },
    "reuse": {
        "action": "store_true",
        "help": "Keep finished jobs whose code or libraries have changed since; the report flags them. "
        "By default they are retrained, and check lists them.",
    },
    "job-timeout": {
        "type": parse_duration,
        "default": math.inf,
        "metavar": "TIME",
        "help": "Fail jobs that are not finished after this time, such as 2h.",
    },
    "executor": {
        "choices": ["local", "ray"],
        "default": "local",
        "help": "Where jobs run: processes of this machine (default), or the Ray cluster at $RAY_ADDRESS "
        "(HOST:PORT; without it, one is started for the run).",
    },
    "tracker": {
        "choices": ["tensorboard", "wandb", "mlflow"],
        "help": "Log the losses of neural stages to this tracker; its files are in work/NAME/trackers.",
    },
    "json": {
        "action": "store_true",
        "help": "Print the result, or the mistakes, as one line of JSON to stdout, and all else to stderr.",
    },
    "from": {
        "type": Path,
        "metavar": "FOLDER",
        "dest": "resume_from",
        "help": "Continue from the jobs and caches of an earlier run, such as an attached notebook output.",
    },
}
"""Options that several commands take."""
SETTINGS = ("set", "stages", "holdout")
TRAINING = (*SETTINGS, "workers", "executor", "tracker", "reuse", "from", "job-timeout")
