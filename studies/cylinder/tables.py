"""Tables of the study beside its own: `python -m studies.cylinder.tables`.

They need `studies/results/cylinder.csv`, which `./run.sh study cylinder` makes. Intervals: as those of the study.
"""

from __future__ import annotations

import pandas as pd

from competition import command
from competition.errors import DataError
from competition.paths import PROJECT
from studies.cylinder.variance_shift import of_one_layer
from submissions.study.intervals import corrected_interval

RESULTS = PROJECT / "studies" / "results" / "cylinder.csv"
N_FOLDS = 5
"""Of both competitions, of which the study measures two."""
DATA = ("volume", "bins")
CELL = ["data", "stage", "where", "rate"]
MEASURED = [
    "variance_ratio_formula", "variance_ratio_inputs", "variance_ratio_units", "mean_ratio_units",
    "bias_evaluation", "bias_mc", "bias_large_evaluation", "bias_large_mc",
]  # fmt: skip


def in_networks(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds and folds of the measures of `studies/cylinder/stages.py`, a row for each cell with dropout.

    Args:
        results: the study's CSV, a row for each cell, seed and fold.
    """
    dropped = results[results["where"] != "none"]
    return dropped.groupby(CELL, sort=False)[MEASURED].mean().reset_index()


def of_modes(results: pd.DataFrame) -> pd.DataFrame:
    """What a job loses in evaluation mode against the MC mean of the same weights, a row for each cell with dropout.

    By RMSE for volumes (above 0: evaluation mode is worse) and by accuracy for both (below 0: it is worse), with the
    95 % interval of the mean over seeds and folds.

    Args:
        results: as for `in_networks`.
    """
    rows = []
    dropped = results[results["where"] != "none"]
    for cell, jobs in dropped.groupby(CELL, sort=False):
        for measure in ("score", "accuracy"):
            modes = {mode: jobs[f"{measure}_{mode}"] for mode in ("evaluation", "training", "mc")}
            if modes["mc"].isna().any():  # bins have no RMSE
                continue
            loss = corrected_interval((modes["evaluation"] - modes["mc"]).to_numpy(), 1 / (N_FOLDS - 1))
            means = {mode: float(values.mean()) for mode, values in modes.items()}
            named = dict(zip(CELL, cell, strict=True))
            interval = f"{loss.low:+.3f} to {loss.high:+.3f}"
            rows.append({**named, "measure": measure, **means, "difference": loss.mean, "interval": interval})
    return pd.DataFrame(rows)


def of_tasks(results: pd.DataFrame) -> pd.DataFrame:
    """What dropout costs in evaluation mode where volumes are regressed and where bins are classified, on one scale.

    Accuracy of the bins, those of predicted volumes included, minus that of the same seed and fold without dropout, in
    percent of the rows; `difference` is regression minus classification, of the same seed and fold.

    Args:
        results: as for `in_networks`.
    """
    accuracy = 100 * results.set_index([*CELL, "seed", "fold"])["accuracy_evaluation"].sort_index()
    cells = results.loc[results["where"] != "none", CELL[1:]].drop_duplicates()
    rows = []
    for stage, where, rate in cells.itertuples(index=False):
        cost = {data: accuracy[data, stage, where, rate] - accuracy[data, stage, "none", 0] for data in DATA}
        cost["difference"] = cost["volume"] - cost["bins"]
        rows.append({"stage": stage, "where": where, "rate": rate} | {name: _said(of) for name, of in cost.items()})
    return pd.DataFrame(rows)


def _said(differences: pd.Series) -> str:
    found = corrected_interval(differences.to_numpy(), 1 / (N_FOLDS - 1))
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def main() -> None:
    """Print the tables."""
    print(table(of_one_layer()))
    if not RESULTS.is_file():
        raise DataError(f"{RESULTS} must exist for the tables of the networks; run ./run.sh study cylinder.")
    results = pd.read_csv(RESULTS, keep_default_na=False, na_values=[""])
    for rows in (in_networks(results), of_modes(results), of_tasks(results)):
        print(table(rows))


def table(rows: pd.DataFrame) -> str:
    """Markdown."""
    texts = rows.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    lines = [list(texts.columns), ["---"] * len(texts.columns), *texts.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    command.run(main)
