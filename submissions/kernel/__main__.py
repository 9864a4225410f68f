"""An offline notebook of the latest run: `./run.sh kernel [COMPETITION] [--try] [--push]`; with --training, one that
trains, for which no run has to be finished.

Reads: the folder of the run and of its jobs, or with --training the YAML, its tables and pretrained weights; packages
of the index that pip is set to. Writes: work/<name>/kernel/ or kernel_training/ (submissions/kernel/pack.py).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from competition import command
from competition.config import find_config
from competition.errors import ConfigError, DataError, ServiceError
from competition.files import read_json
from competition.paths import Paths
from submissions.config import Config, load_config
from submissions.kernel.notebook import CPU, GPU
from submissions.kernel.pack import build
from submissions.kernel.prove import prove
from submissions.kernel.push import push
from submissions.kernel.sandbox import Limits
from submissions.leaderboard import client

PYTHONS = ("3.11", "3.12")
NO_OWNER = "your-username"


def positive(text: str) -> float:
    """The type of limits."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ConfigError(f"--rows, --minutes, --memory and --disk take numbers above 0; found {text!r}.")
    return number


def to_train(name: str, seed: int | None) -> Config:
    """The settings of a competition whose tables a notebook of the platform can have.

    Raises:
        ConfigError: if it is none.
    """
    config = load_config(name, seed)
    if config.competition.holdout_of:
        raise ConfigError(f"{name} has tables of its own, which the platform does not have; leave out --holdout.")
    if not config.competition.kaggle:
        raise ConfigError(
            f"The YAML of {name} does not say which competition on Kaggle has the tables that the notebook trains on; "
            "add competition.kaggle: SLUG, the last part of the address of the competition's page."
        )
    return config


def owner() -> str:
    """The user name on Kaggle, as the credentials say, or a placeholder."""
    try:
        return client.username()
    except ServiceError as error:
        print(f"note: the owner is {NO_OWNER!r} for now; --push needs yours, by credentials or --owner ({error})")
        return NO_OWNER


def sizes(files: dict[str, dict[str, Any]]) -> str:
    """Sizes of the parts of a bundle, in megabytes."""
    parts = Counter[str]()
    for name, known in files.items():
        parts[name.partition("/")[0]] += known["size"]
    lines = [f"{part:20} {size / 1e6:10.2f} MB" for part, size in [*parts.most_common(), ("all", parts.total())]]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, "kernel", ("workers",))
    options.add_argument("--training", action="store_true", help="a notebook that trains; it needs no finished run")
    options.add_argument("--try", dest="tried", action="store_true", help="prove that the notebook runs offline")
    options.add_argument("--push", action="store_true", help="upload the data set and the notebook")
    options.add_argument("--owner", help="your user name on Kaggle (default: as your credentials say)")
    options.add_argument("--python", default="3.12", choices=PYTHONS, help="of the image (default: %(default)s)")
    options.add_argument("--accelerator", help=f"{CPU}, {GPU}, ... (default: {GPU} if a stage has a network)")
    group = options.add_argument_group("with --try")
    group.add_argument("--rows", type=positive, default=200, help="hidden rows (default: %(default)s)")
    for name, default in vars(Limits()).items():
        group.add_argument(f"--{name}", type=positive, default=default, help=f"the most to use (default: {default:g})")
    group.add_argument("--flat", action="store_true", help="inputs at /kaggle/input/SLUG, as they once were")
    args = options.parse_args()
    paths = Paths.of(args.competition)
    config = to_train(args.competition, args.seed) if args.training else None
    if args.training and args.tried:
        raise ConfigError(
            "--try is for a notebook that predicts: it compares predictions with those of a finished run."
        )
    if not args.training and not paths.latest_run.exists():
        find_config(args.competition)
        raise DataError(f"{paths.root} has no finished run to pack; run ./run.sh full {args.competition} first.")
    with command.locked(paths):
        kernel = build(paths, config, args.owner or owner(), args.python, args.accelerator)
    print(sizes(read_json(kernel.bundle.manifest, "files")["files"]))
    if args.tried:
        prove(args.competition, int(args.rows), Limits(args.minutes, args.memory, args.disk), args.flat, args.workers)
    if args.push:
        push(args.competition, args.training)
    print(f"Bundle: {kernel.bundle.root}\nNotebook: {kernel.notebook}")


if __name__ == "__main__":
    command.run(main)
