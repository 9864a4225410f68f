"""What the notebook runs, without a network: `python -m submissions.kernel.offline` from the code of a pack.

Reads: the pack that this code lies in, and the competition's test file, wherever they are mounted below /kaggle/input
(KAGGLE_INPUT). Writes: submission.csv in /kaggle/working (KAGGLE_WORKING), and nothing else there.

In the rerun on hidden rows a molecule that cannot be read must not cost the submission: whatever the setting
`unparsable` says, such rows get the mean of the training labels and are counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from competition import command
from competition.clean import require_columns
from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table, write_json
from competition.paths import PROJECT, Pack
from submissions.kernel.contents import unpacked
from submissions.kernel.install import check_files, check_packages, facts_of
from submissions.run import MANIFEST, SUBMISSION_FILE
from submissions.sample import write_submission

TOLERANT = [("unparsable", "drop"), ("unembeddable", "flat"), ("too_long", "cut_end")]
"""Settings that may be `error`, and what they are here."""


def find_test(facts: dict[str, Any], inputs: Path) -> Path:
    """The competition's test file below `inputs`, which is named as the run's, and is in no pack.

    Raises:
        DataError: if there is none, or several.
    """
    found = []
    for folder, folders, files in os.walk(inputs):
        if Pack(Path(folder)).facts.name in files:
            folders.clear()
        elif facts["test"] in files:
            found.append(Path(folder) / facts["test"])
    of_competition = [path for path in found if facts["kaggle"] in path.relative_to(inputs).parts[:-1]]
    found = sorted(of_competition or found)
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"one file {facts['test']} must be below {inputs}, that of the competition {facts['kaggle'] or facts['name']}; "
        + (f"there are {len(found)}: {', '.join(map(str, found))}. Detach" if found else "there is none. Attach")
        + (" the inputs that are not of it." if found else " the competition's data to the notebook.")
    )


def link_work(pack: Pack, folder: Path) -> list[str]:
    """Link the packed products into `folder`: predictions are written beside weights, which are read-only.

    The run's settings get the paths of the pack, and let no row stop a prediction; returns which, for a person.
    """
    changed = []
    for source in pack.work.rglob("*"):
        path = folder / source.relative_to(pack.work)
        if source.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.match(f"*/submissions/*/{MANIFEST}"):
            manifest = read_json(source)
            config = unpacked(manifest["config"], pack)
            changed = make_tolerant(config)
            write_json(path, {**manifest, "config": config})
        else:
            path.symlink_to(source)
    return changed


def make_tolerant(config: dict[str, Any]) -> list[str]:
    """Change, in place, settings that would end a prediction for the sake of one row; returns them, for a person."""
    sections = [("competition", config["competition"]), *config["stages"].items()]
    found = [(section, *change) for section in sections for change in TOLERANT if section[1].get(change[0]) == "error"]
    for (_, settings), name, value in found:
        settings[name] = value
    return [f"{where}.{name} is {value} here, not error" for (where, _), name, value in found]


def set_environment(pack: Pack, work: Path) -> None:
    """Products to `work`, pretrained weights from the pack, and no hub."""
    os.environ |= {
        "WORK_DIR": str(work),
        "WEIGHTS_DIR": str(pack.weights),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def in_order_of_sample(table: pd.DataFrame, sample: Path, id_column: str) -> tuple[pd.DataFrame, str]:
    """The submission in the order of the sample beside the test file, if it names the same rows; and what was done."""
    if not sample.is_file():
        return table, f"there is no {sample.name} beside it: rows in the order of the test file"
    asked = read_text_table(sample)
    if id_column not in asked or sorted(asked[id_column]) != sorted(table[id_column]):
        return table, f"{sample.name} names other rows: rows in the order of the test file"
    ordered = table.set_index(id_column, drop=False).loc[list(asked[id_column])].reset_index(drop=True)
    return ordered, f"rows in the order of {sample.name}"


def predict_test(facts: dict[str, Any], test: Path, written: Path) -> str:
    """Predict `test` with the run below WORK_DIR into the file `written`; returns what was found, in words.

    Raises:
        UserError: as `submissions.predict.predict`.
    """
    from submissions.predict import predict  # here: what is checked before needs none of its packages

    require_columns(read_text_table(test), [facts["id"], *facts["inputs"]], test)
    predicted = predict(facts["name"], test, n_workers=None)
    dropped = len(read_text_table(predicted)) - len(read_table(predicted.with_name("test.parquet")))
    table, order = in_order_of_sample(read_text_table(predicted), test.with_name(facts["sample"]), facts["id"])
    written.parent.mkdir(parents=True, exist_ok=True)
    write_submission(written, table, table, facts["id"])
    numbers = read_table(written, [facts["id"]])
    lines = [f"{len(table)} rows, {dropped} of them unreadable and filled with the mean label; {order}", ""]
    lines.append(f"{'target':24} {'mean':>12} {'spread':>12} {'mean of training labels':>24}")
    for name, mean in zip(facts["targets"], facts["label_means"], strict=True):
        lines.append(f"{name:24} {numbers[name].mean():12.5g} {numbers[name].std(ddof=0):12.5g} {mean:24.5g}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    started = time.monotonic()
    pack = Pack(PROJECT.parent)
    facts = facts_of(pack)
    check_packages(facts)
    check_files(pack, facts)
    print(f"pack of run {facts['run']}: {len(facts['files'])} files as they were packed", flush=True)
    test = find_test(facts, Path(os.environ.get("KAGGLE_INPUT") or "/kaggle/input"))
    print(f"test file: {test}", flush=True)
    written = Path(os.environ.get("KAGGLE_WORKING") or "/kaggle/working") / SUBMISSION_FILE
    with tempfile.TemporaryDirectory(prefix="prediction_") as work:
        set_environment(pack, Path(work))
        for change in link_work(pack, Path(work)):
            print(f"no row stops a prediction: {change}", flush=True)
        print(predict_test(facts, test, written))
    print(f"\n{written}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    command.run(main)
