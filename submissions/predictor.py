"""The model of a submission: it predicts new rows from the predictions of the stages.

A new run makes it in memory (`submissions.build_submission`); `load_model` reads it from the folder of a
finished run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.dataset import INPUT_KEY
from competition.files import read_json, read_table
from competition.types import Array
from competition.user_code import short_ref
from submissions.blend.decision_rules import Decision
from submissions.blend.postprocess import apply_all, saved_steps
from submissions.blend.serialization import Predictor, from_json
from submissions.blend.stacks import LIGHTGBM_STACK
from submissions.run import BLEND, CHOICE, INPUT_LABELS, STACK, Run, fitted_file
from submissions.stage_predictions import jobs_by_column


@dataclass(frozen=True)
class SubmissionModel:
    """The chosen candidate with its post-processing.

    Attributes:
        candidate: predicts (n_rows, n_outputs) from base predictions (n_rows, n_models, n_outputs).
        decision: makes labels from predictions; None if the metric scores predictions.
        steps: fitted post-processing steps per target, in order.
        input_labels: for the step known_labels, input (`INPUT_KEY`, the index) -> mean label or most frequent
            class; None without the step.
    """

    candidate: Callable[[Array], Array]
    decision: Decision | None
    steps: list[dict[str, Predictor]]
    input_labels: pd.DataFrame | None

    def predict(self, preds: Array, inputs: list[str], as_labels: bool = True) -> Array:
        """Return the labels or predictions to submit, (n_rows, n_scored).

        Args:
            preds: base predictions (n_rows, n_models, n_outputs), each the mean of its jobs.
            inputs: input keys of the rows (`INPUT_KEY`).
            as_labels: if False and there is a decision, return the predictions before it, (n_rows, n_outputs).
        """
        y_pred = apply_all(self.steps, self.candidate(preds))
        if self.decision is not None:
            if not as_labels:
                return y_pred
            y_pred = self.decision.predict(y_pred)
        if self.input_labels is None:
            return y_pred
        labels = self.input_labels.reindex(index=inputs).to_numpy()
        return np.where(np.isnan(labels), y_pred, labels)


def load_model(run: Run) -> SubmissionModel:
    """Return the model of the submission of a finished run."""
    choice = run.part(CHOICE)
    code_refs = {short_ref(step): step for step in run.config.postprocess}
    steps = [saved_steps(choice["postprocessing"][target], code_refs) for target in run.task.targets]
    input_labels = None
    if INPUT_LABELS in choice["files"]:
        input_labels = read_table(run.folder / INPUT_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)[
            run.task.scored_columns
        ]
    return SubmissionModel(
        candidate=load_candidate(run, choice["chosen"]),
        decision=from_json(run.candidates[choice["chosen"]]["decision"]),
        steps=steps,
        input_labels=input_labels,
    )


def load_candidate(run: Run, name: str) -> Callable[[Array], Array]:
    """Return a function that predicts (n_rows, n_outputs) by a candidate of a finished run."""
    run.part(STACK if name == LIGHTGBM_STACK else BLEND)  # checks its files
    names = run.stored["columns"]
    code_refs = {short_ref(blend): blend for blend in run.config.blends}
    # The blend in a stack is the default one.
    predictor = from_json(
        read_json(run.folder / fitted_file(name)), code_refs.get(name, run.config.default_blend)
    )
    positions = [names.index(column) for column in jobs_by_column(run.config, run.plan)]

    def predict(preds: Array) -> Array:
        # A packed run (`submissions.kernel.pack`) has only the columns with weight.
        all_columns = np.zeros((len(preds), len(names), preds.shape[2]))
        all_columns[:, positions] = preds
        return predictor.predict(all_columns)

    return predict
