"""Tables of docs/evidence.md on dropout with numbers and with classes: `python -m benchmarks.dropout_tables [RESULTS]`.

Prints, from `studies/results/dropout_regression_or_classes.csv` or another table of that study, each measure without
dropout and its gain with it, on the same seeds and folds, above 0 is better, with the interval of the study. Spearman's
correlation is of the number with the prediction or with the expected class, and so on one scale: its gain with classes
minus that with numbers comes last.
"""

from __future__ import annotations

import sys

import pandas as pd

from competition.metrics import METRICS
from competition.paths import PROJECT
from studies.results import corrected_interval

N_FOLDS = 3


def gains(jobs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Of each seed and fold, a column for each cell; the baseline's is the measure itself."""
    of_cell = jobs.pivot(index=["seed", "fold"], columns="cell", values=measure)
    sign = 1 if METRICS[jobs["metric"].iloc[0] if measure == "score" else measure].greater_is_better else -1
    return of_cell.sub(of_cell["0"], axis=0).mul(sign).assign(**{"0": of_cell["0"]})[jobs["cell"].unique()]


def shown(column: pd.Series) -> str:
    """The mean, of gains with its 95 % interval."""
    mean, low, high = corrected_interval(column.dropna().to_numpy(), 1 / (N_FOLDS - 1))
    return f"{mean:.3f}" if column.name == "0" else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    """Print the tables."""
    file = sys.argv[1] if len(sys.argv) > 1 else PROJECT / "studies/results/dropout_regression_or_classes.csv"
    results = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype={"rate": str})
    results["cell"] = (results["rate"] + " " + results["other"].replace("none", None).fillna("")).str.strip()
    for (stage, data), numbers in results[~results["data"].str.endswith("_classes")].groupby(["stage", "data"]):
        classes = results[(results["data"] == f"{data}_classes") & (results["stage"] == stage)]
        found = {f"{name} of numbers": gains(numbers, name) for name in ("score", "spearman")}
        of_classes = ("log_loss", "score", "accuracy", "spearman")
        found |= {f"{name} of classes": gains(classes, name) for name in of_classes if len(classes)}
        if len(classes):
            found["classes - numbers"] = found["spearman of classes"] - found["spearman of numbers"]
        print(f"{stage}, {data}\n{pd.DataFrame({name: part.apply(shown) for name, part in found.items()})}\n")


if __name__ == "__main__":
    pd.set_option("display.width", 400, "display.max_columns", None)
    main()
