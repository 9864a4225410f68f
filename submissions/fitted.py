"""The fitted candidates of a run: what they are fitted on, how they are kept, and what they predict for new rows.

Predicting needs the run's folder and no table: models are JSON in run.json, trees and regressors files beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from competition.files import derive_seed, read_table, write_atomically, write_table
from competition.metrics import Array
from competition.tables import INPUT_KEY
from submissions.blend import candidates, stacks
from submissions.blend.candidates import Blend, Predictor
from submissions.blend.crossfit import CrossFitted, Rule, scores
from submissions.blend.postprocess import apply_steps, stored_steps
from submissions.blend.problem import Matrices
from submissions.blend.stacks import Scaling, Stack
from submissions.blend.stored import from_json, label, to_json
from submissions.run import BLEND, CHOICE, STACK, Run

KNOWN_LABELS = "known_labels.csv"


def matrices_of(run: Run, P: Array, features: Array | None = None) -> Matrices:
    """What the candidates are fitted on: columns P (n_rows, n_columns, n_outputs) and, for stacks, features."""
    settings, columns, seed = run.config.submissions, run.columns, run.config.competition.seed
    return Matrices(
        P=P,
        y=columns.y,
        folds=columns.folds,
        metric=run.metric,
        weights=settings.weights,
        trials=settings.trials,
        weight_trials=settings.weight_trials,
        seeds=tuple(derive_seed(seed, "blend", name) for name in run.task.targets),
        features=features,
    )


def rule_of(run: Run) -> Rule:
    """The rule of selection as the YAML sets it."""
    settings, columns = run.config.submissions, run.columns
    return Rule(
        metric=run.metric,
        y=columns.y,
        folds=columns.folds,
        groups=columns.groups,
        default=label(settings.default),
        margin=settings.margin,
        draws=settings.bootstrap,
        seed=run.config.competition.seed,
    )


def keep(run: Run, rule: Rule, name: str, predictor: Predictor, predictions: CrossFitted) -> tuple[Any, list[str]]:
    """Write a candidate's predictions for the training rows; returns its models and scores as JSON, and its files."""
    table, outputs = cross_fitted_file(name), run.task.outputs
    write_table(run.folder / table, predictions.table(run.columns.ids, outputs))
    models, files = _stored(run, name, predictor)
    return {"models": models, **scores(rule, predictions)}, [table, *files]


def cross_fitted_file(name: str) -> str:
    """The predictions of a candidate for the training rows, relative to the run's folder."""
    return f"cross_fitted/{name.replace(':', '.')}.parquet"


def read_cross_fitted(run: Run, name: str) -> CrossFitted:
    """The predictions of a candidate for the training rows."""
    return CrossFitted.of(read_table(run.folder / cross_fitted_file(name)), run.columns.ids, len(run.task.outputs))


def _stored(run: Run, name: str, predictor: Predictor) -> tuple[dict[str, Any], list[str]]:
    """A predictor as JSON and its files; weights stand under the names of outputs and columns.

    Raises:
        ConfigError: if a regressor cannot be stored.
    """
    outputs, files = run.task.outputs, list[str]()
    if isinstance(predictor, Blend):
        of_output = zip(outputs, predictor.weights.T.tolist(), predictor.intercept, predictor.settings, strict=True)
        targets = {
            output: {
                "weights": dict(zip(run.columns.names, weights, strict=True)),
                "intercept": float(intercept),
                "settings": settings,
            }
            for output, weights, intercept, settings in of_output
        }
        return {"class": "Blend", "targets": targets}, []
    if not isinstance(predictor, Stack):
        return to_json(predictor), []
    targets = {}
    for t, (output, (scaling, correction)) in enumerate(zip(outputs, predictor.parts, strict=True)):
        file = f"stack/{name}_{t}"
        stored: dict[str, Any] | None = None
        if isinstance(correction, stacks.Trees):
            stored = {"class": "Trees", "n_trees": correction.n_trees, "file": f"{file}.txt"}
            write_atomically(run.folder / stored["file"], correction.text)
        elif isinstance(correction, stacks.Regressor):
            from models.stages.estimators import save

            stored = {"class": "Regressor", "file": f"{file}.skops"}
            save(correction.fitted, run.folder / stored["file"])
        elif correction is not None:
            stored = to_json(correction)
        files += [stored["file"]] if stored and "file" in stored else []
        targets[output] = {"scaling": to_json(scaling), "correction": stored}
    base, _ = _stored(run, name, predictor.base)
    return {"class": "Stack", "base": base, "targets": targets}, files


def _restored(run: Run, stored: dict[str, Any], named: str) -> Any:
    """The predictor that `_stored` was given."""
    match stored:
        case {"class": "Blend", "targets": targets}:
            names, parts = run.stored["columns"], [targets[output] for output in run.task.outputs]
            weights = [[part["weights"][name] for name in names] for part in parts]
            return Blend(np.array(weights).T, np.array([part["intercept"] for part in parts]))
        case {"class": "Stack", "base": base, "targets": targets}:
            parts = [targets[output] for output in run.task.outputs]
            scalings = [from_json(part["scaling"], {"Scaling": Scaling}) for part in parts]
            corrections = [_correction(run, part["correction"]) for part in parts]
            base = _restored(run, base, run.config.submissions.default)
            return Stack(base, list(zip(scalings, corrections, strict=True)))
        case _:
            return from_json(stored, candidates.CLASSES, named)


def _correction(run: Run, stored: dict[str, Any] | None) -> stacks.Correction | None:
    match stored:
        case None:
            return None
        case {"class": "Trees", "n_trees": n_trees, "file": file}:
            return stacks.Trees(n_trees, (run.folder / file).read_text(encoding="utf-8"))
        case {"class": "Regressor", "file": file}:
            from models.stages.estimators import load

            return stacks.Regressor(load(run.folder / file))
        case _:
            return from_json(stored, {"Ridge": stacks.Ridge})


def predict_candidate(run: Run, name: str, P: Array, features: Array) -> Array:
    """Predictions (n_rows, n_outputs) of any candidate of the run, without post-processing; see `predict_run`."""
    is_stack = name in stacks.STACKS
    stored = run.part(STACK if is_stack else BLEND)["candidates"][name]["models"]
    named = {label(each): each for each in (run.config.submissions.default, *run.config.submissions.candidates)}
    predictor = _restored(run, stored, named.get(name, name))
    return predictor.predict(P, *([features] if is_stack else []))


def predict_run(run: Run, P: Array, inputs: list[str], features: Array) -> Array:
    """Predictions of the submission, (n_rows, n_outputs): the chosen candidate's, with the post-processing kept.

    Args:
        run: of which the choice was made.
        P: (n_rows, n_columns, n_outputs), the columns in the order of the run's, each the mean of its jobs.
        inputs: n_rows names of the rows' whole inputs (`INPUT_KEY`).
        features: (n_rows, n_features) as `submissions.stack_features` gives them.

    Raises:
        DataError: if the run's folder is not complete.
    """
    choice, targets = run.part(CHOICE), run.task.targets
    y_pred = predict_candidate(run, choice["chosen"], P, features)
    named = {label(step): step for step in run.config.submissions.postprocess}
    for t, target in enumerate(targets):
        steps = stored_steps(choice["postprocessing"][target], named)
        y_pred[:, t] = apply_steps(steps, y_pred[:, t], np.array(inputs))
    if KNOWN_LABELS in choice["files"]:
        table = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)
        known = table.reindex(index=inputs, columns=targets).to_numpy()
        y_pred = np.where(np.isnan(known), y_pred, known)
    return y_pred
