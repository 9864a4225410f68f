"""Predictions of a run for new rows, from its folder and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import DataError
from competition.files import read_table, write_atomically
from competition.metrics import Array
from competition.tables import INPUT_KEY
from submissions.postprocess import apply_steps
from submissions.run import BLEND, CHOICE, STACK, Run
from submissions.stacker import STACKS, Regressor, Ridge, Scaling, Stack, Trees
from submissions.target import Blend

KNOWN_LABELS = "known_labels.csv"


def predict_run(run: Run, columns: Array, inputs: list[str], features: Array) -> Array:
    """Predictions of the submission, (n_rows, n_outputs).

    Those of the candidate that was chosen, with the post-processing that was kept.

    Args:
        run: of which the choice was made.
        columns: (n_rows, n_columns, n_outputs), the columns in the order of the run's, each the mean of its jobs.
        inputs: n_rows names of the rows' whole inputs (`INPUT_KEY`).
        features: (n_rows, n_features) as `submissions.features` gives them.

    Raises:
        DataError: if the run's folder is not complete.
    """
    choice, targets = run.part(CHOICE), run.task.targets
    y_pred = predict_candidate(run, choice["chosen"], columns, features)
    for t, target in enumerate(targets):
        kept = [tried["fitted"] for tried in choice["postprocessing"][target] if tried["fitted"]]
        y_pred[:, t] = apply_steps(kept, y_pred[:, t], np.array(inputs))
    if KNOWN_LABELS in choice["files"]:
        table = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)
        known = table.reindex(index=inputs, columns=targets).to_numpy()
        y_pred = np.where(np.isnan(known), y_pred, known)
    return y_pred


def predict_candidate(run: Run, name: str, columns: Array, features: Array) -> Array:
    """The predictions of any candidate of the run, without post-processing; see `predict_run`."""
    names = run.stored["columns"]
    if columns.shape[1] != len(names):
        raise DataError(f"the run {run.name} needs the columns {', '.join(names)}; found {columns.shape[1]} columns.")
    models = run.part(STACK if name in STACKS else BLEND)["candidates"][name]["models"]
    y_pred = []
    for t, target in enumerate(run.task.targets):
        if name in STACKS:
            stack = _stack(run.folder, models[target], names)
            y_pred.append(stack.predict(np.hstack([columns[:, :, t], features])))
        else:
            y_pred.append(_blend(models[target], names).predict(columns[:, :, t]))
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
