"""The cylinders of the study; `python -m studies.cylinder.cylinders` writes its tables, the same bytes each
time.

Radius and height are drawn evenly from the ranges of the posted claim (`SOURCE.md`); the volume follows
exactly.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from core.files import write_table

FOLDER = Path(__file__).parent
RADIUS, HEIGHT = (0.3, 0.5), (5.0, 35.0)
EDGES = [4.1, 5.9, 7.6, 9.4, 11.3, 13.8, 17.3]
"""Volumes between neighbouring bins, as in the study: about an eighth of the cylinders lies in each."""
N_TRAIN, N_TEST = 2000, 200


def draw(n: int, seed: int) -> pd.DataFrame:
    """Return random cylinders with the columns radius, height and volume."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"radius": random.uniform(*RADIUS, n).round(4), "height": random.uniform(*HEIGHT, n).round(3)}
    )
    return table.assign(volume=np.pi * table.radius**2 * table.height)


def main() -> None:
    """Write the three tables of the competition."""
    cylinders = draw(N_TRAIN + N_TEST, seed=0).round({"volume": 5})
    cylinders.insert(0, "id", [f"c{i}" for i in range(len(cylinders))])
    test = cylinders[N_TRAIN:]
    write_table(FOLDER / "data" / "train.csv", cylinders[:N_TRAIN])
    write_table(FOLDER / "data" / "test.csv", test[["id", "radius", "height"]])
    write_table(FOLDER / "data" / "sample_submission.csv", test[["id"]].assign(volume=0.0))


if __name__ == "__main__":
    main()
