"""What the notebook runs, without a network: `python -m submissions.kernel.offline` from the code of a
bundle.

Reads: the bundle that this code lies in, and the competition's files, wherever they are mounted below
/kaggle/input (KAGGLE_INPUT). Writes: submission.csv in /kaggle/working (KAGGLE_WORKING), by `run.sh predict`
or by `run.sh full`, which gets the options and writes its products beside it; what exists then is copied,
whatever its exit status.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from competition import cli
from competition.errors import DataError
from competition.files import read_json, read_text_table, write_table
from competition.paths import PROJECT, Bundle, Paths
from submissions.run import SO_FAR, SUBMISSION_FILE, describe_left_out, latest_run


def mounted(inputs: Path, name: str) -> list[Path]:
    """Files or folders of this name below `inputs`, but for those in bundles."""
    bundles = {manifest.parent for manifest in inputs.rglob(Bundle(inputs).manifest.name)}
    return [path for path in sorted(inputs.rglob(name)) if bundles.isdisjoint(path.parents)]


def find_table(name: str, slug: str | None, inputs: Path) -> Path:
    """The competition's table of this name."""
    anywhere = mounted(inputs, name)
    found = [path for path in anywhere if slug in path.parts] or anywhere
    if len(found) != 1:
        raise DataError(
            f"The notebook needs one {name} below {inputs}, that of the competition {slug or ''}; found "
            f"{', '.join(map(str, found)) or 'none'}. Attach the competition's data, and nothing else of "
            f"that name."
        )
    return found[0]


def run(bundle: Bundle, work: Path, *arguments: str) -> int:
    """Run a verb of run.sh, whose products go to `work`; returns its exit status."""
    os.environ |= {"WORK_DIR": str(work), "WEIGHTS_DIR": str(bundle.weights), "HF_HUB_OFFLINE": "1"}
    program = ["bash", str(bundle.code / "run.sh")]  # since an upload loses the permission to run a file
    return subprocess.run([*program, *arguments], cwd=bundle.root).returncode


def predict(bundle: Bundle, name: str, inputs: Path, written: Path) -> None:
    """Predict the hidden test table with the run of the bundle."""
    os.environ["WORK_DIR"] = str(bundle.work)
    competition = latest_run(name).config.competition
    test = find_table(competition.test.name, competition.kaggle, inputs)
    with tempfile.TemporaryDirectory() as work:
        for source in sorted(
            bundle.work.rglob("*")
        ):  # links, since predictions are written beside the weights
            target = Path(work, source.relative_to(bundle.work))
            target.mkdir() if source.is_dir() else target.symlink_to(source)
        if status := run(bundle, Path(work), "predict", name, f"--test={test}", f"--out={written}"):
            sys.exit(status)
    table, sample = read_text_table(written), test.with_name(competition.sample_submission.name)
    write_table(written, in_order_of(sample, table, competition.id))
    print(f"{len(table)} rows of {test}")


def in_order_of(sample: Path, table: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """The rows in the order of the sample, if it is there and names the same ones."""
    asked = read_text_table(sample)[[id_column]] if sample.is_file() else table[[id_column]]
    ordered = asked.merge(table)
    return ordered if len(ordered) == len(asked) == len(table) else table


def train(bundle: Bundle, name: str, inputs: Path, written: Path, options: list[str]) -> None:
    """Train in the folder `work` next to the submission; what an earlier session finished is taken over.

    The submission that exists is copied, whatever the exit status of the training; without one the notebook
    fails.
    """
    earlier = ["--from", str(inputs)] if mounted(inputs, f"{name}/models") else []
    status = run(bundle, written.with_name("work"), "full", f"{name}.yaml", *options, *earlier)
    paths = Paths(name)
    interim = paths.run(SO_FAR) / SUBMISSION_FILE
    file = interim if interim.exists() else paths.submission
    if not file.exists():
        sys.exit(status or 1)
    shutil.copy(file, written)
    if file == interim:
        print(
            f"full ended with status {status}; this is the submission of the stages that were finished by "
            f"then."
        )
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
