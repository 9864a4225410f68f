"""Tables of docs/studies/unimol_dropout.md: `python -m benchmarks.unimol_dropout_tables`.

Prints, from `studies/results/unimol_dropout.csv`, the R2 of each set without dropout and what dropout adds to
it, with the means over sets; then what `unimol_small_oled` adds to `unimol_small`, both without dropout.
"""

from typing import Any

import pandas as pd
from scipy import stats

from core.files import PROJECT
from studies.run import BASELINE, corrected_interval

VARIANTS = ("pooler_0.2", "encoder_0.1")
"""Rates before the last layer and inside the encoder."""
TEST_OVER_TRAIN = 1 / 4
"""Rows of a fold over those of the other four."""
FORM = "{:+.3f} ({:+.3f} to {:+.3f})"


def of_sets(added: pd.DataFrame) -> pd.Series:
    """Means and intervals of paired differences, a column for each set; the last is the mean of the means of
    sets.

    Its interval is the t-interval over sets, which are independent of each other.
    """
    intervals = {
        data: FORM.format(*corrected_interval(added[data].to_numpy(), TEST_OVER_TRAIN)) for data in added
    }
    means = added.mean().to_numpy()
    low, high = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
    return pd.Series(intervals | {f"mean of {len(means)}": FORM.format(means.mean(), low, high)})


def main() -> None:
    """Parse the command line and print the tables."""
    results = pd.read_csv(PROJECT / "studies/results/unimol_dropout.csv")
    tables: dict[Any, pd.DataFrame] = {
        cell: jobs.pivot(index=["seed", "fold"], columns="data", values="score")[jobs["data"].unique()]
        for cell, jobs in results.groupby(["stage", "variant"])
    }
    for stage in results["stage"].unique():
        none = tables[stage, BASELINE]
        without = none.mean().map("{:.3f}".format) + none.sem().map(" +- {:.3f}".format)
        without[f"mean of {none.shape[1]}"] = f"{none.mean().mean():.3f}"
        gains = {variant: of_sets(tables[stage, variant] - none) for variant in VARIANTS}
        print(f"{stage}\n{pd.DataFrame({'no dropout': without} | gains).to_string()}\n")
    oled = tables["oled", BASELINE]
    print(f"oled over molecules\n{of_sets(oled - tables['molecules', BASELINE][oled.columns]).to_string()}")


if __name__ == "__main__":
    main()
