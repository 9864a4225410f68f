"""Compare submissions that take the same time: of two checkouts of this project, or of this one and AutoGluon.

    python -m benchmarks.budget --work FOLDER --checkouts BEFORE AFTER [--own-yaml] [OPTIONS]
    python -m benchmarks.budget --work FOLDER --autogluon PYTHON [OPTIONS]
    OPTIONS: [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--budgets 5m 12m] [--seed N] [--table]

For each budget and set, `./run.sh full --budget` runs in one checkout and then in the other. Which one is first
alternates. Both read the YAML that `./run.sh new --preset cpu` of AFTER writes; with --own-yaml each reads that of its
`new`, which compares presets too. With --autogluon the first contender is AutoGluon (`best_quality`, an equal share of
the time for each target), in the interpreter PYTHON of an environment that has it. It gets MapLight's features and
those of the frozen encoders of molecules and sentences.

Each run starts from an empty folder, FOLDER/before/... or FOLDER/after/..., and appends a row to FOLDER/checkouts.csv.
A run is skipped if it has a row for the current commit, so the command can be repeated after an interruption. The table
of these rows, and whether the change passes, are printed at the end, or at once with --table. Errors are RMSE
(geometric mean over targets), or for classes 1 less the metric, on the answers. The ratios of a set, on the answers and
of the cross-fitted predictions, have the standard error of a bootstrap over rows. Use a new FOLDER for each machine and
each new pair of commits, because a YAML is only written once. Each checkout has its own environment: activate none, or
`run.sh` uses the active one and installs nothing.
"""

import argparse
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig, load_competition
from competition.dataset import read_rows
from competition.task import from_submission_columns, to_submission_columns
from core.files import PROJECT, read_text_table
from core.settings import parse_duration
from core.types import Array
from models.inputs.feature_blocks import encoder_block, fit_encoders, molecule_block
from models.jobs.compute import context_of
from models.registry import make_stage
from submissions.report.scores import read_answers
from submissions.run import CROSS_FITTED, SUBMISSION_FILE, latest_run

DATA = PROJECT / "competition" / "data"
CHECKOUTS = ["before", "after"]
AUTOGLUON = "autogluon"
"""What takes the place of the commit of a checkout."""
MAX_WORSENING = 1.02
"""The largest mean ratio of errors, after / before, with which a change passes."""
N_RESAMPLES = 1000
"""Draws of the rows for the standard error of a ratio."""
AUTOGLUON_SCRIPT = """
import sys
import pandas as pd
from autogluon.tabular import TabularPredictor
folder, target, seconds, n_cpus, metric, method = sys.argv[1:]
train, test = (pd.read_csv(f"{folder}/{name}.csv") for name in ("train", "test"))
train["label"] = pd.read_csv(f"{folder}/y.csv")[target]
predictor = TabularPredictor("label", eval_metric=metric, path=f"{folder}/{target}", verbosity=1)
rows = train.dropna(subset=["label"])
predictor.fit(rows, presets="best_quality", time_limit=float(seconds), num_cpus=int(n_cpus))
predicted = pd.DataFrame(getattr(predictor, method)(test)).iloc[:, -1]  # of probabilities that of the second class
pd.DataFrame({target: predicted}).to_csv(f"{folder}/{target}.csv", index=False)
"""


def write_yaml(source: Path, yaml_file: Path, checkout: Path = PROJECT) -> None:
    """Write the YAML of the tables in a folder with the preset cpu, unless it exists."""
    if yaml_file.exists():
        return
    yaml_file.parent.mkdir(parents=True, exist_ok=True)
    tables = [f"--{name}={source}/{name}.csv" for name in ("train", "test", "answers")]
    tables.append(f"--sample={source}/sample_submission.csv")
    subprocess.run(["./run.sh", "new", str(yaml_file), *tables, "--preset=cpu"], check=True, cwd=checkout)


def full(yaml_file: Path, options: list[str], log_file: Path, checkout: Path = PROJECT) -> float:
    """Make the submission with `./run.sh full` of a checkout; return the seconds that it took."""
    started = time.monotonic()
    call = ["./run.sh", "full", str(yaml_file), *options]
    with log_file.open("w") as log:
        done = subprocess.run(call, check=False, cwd=checkout, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode not in (0, 3):  # 3: a submission without something that failed
        raise RuntimeError(f"{' '.join(call)} ended with status {done.returncode}; see {log_file}")
    return time.monotonic() - started


def log_error(competition: CompetitionConfig, y: Array, y_pred: Array) -> float:
    """Return the logarithm of the error of predictions (n_rows, n_scored), the geometric mean over targets."""
    if competition.task.classes:
        return float(np.log(1 - competition.scorer(y, y_pred)))
    return float(np.log(np.sqrt(np.nanmean((y_pred - y) ** 2, axis=0))).mean())


def answers_and_predictions(competition: CompetitionConfig, file: Path) -> tuple[Array, Array]:
    """Return the answers and the predictions of a submission file, in the order of its rows."""
    submission = read_text_table(file)
    answers = read_answers(competition, competition.answers).loc[submission[competition.id]]
    return answers.to_numpy(), from_submission_columns(competition.task, submission)


def write_features(yaml_file: Path, folder: Path) -> None:
    """Write MapLight's features and those of the frozen encoders of all rows as CSV."""
    run = latest_run(str(yaml_file))
    competition = run.config.competition
    context = context_of(run.plan, 0)
    of_molecules = ["maplight", {"encoder": "minimol"}, {"encoder": "admet"}] if context.smiles else []
    of_texts = [{"encoder": "minilm"}] if context.text else []
    stage = make_stage({"kind": "lightgbm", "features": [*of_molecules, *of_texts]})
    for name, path in (("train", run.paths.train), ("test", run.paths.test)):
        rows = read_rows(path, competition, labelled=name == "train")
        if name == "train":
            fit_encoders(rows, stage, context, folder)
            pd.DataFrame(rows.y, columns=competition.targets).to_csv(folder / "y.csv", index=False)
        blocks = [block(rows, stage, context, folder) for block in (molecule_block, encoder_block)]
        features = pd.DataFrame(np.hstack(blocks)).add_prefix("feature_")
        others = rows.inputs[[*context.text, *context.numeric, *context.categorical]]
        pd.concat([features, others], axis=1).to_csv(folder / f"{name}.csv", index=False)


def run_autogluon(yaml_file: Path, python: Path, folder: Path, seconds: float) -> float:
    """Write a submission of AutoGluon for the competition of a finished run; return the seconds that it took."""
    started = time.monotonic()
    write_features(yaml_file, folder)
    run = latest_run(str(yaml_file))
    competition, task = run.config.competition, run.task
    method = "predict_proba" if task.classes and not task.scores_labels else "predict"
    metric = competition.metric if task.classes else "root_mean_squared_error"
    predictions = []
    for target in task.targets:
        time_limit = str(seconds / len(task.targets))
        words = [str(folder), target, time_limit, str(os.cpu_count()), metric, method]
        call = [str(python), "-c", AUTOGLUON_SCRIPT, *words]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        predictions.append(pd.read_csv(folder / f"{target}.csv")[target].to_numpy())
    ids = read_rows(run.paths.test, competition, labelled=False).ids
    sample_ids = list(read_text_table(competition.sample_submission)[competition.id])
    scored = pd.DataFrame(np.column_stack(predictions), ids).reindex(sample_ids)
    scored = scored.fillna(scored.mean())  # some test rows cannot be read
    submission = to_submission_columns(task, scored.to_numpy())
    submission.insert(0, competition.id, sample_ids)
    submission_file = folder / yaml_file.stem / SUBMISSION_FILE
    submission_file.parent.mkdir()
    submission.to_csv(submission_file, index=False)
    return time.monotonic() - started


def read_results(file: Path) -> pd.DataFrame:
    """Return the rows of all runs."""
    return pd.read_csv(file, dtype={"budget": str, "commit": str})  # a commit may look like a number


def is_there(file: Path, key: dict[str, Any]) -> bool:
    """Return whether the row of a run is in the file."""
    return file.exists() and bool((read_results(file)[[*key]] == pd.Series(key)).all(axis=1).any())


def log_ratio(competition: CompetitionConfig, y: Array, before: Array, after: Array) -> tuple[float, float]:
    """Return the logarithm of the ratio of the errors of two predictions of the same rows, and its standard error.

    The standard error is that of a bootstrap over rows.
    """

    def of_rows(rows: Any) -> float:
        return log_error(competition, y[rows], after[rows]) - log_error(competition, y[rows], before[rows])

    draws = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
    return of_rows(slice(None)), float(np.std([of_rows(rows) for rows in draws]))


def ratio_on_answers(competition: CompetitionConfig, folders: list[Path]) -> tuple[float, float]:
    """Return `log_ratio` of two submissions, whose folders of the competition are given."""
    (y, before), (_, after) = (
        answers_and_predictions(competition, folder / SUBMISSION_FILE) for folder in folders
    )
    return log_ratio(competition, y, before, after)


def ratio_of_cross_fitted(competition: CompetitionConfig, folders: list[Path]) -> tuple[float, float]:
    """Return `log_ratio` of the cross-fitted predictions of two runs; NaN if one of them is not a run."""
    tables = []
    for folder in folders:
        latest = folder / "submissions" / "latest"
        if not latest.exists():
            return np.nan, np.nan
        file = folder / "submissions" / latest.read_text().strip() / CROSS_FITTED
        tables.append(pd.read_csv(file, dtype={"id": str}).set_index("id").dropna())
    train = pd.read_parquet(folders[0] / "prepared" / "train.parquet").set_index(competition.id)
    ids = tables[0].index.intersection(tables[1].index)
    y_preds = [table.loc[ids, competition.task.scored_columns].to_numpy() for table in tables]
    return log_ratio(competition, train.loc[ids, competition.targets].to_numpy(), *y_preds)


def commit_of(checkout: Path) -> str:
    """Return the short hash of a checkout, with `-dirty` if files differ from the commit."""
    call = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    return subprocess.run(call, check=True, cwd=checkout, capture_output=True, text=True).stdout.strip()


def run_folder(work: Path, checkout: str, name: str, budget: str, seed: int) -> Path:
    """Return the WORK_DIR of a run of a checkout."""
    return work / checkout / f"{name}_{budget}_{seed}"


def yaml_of(args: argparse.Namespace, checkout: str, name: str) -> Path:
    """Return the YAML that a checkout reads."""
    return args.work / (f"{checkout}/{name}.yaml" if args.own_yaml else f"{name}.yaml")


def with_ratios(rows: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """Add the ratios on the answers and of the cross-fitted predictions, each with its standard error."""
    columns = ["ratio", "ratio_error", "cross_fitted", "cross_fitted_error"]
    rows = rows.assign(**dict.fromkeys(columns, np.nan))
    for (name, budget, seed), pair in rows.groupby(["set", "budget", "seed"]):
        if pair["checkout"].nunique() == len(CHECKOUTS):
            folders = [run_folder(args.work, checkout, name, budget, seed) / name for checkout in CHECKOUTS]
            competition = load_competition(str(yaml_of(args, "after", name)))
            on_answers = ratio_on_answers(competition, folders)
            rows.loc[pair.index, columns] = [*on_answers, *ratio_of_cross_fitted(competition, folders)]
    return rows


def run_missing(args: argparse.Namespace, commits: dict[str, str]) -> None:
    """Make what is missing of both contenders, for each budget and set, and append its error to the file."""
    file = args.work / "checkouts.csv"
    for budget_index, budget in enumerate(args.budgets):
        for set_index, name in enumerate(args.sets):
            after_first = args.autogluon or (budget_index + set_index) % 2 == 1
            for checkout in reversed(CHECKOUTS) if after_first else CHECKOUTS:
                key = {"set": name, "budget": budget, "seed": args.seed}
                key |= {"checkout": checkout, "commit": commits[checkout]}
                if is_there(file, key):
                    continue
                folder = run_folder(args.work, checkout, name, budget, args.seed)
                yaml_file = yaml_of(args, checkout, name)
                seconds = run_one(args, folder, yaml_file, budget)
                competition = load_competition(str(yaml_file))
                y, y_pred = answers_and_predictions(competition, folder / name / SUBMISSION_FILE)
                row = {**key, "error": np.exp(log_error(competition, y, y_pred)), "seconds": seconds}
                pd.DataFrame([row]).to_csv(file, mode="a", header=not file.exists(), index=False)
                print(*row.values(), flush=True)


def run_one(args: argparse.Namespace, folder: Path, yaml_file: Path, budget: str) -> float:
    """Make the submission of one contender in an empty folder; return the seconds that it took."""
    checkout, name = folder.parent.name, yaml_file.stem
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    folder.mkdir(parents=True)
    if args.autogluon and checkout == "before":
        os.environ["WORK_DIR"] = str(run_folder(args.work, "after", name, budget, args.seed))
        return run_autogluon(yaml_file, args.autogluon, folder, parse_duration(budget))
    os.environ["WORK_DIR"] = str(folder)
    folders = dict(zip(CHECKOUTS, args.checkouts, strict=True))
    write_yaml(args.data / name, yaml_file, folders[checkout if args.own_yaml else "after"])
    options = ["--budget", budget, "--set", f"competition.seed={args.seed}"]
    return full(yaml_file, options, folder / "full.log", folders[checkout])


def table_of_checkouts(rows: pd.DataFrame) -> str:
    """Return the errors of two contenders, and whether the second one passes."""
    lines = [
        "| budget | set | seed | error before | after | after / before | cross-fitted | seconds before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = rows.assign(error=np.log(rows["error"]))
    pairs = []
    for (budget, name, seed), pair in rows.groupby(["budget", "set", "seed"], sort=False):
        if pair["checkout"].nunique() < len(CHECKOUTS):
            continue
        means = pair.groupby("checkout")[["error", "seconds"]].mean()
        pairs.append(pair.iloc[0])
        before, after = np.exp(means["error"].loc[CHECKOUTS])
        seconds = " | ".join(f"{each:.0f}" for each in means["seconds"].loc[CHECKOUTS])
        ratios = " | ".join(
            f"{np.exp(pairs[-1][each]):.3f} +- {pairs[-1][each + '_error']:.3f}"
            for each in ("ratio", "cross_fitted")
        )
        lines.append(f"| {budget} | {name} | {seed} | {before:.4g} | {after:.4g} | {ratios} | {seconds} |")
    if len(pairs) < 2:
        return "\n".join([*lines, "Fewer than two pairs of runs are finished: there is no standard error."])
    log_ratios = pd.DataFrame(pairs)[["ratio", "cross_fitted"]].astype(float)
    lines.append("")
    for name, values in log_ratios.dropna(axis=1, how="all").items():
        ratio, standard_error = np.exp(values.mean()), values.std() / np.sqrt(len(values))
        passed = ratio <= 1 + standard_error and ratio <= MAX_WORSENING
        lines.append(
            f"{name}: after / before {ratio:.4f} +- {standard_error:.4f} over {len(values)} pairs; at most 1.00 plus "
            f"its standard error and at most {MAX_WORSENING}: {'passed' if passed else 'missed'}"
        )
    return "\n".join(lines)


def sets_of(data: Path) -> list[str]:
    """Return the names of the folders with training, test and answer tables."""
    return sorted(
        file.parent.name for file in data.glob("*/test.csv") if file.with_name("answers.csv").exists()
    )


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks on sets of tables share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of folders with tables and answers")
    parser.add_argument("--work", type=Path, required=True, help="folder of all outputs")
    parser.add_argument("--sets", nargs="+", help="names of folders in --data; default: all")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options, with absolute paths, since commands run in the folders of checkouts."""
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.data = args.data.resolve()
    args.sets = args.sets or sets_of(args.data)
    os.environ.pop("RUN_STARTED", None)  # what a budget counts from
    return args


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--budgets", nargs="+", default=["12m"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-yaml", action="store_true")
    parser.add_argument("--table", action="store_true", help="only print the table of finished runs")
    contenders = parser.add_mutually_exclusive_group(required=True)
    contenders.add_argument("--checkouts", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    contenders.add_argument("--autogluon", type=Path, metavar="PYTHON")
    args = parse(parser)
    args.checkouts = args.checkouts or [PROJECT, PROJECT]
    commits = {name: commit_of(folder) for name, folder in zip(CHECKOUTS, args.checkouts, strict=True)}
    if args.autogluon:
        commits["before"] = AUTOGLUON
    if not args.table:
        run_missing(args, commits)
    rows = read_results(args.work / "checkouts.csv")
    is_current = rows["commit"] == rows["checkout"].map(commits)
    print(table_of_checkouts(with_ratios(rows[is_current], args)))


if __name__ == "__main__":
    main()
