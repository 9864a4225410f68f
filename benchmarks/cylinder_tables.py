"""Tables of docs/evidence.md on the study of cylinders beside its own: `python -m benchmarks.cylinder_tables`.

Prints, from `studies/results/cylinder.csv` with the intervals of the study: variance ratios and biases; RMSE and
accuracy in three modes, and evaluation minus MC; what dropout costs where volumes are regressed and where bins are
classified. Then the variance of a sum of 100 dropped units and the mean of a ReLU on it, in training over inference, by
formula (the mean of a rectified normal variable is mu Phi(mu/s) + s phi(mu/s)) and simulated.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm

from competition.paths import PROJECT
from studies.cylinder.stages import Array, unit_ratio
from studies.results import corrected_interval

CELL = ["data", "stage", "where", "rate"]


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
    for stage, where, rate in results.loc[results["where"] != "none", CELL[1:]].drop_duplicates().to_numpy().tolist():
        cost = {
            data: accuracy[data, stage, where, rate] - accuracy[data, stage, "none", 0] for data in ("volume", "bins")
        }
        cost["difference"] = cost["volume"] - cost["bins"]
        rows.append([stage, where, rate, *map(interval, cost.values())])
    return pd.DataFrame(rows, columns=[*CELL[1:], "volume", "bins", "difference"])


def sums(rate: float) -> dict[str, float]:
    """Of a sum of 100 units of random moments: its variance and its ReLU's mean, in training over inference."""
    random = np.random.default_rng(5)
    weights, mean, variance = random.normal(size=100), random.normal(size=100), random.uniform(0.2, 2, 100)
    x = mean + np.sqrt(variance) * random.standard_normal((100_000, 100))
    simulated = [x @ weights, (x * (random.random(x.shape) >= rate) / (1 - rate)) @ weights]
    variances = [weights**2 @ variance, weights**2 @ (variance * unit_ratio(rate, mean, variance))]

    def relu_mean(mu: float, s: Array) -> float:
        return float(mu * norm.cdf(mu / s) + s * norm.pdf(mu / s))

    means = [relu_mean(weights @ mean, np.sqrt(value)) for value in variances]
    return {
        "rate": rate,
        "variance, formula": variances[1] / variances[0],
        "simulated": simulated[1].var() / simulated[0].var(),
        "mean of the ReLU, formula": means[1] / means[0],
        "simulated ": np.maximum(simulated[1], 0).mean() / np.maximum(simulated[0], 0).mean(),
    }


def main() -> None:
    """Print the tables."""
    results = pd.read_csv(PROJECT / "studies/results/cylinder.csv", keep_default_na=False, na_values=[""])
    dropped = results[results["where"] != "none"]
    ratios = dropped.groupby(CELL, sort=False).mean(numeric_only=True).filter(regex="ratio|bias")
    formula = pd.DataFrame([sums(rate) for rate in (0.1, 0.3, 0.5)])
    for table in (ratios, of_modes(dropped, "score"), of_modes(dropped, "accuracy"), of_tasks(results), formula):
        print(table.to_string(float_format="{:.3f}".format), end="\n\n")


if __name__ == "__main__":
    main()
