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
from pathlib import Path

import pandas as pd
from packaging.requirements import Requirement

from competition import command
from competition.environment import mismatch
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table, write_table
from competition.paths import PROJECT, Bundle, Paths
from submissions.run import SUBMISSION_FILE, latest_run


def require_image(requirements: list[str]) -> None:
    """Check that the image has the packages that do not travel.

    Raises:
        DataError: with all that do not fit.
    """
    misfits = [mismatch(part.name, str(part.specifier)) for part in map(Requirement, requirements)]
    if any(misfits):
        raise DataError(
            f"The bundle was made for an image with other packages: {'; '.join(filter(None, misfits))}. Choose another "
            "version of the image for the notebook, or make the bundle again."
        )


def mounted(inputs: Path, name: str) -> list[Path]:
    """Files or folders of this name below `inputs`, but for those in bundles."""
    bundles = {manifest.parent for manifest in inputs.rglob(Bundle(inputs).manifest.name)}
    return [path for path in sorted(inputs.rglob(name)) if bundles.isdisjoint(path.parents)]


def find_table(name: str, slug: str | None, inputs: Path) -> Path:
    """The competition's table of this name.

    Raises:
        DataError: if there is none, or several.
    """
    found = mounted(inputs, name)
    found = [path for path in found if slug in path.relative_to(inputs).parts] or found
    if len(found) != 1:
        raise DataError(
            f"The notebook needs one {name} below {inputs}, that of the competition {slug or ''}; found "
            f"{', '.join(map(str, found)) or 'none'}. Attach the competition's data, and nothing else of that name."
        )
    return found[0]


def predict_rows(bundle: Bundle, name: str, inputs: Path, written: Path) -> None:
    """Predict the hidden test table with the run of the bundle, and write the submission.

    Raises:
        UserError: as `submissions.predict.predict`.
    """
    from submissions.predict import predict  # here, since what was checked before needs little of what it imports

    with tempfile.TemporaryDirectory() as work:
        for source in sorted(bundle.work.rglob("*")):  # links, since predictions are written beside the weights
            target = Path(work, source.relative_to(bundle.work))
            target.mkdir() if source.is_dir() else target.symlink_to(source)
        os.environ["WORK_DIR"] = work
        competition = latest_run(name).config.competition
        test = find_table(competition.test.name, competition.kaggle, inputs)
        table = read_text_table(predict(name, test, n_workers=None))
    write_table(written, in_order_of(test.with_name(competition.sample_submission.name), table, competition.id))
    print(f"{len(table)} rows of {test}")
    print(read_table(written, [competition.id]).describe().loc[["mean", "std", "min", "max"]].to_string())


def in_order_of(sample: Path, table: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """The rows in the order of the sample, if it is there and names the same ones."""
    asked = list(read_text_table(sample).get(id_column, [])) if sample.is_file() else []
    same = sorted(asked) == sorted(table[id_column])
    return table.set_index(id_column, drop=False).loc[asked] if same else table


def train(bundle: Bundle, name: str, inputs: Path, written: Path, options: list[str]) -> None:
    """Train in the folder `work` beside the submission; what an earlier session finished is taken over."""
    earlier = ["--from", str(inputs)] if mounted(inputs, f"{name}/models") else []
    os.environ["WORK_DIR"] = str(written.with_name("work"))
    full = ["bash", str(bundle.code / "run.sh"), "full"]  # since an upload loses the permission to run a file
    if status := subprocess.run([*full, f"{name}.yaml", *options, *earlier], cwd=bundle.root).returncode:
        sys.exit(status)
    paths = Paths(name)
    shutil.copy(paths.run(paths.latest_run.read_text().strip()) / SUBMISSION_FILE, written)


def main() -> None:
    """Command line."""
    bundle = Bundle(PROJECT.parent)
    manifest = read_json(bundle.manifest)
    require_image(manifest["image"])
    inputs = Path(os.environ.get("KAGGLE_INPUT") or "/kaggle/input")
    written = Path(os.environ.get("KAGGLE_WORKING") or "/kaggle/working") / SUBMISSION_FILE
    os.environ |= {"WEIGHTS_DIR": str(bundle.weights), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if manifest["purpose"] == "training":
        train(bundle, manifest["name"], inputs, written, sys.argv[1:])
    else:
        predict_rows(bundle, manifest["name"], inputs, written)
    print(f"written: {written}")


if __name__ == "__main__":
    command.run(main)
