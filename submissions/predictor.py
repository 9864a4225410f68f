"""The model behind a submission: predicts new rows from the columns of predictions of the stages.

A new run makes it in memory (`submissions.build_submission`); `load_model` reads it from the folder of a
finished run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.dataset import INPUT_KEY
from competition.files import read_json, read_table
from competition.task import Task
from competition.types import Array
from competition.user_code import short_ref
from submissions.blend.decision_rules import Decision
from submissions.blend.postprocess import apply_all, saved_steps
from submissions.blend.serialization import Predictor, from_json
from submissions.blend.stacks import LIGHTGBM_STACK
from submissions.run import BLEND, CHOICE, KNOWN_LABELS, STACK, Run, fitted_file
from submissions.stage_predictions import jobs_by_column


@dataclass(frozen=True)
class SubmissionModel:
    """The chosen candidate, and what is done with its predictions.

    candidate: predicts (n_rows, n_outputs) for columns P (n_rows, n_columns, n_outputs).
    decision: makes labels of predictions; None if the metric scores predictions.
    steps: for each target its fitted post-processing steps, in order.
    known_labels: input (`INPUT_KEY`, its index) -> mean label or most frequent class; None if they are not
    used.
    """

    task: Task
    candidate: Callable[[Array], Array]
    decision: Decision | None
    steps: list[dict[str, Predictor]]
    known_labels: pd.DataFrame | None

    def predict(self, P: Array, inputs: list[str], decided: bool = True) -> Array:
        """What is submitted for rows: labels or predictions, (n_rows, n_scored).

        Args:
            P: (n_rows, n_columns, n_outputs), each column the mean of its jobs.
            inputs: the rows' input keys (`INPUT_KEY`).
            decided: False for the predictions that the decision makes labels of, (n_rows, n_outputs).
        """
        y_pred = apply_all(self.steps, self.candidate(P))
        if self.decision is not None:
            if not decided:
                return y_pred
            y_pred = self.decision.predict(y_pred)
        if self.known_labels is None:
            return y_pred
        labels = self.known_labels.reindex(index=inputs).to_numpy()
        return np.where(np.isnan(labels), y_pred, labels)


def load_model(run: Run) -> SubmissionModel:
    """The model behind the submission of a finished run."""
    choice = run.part(CHOICE)
    code_refs = {short_ref(step): step for step in run.config.postprocess}
    steps = [saved_steps(choice["postprocessing"][target], code_refs) for target in run.task.targets]
    known_labels = None
    if KNOWN_LABELS in choice["files"]:
        known_labels = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)[
            run.task.scored_columns
        ]
    return SubmissionModel(
        task=run.task,
        candidate=load_candidate(run, choice["chosen"]),
        decision=from_json(run.candidates[choice["chosen"]]["decision"]),
        steps=steps,
        known_labels=known_labels,
    )


def load_candidate(run: Run, name: str) -> Callable[[Array], Array]:
    """What predicts (n_rows, n_outputs) by a candidate of a finished run from its columns."""
    run.part(STACK if name == LIGHTGBM_STACK else BLEND)  # checks its files
    names = run.stored["columns"]
    code_refs = {short_ref(blend): blend for blend in run.config.blends}
    predictor = from_json(
        read_json(run.folder / fitted_file(name)), code_refs.get(name, run.config.default_blend)
    )
    positions = [names.index(column) for column in jobs_by_column(run.config, run.plan)]

    def predict(P: Array) -> Array:
        all_columns = np.zeros((len(P), len(names), P.shape[2]))  # a bundle lacks the columns without weight
        all_columns[:, positions] = P
        return predictor.predict(all_columns)

    return predict
