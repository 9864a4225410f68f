"""What the boosted trees share: one booster per target, its number of trees, the search for its settings.

The number of trees comes from a split inside the training rows; the booster is then fitted again on all of them.
With `search_trials`, Optuna tunes the settings first, on folds inside the training rows. A refit on all rows takes the
mean over the folds of both. Sources: Friedman, Greedy Function Approximation, Annals of Statistics 2001; Akiba et al.,
Optuna, KDD 2019; the refit as in AutoGluon's refit_full (Erickson et al., 2020).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, train_test_split

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.inputs.matrix import Inputs
from models.stage import Context
from models.training.labels import labelled_rows, target_scale

TRAINING = "training.json"
FEW = 20  # rows, below which a bag could be empty and a search would find noise
INNER_SHARE = 0.2  # of the training rows, held back for the number of trees
INNER_FOLDS = 3  # of the search: one split alone would be tuned to

Range = tuple[int, int] | tuple[float, float]
"""Lowest and highest value of a setting in the search, on a logarithmic scale."""


@dataclass(frozen=True)
class Sample:
    """Rows with a label of one target.

    x: n_rows encoded rows; y: (n_rows,) standardised labels; weights: (n_rows,), None where all are 1.
    """

    x: Inputs
    y: NDArray[np.float64]
    weights: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[np.intp]) -> Sample:
        """Rows at positions, in that order."""
        return Sample(self.x.take(rows), self.y[rows], None if self.weights is None else self.weights[rows])


class Library(Protocol):
    """What a boosting library adds to this file."""

    config: Any
    context: Context
    ranges: dict[str, Range]
    """What the search tunes: names in the stage's settings."""
    refusal: type[Exception]
    """What the library raises for parameters that it cannot take."""

    def count_trees(self, config: Any, sample: Sample, held_back: Sample) -> tuple[int, float]:
        """How many trees fitted on `sample` predict `held_back` best, and the error they have there."""

    def grow(self, config: Any, sample: Sample, n_trees: int) -> Any:
        """A booster of that many trees."""

    def save(self, booster: Any, folder: Path, target: int) -> None:
        """Write a booster in the library's own format, equal ones to equal bytes."""


def fit_trees(library: Library, x: Inputs, train: Rows, folder: Path) -> None:
    """Fit and write one booster per target, and training.json.

    Raises:
        DataError: if a target has fewer than two labels.
        ConfigError: if the library refuses the parameters of the stage.
    """
    config, context = library.config, library.context
    assert train.y is not None
    known = labelled_rows(train.y, context.task.targets)
    mean, scale = target_scale(train.y)
    y = (train.y - mean) / scale  # libraries keep labels as float32, which a large mean would leave no digits
    steps = config.search_trials + 1
    n_trees, found = [], []
    for t, rows in enumerate(known):
        sample = Sample(x.take(rows), y[rows, t], None if train.weights is None else train.weights[rows])

        def progress(trials: int, t: int = t) -> None:
            context.progress(t * steps + trials, len(known) * steps)

        try:
            settings, count = choice_of_folds(context.folds, t) if context.folds else choice(library, sample, progress)
            library.save(library.grow(config.model_copy(update=settings), sample, count), folder, t)
        except library.refusal as error:
            if not config.parameters:
                raise
            raise ConfigError(f"{config.kind} refuses the stage's parameters {config.parameters}: {error}") from error
        found.append(settings)
        n_trees.append(count)
        progress(steps)
    report = {
        "n_trees": n_trees,
        "found": found,
        "n_features": x.numbers.shape[1] + x.words.shape[1] + x.codes.shape[1],
    }
    write_json(folder / TRAINING, {**report, "mean": mean.tolist(), "scale": scale.tolist()})


def choice(library: Library, sample: Sample, progress: Callable[[int], None]) -> tuple[dict[str, float], int]:
    """Settings that the search found on training rows, if there is one, and the number of trees for them."""
    config, seed = library.config, seed_of(library.context)
    found = search(library, sample, progress) if config.search_trials and len(sample) >= FEW else {}
    inner, outer = train_test_split(np.arange(len(sample)), test_size=INNER_SHARE, random_state=seed)
    tuned = config.model_copy(update=found)
    return found, library.count_trees(tuned, sample.take(inner), sample.take(outer))[0]


def choice_of_folds(folders: list[Path], target: int) -> tuple[dict[str, float], int]:
    """The same for a refit: means over folds, of settings on the scale of the search, whole numbers rounded.

    The number of trees is not raised for the rows that a fold lacks: it changes little with them, and a fold does not
    raise it either for its booster of all training rows.
    """
    folds = [read_json(folder / TRAINING, "n_trees", "found") for folder in folders]
    found = [fold["found"][target] for fold in folds]
    settings = {name: _log_mean([each[name] for each in found]) for name in found[0]} if all(found) else {}
    return settings, round(statistics.mean(fold["n_trees"][target] for fold in folds))


def _log_mean(values: list[float]) -> float:
    mean = statistics.geometric_mean(values)
    return round(mean) if isinstance(values[0], int) else mean


def in_own_units(y_pred: list[NDArray[np.float64]], folder: Path) -> NDArray[np.float64]:
    """Standardised predictions, (n_rows,) for each target, to (n_rows, n_targets) in the targets' own units."""
    training = read_json(folder / TRAINING, "mean", "scale")
    return np.column_stack(y_pred) * np.array(training["scale"]) + np.array(training["mean"])


def search(library: Library, sample: Sample, progress: Callable[[int], None]) -> dict[str, float]:
    """Settings of the trial with the smallest mean error over inner folds; the first trial is the YAML's own.

    Args:
        library: whose `ranges` are searched and whose `config` has the number of trials.
        sample: training rows, the only ones that the search sees.
        progress: called with the number of trials done.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config, seed = library.config, seed_of(library.context)
    folds = list(KFold(INNER_FOLDS, shuffle=True, random_state=seed).split(sample.y))

    def mean_error(trial: optuna.Trial) -> float:
        trying = config.model_copy(update={name: _suggest(trial, name, *ends) for name, ends in library.ranges.items()})
        return float(
            np.mean([library.count_trees(trying, sample.take(inner), sample.take(outer))[1] for inner, outer in folds])
        )

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({n: min(max(getattr(config, n), low), high) for n, (low, high) in library.ranges.items()})
    study.optimize(mean_error, config.search_trials, callbacks=[lambda study, trial: progress(trial.number + 1)])
    return study.best_params


def _suggest(trial: Any, name: str, low: float, high: float) -> float:
    suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
    return suggest(name, low, high, log=True)


def seed_of(context: Context) -> int:
    """The job's seed, cut to what the libraries take."""
    return context.seed % 2**31
