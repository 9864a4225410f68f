"""AutoGluon `best_quality` on the features of the stage `lightgbm`, beside finished runs of `ensembles`.

    python -m benchmarks.against_autogluon --work FOLDER_OF_ENSEMBLES --python PYTHON_WITH_AUTOGLUON --seconds 1200 \\
        [--sets ...]

AutoGluon is no dependency of ours; --python names the interpreter of an environment that has it. Each target of a set
gets an equal share of --seconds. Prints for each target the RMSE on the answers of LightGBM alone, of the submission,
of AutoGluon, and of the plain mean of AutoGluon and the stage `gnn` (chemprop's message passing, 5 folds), where there
is one; of classes the metric of the submission and of AutoGluon, after `./run.sh new` and `full` of --work/NAME.yaml.
"""

import argparse
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.ensembles import FEWEST, SETS, geometric_mean, read_answers, squared_errors
from competition.config import load_competition
from competition.files import read_text_table
from competition.paths import Paths
from competition.tables import read_rows
from competition.task import from_sample
from models.config import LightgbmStage
from models.inputs.blocks import molecules
from models.jobs.work import context_of
from submissions.report import findings
from submissions.run import SUBMISSION_FILE, latest_run

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


def write_features(yaml_file: Path, folder: Path) -> None:
    """What the stage lightgbm sees of training and test rows, as CSV; text as it is, since AutoGluon reads it."""
    competition, paths = load_competition(str(yaml_file)), Paths.of(str(yaml_file))
    context, config = context_of(competition, paths, 0), LightgbmStage(kind="lightgbm")
    folder.mkdir(parents=True, exist_ok=True)
    train, test = (read_rows(path, competition, path == paths.train) for path in (paths.train, paths.test))
    for name, rows in (("train", train), ("test", test)):
        numbers = molecules(rows, config, context)
        own = rows.inputs[[*context.text, *context.numeric, *context.categorical]]
        features = pd.DataFrame(numbers, columns=[f"molecule_{i}" for i in range(numbers.shape[1])])
        pd.concat([features, own], axis=1).to_csv(folder / f"{name}.csv", index=False)
    pd.DataFrame(train.y, columns=competition.targets).to_csv(folder / "y.csv", index=False)


def predict(
    python: Path, folder: Path, target: str, seconds: float, metric: str = "root_mean_squared_error",
    asked: str = "predict",
) -> np.ndarray:  # fmt: skip
    """AutoGluon's predictions of the test rows, (n_test_rows,); kept in `folder`. asked: its method."""
    predicted = folder / f"{target}.csv"
    if not predicted.exists():
        call = [str(python), "-c", THEIRS, str(folder), target, str(seconds), str(os.cpu_count()), metric, asked]
        subprocess.run(call, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    return pd.read_csv(predicted)[target].to_numpy()


def of_classes(yaml_file: Path, python: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Scores on the answers of the submission and of AutoGluon: of labels, or of probabilities of two classes."""
    run = latest_run(str(yaml_file))
    competition, task, metric = run.config.competition, run.task, run.metric
    submission = read_text_table(run.folder / SUBMISSION_FILE)
    assert competition.answers is not None
    ids = submission[competition.id]
    y = findings.read_answers(run, competition.answers).loc[ids].to_numpy()
    asked, each = "predict" if task.decides else "predict_proba", seconds / len(task.targets)
    theirs = [predict(python, folder, target, each, competition.metric, asked) for target in task.targets]
    read = pd.DataFrame(np.column_stack(theirs), read_rows(run.paths.test, competition, labelled=False).ids)
    y_pred = read.reindex(ids).fillna(read.mean()).to_numpy()  # some test rows cannot be read
    return {"submission": metric(y, from_sample(task, submission)), "AutoGluon": metric(y, y_pred)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--python", type=Path, required=True)
    options.add_argument("--seconds", type=float, required=True, help="of AutoGluon, for all targets of a set")
    options.add_argument("--sets", nargs="+", default=SETS)
    args = options.parse_args()
    os.environ["WORK_DIR"] = str(args.work / "work")
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name in args.sets:
        yaml_file, folder = args.work / f"{name}.yaml", args.work / "autogluon" / name
        write_features(yaml_file, folder)
        if load_competition(str(yaml_file)).classes:
            scores = of_classes(yaml_file, args.python, folder, args.seconds)
            print(f"{name}: {', '.join(f'{who} {score:.4f}' for who, score in scores.items())}", flush=True)
            continue
        found = read_answers(yaml_file)
        for t, target in enumerate(found.targets):
            theirs = predict(args.python, folder, target, args.seconds / len(found.targets))
            stages = {stage: found.columns.test_of(stage)[:, t] for stage in set(found.columns.stage_of.values())}
            compared = {"submission": found.submission[:, t], "AutoGluon": theirs}
            if "gnn" in stages:
                compared["mean of AutoGluon and gnn"] = (theirs + stages["gnn"]) / 2
            trees, *others = squared_errors(found.y[:, t], stages["lightgbm"], *compared.values())
            rmse = [f"{who} {math.sqrt(e.mean()):.4f}" for who, e in zip(compared, others, strict=True)]
            print(f"{name} {target}: LightGBM {math.sqrt(trees.mean()):.4f}, {', '.join(rmse)}", flush=True)
            for who, errors in zip(compared, others, strict=True):
                pairs.setdefault(who, []).extend([(errors, trees)] if len(trees) >= FEWEST else [])
    for who, errors_of in pairs.items():
        print(f"{who}, over LightGBM alone: {geometric_mean(errors_of)}")


if __name__ == "__main__":
    main()
