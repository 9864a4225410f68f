"""Do blends gain, and does the expected score hold, on rows that nothing was fitted on?

    python -m benchmarks.holdouts --work FOLDER [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--draws 2]
        [--splits ...] [--candidates /path/mine.py:fit ...]

At most 2,000 training rows of each set are divided, in --splits: into halves at random (`rows`) and by Murcko scaffolds
(`scaffolds`), of which draws 0 and 1 swap the two; into the fifth with the largest molecules or longest texts and the
rest (`size`); into some of 20 clusters by k-means, about a fifth of the rows, and the rest (`clusters`); into some
values of the molecule column with most of them (`columns`). `own` are the set's own tables. `./run.sh new` writes a
YAML, of which the cheap stages are kept, and `./run.sh full` makes the submissions of all candidates, with those of
--candidates. A run that is finished is not made again.

The first tables have the errors of the candidates on the test rows (RMSE, geometric mean over targets; for classes 1
less the metric), relative to the default: the mean over the runs of a set, and the mean over the sets with a 95 %
interval of a bootstrap over sets. `submission` is what the selection rule chose. A stack that equals the default counts
as the default.

The second table has two intervals for the score of the submission on the test rows, 1.28 standard errors to each side
(80 % if it holds): of the `cross-fitted` score, with an error that counts both tables, and the `expected` one, which
reaches to the score of held-out rows like test rows if these differ. It shows how often they hold the score, and the
mean interval score over sets: the width and ten times the miss, over the error of a constant. Source: Gneiting and
Raftery, Strictly Proper Scoring Rules, JASA 2007.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rdkit.Chem import MolFromSmiles
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.budget import answers_and_predictions, full, log_error, parse, parser_of, write_yaml
from competition.config import CompetitionConfig, load_competition
from core.files import read_json
from core.types import Array, Integers
from folds.groups import fingerprint, scaffolds
from submissions.run import SUBMISSION_FILE

MAX_ROWS = 2000
SPLITS = ("rows", "scaffolds", "size", "clusters", "columns", "own")
DRAWN = ("rows", "scaffolds")
"""Splits with several draws."""
SIGMAS = 1.28
N_CLUSTERS = 20
MOLECULE = "SMILES"
CHEAP_KINDS = ("gp", "lightgbm", "sklearn")
N_RESAMPLES = 10_000


def read_pool(source: Path) -> pd.DataFrame:
    """Return at most MAX_ROWS training rows with a readable molecule."""
    table = pd.read_csv(source / "train.csv", dtype={"id": str})
    if MOLECULE in table:
        table = table[table[MOLECULE].map(MolFromSmiles).notna()]
    return table.sample(n=min(MAX_ROWS, len(table)), random_state=0).reset_index(drop=True)


def divide(
    table: pd.DataFrame, inputs: list[str], split: str, draw: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training and the test rows of a draw."""
    text = table[inputs[0]]
    if split == "size":
        size = text.map(lambda t: MolFromSmiles(t).GetNumAtoms()) if inputs[0] == MOLECULE else text.str.len()
        is_first = (size <= size.quantile(0.8)).to_numpy()
    elif split in ("clusters", "columns"):
        groups = (
            clusters(text) if split == "clusters" else pd.factorize(table[most_different(table, inputs)])[0]
        )
        is_first = ~np.isin(groups, held_out_groups(groups))
    else:
        groups = np.arange(len(table))
        if split == "scaffolds":
            groups = pd.factorize(scaffolds(list(text)))[0]
        rank = np.random.default_rng(draw // 2).permutation(groups.max() + 1)[groups]
        is_first = rank <= np.median(rank)
        if draw % 2 == 1:
            is_first = ~is_first
    return table[is_first], table[~is_first]


def most_different(table: pd.DataFrame, inputs: list[str]) -> str:
    """Return the input column with the most distinct values."""
    return max(inputs, key=lambda name: table[name].nunique())


def clusters(texts: pd.Series) -> Integers:
    """Return the cluster of each molecule or text, (n_rows,), by k-means of its 30 largest components."""
    if texts.name == MOLECULE:
        features = np.array([list(fingerprint(text)) for text in texts], dtype=np.float32)
    else:
        features = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    components = TruncatedSVD(30, random_state=0).fit_transform(features)
    return KMeans(N_CLUSTERS, n_init=3, random_state=0).fit_predict(components)


def held_out_groups(groups: Integers) -> list[int]:
    """Return some groups with about a fifth of the rows."""
    sizes = np.bincount(groups)
    chosen: list[int] = []
    for group in np.random.default_rng(0).permutation(len(sizes)):
        if sizes[[*chosen, group]].sum() <= 0.25 * len(groups):
            chosen.append(group)
    return chosen


def write_tables(source: Path, folder: Path, split: str, draw: int) -> None:
    """Write the four tables of a competition whose test table is a part of the rows."""
    pool = read_pool(source)
    sample = pd.read_csv(source / "sample_submission.csv", dtype=str)
    inputs = [name for name in pd.read_csv(source / "test.csv", nrows=0) if name in pool]
    targets = [name for name in pool if name not in inputs]
    train, holdout = divide(pool, inputs[1:], split, draw)
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
    yaml_file = folder / f"{folder.name}.yaml"
    work = folder.parent / "work"  # all sets share the cache of features
    runs = work / folder.name / "submissions"
    tables = source if split == "own" else folder
    if not folder.exists():
        folder.mkdir(parents=True)
        if split != "own":
            write_tables(source, folder, split, draw)
    if not (runs / "latest").exists():
        os.environ["WORK_DIR"] = str(work)
        write_yaml(tables, yaml_file)
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
    y, y_pred = answers_and_predictions(competition, run / SUBMISSION_FILE)
    metric, score = competition.scorer, competition.scorer(y, y_pred)
    constant = metric(y, constant_prediction(competition, y))
    unit = 1 - constant if metric.greater_is_better else constant
    expected = choice["expected"]
    error = SIGMAS * expected["standard_error"]
    shift = expected["shift"]
    ends = {"cross-fitted": [expected["score"]], "expected": [expected["score"]]}
    widths = [error, error]
    if shift and shift["score"] is not None:
        ends["expected"].append(shift["score"])
        widths[1] *= max(1.0, shift["factor"])
    lines = []
    for (name, scores), width in zip(ends.items(), widths, strict=True):
        low, high = min(scores) - width, max(scores) + width
        miss = max(low - score, score - high, 0.0)
        lines.append(
            {"estimate": name, "holds": miss == 0, "interval_score": (high - low + 10 * miss) / unit}
        )
    if not np.isfinite(score):  # a target without labels among the test rows
        lines = []
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


def constant_prediction(competition: CompetitionConfig, y: Array) -> Array:
    """Return the mean of the answers, or the most frequent class, in each row, as the metric scores it."""
    task = competition.task
    mean = np.nanmean(task.one_hot(y), axis=0, keepdims=True)
    return np.repeat(task.default_labels(mean) if task.scores_labels else mean, len(y), axis=0)


def table_of_estimates(lines: pd.DataFrame) -> str:
    """Return how often each interval holds the score, and its interval score, by split."""
    rows = []
    for (split, estimate), part in lines.groupby(["split", "estimate"], sort=False):
        of_sets = part.groupby("set")["interval_score"].mean()
        rows.append([split, estimate, len(part), f"{part['holds'].mean():.0%}", f"{of_sets.mean():.3f}"])
    header = ["holdout by", "interval", "runs", "holds the score", "interval score"]
    return pd.DataFrame(rows, columns=header).to_string(index=False)


def run_all(args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the changes of all runs, a row each, and the estimates of their scores."""
    changes, estimates = [], []
    for name in args.sets:
        source = args.data / name
        columns = pd.read_csv(source / "test.csv", nrows=0).columns
        for split in splits_of(args.splits, columns):
            for draw in range(args.draws if split in DRAWN else 1):
                folder = args.work / f"{name}_{split}_{draw}"
                run = make_run(source, folder, split, draw, args.candidates)
                relative, lines = measure(folder / f"{folder.name}.yaml", run)
                changes.append({"set": name, "split": split, **relative})
                estimates += [{"set": name, "split": split, **line} for line in lines]
                print(f"{name}, by {split}, draw {draw}: finished", flush=True)
    return pd.DataFrame(changes), pd.DataFrame(estimates)


def splits_of(splits: list[str], columns: pd.Index) -> list[str]:
    """Return the splits that a set with these columns has: several molecule columns have no scaffolds and clusters."""
    one_column = len(columns) == 2
    impossible = {"columns"} if one_column else {"scaffolds", "size", "clusters"}
    if MOLECULE not in columns:
        impossible.add("scaffolds")
    return [split for split in splits if split not in impossible]


def main() -> None:
    """Make the missing runs and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--candidates", nargs="+", default=[])
    changes, estimates = run_all(parse(parser))
    for split, part in changes.groupby("split"):
        print(f"\nerror relative to the default, holdout by {split}")
        print(table_of_candidates(part.drop(columns="split").dropna(axis=1, how="all")))
    print(f"\nestimates of the score\n{table_of_estimates(estimates)}")


if __name__ == "__main__":
    main()
