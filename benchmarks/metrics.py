"""Does training follow the metric? Every metric of numbers on three tables, of two checkouts of this project.

    python -m benchmarks.metrics --work FOLDER --data FOLDER_WITH_COMPETITIONS --checkouts BEFORE AFTER [OPTIONS]
    OPTIONS: [--tables skewed zeros negative] [--metrics ...]

The tables have labels that are skewed and above 0 (clearance in liver cells, not as a logarithm), with zeros (yields),
and on both sides of 0 (the logarithm of an efflux ratio). Of 1,000 rows drawn at random 30 % are the test table. Each
metric is a run of the stages baseline and lightgbm, and jobs that do not depend on it are trained once. Scores are on
the answers, next to that of the constant with the best score on the training labels; +- is the standard error of a
bootstrap over test rows. Warnings are those that say that a constant is not worse.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from competition.metrics import METRICS, REGRESSION, Metric
from competition.task import Task
from core.text import format_number, format_table, format_with_error
from core.types import Array
from submissions.blend.correction import best_constant
from submissions.blend.scoring import Scorer

TABLES = {
    "skewed": ("biogen_adme", ["SMILES"], "log_RLM_CLint"),
    "zeros": ("buchwald_hartwig", ["Ligand", "Additive", "Base", "Aryl halide"], "Yield"),
    "negative": ("biogen_adme", ["SMILES"], "log_MDR1_ER"),
}
"""Table -> competition, columns of molecules, label."""
N_ROWS, N_TEST = 1000, 300
YAML = """
competition: {{train: train.csv, test: test.csv, sample_submission: sample.csv, id: id, targets: [y], smiles: {smiles}}}
stages:
  baseline: {{kind: baseline}}
  lightgbm: {{kind: lightgbm, n_bits: 512, learning_rate: 0.1, max_trees: 300}}
"""


def write_competition(name: str, data: Path, folder: Path) -> tuple[Array, Array]:
    """Write the tables and the YAML of one of `TABLES`; return the labels of training and of test rows."""
    competition, smiles, label = TABLES[name]
    rows = pd.read_csv(data / competition / "train.csv").dropna(subset=[label])
    rows = rows.drop_duplicates(smiles).sample(N_ROWS, random_state=0)
    y = 10 ** rows[label] if name == "skewed" else rows[label]
    table = rows[smiles].assign(id=range(N_ROWS), y=y)
    folder.mkdir(parents=True, exist_ok=True)
    test, train = table[:N_TEST], table[N_TEST:]
    train.to_csv(folder / "train.csv", index=False)
    test.drop(columns="y").to_csv(folder / "test.csv", index=False)
    test[["id"]].assign(y=0.0).to_csv(folder / "sample.csv", index=False)
    (folder / f"{name}.yaml").write_text(YAML.format(smiles=json.dumps(smiles)))
    return train["y"].to_numpy(), test["y"].to_numpy()


def run(checkout: Path, yaml_file: Path, metric: str, work: Path) -> tuple[Array, bool]:
    """Return the submission of a run, (n_test,), and whether it warns that a constant is not worse."""
    command = [sys.executable, "-m", "pipeline", "full", str(yaml_file), "--json", "--workers=1"]
    process = subprocess.run(
        [*command, f"--set=competition.metric={metric}"],
        cwd=checkout, env=os.environ | {"WORK_DIR": str(work)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(process.stdout.splitlines()[-1])
    y_pred = pd.read_csv(result["submission"]).sort_values("id")["y"].to_numpy()
    return y_pred, any("best constant" in warning for warning in result["warnings"])


def gain(metric: Metric, y: Array, before: Array, after: Array) -> str:
    """Return the gain of a submission over an earlier one on test rows, with its standard error; above 0 is better."""
    if np.array_equal(before, after):
        return "same"
    rows = np.arange(len(y))
    scorer = Scorer(metric=metric, task=Task(["y"]), y=y[:, None], folds=0 * rows, groups=rows)
    compared = scorer.compare({"before": before[:, None], "after": after[:, None]}, "before").loc["after"]
    return format_with_error(scorer.gain(compared["difference"]), compared["standard_error"])


def main() -> None:
    """Run all metrics on all tables and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkouts", type=Path, nargs=2, required=True)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES], default=[*TABLES])
    parser.add_argument(
        "--metrics", nargs="+", default=[n for n, m in METRICS.items() if m.types == REGRESSION]
    )
    options = parser.parse_args()
    work = options.work.resolve()
    lines = []
    for name in options.tables:
        y_train, y_test = write_competition(name, options.data, work / name)
        rows = np.arange(len(y_train))
        for metric_name in options.metrics:
            metric = METRICS[metric_name]
            if not y_train.min() > metric.lower_bound:
                continue
            scorer = Scorer(metric=metric, task=Task(["y"]), y=y_train[:, None], folds=rows % 5, groups=rows)
            constant = np.full(len(y_test), best_constant(scorer)[0][0])
            yaml_file = work / name / f"{name}.yaml"
            sides = [
                run(checkout.resolve(), yaml_file, metric_name, work / side)
                for side, checkout in zip(("before", "after"), options.checkouts, strict=True)
            ]
            before, after = (y_pred for y_pred, _ in sides)
            scores = [metric.score_column(y_test, y_pred) for y_pred in (constant, before, after)]
            warned = "yes" if sides[1][1] else ""
            lines.append(
                [name, metric_name, *map(format_number, scores), gain(metric, y_test, before, after), warned]
            )
            print("  ".join(lines[-1]), flush=True)
    print(format_table(["table", "metric", "constant", "before", "after", "gain", "warning"], lines))


if __name__ == "__main__":
    main()
