"""Pack the latest run for an offline notebook: `./run.sh kernel [COMPETITION] [--try] [--push]`.

With --training: what training needs, and a notebook that trains (submissions/kernel/training.py).

Reads: the folder of the run and of its jobs, the prepared test table, packages of the index pip is set to. Writes:

    work/<name>/kernel/dataset/     for one data set: code/ work/ weights/ wheels/ and pack.json, by which the notebook
                                    finds it: run, competition, targets, ranges of packages, and each file's digest
    work/<name>/kernel/notebook/    the notebook and what it is uploaded with
"""

from __future__ import annotations

from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

from competition import command
from competition.config import find_config
from competition.errors import ConfigError, DataError, ServiceError
from competition.files import digest, read_json, replaced, sha256_of, write_json
from competition.paths import PROJECT, Kernel, Pack, Paths
from submissions.config import Config, load_config
from submissions.kernel import notebook
from submissions.kernel.contents import code_files, copy_run
from submissions.kernel.facts import files_of, with_wheels
from submissions.kernel.limits import add_options, limits_of
from submissions.kernel.packages import needs_of
from submissions.run import CHOICE, MANIFEST, load_run, read_manifest, read_part

PYTHON = "3.12"
PYTHONS = ("3.11", "3.12")
NO_OWNER = "your-username"
LARGEST = 5
"""Files that the table of sizes names."""


def require_run(name: str) -> None:
    """Check that there is something to pack.

    Raises:
        ConfigError: if there is no such competition.
        DataError: if it has no finished run.
    """
    paths = Paths.of(name)
    if not paths.latest_run.exists():
        find_config(name)
        raise DataError(f"{paths.root} must hold a finished run before it can be packed; run ./run.sh full {name}.")


def build(name: str, owner: str, python: str, accelerator: str | None) -> Path:
    """Make the folder work/<name>/kernel of the latest run, whole or not at all; an earlier one is replaced.

    A pack of the same run, code and packages, whole as it was made, is kept: what was proved is what is pushed.

    Args:
        owner: user name on Kaggle.
        python: of the notebook's image, such as 3.12.
        accelerator: cpu, or an id of Kaggle's; None for a GPU where a stage has use for one.

    Returns:
        The folder.

    Raises:
        ConfigError, DataError: as `require_run`; DataError, too, if a stage cannot predict new rows, or a package
            cannot travel.
    """
    require_run(name)
    paths = Paths.of(name)
    run = paths.latest_run.read_text().strip()
    config = load_run(paths.run(run)).config
    made_from = digest_of_inputs(paths.run(run), config, python)
    machine = accelerator or notebook.default_accelerator(config)
    if is_made_from(paths.pack, made_from):
        print(f"run {run}: packed already with this code and these packages; the pack is kept as it is")
        notebook.write(paths.notebook, paths.pack, read_json(paths.pack.facts), owner, machine)
        return paths.kernel
    with replaced(paths.kernel) as folder:
        pack = Pack(folder / paths.pack.root.name)
        print(f"run {run}: copying code and weights ...", flush=True)
        remarks = copy_run(paths, run, config, pack)
        print("predicting two rows with them, to see what that imports ...", flush=True)
        needs = needs_of(paths, config, pack, python)
        facts = {**_facts(paths, run, config), "made_from": made_from, **with_wheels(needs, pack, python)}
        write_json(pack.facts, facts)
        notebook.write(folder / paths.notebook.name, pack, facts, owner, machine)
    for remark in remarks:
        print(f"note: {remark}")
    return paths.kernel


def digest_of_inputs(run_folder: Path, config: Config, python: str) -> str:
    """Digest of all that decides what is in a pack: run, code, code of the user's, packages that are installed."""
    own = [config.competition.features, *(getattr(stage, "code", None) for stage in config.stages.values())]
    files = [PROJECT / file for file in code_files()]
    files += [Path(named.rpartition(":")[0]) for named in own if named]
    files.append(run_folder / MANIFEST)  # with digests of all the others
    packages = sorted(f"{found.name} {found.version}" for found in metadata.distributions())
    return digest([run_folder.name, python, [sha256_of(file) for file in files if file.is_file()], packages])


def is_made_from(pack: Pack, made_from: str) -> bool:
    """Whether a pack is there that was made from inputs of this digest, with every file as it was and no other."""
    facts = read_json(pack.facts) if pack.facts.is_file() else {}
    if facts.get("made_from") != made_from:
        return False
    written_later = (pack.facts.name, pack.metadata.name)
    return {name: found for name, found in files_of(pack).items() if name not in written_later} == facts["files"]


def _facts(paths: Paths, run: str, config: Config) -> dict[str, Any]:
    """What the notebook has to know of the run."""
    competition, manifest = config.competition, read_manifest(paths.run(run))
    return {
        "name": paths.name,
        "purpose": "prediction",
        "run": run,
        "kaggle": competition.kaggle,
        "test": competition.test.name,
        "sample": competition.sample_submission.name,
        "id": competition.id,
        "inputs": competition.inputs,
        "targets": competition.columns_in_sample,
        "label_means": manifest["label_means"],
        "metric": Path(competition.metric).name,
        "cross_fitted_score": read_part(paths.run(run), CHOICE)["procedure"]["cross_fitted_score"],
    }


def table_of_sizes(files: dict[str, dict[str, Any]]) -> str:
    """Sizes of the parts of a pack and of its largest files, in megabytes."""
    sizes, counts = defaultdict[str, int](int), defaultdict[str, int](int)
    for name, facts in files.items():
        sizes[name.split("/")[0]] += facts["size"]
        counts[name.split("/")[0]] += 1
    rows = [(part, counts[part], sizes[part]) for part in sorted(sizes, key=lambda part: -sizes[part])]
    rows.append(("all", len(files), sum(sizes.values())))
    lines = [f"{'part':12} {'files':>6} {'MB':>10}"]
    lines += [f"{part:12} {count:6} {size / 1e6:10.2f}" for part, count, size in rows]
    lines.append("largest files:")
    largest = sorted(files, key=lambda name: -files[name]["size"])[:LARGEST]
    return "\n".join([*lines, *(f"  {files[name]['size'] / 1e6:10.2f} MB  {name}" for name in largest)])


def find_owner() -> str:
    """The user name on Kaggle, as the credentials say, or a placeholder."""
    try:
        from submissions.leaderboard.client import username

        return username()
    except ServiceError as error:
        print(f"note: the owner is {NO_OWNER!r} for now; --push needs yours, by credentials or --owner ({error})")
        return NO_OWNER


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, "kernel", ("workers",))
    options.add_argument("--owner", help="your user name on Kaggle (default: as your credentials say)")
    options.add_argument(
        "--python", default=PYTHON, choices=PYTHONS, help="Python of the notebook's image (default: %(default)s)"
    )
    options.add_argument(
        "--accelerator", help=f"{notebook.CPU}, {notebook.GPU}, ... (default: {notebook.GPU} if a stage has a network)"
    )
    options.add_argument("--training", action="store_true", help="a notebook that trains; it needs no finished run")
    options.add_argument("--try", dest="tried", action="store_true", help="prove that the notebook runs offline")
    options.add_argument("--push", action="store_true", help="upload the data set and the notebook")
    add_options(options)
    args = options.parse_args()
    kernel = pack_training(args) if args.training else pack_run(args)
    print(table_of_sizes(read_json(kernel.pack.facts, "files")["files"]))
    if args.tried:
        from submissions.kernel.prove import prove

        prove(args.competition, int(args.rows), limits_of(args), args.flat, args.workers)
    if args.push:
        from submissions.kernel.push import push

        push(args.competition, args.training)
    print(f"Pack: {kernel.pack.root}\nNotebook: {kernel.notebook}")


def pack_run(args: Any) -> Kernel:
    """The latest run, packed as the options say."""
    paths = Paths.of(args.competition)
    require_run(args.competition)
    owner = args.owner or find_owner()
    with command.locked(paths):
        build(args.competition, owner, args.python, args.accelerator)
    return paths.prediction_kernel


def pack_training(args: Any) -> Kernel:
    """What training needs, packed as the options say.

    Raises:
        ConfigError: as `require_on_platform`, or for an option of the other notebook.
    """
    from submissions.kernel.training import build_training, require_on_platform

    if args.tried:
        raise ConfigError("--try must go without --training: it holds predictions against those of a finished run.")
    config = load_config(args.competition, args.seed)
    require_on_platform(config.competition, args.competition)
    owner = args.owner or find_owner()
    with command.locked(Paths.of(args.competition)):
        return build_training(args.competition, config, owner, args.python, args.accelerator)


if __name__ == "__main__":
    command.run(main)
