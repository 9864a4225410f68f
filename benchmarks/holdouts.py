"""Do blends gain, and does the expected score hold, on rows that nothing was fitted on?

    python -m benchmarks.holdouts --work FOLDER [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--draws 2]
        [--candidates /path/mine.py:fit ...]

At most 2,000 training rows of each set are divided into halves by rows and, if it has a column SMILES, also by Murcko
scaffolds. One half is the training table and the other one the test table; draws 0 and 1 swap them. `./run.sh new`
writes a YAML, of which the cheap stages are kept, and `./run.sh full` makes the submissions of all candidates, with
those of --candidates. A run that is finished is not made again.

The first tables have the errors of the candidates on the test half (RMSE, geometric mean over targets; for classes 1
less the metric), relative to the default: the mean over the runs of a set, and the mean over the sets with a 95 %
interval of a bootstrap over sets. `submission` is what the selection rule chose. A stack that equals the default counts
as the default.

The second table has three estimates of the score of the submission on the test half: `cross-fitted`, with a +- that
counts the training rows, `expected`, with one that counts both tables, and `similar rows`. It shows how often the score
is within one and two +- of the estimate (68 and 95 % if it holds), and the mean and the root mean square of the error
in +- (0 and 1 if it holds; above 0 the score was higher than the estimate).
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rdkit.Chem import MolFromSmiles

from benchmarks.budget import answers_and_predictions, full, log_error, parse, parser_of, write_yaml
from competition.config import load_competition
from core.files import read_json
from folds.groups import scaffolds
from submissions.run import SUBMISSION_FILE

MAX_ROWS = 2000
SPLITS = ("rows", "scaffolds")
MOLECULE = "SMILES"
CHEAP_KINDS = ("gp", "lightgbm", "sklearn")
N_RESAMPLES = 10_000


def read_pool(source: Path) -> pd.DataFrame:
    """Return at most MAX_ROWS training rows with a readable molecule."""
    table = pd.read_csv(source / "train.csv", dtype={"id": str})
    if MOLECULE in table:
        table = table[table[MOLECULE].map(MolFromSmiles).notna()]
    return table.sample(n=min(MAX_ROWS, len(table)), random_state=0).reset_index(drop=True)


def divide(table: pd.DataFrame, split: str, draw: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training and the test half of a draw."""
    groups = np.arange(len(table))
    if split == "scaffolds":
        groups = pd.factorize(scaffolds(list(table[MOLECULE])))[0]
    rank = np.random.default_rng(draw // 2).permutation(groups.max() + 1)[groups]
    is_first = rank <= np.median(rank)
    if draw % 2 == 1:
        is_first = ~is_first
    return table[is_first], table[~is_first]


def write_halves(source: Path, folder: Path, split: str, draw: int) -> None:
    """Write the four tables of a competition whose test table is the other half of the rows."""
    train, holdout = divide(read_pool(source), split, draw)
    sample = pd.read_csv(source / "sample_submission.csv", dtype=str)
    inputs = [name for name in pd.read_csv(source / "test.csv", nrows=0) if name in train]
    targets = [name for name in train if name not in inputs]
    folder.mkdir(parents=True)
    train.to_csv(folder / "train.csv", index=False)
    holdout[inputs].to_csv(folder / "test.csv", index=False)
    holdout[["id", *targets]].to_csv(folder / "answers.csv", index=False)
    rows = holdout[["id"]].assign(**sample.iloc[0, 1:].to_dict())
    rows.to_csv(folder / "sample_submission.csv", index=False)


def keep_cheap_stages(yaml_file: Path, candidates: list[str]) -> None:
    """Remove neural stages and CatBoost from the YAML, and add candidates."""
    document = yaml.safe_load(yaml_file.read_text())
    stages = document["stages"].items()
    document["stages"] = {name: stage for name, stage in stages if stage["kind"] in CHEAP_KINDS}
    document["submissions"] = {"candidates": candidates}
    yaml_file.write_text(yaml.safe_dump(document, sort_keys=False))


def make_run(source: Path, folder: Path, split: str, draw: int, candidates: list[str]) -> Path:
    """Return the folder of the finished run of one draw, and make the run unless it is finished."""
    yaml_file = folder / f"{source.name}.yaml"
    runs = folder / "work" / source.name / "submissions"
    if not folder.exists():
        write_halves(source, folder, split, draw)
    if not (runs / "latest").exists():
        os.environ["WORK_DIR"] = str(folder / "work")
        write_yaml(folder, yaml_file)
        keep_cheap_stages(yaml_file, candidates)
        full(yaml_file, ["--budget", "none"], folder / "full.log")
    return runs / (runs / "latest").read_text().strip()


def measure(yaml_file: Path, run: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the logarithm of the error of each candidate, and a line for each estimate of the score."""
    competition = load_competition(str(yaml_file))
    choice = read_json(run / "run.json", "run")["choice"]
    files = {name: record["file"] for name, record in choice["candidates"].items()}
    log_errors = {
        name: log_error(competition, *answers_and_predictions(competition, run / file))
        for name, file in {**files, "submission": SUBMISSION_FILE}.items()
    }
    log_errors.setdefault("lightgbm_stack", log_errors[choice["default"]])
    score = competition.scorer(*answers_and_predictions(competition, run / SUBMISSION_FILE))
    chosen, expected = choice["candidates"][choice["chosen"]], choice["expected"]
    estimates = {
        "cross-fitted": (chosen["score"], chosen["score_standard_error"]),
        "expected": (expected["score"], expected["standard_error"]),
    }
    if expected["similar_rows"]:
        similar = expected["similar_rows"]
        estimates["similar rows"] = (similar["score"], similar["standard_error"])
    lines = [
        {"metric": competition.metric, "estimate": name, "in_errors": (score - estimate) / error}
        for name, (estimate, error) in estimates.items()
    ]
    relative = {name: value - log_errors[choice["default"]] for name, value in log_errors.items()}
    return relative, lines


def table_of_candidates(changes: pd.DataFrame) -> str:
    """Return the change of the error relative to the default, by candidate, over sets and for each set."""
    lines = []
    rng = np.random.default_rng(0)
    for name in changes.columns.drop("set"):
        of_set = changes.groupby("set")[name].mean().dropna()
        resampled = rng.choice(of_set.to_numpy(), (N_RESAMPLES, len(of_set))).mean(axis=1)
        low, high = np.expm1(np.quantile(resampled, [0.025, 0.975]))
        each = ", ".join(f"{set_name} {np.expm1(change):+.1%}" for set_name, change in of_set.items())
        lines.append(f"  {name:15s} {np.expm1(of_set.mean()):+.1%} [{low:+.1%}, {high:+.1%}]  {each}")
    return "\n".join(lines)


def table_of_estimates(lines: pd.DataFrame) -> str:
    """Return how often and by how much the score differs from each estimate, by metric and split."""
    rows = []
    for key, part in lines.groupby(["metric", "split", "estimate"], sort=False):
        z = part["in_errors"]
        within = [f"{(z.abs() <= limit).mean():.0%}" for limit in (1, 2)]
        root_mean_square = np.sqrt((z**2).mean())
        rows.append([*key, len(z), *within, f"{z.mean():+.2f}", f"{root_mean_square:.2f}"])
    header = ["metric", "holdout by", "estimate", "runs", "within 1", "within 2", "mean", "root mean square"]
    return pd.DataFrame(rows, columns=header).to_string(index=False)


def run_all(args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the changes of all runs, a row each, and the estimates of their scores."""
    changes, estimates = [], []
    for name in args.sets:
        source = args.data / name
        has_molecules = MOLECULE in pd.read_csv(source / "train.csv", nrows=0)
        for split in SPLITS if has_molecules else SPLITS[:1]:
            for draw in range(args.draws):
                folder = args.work / f"{name}_{split}_{draw}"
                run = make_run(source, folder, split, draw, args.candidates)
                relative, lines = measure(folder / f"{name}.yaml", run)
                changes.append({"set": name, "split": split, **relative})
                estimates += [{"split": split, **line} for line in lines]
                print(f"{name}, by {split}, draw {draw}: finished", flush=True)
    return pd.DataFrame(changes), pd.DataFrame(estimates)


def main() -> None:
    """Make the missing runs and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--candidates", nargs="+", default=[])
    changes, estimates = run_all(parse(parser))
    for split, part in changes.groupby("split"):
        print(f"\nerror relative to the default, holdout by {split}")
        print(table_of_candidates(part.drop(columns="split").dropna(axis=1, how="all")))
    print(f"\nestimates of the score\n{table_of_estimates(estimates)}")


if __name__ == "__main__":
    main()
