"""Between labels and a stage: it sees transformed ones, which grades are exceeded, or predictions of other
targets.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn import preprocessing

from competition.dataset import INPUT_KEY, Dataset
from competition.files import read_json, write_json
from competition.types import Array
from models.stage import Context, StageModel
from models.training.labels import require_log1p

FILE, RANGE = "target_transform.skops", "transformed_range.json"


class TargetTransformModel:
    """A stage of any kind between a scikit-learn transform of the targets and its inverse.

    The transform is fitted on the training rows of the fold, each target by itself, missing labels left out.
    """

    def __init__(self, stage: Any, kind: str) -> None:
        self.stage, self.kind = stage, kind

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit the transform, then the stage on transformed labels."""
        if self.kind == "log1p":
            require_log1p(train.y)
        transform = {
            "standard": preprocessing.StandardScaler(),
            "robust": preprocessing.RobustScaler(),
            "min_max": preprocessing.MinMaxScaler(),
            "quantile": preprocessing.QuantileTransformer(
                n_quantiles=min(1000, len(train)), output_distribution="normal", subsample=None
            ),
            "power": preprocessing.PowerTransformer(),
            "log1p": preprocessing.FunctionTransformer(np.log1p, np.expm1, check_inverse=False),
        }[self.kind].fit(train.y)
        skops.io.dump(transform, folder / FILE)
        y = transform.transform(train.y)
        write_json(folder / RANGE, [np.nanmin(y, axis=0).tolist(), np.nanmax(y, axis=0).tolist()])
        valid = valid and replace(valid, y=transform.transform(valid.y))
        self.stage.fit(replace(train, y=y), valid, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs) in the targets' own units."""
        back, y_pred = skops.io.load(folder / FILE).inverse_transform, self.stage.predict(rows, folder)
        if self.kind == "power":  # which has no inverse far beyond the labels
            y_pred = y_pred.clip(*read_json(folder / RANGE))
        return np.asarray(back(y_pred), dtype=np.float64)


class CumulativeModel:
    """A stage of any kind that learns which grades are exceeded, a label for each but the highest.

    The mean grade is the sum of their probabilities. Source: Frank and Hall, A simple approach to ordinal
    classification, ECML 2001.
    """

    def __init__(self, stage: Any, n_grades: int) -> None:
        self.stage, self.n_grades = stage, n_grades

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit the stage on labels (n_rows, n_grades); a pseudo-label between two grades counts as the nearer
        one.
        """
        bounds = np.arange(self.n_grades) + 0.5
        seen = [r and replace(r, y=np.where(np.isnan(r.y), np.nan, r.y > bounds)) for r in (train, valid)]
        self.stage.fit(*seen, folder)

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """The mean grade of each row, (n_rows, 1)."""
        return np.asarray(self.stage.predict(rows, folder).sum(axis=1, keepdims=True))


class StackedTargetModel:
    """A stage for each target, to which predictions of other targets are numbers like those of the
    competition.

    Training rows get them from models that did not see their label: one for each fold of the division among
    them. The rows to predict get them from a model of all training rows. Where assays share molecules, and
    one has many labels, this is the best that the others can know (source: most of the first places of
    OpenADMET's PXR challenge, 2026).

    build: makes the stage from what it is told.
    """

    def __init__(self, build: Callable[[Context], StageModel], context: Context, sources: list[str]) -> None:
        self.build, self.context = build, context
        self.names = {target: f"predicted {target}" for target in sources}
        self.first = build(self._told("first"))

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit the predictions of the sources, then a stage for each target on these, too."""
        division, predicted = self.context.fold_ids, np.full(train.y.shape, np.nan)
        assert division is not None
        if len(np.unique(division)) == 1:  # of two folds, or of the first block in time
            groups = train.inputs[INPUT_KEY] if train.groups is None else train.groups
            division = pd.factorize(groups)[0] % 3
        (folder / "first").mkdir()
        self.first.fit(train, None, folder / "first")
        again = self.build(
            replace(self.context, fold_model_dirs=[folder / "first"])
        )  # with what that one has chosen
        for part in np.unique(division):
            inside = division == part
            with tempfile.TemporaryDirectory() as inner:
                again.fit(train.take(~inside), None, Path(inner))
                predicted[inside] = again.predict(train.take(inside), Path(inner))
        told = self._joined(train, predicted)
        for t, target in enumerate(self.context.task.targets):
            (folder / f"{t}").mkdir()
            self._second(t, target).fit(replace(told, y=train.y[:, [t]]), None, folder / f"{t}")

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Predictions (n_rows, n_targets)."""
        told = self._joined(rows, self.first.predict(rows, folder / "first"))
        seconds = [self._second(t, target) for t, target in enumerate(self.context.task.targets)]
        return np.hstack([stage.predict(told, folder / f"{t}") for t, stage in enumerate(seconds)])

    def _told(self, part: str, **changes: Any) -> Context:
        """What the stage of a part of a job's folder is told."""
        return replace(
            self.context,
            fold_model_dirs=[folder / part for folder in self.context.fold_model_dirs],
            **changes,
        )

    def _second(self, t: int, target: str) -> StageModel:
        others = [name for source, name in self.names.items() if source != target]
        task = replace(self.context.task, targets=[target])
        return self.build(self._told(f"{t}", task=task, numeric=[*self.context.numeric, *others]))

    def _joined(self, rows: Dataset, predicted: Array) -> Dataset:
        """Rows with the sources among predictions (n_rows, n_targets) as inputs."""
        targets = self.context.task.targets
        of_sources = {name: predicted[:, targets.index(source)] for source, name in self.names.items()}
        return replace(rows, inputs=rows.inputs.assign(**of_sources))
