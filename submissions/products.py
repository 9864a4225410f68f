"""What the last steps write into a run's folder, and whether it is there already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from competition import command
from competition.errors import DataError
from competition.files import digest, read_json, read_table, sha256_of, table_digest, write_json
from competition.metrics import Array
from competition.tables import own_rows
from folds.table import read_folds
from models.stages.file import COPY_OF_OOF, fold_mark
from submissions.apply import MANIFEST, read_step, submission_table, write_submission
from submissions.columns import Columns, Run, column_names, package_versions, stage_names, user_code
from submissions.crossfit import CrossFitted

PROCEDURE = "cross_fitted/procedure.csv"
"""Cross-fitted predictions of the whole procedure, relative to the run's folder."""


@contextmanager
def at_work(run: Run) -> Iterator[None]:
    """Hold the lock of the competition and keep sums on one thread: their order decides their last digits."""
    with command.locked(run.paths, wait=True), threadpool_limits(1):
        for left_by_a_killed_process in (*run.folder.rglob("*.tmp"), *run.folder.glob("unchecked_*")):
            left_by_a_killed_process.unlink()
        yield


def write_manifest(run: Run) -> None:
    """Write run.json: all that a later `predict` needs to know, and what the run was made of."""
    competition = run.config.competition
    train = read_table(run.paths.train)
    own = own_rows(train)
    ids = list(train[competition.id])
    folds = read_folds(run.paths.folds, ids)
    stages = []
    for name in stage_names(run.config):
        jobs, settings = run.plan.of(name), run.config.stages[name]
        marks = ["other code"] if any(job.other_code for job in jobs) else []
        marks += ["optimistic"] if getattr(settings, "keep", "last") == "best_on_held_out" else []
        marks += ["saw test inputs"] if getattr(settings, "pretrain_on", "train") == "all_inputs" else []
        marks += ["pseudo-labels"] if settings.pseudo_labels else []
        marks += ["refit"] if settings.final_fit != "folds" else []
        if settings.kind == "file":
            copy = jobs[0].folder / COPY_OF_OOF
            mark = fold_mark(copy, competition.id, competition.columns_in_sample, ids, folds)
            marks += [mark] if mark else []
        stages.append(
            {
                "name": name,
                "kind": settings.kind,
                "key": run.plan.keys[name],
                "seeds": sorted(set(settings.seeds)),
                "marks": marks,
            }
        )
    write_json(
        run.folder / MANIFEST,
        {
            "run": run.name,
            "config": run.config.model_dump(mode="json"),
            "stages": stages,
            "columns": {n: {"stage": s, "seeds": seeds} for n, (s, seeds) in column_names(run.config).items()},
            "targets": competition.targets,
            "sample_columns": list(read_table(run.paths.sample).columns),
            "n_folds": run.plan.n_folds,
            "label_means": [float(own[name].mean()) for name in competition.targets],
            "tables": {
                p.name: table_digest(p) for p in (run.paths.train, run.paths.test, run.paths.sample, run.paths.folds)
            },
            "test_key": run.plan.test_key,
            "user_code": user_code(competition),
            "versions": package_versions(),
        },
    )


def is_done(run: Run, step: str) -> bool:
    """Whether the JSON file of a step is there, was made from what there is now, and its files are unchanged."""
    path = run.folder / step
    if not path.exists():
        return False
    try:
        return bool(read_step(run.folder, step)["made_from"] == run.made_from)
    except DataError:  # edited or damaged: made again
        return False


def finish(run: Run, step: str, content: dict[str, Any], files: list[str]) -> dict[str, Any]:
    """Write the JSON file of a step, last, with the digests of its other files; returns what was written."""
    listed = {name: sha256_of(run.folder / name) for name in files}
    whole = _json({**content, "run": run.name, "made_from": run.made_from, "files": listed})
    write_json(run.folder / step, {**whole, "digest": digest(whole)})
    return read_step(run.folder, step)


def _json(value: Any) -> Any:
    """`value` with null for numbers that are not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_predictions(run: Run, ids: list[str], y_pred: Array, file: str) -> int:
    """Write a submission into the run's folder, checked; returns how many rows got the mean of the labels.

    Raises:
        SubmissionError: if it does not fit the sample.
    """
    sample, id_column = read_table(run.paths.sample), run.config.competition.id
    filling = read_json(run.folder / MANIFEST)["label_means"]
    table, filled = submission_table(sample, id_column, run.column_of, ids, y_pred, filling)
    write_submission(run.folder / file, table, sample, id_column)
    return filled


def cross_fitted_table(ids: list[str], targets: list[str], predictions: CrossFitted) -> pd.DataFrame:
    """The predictions of one candidate for the training rows as a table; empty cells where there is none."""
    parts = [("in_sample", predictions.in_sample), ("cross_fitted", predictions.cross_fitted)]
    parts += [(f"without_fold_{fold}", part) for fold, part in enumerate(predictions.nested)]
    tables = [pd.DataFrame(part, columns=[f"{name} {target}" for target in targets]) for name, part in parts]
    return pd.concat([pd.Series(ids, name="id"), *tables], axis=1)


def read_cross_fitted(run: Run, candidate: str, columns: Columns) -> CrossFitted:
    """What `cross_fitted_table` wrote, in the order of `columns.ids`.

    Raises:
        DataError: if the file is not there or has other rows.
    """
    path = run.folder / cross_fitted_file(candidate)
    table = read_table(path, ["id"])
    if table["id"].duplicated().any() or set(table["id"]) != set(columns.ids):
        raise DataError(f"{path} must name every training id once; delete it and run submissions.blend again.")
    table = table.set_index("id").loc[columns.ids]

    def part(name: str) -> Array:
        return table[[f"{name} {target}" for target in run.config.competition.targets]].to_numpy(dtype=np.float64)

    nested = np.stack([part(f"without_fold_{fold}") for fold in range(run.plan.n_folds)])
    return CrossFitted(part("in_sample"), part("cross_fitted"), nested)


def read_procedure(run_folder: Path, targets: list[str]) -> pd.DataFrame:
    """What the cross-fitted score of a stored run was computed from: id (its index) -> a prediction per target.

    Raises:
        DataError: if it is not there, or has other columns.
    """
    table = read_table(run_folder / PROCEDURE, ["id"])
    if list(table.columns) != ["id", *targets] or table["id"].duplicated().any():
        raise DataError(f"{run_folder / PROCEDURE} must hold each id once with {', '.join(targets)}; run it again.")
    return table.set_index("id")


def cross_fitted_file(candidate: str) -> str:
    """Its name, relative to the run's folder."""
    return f"cross_fitted/{candidate}.csv"
