"""Compare submissions that take the same time: of two checkouts of this project, or of this one and AutoGluon.

    python -m benchmarks.budget --work FOLDER --checkouts BEFORE AFTER [--own-yaml] [OPTIONS]
    python -m benchmarks.budget --work FOLDER --autogluon PYTHON [OPTIONS]
    OPTIONS: [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--metric M] [--budgets 5m 12m] [--seed N] [--table]

For each budget and set, `./run.sh full --budget` runs in one checkout and then in the other. Which one is first
alternates. Both read the YAML that `./run.sh new --preset cpu` of AFTER writes; with --own-yaml each reads that of its
`new`, which compares presets too. --metric is passed on to `new`. With --autogluon the first contender is AutoGluon
(`best_quality`, an equal share of the time for each target), in the interpreter PYTHON of an environment that has it.
It gets the columns of the prepared tables (among them what compared texts have in common), MapLight's features, and
the last layer of the frozen encoders of the other contender's stages, of compared texts the differences, products and
cosines.

Each run starts from an empty folder, FOLDER/before_COMMIT/SET_BUDGET_SEED or FOLDER/after_..., and leaves its seconds
there. A run with them is not made again, so the command can be repeated after an interruption. The table of the runs
of these commits, and whether the change passes, are printed at the end, or at once with --table. Errors are RMSE
(geometric mean over targets), or for classes and for Pearson's correlation 1 less the metric, on the answers. The
ratios after / before of a set, on the answers and of the cross-fitted predictions, have the standard error of a
bootstrap over rows; the geometric mean of the ratios has that of the mean over sets. Use a new FOLDER for each machine
and each new pair of commits, because a YAML is only written once. Each checkout has its own environment: activate none,
or `run.sh` uses the active one and installs nothing.
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
from loky import cpu_count

from competition.config import CompetitionConfig, load_competition
from competition.dataset import INPUT_KEY
from competition.task import from_submission_columns
from core.files import PROJECT, read_table
from core.settings import parse_duration
from core.types import Array
from core.user_tables import read_text_table
from models.features import encoder_block, fit_encoders, molecule_blocks
from models.registry import make_stage
from submissions.columns import label_means
from submissions.manifest import CROSS_FITTED, SUBMISSION_FILE
from submissions.report.scores import read_answers
from submissions.run import Run, latest_run
from submissions.submission_file import write_submission

DATA = PROJECT / "competition" / "data"
SIDES = ("before", "after")
SECONDS = "seconds"
"""File in the folder of a finished run."""
COLUMNS = [
    "budget", "set", "seed", "error_before", "error_after", "ratio", "ratio_error", "cross_fitted",
    "cross_fitted_error", "seconds_before", "seconds_after",
]  # fmt: skip
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


def write_yaml(source: Path, yaml_file: Path, checkout: Path = PROJECT, metric: str | None = None) -> None:
    """Write the YAML of the tables in a folder with the preset cpu, unless it exists.

    Args:
        metric: for `new`; None: its guess.
    """
    if yaml_file.exists():
        return
    yaml_file.parent.mkdir(parents=True, exist_ok=True)
    tables = [f"--{name}={source}/{name}.csv" for name in ("train", "test", "answers")]
    tables.append(f"--sample={source}/sample_submission.csv")
    tables += [f"--metric={metric}"] if metric else []
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
    if competition.task.classes or competition.metric == "pearson":
        return float(np.log(1 - competition.scorer(y, y_pred)))
    return float(np.log(np.sqrt(np.nanmean((y_pred - y) ** 2, axis=0))).mean())


def answers_and_predictions(competition: CompetitionConfig, file: Path) -> tuple[Array, Array]:
    """Return the answers and the predictions of a submission file, in the order of its rows."""
    submission = read_text_table(file)
    answers = read_answers(competition, competition.answers).loc[submission[competition.id]]
    return answers.to_numpy(), from_submission_columns(competition.task, submission)


def write_features(run: Run, folder: Path) -> None:
    """Write MapLight's features and those of the frozen encoders of a run for all rows as CSV, and the labels."""
    context = run.plan.tables.context()
    encoders = {encoder.weights for stage in run.plan.stages.values() for encoder in stage.encoders}
    features: list[Any] = ["maplight"] if context.smiles else []
    compared = {"pairs": "vectors"} if context.pairs else {}
    features += [{"encoder": weights, **compared} for weights in sorted(encoders)]
    stage = make_stage({"kind": "lightgbm", "features": features})
    train, test = run.plan.tables.read()
    fit_encoders(train, stage, context, folder)
    pd.DataFrame(train.y, columns=run.task.targets).to_csv(folder / "y.csv", index=False)
    for name, rows in (("train", train), ("test", test)):
        blocks = [*molecule_blocks(rows, stage, context, folder), encoder_block(rows, stage, context, folder)]
        numbers = pd.DataFrame(np.hstack(blocks)).add_prefix("feature_")
        others = rows.inputs.drop(columns=[*context.smiles, INPUT_KEY]).reset_index(drop=True)
        pd.concat([numbers, others], axis=1).to_csv(folder / f"{name}.csv", index=False)


def run_autogluon(run: Run, python: Path, folder: Path, seconds: float) -> float:
    """Write a submission of AutoGluon for the competition of a finished run; return the seconds that it took."""
    started = time.monotonic()
    write_features(run, folder)
    competition, task, paths = run.config.competition, run.task, run.paths
    method = "predict_proba" if task.classes and not task.scores_labels else "predict"
    metric = competition.metric if task.classes else "root_mean_squared_error"
    metric = "pearsonr" if competition.metric == "pearson" else metric
    predictions = []
    for target in task.targets:
        time_limit = str(seconds / len(task.targets))
        words = [str(folder), target, time_limit, str(cpu_count()), metric, method]
        call = [str(python), "-c", AUTOGLUON_SCRIPT, *words]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        predictions.append(pd.read_csv(folder / f"{target}.csv")[target].to_numpy())
    write_submission(
        path=folder / paths.name / SUBMISSION_FILE,
        sample=read_table(paths.sample),
        id_column=competition.id,
        task=task,
        ids=list(read_table(paths.test)[competition.id]),
        scored=np.column_stack(predictions),
        means=label_means(task, read_table(paths.train)),
    )
    return time.monotonic() - started


def ratio_of_errors(
    competition: CompetitionConfig, y: Array, before: Array, after: Array
) -> tuple[float, float]:
    """Return the ratio of the errors of two predictions of the same rows, and the standard error of its logarithm.

    The standard error is that of a bootstrap over rows.
    """

    def log_ratio(rows: Any) -> float:
        return log_error(competition, y[rows], after[rows]) - log_error(competition, y[rows], before[rows])

    draws = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
    return np.exp(log_ratio(slice(None))), np.std([log_ratio(rows) for rows in draws])


def ratio_of_cross_fitted(competition: CompetitionConfig, folders: list[Path]) -> tuple[float, float]:
    """Return `ratio_of_errors` of the cross-fitted predictions of two runs; NaN if one of them is AutoGluon's."""
    tables = []
    for folder in folders:
        latest = folder / "submissions" / "latest"
        if not latest.exists():
            return np.nan, np.nan
        file = latest.with_name(latest.read_text().strip()) / CROSS_FITTED
        tables.append(read_table(file).set_index("id").dropna())
    train = read_table(folders[0] / "prepared" / "train.parquet").set_index(competition.id)
    ids = tables[0].index.intersection(tables[1].index)
    y_preds = [table.loc[ids, competition.task.scored_columns].to_numpy() for table in tables]
    return ratio_of_errors(competition, train.loc[ids, competition.targets].to_numpy(), *y_preds)


def commit_of(checkout: Path) -> str:
    """Return the short hash of a checkout, with `-dirty` if files differ from the commit."""
    call = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    return subprocess.check_output(call, cwd=checkout, text=True).strip()


def yaml_of(args: argparse.Namespace, side: str, name: str) -> Path:
    """Return the YAML that a contender reads."""
    return args.work / (f"{side}/{name}.yaml" if args.own_yaml else f"{name}.yaml")


def make_run(args: argparse.Namespace, side: str, name: str, budget: str) -> None:
    """Make the submission of one contender in an empty folder, and write its seconds there, unless it has them."""
    folder = args.folders[side] / f"{name}_{budget}_{args.seed}"
    if (folder / SECONDS).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    folder.mkdir(parents=True)
    if args.autogluon and side == "before":
        os.environ["WORK_DIR"] = str(args.folders["after"] / folder.name)
        seconds = run_autogluon(latest_run(name), args.autogluon, folder, parse_duration(budget))
    else:
        os.environ["WORK_DIR"] = str(folder)
        yaml_file = yaml_of(args, side, name)
        write_yaml(
            args.data / name, yaml_file, args.checkouts[side if args.own_yaml else "after"], args.metric
        )
        options = ["--budget", budget, "--set", f"competition.seed={args.seed}"]
        seconds = full(yaml_file, options, folder / "full.log", args.checkouts[side])
    (folder / SECONDS).write_text(f"{seconds:.0f}")
    print(folder, f"{seconds:.0f} s", flush=True)


def finished_by_both(folders: dict[str, Path]) -> list[str]:
    """Return the names of the runs that both contenders have finished."""
    finished = [{file.parent.name for file in folder.glob(f"*/{SECONDS}")} for folder in folders.values()]
    return sorted(set.intersection(*finished))


def compare(args: argparse.Namespace, run: str) -> list[Any]:
    """Return the COLUMNS of the table for a run that both contenders have finished."""
    name, budget, seed = run.rsplit("_", 2)
    competition = load_competition(str(yaml_of(args, "after", name)))
    folders = [args.folders[side] / run / name for side in SIDES]
    files = [folder / SUBMISSION_FILE for folder in folders]
    (y, before), (_, after) = (answers_and_predictions(competition, file) for file in files)
    errors = [np.exp(log_error(competition, y, y_pred)) for y_pred in (before, after)]
    on_answers = ratio_of_errors(competition, y, before, after)
    seconds = [folder.with_name(SECONDS).read_text() for folder in folders]
    return [budget, name, seed, *errors, *on_answers, *ratio_of_cross_fitted(competition, folders), *seconds]


def verdicts(pairs: pd.DataFrame) -> list[str]:
    """Return a line on whether the second contender passes, on the answers and by the cross-fitted predictions."""
    if pairs["set"].nunique() < 2:
        return ["Runs of fewer than two sets are finished: there is no standard error."]
    lines = []
    # Runs of a set share its answers.
    logs = np.log(pairs[["ratio", "cross_fitted"]]).groupby(pairs["set"]).mean()
    for name, values in logs.dropna(axis=1, how="all").items():
        ratio, standard_error = np.exp(values.mean()), values.sem()
        passed = ratio <= 1 + standard_error and ratio <= MAX_WORSENING
        lines.append(
            f"{name}: after / before {ratio:.4f} +- {standard_error:.4f} over {len(values)} sets; at most 1.00 plus "
            f"its standard error and at most {MAX_WORSENING}: {'passed' if passed else 'missed'}"
        )
    return lines


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
    if not args.sets:
        files = [file for file in args.data.glob("*/test.csv") if file.with_name("answers.csv").exists()]
        args.sets = sorted(file.parent.name for file in files)
    os.environ.pop("RUN_STARTED", None)  # what a budget counts from
    return args


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--metric", help="metric for new; default: its guess")
    parser.add_argument("--budgets", nargs="+", default=["12m"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-yaml", action="store_true")
    parser.add_argument("--table", action="store_true", help="only print the table of finished runs")
    contenders = parser.add_mutually_exclusive_group(required=True)
    contenders.add_argument("--checkouts", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    contenders.add_argument("--autogluon", type=Path, metavar="PYTHON")
    args = parse(parser)
    args.checkouts = dict(zip(SIDES, args.checkouts or [PROJECT, PROJECT], strict=True))
    args.folders = {side: args.work / f"{side}_{commit_of(path)}" for side, path in args.checkouts.items()}
    if args.autogluon:
        args.folders["before"] = args.work / "autogluon"
    for i, budget in enumerate([] if args.table else args.budgets):
        for j, name in enumerate(args.sets):
            after_first = args.autogluon or (i + j) % 2 == 1
            for side in reversed(SIDES) if after_first else SIDES:
                make_run(args, side, name, budget)
    rows = [compare(args, run) for run in finished_by_both(args.folders)]
    pairs = pd.DataFrame(rows, columns=COLUMNS)
    print(pairs.to_string(index=False, float_format="{:.4g}".format), *verdicts(pairs), sep="\n")


if __name__ == "__main__":
    main()
