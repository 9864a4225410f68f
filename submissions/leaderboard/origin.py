"""Which run a submitted file is of, known by its digest, with the scores and out-of-fold predictions behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from competition.errors import DataError
from competition.files import read_table, sha256_of
from competition.paths import Paths
from submissions.fitted import cross_fitted_file
from submissions.run import BLEND, BLEND_FILE, CHOICE, CROSS_FITTED, STACK, STACK_FILE, SUBMISSION_FILE, read_part

STEP_OF = {SUBMISSION_FILE: CHOICE, BLEND_FILE: BLEND, STACK_FILE: STACK}


def products(paths: Paths) -> dict[str, tuple[Path, str]]:
    """Digest of a file -> the folder of its run, and the step that wrote it; the submission counts before its twin."""
    files = [run / name for name in reversed(STEP_OF) for run in sorted(paths.latest_run.parent.glob("*/"))]
    return {sha256_of(file): (file.parent, STEP_OF[file.name]) for file in files if file.is_file()}


def scores_of(run: Path, step: str) -> dict[str, Any]:
    """Run, candidate and scores, under the names of the ledger's columns.

    Raises:
        DataError: if the run has changed since it was written.
    """
    found = read_part(run, step)
    made = {"run": run.name, "chosen": found["chosen"]}
    if step != CHOICE:  # a candidate that was not chosen
        score = found["candidates"][found["chosen"]]["cross_fitted_score"]
        return made | {"cv_score": score, "cross_fitted_score": score}
    scores = {name: found["procedure"][name] for name in ("cross_fitted_score", "standard_error")}
    return made | {"cv_score": found["cross_fitted_score"], **scores}


def out_of_fold(run: Path, step: str, outputs: list[str]) -> pd.DataFrame:
    """Id (its index) -> the cross-fitted prediction of each output.

    Raises:
        DataError: if they are not there, or the run has other outputs.
    """
    if step == CHOICE:
        table = read_table(run / CROSS_FITTED, ["id"])
    else:
        table = read_table(run / cross_fitted_file(read_part(run, step)["chosen"]))
        table = table.rename(columns=lambda name: name.removeprefix("cross_fitted "))
    if not {*outputs} <= {*table}:
        raise DataError(f"{run} does not predict {', '.join(outputs)}.")
    return table.set_index("id")[outputs]
