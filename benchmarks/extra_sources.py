"""What does a second source of labels gain, in other units, with noise and wrong labels, by how it is read?

    python -m benchmarks.extra_sources --data FOLDER_WITH_COMPETITIONS [--draws 3]

Of each set 300 rows are the training table. The source has 60 of them and at most 700 others, which are in no other
table. Its labels are -20 y + 55, with noise of .3 standard deviations of y; a tenth of them are labels of other rows.
The stages `lightgbm` and `gp` are fitted on all training rows (`final_fit: refit`) and predict the official test rows;
the error is the root mean square error of their mean prediction.

Readings of the source:
    without: not used;
    known line: converted by the line that made it, with weight 1;
    affine, isotonic: `calibrate`;
    affine, cleaned: `calibrate: affine`, without rows whose label is far from the prediction of the stages without
    the source (docs/stages.md, "Wrong labels in a second source").
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import theilslopes

from competition.config import load_competition
from competition.dataset import REFIT_FOLD
from core.files import write_table
from folds.make import run as make_folds
from models import targets
from models.jobs.compute import rows_of_job
from models.jobs.plan import make_plan
from submissions.config import load_config

TARGETS = {
    "esol": "logS",
    "chembl204_ki": "pKi",
    "chembl287_ki": "pKi",
    "biogen_adme": "log_HLM_CLint",
    "qm9_electronic": "lumo_eV",
}
"""Set -> column of the labels."""
N_TRAIN, N_SHARED, N_SOURCE = 300, 60, 700
NOISE = 0.3
WRONG_SHARE = 0.1
SLOPE, INTERCEPT = -20.0, 55.0
READINGS: dict[str, dict[str, Any] | None] = {
    "without": None,
    "known line": {"check_units": False},
    "affine": {"calibrate": "affine"},
    "affine, cleaned": {"calibrate": "affine"},
    "isotonic": {"calibrate": "isotonic"},
}
STAGES = {
    "lightgbm": {"kind": "lightgbm", "final_fit": "refit"},
    "gp": {"kind": "gp", "final_fit": "refit"},
}


def source_of(
    table: pd.DataFrame, target: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training rows and the source of one draw."""
    order = rng.permutation(len(table))
    source = table.iloc[np.concatenate([order[:N_SHARED], order[N_TRAIN:][:N_SOURCE]])].copy()
    y = source[target].to_numpy() + rng.normal(0, NOISE * table[target].std(), len(source))
    is_wrong = rng.random(len(source)) < WRONG_SHARE
    y[is_wrong] = rng.choice(table[target].to_numpy(), is_wrong.sum())
    return table.iloc[order[:N_TRAIN]], source.assign(value=INTERCEPT + SLOPE * y)


def cleaned(source: pd.DataFrame, y_pred: np.ndarray) -> pd.DataFrame:
    """Return the rows of a source whose labels are within 3 robust standard deviations of a line of predictions."""
    slope, intercept = theilslopes(source["value"], y_pred)[:2]
    residual = source["value"] - (intercept + slope * y_pred)
    return source[residual.abs() <= 3 * 1.4826 * residual.abs().median()]


def predictions(folder: Path, target: str, settings: dict[str, Any] | None, test: pd.DataFrame) -> np.ndarray:
    """Return the mean prediction of the stages for test rows, (n_test,)."""
    write_table(folder / "test.csv", test[["id", "SMILES"]])
    write_table(folder / "sample.csv", test[["id"]].assign(**{target: 0.0}))
    extra = [] if settings is None else [{"file": "source.csv", "columns": {target: "value"}, **settings}]
    competition = {
        "train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv", "id": "id",
        "targets": [target], "smiles": ["SMILES"], "metric": "rmse", "extra_train": extra,
    }  # fmt: skip
    document = {"competition": competition, "folds": {"n_folds": 2}, "stages": STAGES}
    path = folder / "set.yaml"
    path.write_text(yaml.safe_dump(document))
    config = load_competition(str(path))
    make_folds(config, load_config(str(path)).folds)
    plan = make_plan(config, load_config(str(path)).stages)
    columns = []
    for job in plan.jobs:
        if job.fold != REFIT_FOLD:
            continue
        rows = rows_of_job(job, plan)
        context = replace(rows.context, fold_model_dirs=[])  # no fold was fitted that it could follow
        stage = plan.stages[job.stage]
        with tempfile.TemporaryDirectory() as fitted:
            targets.fit(stage, rows.train, Path(fitted), context)
            columns.append(targets.predict(stage, rows.test, Path(fitted), context)[:, 0])
    return np.mean(columns, axis=0)


def errors_of_draw(name: str, draw: int, data: Path) -> dict[str, float]:
    """Return the error on the test rows for each reading."""
    target = TARGETS[name]
    table = pd.read_csv(data / name / "train.csv").dropna(subset=[target])
    test = pd.read_csv(data / name / "test.csv")
    answers = pd.read_csv(data / name / "answers.csv").dropna(subset=[target])
    test = test[test["id"].isin(answers["id"])]
    y_test = answers.set_index("id")[target].loc[test["id"]].to_numpy()
    train, source = source_of(table, target, np.random.default_rng(draw))
    known = source.assign(value=(source["value"] - INTERCEPT) / SLOPE)
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "train.csv", train[["id", "SMILES", target]])
        for reading, settings in READINGS.items():
            rows = known if reading == "known line" else source
            if reading == "affine, cleaned":
                rows = cleaned(source, predictions(Path(folder), target, None, source))
            write_table(Path(folder) / "source.csv", rows[["SMILES", "value"]])
            y_pred = predictions(Path(folder), target, settings, test)
            errors[reading] = float(np.sqrt(np.mean((y_test - y_pred) ** 2)))
    return errors


def main() -> None:
    """Print the errors of each set, and the change by the source in per cent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ["WORK_DIR"] = work
        lines = []
        for draw in range(args.draws):
            for name in TARGETS:
                lines.append({"set": name, "draw": draw, **errors_of_draw(name, draw, args.data)})
                print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    print(
        table.groupby("set", sort=False).mean().drop(columns="draw").to_string(float_format="{:.4f}".format)
    )
    changes = table[[*READINGS]].div(table["without"], axis=0)
    summary = pd.DataFrame({"ratio": np.exp(np.log(changes).mean()), "worst": changes.max()})
    print(summary.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
