"""Yields of reactions with additives that no training row has: the four published splits of Buchwald-Hartwig.

    python -m benchmarks.unseen_additives --data FOLDER_OF_BUCHWALD_HARTWIG --work FOLDER [--budget 10m]

Runs `new --preset cpu --group Additive` and `full` for each split (what is finished in --work is kept).
Prints R2 of the submission and of each stage on the answers, by split and their means. Published: .84, .84,
.75, .49, mean .73 (Schwaller et al., Prediction of chemical reaction yields using deep learning, 2021).
"""

import argparse
import os
from pathlib import Path

import pandas as pd
from sklearn.metrics import r2_score

from benchmarks.budget import run_pipeline
from core.files import read_table
from submissions.report.scores import read_answers
from submissions.run import SUBMISSION_FILE, latest_run


def make(split: str, data: Path, work: Path, budget: str | None) -> Path:
    """The YAML of a split, its submission made."""
    rows = pd.concat([pd.read_csv(data / "train.csv"), pd.read_csv(data / "test.csv")], ignore_index=True)
    yields = rows.set_index("id")["Yield"].fillna(pd.read_csv(data / "answers.csv").set_index("id")["Yield"])
    rows["Yield"] = yields.loc[rows["id"]].to_numpy()
    parts = pd.read_csv(data / "ood_splits.csv").query("split == @split").set_index("part")["id"]
    train, test = (rows[rows["id"].isin(parts[part])] for part in ("train", "test"))
    tables = {
        "train": train, "test": test.drop(columns="Yield"), "answers": test[["id", "Yield"]],
        "sample_submission": test[["id"]].assign(Yield=0.0),
    }  # fmt: skip
    for name, table in tables.items():
        (work / split).mkdir(parents=True, exist_ok=True)
        table.to_csv(work / split / f"{name}.csv", index=False)
    yaml_file = work / f"{split}.yaml"
    run_pipeline(
        work / split, yaml_file, [f"--budget={budget}"] if budget else [], ("--group=Additive", "--metric=r2")
    )
    return yaml_file


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--budget", help="of each full")
    args = options.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["WORK_DIR"] = str(args.work / "work")
    results = {}
    for split in ("Test1", "Test2", "Test3", "Test4"):
        run = latest_run(str(make(split, args.data, args.work, args.budget)))
        ids, stage_preds = list(run.columns.test_ids), run.columns
        y = read_answers(run.config.competition, args.work / split / "answers.csv").loc[ids]
        submission = read_table(run.folder / SUBMISSION_FILE, ["id"]).set_index("id").loc[ids]
        predicted = {
            "submission": submission["Yield"],
            **{name: stage_preds.test[:, j] for j, name in enumerate(stage_preds.names)},
        }
        results[split] = {name: r2_score(y, y_pred) for name, y_pred in predicted.items()}
        print(split, results[split], flush=True)
    print(pd.DataFrame(results).assign(mean=lambda table: table.mean(axis=1)).round(3).to_string())


if __name__ == "__main__":
    main()
