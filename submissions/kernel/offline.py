"""What the notebook runs, without a network: `python -m submissions.kernel.offline` from the code of a bundle.

Reads: the bundle that this code lies in, and the competition's files, wherever they are mounted below /kaggle/input
(KAGGLE_INPUT). Writes: submission.csv in /kaggle/working (KAGGLE_WORKING). A notebook that trains writes its products
beside it, and gives its options to `run.sh full`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from packaging.requirements import Requirement

from competition import command
from competition.environment import mismatch
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table, sha256_of, write_table
from competition.paths import PROJECT, Bundle, Paths
from submissions.run import SUBMISSION_FILE


def check_bundle(bundle: Bundle, manifest: dict[str, Any]) -> None:
    """Check that a bundle is as it was made, and that the image has the packages that do not travel.

    Raises:
        DataError: with a file that is missing or has changed, or with all packages that do not fit.
    """
    for name, known in manifest["files"].items():
        file = bundle.root / name
        if not file.is_file() or sha256_of(file) != known["sha256"]:
            found = "has changed" if file.is_file() else "is missing"
            raise DataError(f"{file} {found} since ./run.sh kernel made the bundle. Upload the bundle again.")
    needed = map(Requirement, manifest["image"])
    misfits = [mismatch(part.name, str(part.specifier)) for part in needed]
    if wrong := list(filter(None, misfits)):
        raise DataError(
            f"This image does not have the packages that the bundle was made for: {'; '.join(wrong)}. Choose another "
            "version of the image for the notebook, or make the bundle again for this one."
        )


def mounted(inputs: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """All folders below `inputs`, each with the names of its folders and files, but for bundles."""
    for folder, folders, files in os.walk(inputs):
        if Bundle(Path(folder)).manifest.name in files:
            folders.clear()
        else:
            yield Path(folder), folders, files


def find_table(name: str, slug: str | None, inputs: Path) -> Path:
    """The competition's table of this name.

    Raises:
        DataError: if there is none, or several.
    """
    found = sorted(folder / name for folder, _, files in mounted(inputs) if name in files)
    found = [path for path in found if slug in path.relative_to(inputs).parts[:-1]] or found
    if len(found) != 1:
        raise DataError(
            f"The notebook needs one {name} below {inputs}, that of the competition {slug or ''}; "
            + (
                f"found {', '.join(map(str, found))}. Detach the others."
                if found
                else "there is none. Attach its data."
            )
        )
    return found[0]


def predict_rows(bundle: Bundle, manifest: dict[str, Any], test: Path, written: Path) -> None:
    """Predict a test table with the run of the bundle, and write the submission, in the order of the sample.

    Raises:
        UserError: as `submissions.predict.predict`.
    """
    from submissions.predict import predict  # here, since what was checked before needs little of what it imports

    with tempfile.TemporaryDirectory() as work:
        for source in sorted(bundle.work.rglob("*")):  # links, since predictions are written beside the weights
            target = Path(work, source.relative_to(bundle.work))
            target.mkdir() if source.is_dir() else target.symlink_to(source)
        os.environ["WORK_DIR"] = work
        table = read_text_table(predict(manifest["name"], test, n_workers=None))
    table, is_ordered = in_order_of(test.with_name(manifest["sample"]), table, manifest["id"])
    write_table(written, table)
    print(f"{len(table)} rows of {test}, in the order of {manifest['sample'] if is_ordered else 'that file'}")
    print(read_table(written, [manifest["id"]]).describe().loc[["mean", "std", "min", "max"]].to_string())
    print(f"means of the training labels: {', '.join(f'{mean:.5g}' for mean in manifest['label_means'])}")


def in_order_of(sample: Path, table: pd.DataFrame, id_column: str) -> tuple[pd.DataFrame, bool]:
    """The rows in the order of the sample, if it is there and names the same ones; and whether they are."""
    asked = list(read_text_table(sample).get(id_column, [])) if sample.is_file() else []
    if sorted(asked) != sorted(table[id_column]):
        return table, False
    return table.set_index(id_column, drop=False).loc[asked].reset_index(drop=True), True


def train(bundle: Bundle, name: str, inputs: Path, written: Path, options: list[str]) -> None:
    """Train in the folder `work` beside the submission; what an earlier session finished is taken over."""
    if any(folder.name == name and "models" in folders for folder, folders, _ in mounted(inputs)):
        options = [*options, "--from", str(inputs)]
    os.environ["WORK_DIR"] = str(written.with_name("work"))
    # An upload loses the permission to run a file.
    done = subprocess.run(["bash", str(bundle.code / "run.sh"), "full", f"{name}.yaml", *options], cwd=bundle.root)
    if done.returncode:
        sys.exit(done.returncode)
    paths = Paths(name)
    shutil.copy(paths.run(paths.latest_run.read_text().strip()) / SUBMISSION_FILE, written)


def main() -> None:
    """Command line."""
    bundle = Bundle(PROJECT.parent)
    manifest = read_json(bundle.manifest)
    check_bundle(bundle, manifest)
    inputs = Path(os.environ.get("KAGGLE_INPUT") or "/kaggle/input")
    written = Path(os.environ.get("KAGGLE_WORKING") or "/kaggle/working") / SUBMISSION_FILE
    os.environ |= {"WEIGHTS_DIR": str(bundle.weights), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if manifest["purpose"] == "training":
        train(bundle, manifest["name"], inputs, written, sys.argv[1:])
    else:
        predict_rows(bundle, manifest, find_table(manifest["test"], manifest["kaggle"], inputs), written)
    print(f"written: {written}")


if __name__ == "__main__":
    command.run(main)
