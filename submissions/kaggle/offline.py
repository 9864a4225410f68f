"""What the notebook runs without a network: `python -m submissions.kaggle.offline`.

Reads the bundle that contains this code, and the files of the competition, wherever they are mounted below
/kaggle/input (KAGGLE_INPUT). Writes submission.csv to /kaggle/working (KAGGLE_WORKING): a notebook for
prediction by `run.sh predict`, a notebook for training by `run.sh full` with the options of this command.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from core import cli
from core.errors import DataError
from core.files import PROJECT, read_json, write_table
from core.paths import BUNDLE_MANIFEST, Paths
from core.user_tables import read_text_table
from core.yaml_files import load_yaml
from submissions.kaggle.paths import Bundle
from submissions.manifest import SO_FAR, SUBMISSION_FILE, describe_left_out
from submissions.run import latest_run


def mounted(inputs: Path, name: str) -> list[Path]:
    """Return the files or folders of a name below `inputs`, without those in bundles."""
    bundles = {manifest.parent for manifest in inputs.rglob(BUNDLE_MANIFEST)}
    return [path for path in sorted(inputs.rglob(name)) if bundles.isdisjoint(path.parents)]


def find_table(name: str, slug: str | None, inputs: Path) -> Path:
    """Return the path of a table of the competition.

    Raises:
        DataError: if there is not exactly one file of this name.
    """
    files = mounted(inputs, name)
    candidates = [path for path in files if slug in path.parts] or files
    if len(candidates) != 1:
        raise DataError(
            f"The notebook needs exactly one {name} of the competition {slug or ''} below {inputs}; got "
            f"{', '.join(map(str, candidates)) or 'none'}. Attach the data of the competition, and no other "
            "file of that name."
        )
    return candidates[0]


def run(bundle: Bundle, work: Path, *arguments: str) -> int:
    """Run a command of run.sh with its outputs in `work`; return its exit status."""
    os.environ |= {"WORK_DIR": str(work), "WEIGHTS_DIR": str(bundle.weights), "HF_HUB_OFFLINE": "1"}
    if bundle.hub_cache.exists():
        os.environ["HF_HUB_CACHE"] = str(bundle.hub_cache)
    program = ["bash", str(bundle.code / "run.sh")]  # since an upload loses the permission to run a file
    return subprocess.run([*program, *arguments], cwd=bundle.root).returncode


def predict(bundle: Bundle, name: str, inputs: Path, written: Path) -> None:
    """Predict the hidden test table with the run of the bundle."""
    os.environ["WORK_DIR"] = str(bundle.work)
    competition = latest_run(name).config.competition
    test = find_table(competition.test.name, competition.kaggle, inputs)
    with tempfile.TemporaryDirectory() as work:
        # Predictions are written next to the weights, and the bundle is read-only.
        for source in sorted(bundle.work.rglob("*")):
            target = Path(work, source.relative_to(bundle.work))
            target.mkdir() if source.is_dir() else target.symlink_to(source)
        status = run(bundle, Path(work), "predict", name, f"--test={test}", f"--out={written}")
        if status:
            sys.exit(status)
    table = read_text_table(written)
    sample = test.with_name(competition.sample_submission.name)
    write_table(written, in_order_of_sample(sample, table, competition.id))
    print(f"{len(table)} rows of {test}")


def in_order_of_sample(sample: Path, table: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """Return the rows in the order of the sample, if it exists and has the same ids; else unchanged."""
    if not sample.is_file():
        return table
    ids = read_text_table(sample)[[id_column]]
    ordered = ids.merge(table)
    if len(ordered) == len(ids) == len(table):
        return ordered[table.columns]
    print(
        f"WARNING: {sample} has {len(ids)} ids, of which {len(ordered)} are in the test table, "
        f"which has {len(table)}. The submission has those of the test table, in its order."
    )
    return table


def moved_tables(yaml_file: Path, inputs: Path) -> list[str]:
    """Return options of `full` with the paths of tables that are mounted elsewhere than in the YAML."""
    competition = load_yaml(yaml_file)["competition"]
    options = []
    for key in ("train", "test", "sample_submission"):
        path = yaml_file.parent / competition[key]
        if not path.exists():
            table = find_table(path.name, competition.get("kaggle"), inputs)
            options.append(f"--set=competition.{key}={table}")
    return options


def train(bundle: Bundle, name: str, inputs: Path, written: Path, options: list[str]) -> None:
    """Train in the folder `work` next to the submission, from the finished jobs of an earlier session.

    The latest submission is copied whatever the exit status of the training; without one the notebook fails.
    """
    resume_options = ["--from", str(inputs)] if mounted(inputs, f"{name}/models") else []
    moved = moved_tables(bundle.root / f"{name}.yaml", inputs)
    status = run(bundle, written.with_name("work"), "full", f"{name}.yaml", *options, *moved, *resume_options)
    paths = Paths(name)
    interim = paths.run(SO_FAR) / SUBMISSION_FILE
    file = interim if interim.exists() else paths.submission
    if not file.exists():
        sys.exit(status or 1)
    shutil.copy(file, written)
    if file == interim:
        print(f"full ended with status {status}; this is the submission of the stages finished by then.")
    elif status:
        print(f"full ended with status {status}. {describe_left_out(latest_run(name).left_out)}")


def main() -> None:
    """Parse the command line and run the command."""
    bundle = Bundle(PROJECT.parent)
    manifest = read_json(bundle.manifest)
    inputs = Path(os.environ.get("KAGGLE_INPUT") or "/kaggle/input")
    written = Path(os.environ.get("KAGGLE_WORKING") or "/kaggle/working") / SUBMISSION_FILE
    if manifest["purpose"] == "training":
        train(bundle, manifest["name"], inputs, written, sys.argv[1:])
    else:
        predict(bundle, manifest["name"], inputs, written)
    print(f"written: {written}")


if __name__ == "__main__":
    cli.run(main)
