"""The fitted candidates of a run: what they are fitted on, how they are kept, and what they predict for new rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from competition.files import derive_seed, read_json, read_table, write_json, write_table
from competition.metrics import Array
from competition.tables import INPUT_KEY
from submissions.blend import bootstrap, stacks
from submissions.blend.candidates import Blend, Predictor
from submissions.blend.crossfit import CrossFitted, Rule, scores
from submissions.blend.postprocess import apply_steps, stored_steps
from submissions.blend.problem import Matrices
from submissions.blend.stored import from_json, label, to_json
from submissions.columns import column_names
from submissions.run import BLEND, CHOICE, STACK, Run

KNOWN_LABELS = "known_labels.csv"
LEAST_DRAWS = 100


def matrices_of(run: Run, P: Array, features: Array | None = None) -> Matrices:
    """What the candidates are fitted on: columns P (n_rows, n_columns, n_outputs) and, for stacks, features."""
    settings, columns, seed = run.config.submissions, run.columns, run.config.competition.seed
    seeds = tuple(derive_seed(seed, "blend", name) for name in run.task.targets)
    tuned = settings.trials, settings.weight_trials, seeds
    return Matrices(P, columns.y, columns.folds, run.metric, settings.weights, *tuned, features)


def rule_of(run: Run) -> Rule:
    """The rule of selection as the YAML sets it, with fewer draws where a metric is computed draw by draw."""
    settings, columns, metric = run.config.submissions, run.columns, run.metric
    draws = settings.bootstrap if bootstrap.fast(metric) else max(LEAST_DRAWS, settings.bootstrap // 10)
    rows = columns.y, columns.folds, columns.groups
    return Rule(metric, *rows, label(settings.default), settings.margin, draws, run.config.competition.seed)


def fitted_file(name: str) -> str:
    """A fitted candidate, relative to the run's folder."""
    return f"fitted/{name.replace(':', '.')}.json"


def cross_fitted_file(name: str) -> str:
    """The predictions of a candidate for the training rows, relative to the run's folder."""
    return f"cross_fitted/{name.replace(':', '.')}.parquet"


def keep(run: Run, rule: Rule, name: str, predictor: Predictor, predictions: CrossFitted) -> tuple[Any, list[str]]:
    """Write a candidate and its predictions for the training rows; returns its weights and scores, and the files."""
    files, outputs = [fitted_file(name), cross_fitted_file(name)], run.task.outputs
    write_json(run.folder / files[0], to_json(predictor))
    write_table(run.folder / files[1], predictions.table(run.columns.ids, outputs))
    base = getattr(predictor, "base", predictor)
    rows = base.weights.T.tolist() if isinstance(base, Blend) else []
    weights = {
        output: dict(zip(run.columns.names, row, strict=True)) for output, row in zip(outputs, rows, strict=False)
    }
    return {"weights": weights, **scores(rule, predictions)}, files


def read_cross_fitted(run: Run, name: str) -> CrossFitted:
    """The predictions of a candidate for the training rows."""
    return CrossFitted.of(read_table(run.folder / cross_fitted_file(name)), run.columns.ids, len(run.task.outputs))


def candidate_of(run: Run, name: str) -> Callable[[Array, Array], Array]:
    """What predicts (n_rows, n_outputs) by a candidate of the run from columns and features; see `submission_of`."""
    is_stack = name in stacks.STACKS
    run.part(STACK if is_stack else BLEND)
    settings, names = run.config.submissions, run.stored["columns"]
    named = {label(each): each for each in (settings.default, *settings.candidates)}
    predictor = from_json(read_json(run.folder / fitted_file(name)), named.get(name, settings.default))
    there = [names.index(column) for column in column_names(run.config)]

    def predict(P: Array, features: Array) -> Array:
        whole = np.zeros((len(P), len(names), P.shape[2]))  # a bundle brings no column without weight
        whole[:, there] = P
        return predictor.predict(whole, *([features] if is_stack else []))

    return predict


def submission_of(run: Run) -> Callable[[Array, list[str], Array], Array]:
    """What predicts new rows, (n_rows, n_outputs): the chosen candidate with the post-processing that was kept.

    Returns:
        A function of P (n_rows, n_columns, n_outputs), each column the mean of its jobs; n_rows names of the rows'
        whole inputs (`INPUT_KEY`); and features (n_rows, n_features) as `submissions.features` gives them.

    Raises:
        DataError: if the run's folder is not complete.
    """
    choice, targets = run.part(CHOICE), run.task.targets
    named = {label(step): step for step in run.config.submissions.postprocess}
    steps = [stored_steps(choice["postprocessing"][target], named) for target in targets]
    chosen, known = candidate_of(run, choice["chosen"]), None
    if KNOWN_LABELS in choice["files"]:
        known = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)[targets]

    def predict(P: Array, inputs: list[str], features: Array) -> Array:
        y_pred = chosen(P, features)
        y_pred = np.column_stack([apply_steps(of, y_pred[:, t], np.array(inputs)) for t, of in enumerate(steps)])
        if known is None:
            return y_pred
        labels = known.reindex(index=inputs).to_numpy()
        return np.where(np.isnan(labels), y_pred, labels)

    return predict
