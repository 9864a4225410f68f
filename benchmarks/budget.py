"""What a given time is worth: `new --preset cpu` and `full --budget`, and AutoGluon with the same time and features.

    python -m benchmarks.budget --data FOLDER_WITH_COMPETITIONS --work FOLDER [--sets ...] [--budgets 12m 36m] \\
        [--seed N] [--python PYTHON_WITH_AUTOGLUON]
    python -m benchmarks.budget --work FOLDER --table

Each run starts from nothing and appends its rows to FOLDER/budget.csv: the error on the answers of the submission, of
the stage `lightgbm` of the same run and of AutoGluon `best_quality` (each target an equal share of the time; the
features of that stage and, of texts, the frozen embeddings), with the seconds it took, machine and commit. A row that
is there is not made again. Errors are RMSE, and of classes 1 less the metric. The table takes rows of this machine
alone: for each set the geometric mean of its targets' ratios, over the sets that of these with its 95 % interval by
bootstrap over sets.
AutoGluon is no dependency of ours; --python names the interpreter of an environment that has it.
"""

import argparse
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.oof_matrices import over_sets
from competition.durations import seconds_of
from competition.files import read_text_table
from competition.paths import PROJECT
from competition.revision import revision
from competition.tables import read_rows
from competition.task import from_sample
from models.config import LightgbmStage
from models.inputs.blocks import molecules
from models.inputs.frozen import encoder_cache
from models.jobs.job_rows import context_of
from models.settings import Encoder
from models.training.machine import machine
from submissions.report import findings
from submissions.run import SUBMISSION_FILE, Run, latest_run

SETS = ["esol", "biogen_adme", "chembl204_ki", "chembl218_ec50", "chembl287_ki", "bace", "tox21", "emotion"]
THEIRS = """
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


def ours(source: Path, yaml_file: Path, full: list[str], new: tuple[str, ...] = ()) -> float:
    """Make the submission of the tables in a folder, with options of both verbs; gives the seconds that `full` took."""
    files = {"train": "train", "test": "test", "sample": "sample_submission", "answers": "answers"}
    yaml_file.parent.mkdir(parents=True, exist_ok=True)
    if not yaml_file.exists():
        options = [f"--{option}={source / file}.csv" for option, file in files.items()]
        subprocess.run(["./run.sh", "new", str(yaml_file), *options, "--preset=cpu", *new], check=True, cwd=PROJECT)
    started = time.monotonic()
    with yaml_file.with_suffix(".log").open("w") as log:
        call = ["./run.sh", "full", str(yaml_file), *full]
        status = subprocess.run(call, check=False, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT).returncode
    if status not in (0, 3):  # 3: a submission without something that failed
        raise RuntimeError(f"{' '.join(call)} ended with status {status}; see {log.name}")
    return time.monotonic() - started


def errors(run: Run, y: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """Of predictions (n_rows, n_scored) of test rows: RMSE of each target, or of classes 1 less the metric."""
    if run.task.classes:
        return {"all": 1 - run.metric(y, y_pred)}
    return {t: float(np.sqrt(np.nanmean((y_pred[:, i] - y[:, i]) ** 2))) for i, t in enumerate(run.task.targets)}


def of_ours(run: Run) -> dict[str, dict[str, float]]:
    """Errors of the submission and of LightGBM alone."""
    submission, competition = read_text_table(run.folder / SUBMISSION_FILE), run.config.competition
    assert competition.answers is not None
    answers, columns = findings.read_answers(run, competition.answers), run.columns
    found = {
        "submission": errors(run, answers.loc[submission[competition.id]].to_numpy(), from_sample(run.task, submission))
    }
    if "lightgbm" in run.config.stages:
        trees = columns.test_of("lightgbm")
        trees = run.task.likeliest(trees) if run.task.decides else trees
        found["lightgbm"] = errors(run, answers.loc[list(columns.test_ids)].to_numpy(), trees)
    return found


def write_features(run: Run, folder: Path) -> None:
    """What the stage lightgbm sees of training and test rows, and the frozen encoder of texts, as CSV."""
    competition, paths = run.config.competition, run.paths
    context, config = context_of(run.plan, 0), LightgbmStage(kind="lightgbm")
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (("train", paths.train), ("test", paths.test)):
        rows = read_rows(path, competition, labelled=name == "train")
        numbers = molecules(rows, config, context)
        parts = [pd.DataFrame(numbers, columns=[f"molecule_{i}" for i in range(numbers.shape[1])])]
        for column in context.text:
            cache = encoder_cache(Encoder(encoder="minilm"), context.cache)
            vectors = np.concatenate(cache.load(rows.inputs[column]))[:, :-3]  # without what was counted
            parts.append(pd.DataFrame(vectors, columns=[f"{column}_{i}" for i in range(vectors.shape[1])]))
        parts.append(rows.inputs[[*context.text, *context.numeric, *context.categorical]])
        pd.concat(parts, axis=1).to_csv(folder / f"{name}.csv", index=False)
        if name == "train":
            pd.DataFrame(rows.y, columns=competition.targets).to_csv(folder / "y.csv", index=False)


def of_autogluon(run: Run, python: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Errors of AutoGluon in a time: of labels, or of probabilities of two classes."""
    competition, task = run.config.competition, run.task
    write_features(run, folder)
    asked = "predict_proba" if task.classes and not task.decides else "predict"
    metric, each = competition.metric if task.classes else "root_mean_squared_error", seconds / len(task.targets)
    environment, found = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, []
    for target in task.targets:
        call = [str(python), "-c", THEIRS, str(folder), target, str(each), str(os.cpu_count()), metric, asked]
        subprocess.run(call, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        found.append(pd.read_csv(folder / f"{target}.csv")[target].to_numpy())
    ids = read_rows(run.paths.test, competition, labelled=False).ids
    assert competition.answers is not None
    answers = findings.read_answers(run, competition.answers)
    read = pd.DataFrame(np.column_stack(found), ids).reindex(answers.index)
    return errors(run, answers.to_numpy(), read.fillna(read.mean()).to_numpy())  # some test rows cannot be read


def is_there(file: Path, key: dict[str, Any]) -> bool:
    """Whether the rows of a run are in the file."""
    return file.exists() and bool((pd.read_csv(file)[[*key]] == pd.Series(key)).all(axis=1).any())


def keep(file: Path, key: dict[str, Any], found: dict[str, float], seconds: float) -> None:
    """Append the errors of a run, by target."""
    new = [{**key, "target": target, "error": error, "seconds": seconds} for target, error in found.items()]
    pd.DataFrame(new).to_csv(file, mode="a", header=not file.exists(), index=False)
    print(*key.values(), found, f"{seconds:.0f} s", flush=True)


def table(rows: pd.DataFrame) -> str:
    """Ratios of errors, set by set and over the sets."""
    lines = ["| budget | set | submission | over lightgbm | over autogluon | seconds |", "|---|---|---|---|---|---|"]
    mean = rows.groupby(["budget", "set", "who", "target"])["error"].mean().unstack("who")
    others = mean.reindex(columns=["lightgbm", "autogluon"])
    ratios = np.log(others.rdiv(mean["submission"], axis=0)).groupby(["budget", "set"]).mean()
    seconds = rows[rows.who == "submission"].groupby(["budget", "set"])["seconds"].max()
    for budget, of_sets in ratios.groupby("budget"):
        for name, of_set in of_sets.droplevel("budget").iterrows():
            shown = " ".join(f"{error:.4g}" for error in mean["submission"].loc[budget, name])
            said = " | ".join(f"{ratio:.3f}" for ratio in np.exp(of_set))
            lines.append(f"| {budget} | {name} | {shown} | {said} | {seconds[budget, name]:.0f} |")
        said = []
        for known in (of_sets[who].dropna() for who in of_sets):
            found = np.exp(over_sets(known, known.index)[1]) if len(known) else 3 * [np.nan]
            said.append("{:.3f} ({:.3f} to {:.3f})".format(*found))
        lines.append(f"| {budget} | geometric mean, 95 % interval | | {' | '.join(said)} | |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--sets", nargs="+", default=SETS)
    options.add_argument("--budgets", nargs="+", default=["12m"])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--python", type=Path)
    options.add_argument("--table", action="store_true")
    args = options.parse_args()
    file, here = args.work / "budget.csv", str(machine()["processor"])
    if args.table:
        rows = pd.read_csv(file)
        print(table(rows[rows.machine == here]))
        return
    for budget in args.budgets:
        for name in args.sets:
            key = {"set": name, "budget": budget, "seed": args.seed, "machine": here, "commit": revision()}
            work = args.work / f"{name}_{budget}_{args.seed}"
            os.environ["WORK_DIR"] = str(work / "work")
            if not is_there(file, {**key, "who": "submission"}):
                options = ["--budget", budget, "--seed", str(args.seed)]
                seconds = ours(args.data / name, work / f"{name}.yaml", options)
                for who, found in of_ours(latest_run(str(work / f"{name}.yaml"))).items():
                    keep(file, {**key, "who": who}, found, seconds)
            key["commit"] = "autogluon 1.6.3"
            if args.python and not is_there(file, {**key, "who": "autogluon"}):
                started, run = time.monotonic(), latest_run(str(work / f"{name}.yaml"))
                found = of_autogluon(run, args.python, work / "autogluon", seconds_of(budget))
                keep(file, {**key, "who": "autogluon"}, found, time.monotonic() - started)


if __name__ == "__main__":
    main()
