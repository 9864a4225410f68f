"""Do blends gain, and does the expected score hold, on rows that nothing was fitted on?

    python -m benchmarks.holdouts --work FOLDER [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--draws 2]
        [--splits ...] [--rows 2000] [--kinds gp lightgbm sklearn] [--candidates /path/mine.py:fit ...]

Rows of each set, drawn from its training table, are divided, in --splits: into halves at random (`rows`) and by Murcko
scaffolds (`scaffolds`), of which two draws swap the two; into the fifth with the largest, or smallest, molecules or
texts and the rest (`size`); into some of 20 clusters by k-means, about a fifth of the rows, and the rest (`clusters`);
into some values of a column with repeated values, about a fifth of the rows too, and the rest (`columns`, each of them
in turn). `own` are the set's own tables. `./run.sh new` writes a YAML with the folds that it finds, of which the stages
of some kinds are kept, and `./run.sh full` makes the submissions of all candidates, with those of --candidates. A run
that is finished is not made again.

The first tables have the errors of the candidates on the test rows (RMSE, geometric mean over targets; for classes 1
less the metric), relative to the default: the mean over the runs of a set, and the mean over the sets with a 95 %
interval of a bootstrap over sets. `submission` is what the selection rule chose. A stack that equals the default counts
as the default.

The last table has two intervals of 80 % for the score of the submission on the test rows: the cross-fitted score and
1.28 standard errors that count both tables, and the interval of the expected score. It shows how often each holds the
score, its width, and the interval score: the width and ten times the miss, in both columns over the error of a constant
and as a mean over sets. Without an interval, since the error is not known, a run is one that does not hold, and has no
part in the widths. Source: Gneiting and Raftery, Strictly Proper Scoring Rules, JASA 2007.
"""

import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rdkit.Chem import MolFromSmiles
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.budget import (
    N_RESAMPLES,
    answers_and_predictions,
    full,
    log_error,
    parse,
    parser_of,
    write_yaml,
)
from core.paths import Paths
from core.types import Integers
from folds.groups import fingerprint, scaffolds
from folds.splitters import balanced_group_folds
from submissions.run import Run, latest_run, name_of_latest

SPLITS = ("rows", "scaffolds", "size", "clusters", "columns", "own")
N_PARTS = {"rows": 2, "scaffolds": 2}
"""Split -> number of parts, of which a draw tests one; 5 for others."""
SIGMAS = 1.28
N_CLUSTERS = 20
MOLECULE = "SMILES"
CHEAP_KINDS = ("gp", "lightgbm", "sklearn")


def held_out_rows(table: pd.DataFrame, inputs: list[str], split: str, draw: int) -> NDArray[np.bool_]:
    """Return the mask of the test rows of a draw, (n_rows,)."""
    text = table[inputs[0]]
    if split == "size":
        size = text.map(lambda t: MolFromSmiles(t).GetNumAtoms()) if inputs[0] == MOLECULE else text.str.len()
        rank = size.rank(method="first", pct=True).to_numpy()  # equal sizes in the order of the rows
        return rank > 0.8 if draw % 2 == 0 else rank <= 0.2
    groups = np.arange(len(table))
    if split == "scaffolds":
        groups = pd.factorize(scaffolds(list(text)))[0]
    elif split == "clusters":
        groups = clusters(text)
    elif split == "columns":
        repeated = repeated_columns(table[inputs])
        groups = pd.factorize(table[repeated[draw % len(repeated)]])[0]
        draw //= len(repeated)
    n_parts = min(N_PARTS.get(split, 5), len(np.unique(groups)))
    return balanced_group_folds(groups, table[[]], n_parts, seed=draw // n_parts) == draw % n_parts


def repeated_columns(inputs: pd.DataFrame) -> list[str]:
    """Return the columns with at least four values that a twentieth of the rows repeat."""
    n_values = inputs.nunique()
    return list(n_values[(n_values >= 4) & (n_values <= 0.95 * len(inputs))].index)


def clusters(texts: pd.Series) -> Integers:
    """Return the cluster of each molecule or text, (n_rows,), by k-means of its 30 largest components."""
    if texts.name == MOLECULE:
        features = np.array([list(fingerprint(text)) for text in texts], dtype=np.float32)
    else:
        features = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    components = TruncatedSVD(30, random_state=0).fit_transform(features)
    return KMeans(N_CLUSTERS, n_init=3, random_state=0).fit_predict(components)


def drawn_rows(source: Path, n_rows: int, draw: int) -> pd.DataFrame:
    """Return at most so many rows of the training table of a set, with readable molecules."""
    rows = pd.read_csv(source / "train.csv", dtype={"id": str})
    if MOLECULE in rows:
        rows = rows[rows[MOLECULE].map(MolFromSmiles).notna()]
    return rows.sample(n=min(n_rows, len(rows)), random_state=draw).reset_index(drop=True)


def write_tables(source: Path, folder: Path, split: str, draw: int, n_rows: int) -> None:
    """Write the four tables of a competition with rows of the training table of a set.

    Its test table is a part of them, or that of the set.

    Args:
        n_rows: greatest number of these rows, drawn at random.
    """
    rows = drawn_rows(source, n_rows, draw)
    if split == "own":
        rows.to_csv(folder / "train.csv", index=False)
        for name in ("test", "answers", "sample_submission"):
            shutil.copy(source / f"{name}.csv", folder)
        return
    sample = pd.read_csv(source / "sample_submission.csv", dtype=str)
    inputs = [name for name in pd.read_csv(source / "test.csv", nrows=0) if name in rows]
    is_test = held_out_rows(rows, inputs[1:], split, draw)
    test = rows[is_test]
    tables = {
        "train": rows[~is_test],
        "test": test[inputs],
        "answers": test,
        "sample_submission": test[["id"]].assign(**sample.iloc[0, 1:].to_dict()),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)


def make_run(source: Path, folder: Path, split: str, draw: int, args: Namespace) -> Run:
    """Return the finished run of one draw, and make it unless it is finished."""
    if not name_of_latest(Paths(folder.name)):
        folder.mkdir(parents=True, exist_ok=True)
        write_tables(source, folder, split, draw, args.rows)
        yaml_file = folder / f"{folder.name}.yaml"
        write_yaml(folder, yaml_file)
        document = yaml.safe_load(yaml_file.read_text())
        stages = document["stages"].items()
        document["stages"] = {name: stage for name, stage in stages if stage["kind"] in args.kinds}
        document["submissions"] = {"candidates": args.candidates}
        yaml_file.write_text(yaml.safe_dump(document, sort_keys=False))
        full(yaml_file, ["--budget", "none"], folder / "full.log")
    return latest_run(folder.name)


def measure(run: Run) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the change of the log error of each candidate against the default, and a line for each interval."""
    competition = run.config.competition
    choice = run.choice
    files = {name: run.folder / record.file for name, record in choice.candidates.items()}
    predictions = {name: answers_and_predictions(competition, file) for name, file in files.items()}
    log_errors = {name: log_error(competition, *pair) for name, pair in predictions.items()}
    of_default = log_errors[choice.default]
    log_errors["submission"] = log_errors[run.chosen]
    log_errors.setdefault("lightgbm_stack", of_default)
    changes = {name: value - of_default for name, value in log_errors.items()}
    y, y_pred = predictions[run.chosen]
    score = run.metric(y, y_pred)
    if not np.isfinite(score):  # a target without labels among the test rows
        return changes, []
    constant = run.task.as_scored(np.nanmean(run.task.one_hot(y), axis=0, keepdims=True))
    unit = run.metric(y, np.repeat(constant, len(y), axis=0))
    if run.metric.greater_is_better:
        unit = 1 - unit
    submitted, interval = choice.submitted, choice.expected.interval
    error = SIGMAS * submitted.score_standard_error * np.sqrt(1 + run.columns.has_fold.sum() / len(y))
    intervals = {
        "cross-fitted": (submitted.score - error, submitted.score + error),
        "expected": (interval.lower, interval.upper) if interval else None,
    }
    lines = []
    for name, ends in intervals.items():
        line = {"estimate": name, "holds": False, "width": np.nan, "interval_score": np.nan}
        if ends:
            width, miss = ends[1] - ends[0], max(ends[0] - score, score - ends[1], 0.0)
            line |= {
                "holds": miss == 0,
                "width": width / unit,
                "interval_score": (width + 10 * miss) / unit,
            }
        lines.append(line)
    return changes, lines


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
    """Return how often each interval holds the score, and its interval score, by split."""
    rows = []
    for (split, estimate), part in lines.groupby(["split", "estimate"], sort=False):
        of_sets = part.groupby("set")[["width", "interval_score"]].mean().mean()
        holds = f"{part['holds'].mean():.0%}"
        n_known = part["width"].notna().sum()
        rows.append([split, estimate, len(part), n_known, holds, *of_sets.map("{:.3f}".format)])
    header = ["holdout by", "interval", "runs", "known", "holds the score", "width", "interval score"]
    return pd.DataFrame(rows, columns=header).to_string(index=False)


def splits_of(splits: list[str], inputs: pd.DataFrame) -> list[str]:
    """Return the splits that a set with these inputs has: several molecule columns have no scaffolds and clusters."""
    impossible = set() if inputs.shape[1] == 1 else {"scaffolds", "size", "clusters"}
    if MOLECULE not in inputs:
        impossible.add("scaffolds")
    if not repeated_columns(inputs):
        impossible.add("columns")
    return [split for split in splits if split not in impossible]


def main() -> None:
    """Make the missing runs and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--rows", type=int, default=2000, help="greatest number of rows that are drawn")
    parser.add_argument("--kinds", nargs="+", default=CHEAP_KINDS, help="kinds of the stages that are kept")
    parser.add_argument("--candidates", nargs="+", default=[])
    args = parse(parser)
    os.environ["WORK_DIR"] = str(args.work / "work")  # all sets share the cache of features
    changes, estimates = [], []
    for name in args.sets:
        source = args.data / name
        names = pd.read_csv(source / "test.csv", nrows=0).columns[1:]
        inputs = pd.read_csv(source / "train.csv")[[*names]]
        for split in splits_of(args.splits, inputs):
            for draw in range(args.draws):
                folder = args.work / f"{name}_{split}_{draw}"
                relative, lines = measure(make_run(source, folder, split, draw, args))
                changes.append({"set": name, "split": split, **relative})
                estimates += [{"set": name, "split": split, **line} for line in lines]
                print(f"{name}, by {split}, draw {draw}: finished", flush=True)
    for split, part in pd.DataFrame(changes).groupby("split"):
        print(f"\nerror relative to the default, holdout by {split}")
        print(table_of_candidates(part.drop(columns="split").dropna(axis=1, how="all")))
    print(f"\nestimates of the score\n{table_of_estimates(pd.DataFrame(estimates))}")


if __name__ == "__main__":
    main()
