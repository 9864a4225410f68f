"""What a given time is worth: `new --preset cpu` and `full --budget`, and AutoGluon with the same time and
features.

    python -m benchmarks.budget --data FOLDER_WITH_COMPETITIONS --work FOLDER [--sets ...] [--budgets 12m 36m] \\
        [--seed N] [--python PYTHON_WITH_AUTOGLUON [--more-features]]
    python -m benchmarks.budget --work FOLDER --table
    python -m benchmarks.budget --data FOLDER_WITH_COMPETITIONS --work FOLDER --checkouts BEFORE AFTER [--table] \\
        [--sets ...] [--budgets 5m 12m] [--seed N]

Each run starts from nothing and appends its rows to FOLDER/budget.csv: the error on the answers of the
submission, of the stage `lightgbm` of the same run and of AutoGluon `best_quality` (each target an equal
share of the time; the features of that stage and, of texts, the frozen embeddings; with --more-features
MapLight's features and MiniMol's vectors of molecules), with the seconds it took, machine and commit. A row
that is there is not made again. Errors are RMSE, and of classes 1 less the metric.
The table takes rows of this machine alone: for each set the geometric mean of its targets' ratios, over the
sets that of these with its 95 % interval by bootstrap over sets. AutoGluon is no dependency of ours; --python
names the interpreter of an environment that has it.

--checkouts compares two checkouts of this project: does a change make submissions worse in the same time? For
each budget and set `./run.sh full` runs in one checkout and then in the other. Which one is first alternates.
Both read the YAML that `./run.sh new` of AFTER writes; with --own-yaml each reads that of its own `new`, which
compares presets too. Each run starts from an empty folder, FOLDER/before/... or FOLDER/after/..., and appends
its rows to FOLDER/checkouts.csv. A run is skipped if it has rows for the current commit of its checkout, so the
command can be repeated after an interruption. The table of these rows and whether the change passes are
printed at the end, or at once with --table. The ratios of a set, on the answers and of the cross-fitted
predictions, have the standard error of a bootstrap over rows. Use a new FOLDER for each new pair of commits,
because a YAML is only written once. Each checkout has its own environment: activate none, or `run.sh` uses
the active one and installs nothing.
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

from benchmarks.oof_matrices import over_sets
from competition.config import CompetitionConfig, load_competition
from competition.dataset import read_rows
from competition.task import from_submission_columns
from core.files import PROJECT, read_text_table
from core.paths import revision
from core.settings import parse_duration
from core.types import Array
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.feature_blocks import fit_encoders, molecule_block
from models.inputs.frozen_encoders import encoder_cache
from models.jobs.compute import context_of
from models.stages.lightgbm import Lightgbm
from models.training.hardware import machine
from submissions.report.scores import read_answers
from submissions.run import CROSS_FITTED, SUBMISSION_FILE, Run, latest_run

SETS = ["esol", "biogen_adme", "chembl204_ki", "chembl218_ec50", "chembl287_ki", "bace", "tox21", "emotion"]
CHECKOUTS = ["before", "after"]
MAX_WORSENING = 1.02
"""The largest mean ratio of errors, after / before, with which a change passes."""
AUTOGLUON_FEATURES = {
    "autogluon": Lightgbm(kind="lightgbm"),
    "autogluon, more features": Lightgbm(
        kind="lightgbm", features=["maplight", EncoderFeature(encoder="minimol")]
    ),
}
"""Whose features of molecules AutoGluon gets."""
N_RESAMPLES = 1000
"""Draws of the test rows for the standard error of a ratio."""
AUTOGLUON_SCRIPT = """
import sys
import pandas as pd
from autogluon.tabular import TabularPredictor
folder, target, seconds, asked = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[6]
train, test = (pd.read_csv(f"{folder}/{name}.csv") for name in ("train", "test"))
train["label"] = pd.read_csv(f"{folder}/y.csv")[target]
predictor = TabularPredictor("label", eval_metric=sys.argv[5], path=f"{folder}/{target}", verbosity=1)
predictor.fit(train.dropna(subset=["label"]), presets="best_quality", time_limit=seconds, num_cpus=int(sys.argv[4]))
predicted = pd.DataFrame(getattr(predictor, asked)(test)).iloc[:, -1]  # of probabilities that of the second class
pd.DataFrame({target: predicted}).to_csv(f"{folder}/{target}.csv", index=False)
"""


def write_yaml(
    source: Path, yaml_file: Path, options: tuple[str, ...] = (), checkout: Path = PROJECT
) -> None:
    """Write the YAML of the tables in a folder with the preset cpu, unless it exists."""
    if yaml_file.exists():
        return
    yaml_file.parent.mkdir(parents=True, exist_ok=True)
    files = {"train": "train", "test": "test", "sample": "sample_submission", "answers": "answers"}
    tables = [f"--{option}={source / file}.csv" for option, file in files.items()]
    call = ["./run.sh", "new", str(yaml_file), *tables, "--preset=cpu", *options]
    subprocess.run(call, check=True, cwd=checkout)


def full(yaml_file: Path, options: list[str], log_file: Path, checkout: Path = PROJECT) -> float:
    """Make the submission with `./run.sh full` of a checkout; returns the seconds that it took."""
    started = time.monotonic()
    with log_file.open("w") as log:
        call = ["./run.sh", "full", str(yaml_file), *options]
        status = subprocess.run(
            call, check=False, cwd=checkout, stdout=log, stderr=subprocess.STDOUT
        ).returncode
    if status not in (0, 3):  # 3: a submission without something that failed
        raise RuntimeError(f"{' '.join(call)} ended with status {status}; see {log_file}")
    return time.monotonic() - started


def run_pipeline(source: Path, yaml_file: Path, options: list[str], new: tuple[str, ...] = ()) -> float:
    """Make the submission of the tables in a folder with options of `full` and `new`; returns the seconds of
    `full`.
    """
    write_yaml(source, yaml_file, new)
    return full(yaml_file, options, yaml_file.with_suffix(".log"))


def errors(competition: CompetitionConfig, y: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """The errors of predictions (n_rows, n_scored) of test rows: RMSE per target, or for classes 1 less the
    metric.
    """
    if competition.task.classes:
        return {"all": 1 - competition.scorer(y, y_pred)}
    rmse = np.sqrt(np.nanmean((y_pred - y) ** 2, axis=0))
    return dict(zip(competition.targets, rmse.tolist(), strict=True))


def errors_of_file(competition: CompetitionConfig, file: Path) -> dict[str, float]:
    """The errors of a submission file on the answers."""
    assert competition.answers is not None
    submission = read_text_table(file)
    answers = read_answers(competition, competition.answers).loc[submission[competition.id]]
    return errors(competition, answers.to_numpy(), from_submission_columns(competition.task, submission))


def errors_of_run(run: Run) -> dict[str, dict[str, float]]:
    """Errors of the submission and of LightGBM alone."""
    competition, stage_preds = run.config.competition, run.columns
    assert competition.answers is not None
    errors_by_method = {"submission": errors_of_file(competition, run.folder / SUBMISSION_FILE)}
    if "lightgbm" in run.config.stages:
        trees = stage_preds.test[:, stage_preds.names.index("lightgbm")]
        trees = run.task.default_labels(trees) if run.task.scores_labels else trees
        answers = read_answers(competition, competition.answers).loc[list(stage_preds.test_ids)]
        errors_by_method["lightgbm"] = errors(competition, answers.to_numpy(), trees)
    return errors_by_method


def write_features(run: Run, folder: Path, config: Lightgbm) -> None:
    """What a stage lightgbm sees of training and test rows, and the frozen encoder of texts, as CSV."""
    competition, paths = run.config.competition, run.paths
    context = context_of(run.plan, 0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (("train", paths.train), ("test", paths.test)):
        rows = read_rows(path, competition, labelled=name == "train")
        if name == "train":
            fit_encoders(rows, config, context, folder)
        numbers = molecule_block(rows, config, context, folder)
        parts = [pd.DataFrame(numbers, columns=[f"molecule_{i}" for i in range(numbers.shape[1])])]
        for column in context.text:
            cache = encoder_cache(EncoderFeature(encoder="minilm"), context.cache)
            vectors = np.concatenate(cache.load(rows.inputs[column]))[:, :-3]  # without what was counted
            parts.append(pd.DataFrame(vectors, columns=[f"{column}_{i}" for i in range(vectors.shape[1])]))
        parts.append(rows.inputs[[*context.text, *context.numeric, *context.categorical]])
        pd.concat(parts, axis=1).to_csv(folder / f"{name}.csv", index=False)
        if name == "train":
            pd.DataFrame(rows.y, columns=competition.targets).to_csv(folder / "y.csv", index=False)


def of_autogluon(run: Run, python: Path, folder: Path, seconds: float, config: Lightgbm) -> dict[str, float]:
    """Errors of AutoGluon in a time with the features of a stage lightgbm: of labels, or of probabilities of two
    classes.
    """
    competition, task = run.config.competition, run.task
    write_features(run, folder, config)
    method = "predict_proba" if task.classes and not task.scores_labels else "predict"
    metric, each = (
        competition.metric if task.classes else "root_mean_squared_error",
        seconds / len(task.targets),
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    predictions = []
    for target in task.targets:
        call = [
            str(python),
            "-c",
            AUTOGLUON_SCRIPT,
            str(folder),
            target,
            str(each),
            str(os.cpu_count()),
            metric,
            method,
        ]
        subprocess.run(call, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        predictions.append(pd.read_csv(folder / f"{target}.csv")[target].to_numpy())
    ids = read_rows(run.paths.test, competition, labelled=False).ids
    assert competition.answers is not None
    answers = read_answers(competition, competition.answers)
    read = pd.DataFrame(np.column_stack(predictions), ids).reindex(answers.index)
    return errors(
        competition, answers.to_numpy(), read.fillna(read.mean()).to_numpy()
    )  # some test rows cannot be read


def read_results(file: Path) -> pd.DataFrame:
    """The rows of all runs."""
    return pd.read_csv(file, dtype={"budget": str, "commit": str})  # a commit may look like a number


def is_there(file: Path, key: dict[str, Any]) -> bool:
    """Whether the rows of a run are in the file."""
    return file.exists() and bool((read_results(file)[[*key]] == pd.Series(key)).all(axis=1).any())


def keep(file: Path, key: dict[str, Any], target_errors: dict[str, float], **measured: float) -> None:
    """Append the errors of a run, by target, with what else was measured of the run."""
    new = [{**key, "target": target, "error": error, **measured} for target, error in target_errors.items()]
    pd.DataFrame(new).to_csv(file, mode="a", header=not file.exists(), index=False)
    print(
        *key.values(), target_errors, *(f"{name} {value:.4g}" for name, value in measured.items()), flush=True
    )


def table(rows: pd.DataFrame) -> str:
    """Ratios of errors, set by set and over the sets."""
    lines = [
        "| budget | set | submission | over lightgbm | over autogluon | with more features | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    mean = rows.groupby(["budget", "set", "who", "target"])["error"].mean().unstack("who")
    others = mean.reindex(columns=["lightgbm", *AUTOGLUON_FEATURES])
    ratios = np.log(others.rdiv(mean["submission"], axis=0)).groupby(["budget", "set"]).mean()
    seconds = rows[rows.who == "submission"].groupby(["budget", "set"])["seconds"].max()
    for budget, of_sets in ratios.groupby("budget"):
        for name, of_set in of_sets.droplevel("budget").iterrows():
            formatted = " ".join(f"{error:.4g}" for error in mean["submission"].loc[budget, name])
            cells = " | ".join(f"{ratio:.3f}" for ratio in np.exp(of_set))
            lines.append(f"| {budget} | {name} | {formatted} | {cells} | {seconds[budget, name]:.0f} |")
        cells = []
        for who in of_sets:
            set_ratios = of_sets[who].dropna()
            interval = np.full(3, np.nan)
            if len(set_ratios):
                interval = np.exp(over_sets(set_ratios, set_ratios.index)[1])
            cells.append("{:.3f} ({:.3f} to {:.3f})".format(*interval))
        lines.append(f"| {budget} | geometric mean, 95 % interval | | {' | '.join(cells)} | |")
    return "\n".join(lines)


def log_ratio(competition: CompetitionConfig, y: Array, before: Array, after: Array) -> tuple[float, float]:
    """The logarithm of the ratio of the errors of two predictions of the same rows, of several targets that of their
    geometric mean, and its standard error by a bootstrap over rows.
    """

    def of_rows(rows: Any) -> float:
        old, new = (errors(competition, y[rows], y_pred[rows]) for y_pred in (before, after))
        return float(np.mean([np.log(new[target] / old[target]) for target in old]))

    draws = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
    return of_rows(slice(None)), float(np.std([of_rows(rows) for rows in draws]))


def ratio_on_answers(competition: CompetitionConfig, files: list[Path]) -> tuple[float, float]:
    """`log_ratio` of two submissions, in the order before and after."""
    assert competition.answers is not None
    tables = [read_text_table(file) for file in files]
    y = read_answers(competition, competition.answers).loc[tables[0][competition.id]].to_numpy()
    return log_ratio(competition, y, *(from_submission_columns(competition.task, table) for table in tables))


def ratio_of_cross_fitted(competition: CompetitionConfig, folders: list[Path]) -> tuple[float, float]:
    """`log_ratio` of the cross-fitted predictions of two runs, whose folders of the competition are given."""
    train = pd.read_parquet(folders[0] / "prepared" / "train.parquet").set_index(competition.id)
    tables = []
    for folder in folders:
        run = (folder / "submissions" / "latest").read_text(encoding="utf-8").strip()
        file = folder / "submissions" / run / CROSS_FITTED
        tables.append(pd.read_csv(file, dtype={"id": str}).set_index("id").dropna())
    ids = tables[0].index.intersection(tables[1].index)
    y_preds = [table.loc[ids, competition.task.scored_columns].to_numpy() for table in tables]
    return log_ratio(competition, train.loc[ids, competition.targets].to_numpy(), *y_preds)


def commit_of(checkout: Path) -> str:
    """The short hash of a checkout, with `-dirty` if files differ from the commit."""
    call = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    return subprocess.run(call, check=True, cwd=checkout, capture_output=True, text=True).stdout.strip()


def run_folder(work: Path, checkout: str, name: str, budget: str, seed: int) -> Path:
    """The WORK_DIR of a run of a checkout."""
    return work / checkout / f"{name}_{budget}_{seed}"


def yaml_of(args: argparse.Namespace, checkout: str, name: str) -> Path:
    """The YAML that a checkout reads."""
    return args.work / (f"{checkout}/{name}.yaml" if args.own_yaml else f"{name}.yaml")


def with_ratios(rows: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """Add the ratios on the answers and of the cross-fitted predictions, each with its standard error."""
    ratios = {}
    for (name, budget, seed), pair in rows.groupby(["set", "budget", "seed"]):
        if pair["checkout"].nunique() == len(CHECKOUTS):
            folders = [run_folder(args.work, checkout, name, budget, seed) / name for checkout in CHECKOUTS]
            competition = load_competition(str(yaml_of(args, "after", name)))
            ratio, error = ratio_on_answers(competition, [folder / SUBMISSION_FILE for folder in folders])
            cross_fitted, its_error = ratio_of_cross_fitted(competition, folders)
            ratios[name, budget, seed] = (ratio, error, cross_fitted, its_error)
    keys = zip(rows["set"], rows["budget"], rows["seed"], strict=True)
    columns = ["ratio", "ratio_error", "cross_fitted", "cross_fitted_error"]
    return rows.assign(
        **dict(zip(columns, np.array([ratios.get(key, (np.nan,) * 4) for key in keys]).T, strict=True))
    )


def run_checkouts(args: argparse.Namespace, commits: dict[str, str], processor: str) -> None:
    """Run what is missing of both checkouts, for each budget and set."""
    file = args.work / "checkouts.csv"
    folders = dict(zip(CHECKOUTS, args.checkouts, strict=True))
    for budget_index, budget in enumerate(args.budgets):
        for set_index, name in enumerate(args.sets):
            after_first = (budget_index + set_index) % 2 == 1
            for checkout in reversed(CHECKOUTS) if after_first else CHECKOUTS:
                key = {"set": name, "budget": budget, "seed": args.seed, "machine": processor}
                key |= {"checkout": checkout, "commit": commits[checkout]}
                if is_there(file, key):
                    continue
                folder = run_folder(args.work, checkout, name, budget, args.seed)
                shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
                folder.mkdir(parents=True)
                os.environ["WORK_DIR"] = str(folder)
                log_file = folder / "full.log"
                options = ["--budget", budget, "--seed", str(args.seed)]
                yaml_file = yaml_of(args, checkout, name)
                author = folders[checkout if args.own_yaml else "after"]
                write_yaml(args.data / name, yaml_file, checkout=author)
                seconds = full(yaml_file, options, log_file, folders[checkout])
                competition = load_competition(str(yaml_file))
                submission = folder / name / SUBMISSION_FILE
                keep(file, key, errors_of_file(competition, submission), seconds=seconds)


def table_of_checkouts(rows: pd.DataFrame) -> str:
    """The errors of two checkouts, geometric means over targets, and whether the second one passes."""
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
        ratios = (
            f"{np.exp(pairs[-1][each]):.3f} +- {pairs[-1][each + '_error']:.3f}"
            for each in ("ratio", "cross_fitted")
        )
        lines.append(
            f"| {budget} | {name} | {seed} | {before:.4g} | {after:.4g} | {' | '.join(ratios)} | {seconds} |"
        )
    if len(pairs) < 2:
        return "\n".join([*lines, "Fewer than two pairs of runs are finished: there is no standard error."])
    log_ratios = pd.DataFrame(pairs)[["ratio", "cross_fitted"]].astype(float)
    lines.append("")
    for name, values in log_ratios.items():
        ratio, standard_error = np.exp(values.mean()), values.std() / np.sqrt(len(values))
        passed = ratio <= 1 + standard_error and ratio <= MAX_WORSENING
        lines.append(
            f"{name}: after / before {ratio:.4f} +- {standard_error:.4f} over {len(values)} pairs; at most 1.00 plus "
            f"its standard error and at most {MAX_WORSENING}: {'passed' if passed else 'missed'}"
        )
    return "\n".join(lines)


def compare_checkouts(args: argparse.Namespace, processor: str) -> None:
    """Run two checkouts, or print the table of their runs on this machine."""
    commits = {name: commit_of(folder) for name, folder in zip(CHECKOUTS, args.checkouts, strict=True)}
    if not args.table:
        run_checkouts(args, commits, processor)
    rows = read_results(args.work / "checkouts.csv")
    is_current = rows["commit"] == rows["checkout"].map(commits)
    print(table_of_checkouts(with_ratios(rows[is_current & (rows["machine"] == processor)], args)))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--sets", nargs="+", default=SETS)
    options.add_argument("--budgets", nargs="+", default=["12m"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--python", type=Path)
    options.add_argument("--more-features", action="store_true")
    options.add_argument("--table", action="store_true")
    options.add_argument("--checkouts", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    options.add_argument("--own-yaml", action="store_true")
    args = options.parse_args()
    args.work = args.work.resolve()  # commands run in the folders of checkouts
    args.data = args.data and args.data.resolve()
    os.environ.pop("RUN_STARTED", None)  # what a budget counts from
    file, here = args.work / "budget.csv", str(machine()["processor"])
    if args.checkouts:
        compare_checkouts(args, here)
        return
    if args.table:
        rows = read_results(file)
        print(table(rows[rows.machine == here]))
        return
    for budget in args.budgets:
        for name in args.sets:
            key = {"set": name, "budget": budget, "seed": args.seed, "machine": here, "commit": revision()}
            work = args.work / f"{name}_{budget}_{args.seed}"
            os.environ["WORK_DIR"] = str(work / "work")
            if not is_there(file, {**key, "who": "submission"}):
                options = ["--budget", budget, "--seed", str(args.seed)]
                seconds = run_pipeline(args.data / name, work / f"{name}.yaml", options)
                for who, target_errors in errors_of_run(latest_run(str(work / f"{name}.yaml"))).items():
                    keep(file, {**key, "who": who}, target_errors, seconds=seconds)
            key["commit"] = "autogluon 1.6.3"
            who = "autogluon, more features" if args.more_features else "autogluon"
            if args.python and not is_there(file, {**key, "who": who}):
                started, run = time.monotonic(), latest_run(str(work / f"{name}.yaml"))
                target_errors = of_autogluon(
                    run, args.python, work / who, parse_duration(budget), AUTOGLUON_FEATURES[who]
                )
                keep(file, {**key, "who": who}, target_errors, seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
