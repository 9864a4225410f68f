"""Tables of docs/studies/cylinder.md beside its own: `python -m benchmarks.cylinder_tables`.

Prints, from `studies/results/cylinder.csv` with the intervals of the study: variance ratios and biases; RMSE
and accuracy in three modes, and evaluation minus MC; what dropout costs where volumes are regressed and where
bins are classified. Then the variance of a dropped unit, and the mean of a ReLU on a sum of 100, in training
and inference, by formula (the mean of a rectified normal variable is mu Phi(mu/s) + s phi(mu/s)) and
simulated.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from core.files import PROJECT
from studies.cylinder.stages import unit_ratio
from studies.run import BASELINE, corrected_interval

INPUTS = [(0.0, 1.0), (0.4, 0.34)]
"""Mean and variance of a unit: normal, and about what a ReLU makes of that."""
CELL = ["data", "stage", "variant"]


def interval(differences: pd.Series) -> str:
    """Mean and 95 % interval of paired differences; the study measures two of five folds."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*corrected_interval(differences.to_numpy(), 1 / 4))


def of_modes(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure in the three modes, and evaluation minus MC within a job, a row for each cell."""
    modes = [f"{measure}_{mode}" for mode in ("evaluation", "training", "mc")]
    by_cell = results.dropna(subset=modes).groupby(CELL, sort=False)
    lost = by_cell.apply(lambda jobs: interval(jobs[modes[0]] - jobs[modes[2]]))
    return by_cell[modes].mean().assign(evaluation_minus_mc=lost)


def of_tasks(results: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the bins, of predicted volumes too, minus that without dropout of the same job, in percent."""
    accuracy = 100 * results.set_index([*CELL, "seed", "fold"])["accuracy_evaluation"].sort_index()
    rows = []
    variants = results.loc[results["variant"] != BASELINE, CELL[1:]].drop_duplicates()
    for stage, variant in variants.to_numpy().tolist():
        cost = {
            data: accuracy[data, stage, variant] - accuracy[data, stage, BASELINE]
            for data in ("volume", "bins")
        }
        cost["difference"] = cost["volume"] - cost["bins"]
        rows.append([stage, variant, *map(interval, cost.values())])
    return pd.DataFrame(rows, columns=[*CELL[1:], "volume", "bins", "difference"])


def sums(unit_mean: float, unit_variance: float, rate: float) -> dict[str, float]:
    """Return, in training against inference, the variance of a unit and the mean of a ReLU on 100 such units."""
    weights = np.random.default_rng(0).normal(size=100)
    ratio = unit_ratio(rate, np.array(unit_mean), np.array(unit_variance))
    random = np.random.default_rng(1)
    x = unit_mean + np.sqrt(unit_variance) * random.standard_normal((200_000, 100))
    dropped = x * (random.random(x.shape) >= rate) / (1 - rate)
    mu, still = weights.sum() * unit_mean, np.sqrt(weights @ weights * unit_variance)

    def relu_mean(s: float) -> float:
        return float(mu * norm.cdf(mu / s) + s * norm.pdf(mu / s))

    simulated = [np.maximum(units @ weights, 0).mean() for units in (x, dropped)]
    return {
        "mean": unit_mean,
        "variance": unit_variance,
        "rate": rate,
        "of a unit, formula": float(ratio),
        "simulated": dropped[:, 0].var() / x[:, 0].var(),
        "% of the ReLU lost, formula": 100 * (1 - relu_mean(still) / relu_mean(still * np.sqrt(ratio))),
        "simulated ": 100 * (1 - simulated[0] / simulated[1]),
    }


def main() -> None:
    """Parse the command line and print the tables."""
    results = pd.read_csv(PROJECT / "studies/results/cylinder.csv")
    dropped = results[results["variant"] != BASELINE]
    ratios = dropped.groupby(CELL, sort=False).mean(numeric_only=True).filter(regex="ratio|bias")
    formula = pd.DataFrame([sums(*inputs, rate) for inputs in INPUTS for rate in (0.1, 0.3, 0.5)])
    for table in (
        ratios,
        of_modes(dropped, "score"),
        of_modes(dropped, "accuracy"),
        of_tasks(results),
        formula,
    ):
        print(table.to_string(float_format="{:.3f}".format), end="\n\n")


if __name__ == "__main__":
    main()
