"""Seeds of all rows against folds: the mean of five fold models of `minilm`, and of refits, on the test answers.

    python -m benchmarks.refits --data FOLDER_WITH_COMPETITIONS [--sets emotion icwsm_tweets] [--rows 600]
    [--epochs 3] [--draws 3]

Each draw takes other training rows, folds and seeds. The models of five folds train on 5 x 4/5 of the rows, in the
time of four refits. Prints for each draw, and as the mean over draws, the score out of fold and the scores on the
test answers of one fold model (the mean over the five), of the mean of the five, of one refit (the mean over the
four), and of the means of three and four refits; then the difference of three and four refits from the folds, with
its standard error over draws (emotion: F1 macro, higher is better; icwsm_tweets: RMSE, lower).
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import KFold, StratifiedKFold

from benchmarks.lora import FULL_RATES, parser_of, read, score
from competition.dataset import Dataset
from competition.task import Task
from core.types import Array
from models import targets
from models.context import Context
from models.stages.bert import Bert

N_FOLDS, N_REFITS = 5, 4
NAMES = ["out of fold", "one fold", "five folds", "one refit", "three refits", "four refits"]


def read_answers(data: Path, name: str, task: Task) -> tuple[Dataset, Array]:
    """Return the test rows and their labels (n_rows,); classes are indices."""
    test = pd.read_csv(data / name / "test.csv")
    answers = pd.read_csv(data / name / "answers.csv").set_index("id").loc[test["id"]]
    labels = answers[task.targets[0]]
    y = labels.astype(str).map(task.classes.index) if task.classes else labels
    rows = Dataset([str(i) for i in test.index], test[["text"]], None)
    return rows, y.to_numpy(dtype=np.float64)


def fit_and_predict(
    config: Bert, task: Task, seed: int, train: Dataset, others: list[Dataset]
) -> list[Array]:
    """Return the predictions of some tables by a model of the training rows."""
    context = Context([], ["text"], [], [], task, seed, Path("unused"))
    with tempfile.TemporaryDirectory() as folder:
        targets.fit(config, train, Path(folder), context)
        return [targets.predict(config, rows, Path(folder), context) for rows in others]


def measure(config: Bert, task: Task, rows: Dataset, test: Dataset, y_test: Array, draw: int) -> Array:
    """Return the scores of a draw, in the order of NAMES."""
    y = rows.y[:, 0]
    splitter = StratifiedKFold if task.classes else KFold
    oof = np.full((len(y), max(len(task.classes), 1)), np.nan)
    of_folds, of_refits = [], []
    for train, held_out in splitter(N_FOLDS, shuffle=True, random_state=draw).split(y, y):
        others = [rows.take(held_out).without_labels(), test]
        oof[held_out], on_test = fit_and_predict(config, task, draw, rows.take(train), others)
        of_folds.append(on_test)
    for i in range(N_REFITS):
        of_refits += fit_and_predict(config, task, 100 * (draw + 1) + i, rows, [test])
    return np.array([
        score(y, oof, task),
        np.mean([score(y_test, y_pred, task) for y_pred in of_folds]),
        score(y_test, np.mean(of_folds, axis=0), task),
        np.mean([score(y_test, y_pred, task) for y_pred in of_refits]),
        score(y_test, np.mean(of_refits[:3], axis=0), task),
        score(y_test, np.mean(of_refits, axis=0), task),
    ])  # fmt: skip


def main() -> None:
    options = parser_of(__doc__)
    options.add_argument("--draws", type=int, default=3)
    args = options.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        rows, task = read(args.data, name)
        test, y_test = read_answers(args.data, name, task)
        settings = {
            "kind": "bert",
            "weights": "minilm",
            "epochs": args.epochs,
            "learning_rate": FULL_RATES[name],
        }
        config = Bert.model_validate(settings)
        scores = []
        for draw in range(args.draws):
            chosen = np.random.default_rng(draw).permutation(len(rows.ids))[: args.rows]
            scores.append(measure(config, task, rows.take(chosen), test, y_test, draw))
            print_scores(f"{name}, draw {draw}", scores[-1])
        print_scores(f"{name}, mean of {args.draws} draws", np.mean(scores, axis=0))
        for column in (4, 5):
            difference = np.array(scores)[:, column] - np.array(scores)[:, 2]
            error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
            print(
                f"{name}: {NAMES[column]} - five folds: {difference.mean():+.4f} +- {error:.4f}", flush=True
            )


def print_scores(title: str, scores: Array) -> None:
    pairs = zip(NAMES, scores, strict=True)
    print(f"{title}: {', '.join(f'{name} {value:.4f}' for name, value in pairs)}", flush=True)


if __name__ == "__main__":
    main()
