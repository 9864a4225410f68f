"""An offline notebook of the latest run: `./run.sh kernel [COMPETITION] [--verify] [--push]`; with
--training, one that trains, for which no run has to be finished.

Reads: the folder of the run and of its jobs, or with --training the YAML, its tables and pretrained weights;
packages of the index that pip is set to. Writes: work/<name>/kernel/ or kernel_training/
(submissions/kernel/pack.py).
"""

from core import cli
from core.errors import ConfigError, ServiceError
from core.paths import Paths
from submissions.config import load_config
from submissions.kernel.pack import CPU, GPU, build
from submissions.kernel.push import push
from submissions.kernel.verify import verify_notebook
from submissions.leaderboard import client
from submissions.run import latest_run


def main() -> None:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__, "kernel", ("workers",))
    kind = options.add_mutually_exclusive_group()  # a proof compares predictions with those of a finished run
    kind.add_argument(
        "--training", action="store_true", help="a notebook that trains; it needs no finished run"
    )
    kind.add_argument(
        "--verify", action="store_true", help="run the notebook offline and compare its predictions"
    )
    options.add_argument("--push", action="store_true", help="upload the data set and the notebook")
    options.add_argument("--accelerator", help=f"{CPU}, {GPU}, ... (default: {GPU} if a stage uses one)")
    options.add_argument(
        "--minutes", type=float, default=30.0, help="for --verify: what it may take (default: 30)"
    )
    args = options.parse_args()
    paths = Paths.for_competition(args.competition)
    config = load_config(args.competition, args.overrides) if args.training else None
    if config and (config.competition.holdout_of or not config.competition.kaggle):
        raise ConfigError(
            f"The notebook trains on tables of a competition on Kaggle, and those of {args.competition} are none; add "
            "competition.kaggle: SLUG, the last part of the address of the competition's page, without "
            "--holdout."
        )
    if not config:
        latest_run(args.competition)  # which says what is wrong where there is none
    try:
        owner = client.username()
    except (ConfigError, ServiceError):
        owner = "your-username"  # without the client, or credentials, there is no --push
    with cli.locked(paths):
        kernel = build(paths, config, owner, args.accelerator)
    for part in sorted(kernel.bundle.root.iterdir()):
        size = sum(file.stat().st_size for file in [part, *part.rglob("*")] if file.is_file())
        print(f"{part.name:24} {size / 1e6:10.2f} MB")
    if args.verify:
        verify_notebook(args.competition, args.minutes, args.workers)
    if args.push:
        push(args.competition, args.training)
    print(f"Bundle: {kernel.bundle.root}\nNotebook: {kernel.notebook}")


if __name__ == "__main__":
    cli.run(main)
