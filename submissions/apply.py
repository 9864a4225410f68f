"""A stored run, from columns of test predictions to a checked submission; needs the run's folder and nothing else.

work/<name>/submissions/<run>/
    run.json                  what the run is made of
    cross_fitted/<candidate>.csv
    blend.json, blend.csv     all linear candidates; the best-justified of them
    stack.json, stack/, stack.csv
                              all stacks; the best-justified of them
    selection.json, known_labels.csv, submission.csv, spread.csv
                              the chosen candidate and its post-processing
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.errors import DataError, SubmissionError
from competition.files import digest, read_json, read_table, read_text_table, sha256_of, write_atomically, write_table
from competition.metrics import Array
from competition.tables import INPUT_KEY
from submissions.postprocess import apply_steps
from submissions.stacker import STACKS, Regressor, Ridge, Scaling, Stack, Trees
from submissions.target import Blend

MANIFEST, BLEND, STACK, SELECTION = "run.json", "blend.json", "stack.json", "selection.json"
BLEND_FILE, STACK_FILE, SUBMISSION_FILE = "blend.csv", "stack.csv", "submission.csv"
KNOWN_LABELS = "known_labels.csv"


def read_step(run_folder: Path, step: str) -> dict[str, Any]:
    """The JSON file of a step, if it and the files it lists are as they were written.

    Raises:
        DataError: if one of them is missing or has changed, or it is of another run.
    """
    stored: dict[str, Any] = read_json(run_folder / step, "run", "made_from", "files", "digest")
    run = read_json(run_folder / MANIFEST, "run")["run"]
    if stored["run"] != run:
        raise DataError(
            f"{run_folder / step} must be of the run of {MANIFEST}, {run}; it is of {stored['run']}. "
            "Run ./run.sh full to make it again."
        )
    content = {key: value for key, value in stored.items() if key != "digest"}
    changed = [
        name
        for name, known in stored["files"].items()
        if not (run_folder / name).is_file() or sha256_of(run_folder / name) != known
    ]
    if digest(content) != stored["digest"]:
        changed.append(step)
    if changed:
        raise DataError(
            f"{run_folder} must be as the run wrote it; changed or gone: {', '.join(changed)}. "
            "Run ./run.sh full to make it again."
        )
    return stored


def predict_run(run_folder: Path, columns: dict[str, Array], inputs: list[str], features: Array) -> Array:
    """Predictions of the submission, (n_rows, n_targets), targets in the order of the run's manifest.

    Those of the candidate that was chosen, with the post-processing that was kept.

    Args:
        run_folder: of a run that has its selection.json.
        columns: column of the run -> (n_rows, n_targets), its mean over folds and over the seeds that it stands for.
        inputs: n_rows names of the rows' whole inputs (`INPUT_KEY`).
        features: (n_rows, n_features) as `submissions.features` gives them.

    Raises:
        DataError: if a stage of the run is lacking, or the folder is not complete.
    """
    selection = read_step(run_folder, SELECTION)
    y_pred = predict_candidate(run_folder, selection["chosen"], columns, features)
    targets = read_json(run_folder / MANIFEST, "targets")["targets"]
    for t, target in enumerate(targets):
        kept = [tried["fitted"] for tried in selection["postprocessing"][target] if tried["fitted"]]
        y_pred[:, t] = apply_steps(kept, y_pred[:, t], np.array(inputs))
    if KNOWN_LABELS in selection["files"]:
        table = read_table(run_folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)
        known = table.reindex(index=inputs, columns=targets).to_numpy()
        y_pred = np.where(np.isnan(known), y_pred, known)
    return y_pred


def predict_candidate(run_folder: Path, name: str, columns: dict[str, Array], features: Array) -> Array:
    """The predictions of any candidate of the run, without post-processing.

    Raises:
        DataError: as `predict_run`.
    """
    manifest = read_json(run_folder / MANIFEST, "columns", "targets", "config")
    stages = list(manifest["columns"])
    lacking = [stage for stage in stages if stage not in columns]
    if lacking:
        raise DataError(
            f"the run {run_folder.name} needs a column of predictions from each of its stages; lacking: "
            f"{', '.join(lacking)}. Predict with those stages first."
        )
    models = read_step(run_folder, STACK if name in STACKS else BLEND)["candidates"][name]["models"]
    y_pred = []
    for t, target in enumerate(manifest["targets"]):
        of_target = np.column_stack([columns[stage][:, t] for stage in stages])
        if name in STACKS:
            stack = _stack(run_folder, models[target], stages)
            y_pred.append(stack.predict(np.hstack([of_target, features])))
        else:
            y_pred.append(_blend(models[target], stages).predict(of_target))
    return np.column_stack(y_pred)


def stored_blend(blend: Blend, stages: list[str]) -> dict[str, Any]:
    """A blend as JSON; `stages` names its columns."""
    return {
        "weights": dict(zip(stages, blend.weights.tolist(), strict=True)),
        "intercept": blend.intercept,
        "settings": blend.settings,
    }


def store_stack(run_folder: Path, name: str, stack: Stack, stages: list[str]) -> dict[str, Any]:
    """A stack as JSON; a correction that is no list of numbers goes to the file `stack/<name>.<txt or skops>`.

    Raises:
        ConfigError: if a regressor cannot be stored.
    """
    scaling, correction = stack.scaling, stack.correction
    stored: dict[str, Any] = {"kind": "none"}
    if isinstance(correction, Trees):
        stored = {"kind": "trees", "n_trees": correction.n_trees, "file": f"stack/{name}.txt"}
        write_atomically(run_folder / stored["file"], correction.text)
    elif isinstance(correction, Ridge):
        stored = {"kind": "ridge", "penalty": correction.penalty, "weights": correction.weights}
    elif isinstance(correction, Regressor):
        from models.stages.estimators import save

        stored = {"kind": "sklearn", "file": f"stack/{name}.skops"}
        save(correction.fitted, run_folder / stored["file"])
    return {
        "blend": stored_blend(stack.blend, stages),
        "scaling": {**asdict(scaling), "order": [stages[j] for j in scaling.order]},
        "correction": stored,
    }


def _blend(stored: dict[str, Any], stages: list[str]) -> Blend:
    return Blend(np.array([stored["weights"][stage] for stage in stages]), stored["intercept"], stored["settings"])


def _stack(run_folder: Path, stored: dict[str, Any], stages: list[str]) -> Stack:
    order = [stages.index(stage) for stage in stored["scaling"]["order"]]
    blend, scaling = _blend(stored["blend"], stages), Scaling(**{**stored["scaling"], "order": order})
    match stored["correction"]:
        case {"kind": "trees", "n_trees": n_trees, "file": file}:
            return Stack(blend, scaling, Trees(n_trees, (run_folder / file).read_text()))
        case {"kind": "ridge", "penalty": penalty, "weights": weights}:
            return Stack(blend, scaling, Ridge(penalty, weights))
        case {"kind": "sklearn", "file": file}:
            from models.stages.estimators import load

            return Stack(blend, scaling, Regressor(load(run_folder / file)))
        case _:
            return Stack(blend, scaling, None)


def submission_table(
    sample: pd.DataFrame, id_column: str, column_of: dict[str, str], ids: list[str], y_pred: Array, filling: list[float]
) -> tuple[pd.DataFrame, int]:
    """A table with the columns, ids and order of the sample.

    Args:
        sample: prepared sample, all text.
        id_column: name of its ids.
        column_of: target -> name of its column in the sample, in the order of the predictions.
        ids: of the rows of `y_pred`, each in the sample.
        y_pred: (n_rows, n_targets).
        filling: (n_targets,), for rows of the sample that are not among `ids`: test rows that were dropped.

    Returns:
        The table, and how many rows were filled.
    """
    row_of = {row_id: i for i, row_id in enumerate(ids)}
    place = np.array([row_of.get(row_id, len(ids)) for row_id in sample[id_column]], dtype=np.int64)
    values = np.vstack([y_pred.reshape(len(ids), len(column_of)), np.array(filling)[None]])[place]
    table = pd.DataFrame({id_column: sample[id_column]})
    for t, name in enumerate(column_of.values()):
        table[name] = values[:, t]
    return table[list(sample.columns)], int((place == len(ids)).sum())


def check_submission(path: Path, sample: pd.DataFrame, id_column: str) -> None:
    """Read a submission file as a judge would and hold it against the sample.

    Raises:
        SubmissionError: if its columns, its ids or their order differ, or a value is no finite number.
    """
    try:
        table = read_text_table(path)
    except DataError as error:
        raise SubmissionError(str(error)) from None
    if list(table.columns) != list(sample.columns):
        raise SubmissionError(
            f"{path} must have the columns {', '.join(sample.columns)} in this order; found {', '.join(table.columns)}."
        )
    found, expected = list(table[id_column]), list(sample[id_column])
    if found != expected:
        lacking, extra = set(expected) - set(found), set(found) - set(expected)
        what = (
            f"lacking {len(lacking)} ({_some(lacking)}), not in the sample {len(extra)} ({_some(extra)})"
            if lacking or extra
            else f"{len(found)} rows for {len(expected)} ids"
            if len(found) != len(expected)
            else "another order"
        )
        raise SubmissionError(f"{path} must have the ids of the sample in its order; found {what}.")
    for name in table.columns:
        if name != id_column:
            bad = ~np.isfinite(pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64))
            if bad.any():
                raise SubmissionError(
                    f"{path}: column {name!r} must hold finite numbers; {int(bad.sum())} row(s) do not, the first has "
                    f"id {found[int(bad.argmax())]!r} and {table[name].iloc[int(bad.argmax())]!r}."
                )


def write_submission(path: Path, table: pd.DataFrame, sample: pd.DataFrame, id_column: str) -> None:
    """Write a submission under a name of its own, check that file, and give it its name if it passes.

    Raises:
        SubmissionError: as `check_submission`; then there is no file at `path` that was not there before.
    """
    unchecked = path.with_name(f"unchecked_{path.name}")
    write_table(unchecked, table)
    try:
        check_submission(unchecked, sample, id_column)
    except SubmissionError as error:
        unchecked.unlink()
        raise SubmissionError(str(error).replace(str(unchecked), str(path))) from None
    unchecked.rename(path)


def _some(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:3]) or "none"
