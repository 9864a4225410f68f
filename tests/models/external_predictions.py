"""Writes files of external predictions for tests."""

import numpy as np

from core.files import write_table


def write_external_predictions(
    folder,
    train,
    test,
    targets,
    folds=None,
    seed=0,
):
    """Write oof.csv (labels, 0 if missing, plus noise) and test.csv (noise) into `folder`, with shuffled
    rows.
    """
    rng = np.random.default_rng(seed)
    oof = train[["id"]].copy()
    for name in targets:
        oof[name] = train[name].fillna(0) + rng.normal(size=len(train))
    if folds is not None:
        oof["fold"] = folds
    write_table(folder / "oof.csv", oof.sample(frac=1, random_state=1))
    test_predictions = test[["id"]].assign(**{name: rng.normal(size=len(test)) for name in targets})
    write_table(folder / "test.csv", test_predictions.sample(frac=1, random_state=2))
    return folder
