"""Tables of the study beside its own: `python -m studies.cylinder.tables`.

They need `studies/results/cylinder.csv`, which `./run.sh study cylinder` makes. Intervals: as those of the study.
"""

from __future__ import annotations

import pandas as pd

from competition.paths import PROJECT
from studies.results import corrected_interval

RESULTS = PROJECT / "studies" / "results" / "cylinder.csv"
TEST_OVER_TRAIN = 1 / 4
"""Of the five folds of both competitions, of which the study measures two."""
CELL = ["data", "stage", "where", "rate"]


def in_networks(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds and folds of the variance ratios and biases, a row for each cell with dropout.

    Args:
        results: the study's CSV, a row for each cell, seed and fold.
    """
    dropped = results[results["where"] != "none"]
    return dropped.groupby(CELL, sort=False).mean(numeric_only=True).filter(regex="ratio|bias")


def of_modes(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure (score: RMSE of volumes; accuracy) in the three modes, and evaluation minus MC, a row for each cell."""
    modes = [f"{measure}_{mode}" for mode in ("evaluation", "training", "mc")]
    by_cell = results[results["where"] != "none"].dropna(subset=modes).groupby(CELL, sort=False)
    lost = by_cell.apply(lambda jobs: interval(jobs[modes[0]] - jobs[modes[2]]))
    return by_cell[modes].mean().assign(evaluation_minus_mc=lost)


def of_tasks(results: pd.DataFrame) -> pd.DataFrame:
    """What dropout costs in evaluation mode where volumes are regressed and where bins are classified, on one scale.

    Accuracy of the bins, those of predicted volumes included, minus that of the same seed and fold without dropout, in
    percent of the rows; `difference` is regression minus classification, of the same seed and fold.
    """
    accuracy = 100 * results.set_index([*CELL, "seed", "fold"])["accuracy_evaluation"].sort_index()
    rows = []
    for place in results.loc[results["where"] != "none", CELL[1:]].drop_duplicates().to_numpy().tolist():
        cost = {data: accuracy[data, *place] - accuracy[data, place[0], "none", 0] for data in ("volume", "bins")}
        cost["difference"] = cost["volume"] - cost["bins"]
        rows.append(
            {**dict(zip(CELL[1:], place, strict=True)), **{name: interval(values) for name, values in cost.items()}}
        )
    return pd.DataFrame(rows)


def interval(differences: pd.Series) -> str:
    """Mean and 95 % interval of paired differences."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*corrected_interval(differences.to_numpy(), TEST_OVER_TRAIN))


def main() -> None:
    """Print the tables."""
    results = pd.read_csv(RESULTS, keep_default_na=False, na_values=[""])
    for table in (in_networks(results), of_modes(results, "score"), of_modes(results, "accuracy"), of_tasks(results)):
        print(table.to_string(float_format="{:.3f}".format), end="\n\n")


if __name__ == "__main__":
    main()
