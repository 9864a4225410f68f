"""Predictions made elsewhere, as files."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.files import write_table


def write_theirs(
    folder: Path, train: pd.DataFrame, test: pd.DataFrame, targets: list[str], folds: object = None, seed: int = 0
) -> Path:
    """oof.csv and test.csv in `folder`, rows in an order of their own: labels (0 where one is missing) and noise."""
    rng = np.random.default_rng(seed)
    oof = train[["id"]].assign(**{name: train[name].fillna(0) + rng.normal(size=len(train)) for name in targets})
    if folds is not None:
        oof["fold"] = folds
    write_table(folder / "oof.csv", oof.sample(frac=1, random_state=1))
    their_test = test[["id"]].assign(**{name: rng.normal(size=len(test)) for name in targets})
    write_table(folder / "test.csv", their_test.sample(frac=1, random_state=2))
    return folder
