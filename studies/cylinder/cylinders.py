"""The cylinders of the study; `python -m studies.cylinder.cylinders` writes its tables, the same bytes each time.

Radius and height are drawn evenly from the ranges of the posted claim (`SOURCE.md`); the volume follows exactly. The
bins hold the same cylinders, their volume as one of `N_BINS` classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.files import write_table

FOLDER = Path(__file__).parent
RADIUS, HEIGHT = (0.3, 0.5), (5.0, 35.0)
EDGES = [4.1, 5.9, 7.6, 9.4, 11.3, 13.8, 17.3]
"""Volumes between neighbouring bins: about an eighth of the cylinders lies in each."""
N_BINS = len(EDGES) + 1
N_TRAIN, N_TEST = 2000, 200


def draw(n: int, seed: int) -> pd.DataFrame:
    """`n` cylinders: radius, height, volume."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"radius": random.uniform(*RADIUS, n).round(4), "height": random.uniform(*HEIGHT, n).round(3)})
    return table.assign(volume=np.pi * table.radius**2 * table.height)


def one_hot(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bin of each volume, (n, N_BINS): 1 in its column, else 0."""
    return np.eye(N_BINS)[np.digitize(volume, EDGES)]


def accuracy(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> float:
    """Share of rows whose largest prediction is in the column of their bin; (n_rows, N_BINS) each."""
    return float((y_true.argmax(axis=1) == y_pred.argmax(axis=1)).mean())


def main() -> None:
    """Write the training and sample tables of both competitions, and the test table that they share."""
    cylinders = draw(N_TRAIN + N_TEST, seed=0)
    cylinders.insert(0, "id", [f"c{i}" for i in range(len(cylinders))])
    bins = pd.DataFrame(one_hot(cylinders.volume.to_numpy()).astype(int)).add_prefix("bin_")
    inputs = ["id", "radius", "height"]
    for name, labels in (("volume", cylinders[["volume"]].round(5)), ("bins", bins)):
        table = pd.concat([cylinders[inputs], labels], axis=1)
        train, test = table[:N_TRAIN], table[N_TRAIN:]
        write_table(FOLDER / "data" / f"{name}_train.csv", train)
        write_table(FOLDER / "data" / f"{name}_sample.csv", test[["id"]].join(labels.iloc[N_TRAIN:] * 0))
    write_table(FOLDER / "data" / "test.csv", cylinders.loc[N_TRAIN:, inputs])


if __name__ == "__main__":
    main()
