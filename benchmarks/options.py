"""Options of which one is right: runs with and without `competition.swap`, and with a row per option.

    python -m benchmarks.options --work FOLDER --data FOLDER_WITH_COMPETITIONS [--sets ...] [--score]

Each item of a training table is an option of one row: four tweets, three molecules, of which the largest label is
asked for; four tweets, one with the emotion that is asked for; the other one of two similar sentences, among three
of other rows with common words. 60 % of the items make the training rows. All stages that `new --preset quick` writes,
but fine-tuned ones and networks, are trained in three folds. The log loss on the rows of the other items of each stage
and of the blend, and gains with the 95 % interval of the bootstrap over these rows. A row per option has a label of 0
or 1, the same stages, and probabilities in proportion to the odds. `--score` only reads earlier runs.
"""

import argparse
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from core.types import Array
from core.yaml_files import dump_yaml, load_yaml

SETS = {
    "tweets": ("icwsm_tweets", "text", "sentiment", 4),
    "potency": ("chembl204_ki", "SMILES", "pKi", 3),
    "emotion": ("emotion", "text", "label", 4),
    "sentences": ("sts_benchmark", "sentence2", "similarity_score", 4),
    "hard_sentences": ("sts_benchmark", "sentence2", "similarity_score", 4),
}
"""Set -> competition, column of the items, label, number of options."""
SIMILAR = {"sentences": (3, 5, 1000, 20), "hard_sentences": (1, 3, 700, 8)}
"""Set -> lowest and highest similarity of the right option, rows, and how many sentences the wrong ones are among."""
SLOW = ("bert", "gnn", "unimol", "unimol2")
KINDS = ("plain", "swap", "long")
N_RESAMPLES = 2000


def rows_of(name: str, items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return a row per question, with its options and the number of the right one, from 1."""
    _, column, label, k = SETS[name]
    if name in SIMILAR:
        return _similar(items, *SIMILAR[name][2:], rng)
    if name == "emotion":
        return _asked(items, rng)
    n = len(items) // k * k
    options, labels = (items[each].to_numpy()[:n].reshape(-1, k) for each in (column, label))
    return _table(options, labels.argmax(axis=1))


def _table(options: Array, right: Array, **inputs: list[str]) -> pd.DataFrame:
    """Return a table of options, (n_rows, k), and the numbers of the right ones."""
    columns = {f"option_{place + 1}": column for place, column in enumerate(options.T)}
    return pd.DataFrame({**inputs, **columns, "answer": (right + 1).astype(str)})


def _shuffled(options: list[list[str]], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return options, (n_rows, k), in random order, and the places of those that were the first ones."""
    orders = rng.permuted(np.tile(np.arange(4), (len(options), 1)), axis=1)
    return np.take_along_axis(np.array(options, dtype=object), orders, axis=1), orders.argmin(axis=1)


def _asked(items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows of an emotion and four tweets, one of which has it."""
    pools = {label: list(group.text) for label, group in items.groupby("label")}
    asked: list[str] = []
    options: list[list[str]] = []
    while True:
        left = [label for label, texts in pools.items() for _ in texts]
        chosen = str(rng.choice(left)) if left else ""
        others = [label for label in left if label != chosen]
        if len(others) < 3:
            return _table(*_shuffled(options, rng), asked=asked)
        asked.append(chosen)
        labels = [chosen, *rng.choice(others, 3, replace=False)]
        options.append([pools[label].pop() for label in labels])


def _similar(items: pd.DataFrame, n_rows: int, n_near: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows of a sentence, a similar one, and three that share most words with it."""
    items = items[:n_rows]
    prompts, answers = ([*items[name]] for name in ("sentence1", "sentence2"))
    words = [[{*re.findall(r"\w+", text.lower())} for text in texts] for texts in (prompts, answers)]
    options = []
    for row, own in enumerate(words[0]):
        shares = np.array([len(own & other) / len(own | other) for other in words[1]])
        shares[row] = -1
        others = rng.choice(np.argsort(-shares)[:n_near], 3, replace=False)
        options.append([answers[row], *(answers[other] for other in others)])
    return _table(*_shuffled(options, rng), prompt=prompts)


def write_competition(name: str, data: Path, folder: Path) -> None:
    """Write the tables with a row per question, and with a row per option."""
    competition, column, label, k = SETS[name]
    items = pd.read_csv(data / competition / "train.csv")
    if name in SIMILAR:
        items = items[items[label].between(*SIMILAR[name][:2])].drop_duplicates("sentence1")
    items = items.drop_duplicates(column).sample(frac=1, random_state=0)
    n_train = int(0.6 * len(items))
    rng = np.random.default_rng(0)
    (folder / "long").mkdir(parents=True, exist_ok=True)
    numbers = [str(place + 1) for place in range(k)]
    for which, part in {"train": items[:n_train], "test": items[n_train:]}.items():
        rows = rows_of(name, part, rng)
        rows.insert(0, "id", [f"{which}{row}" for row in range(len(rows))])
        long = rows.melt(
            [column for column in rows if not column.startswith("option_")],
            var_name="place",
            value_name="option",
        )
        long["place"] = long["place"].str.removeprefix("option_")
        long["y"] = (long["place"] == long["answer"]).astype(int)
        long = long.assign(question=long["id"], id=long["id"] + "_" + long["place"])
        long = long.sort_values(["question", "place"]).drop(columns=["place", "answer"])
        if which == "test":
            rows[["id", "answer"]].to_csv(folder / "answers.csv", index=False)
            rows[["id"]].assign(**dict.fromkeys(numbers, 1 / k)).to_csv(folder / "sample.csv", index=False)
            long[["id"]].assign(y=1 / k).to_csv(folder / "long" / "sample.csv", index=False)
            rows, long = rows.drop(columns="answer"), long.drop(columns="y")
        rows.to_csv(folder / f"{which}.csv", index=False)
        long.to_csv(folder / "long" / f"{which}.csv", index=False)


def run(folder: Path, kind: str) -> None:
    """Write the YAML of a set with and without `competition.swap`, or with a row per option; train and submit."""
    prefix = "long" if kind == "long" else ""
    yaml_file = folder / f"{folder.name}_{kind}.yaml"
    files = [f"--{which}={folder / prefix / which}.csv" for which in ("train", "test", "sample")]
    more = ["--group=question", "--metric=log_loss"] if kind == "long" else []
    _pipeline(folder, "new", str(yaml_file), "--preset=quick", "--force", *files, *more)
    config = load_yaml(yaml_file)
    config["stages"] = {name: stage for name, stage in config["stages"].items() if stage["kind"] not in SLOW}
    config["folds"]["n_folds"] = 3
    if kind == "plain":
        config["competition"].pop("swap", None)
    yaml_file.write_text(dump_yaml(config))
    _pipeline(folder, "full", str(yaml_file), "--budget=none", "--workers=1")


def _pipeline(folder: Path, *arguments: str) -> None:
    """Run a command of the pipeline."""
    call = [sys.executable, "-m", "pipeline", *arguments]
    subprocess.run(call, env=os.environ | {"WORK_DIR": str(folder / "work")}, check=True)


def probabilities(folder: Path, kind: str, ids: list[str], k: int) -> dict[str, Array]:
    """Return the probabilities of the options of some questions, (n_rows, k), by each stage and by the blend."""
    work = folder / "work" / f"{folder.name}_{kind}"
    latest = max((work / "submissions").glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    files = {file.stem: file for file in latest.parent.glob("stages/*.csv")} | {
        "blend": work / "submission.csv"
    }
    tables = {stage: pd.read_csv(file, dtype={"id": str}).set_index("id") for stage, file in files.items()}
    if kind != "long":
        return {stage: table.loc[ids].to_numpy() for stage, table in tables.items()}
    long_ids = [f"{each}_{place}" for each in ids for place in range(1, k + 1)]
    right = {stage: table.loc[long_ids].to_numpy()[:, -1] for stage, table in tables.items()}
    odds = {stage: (p / (1 - p)).reshape(-1, k) for stage, p in right.items()}
    return {stage: each / each.sum(axis=1, keepdims=True) for stage, each in odds.items()}


def describe(folder: Path) -> None:
    """Print the log loss and the accuracy of all stages, and the gains by `swap` and by a row per option."""
    answers = pd.read_csv(folder / "answers.csv", dtype=str)
    k = SETS[folder.name][3]
    right = answers["answer"].astype(int).to_numpy() - 1
    rows = np.arange(len(right))
    losses: dict[str, dict[str, Array]] = {}
    done = [kind for kind in KINDS if (folder / "work" / f"{folder.name}_{kind}").exists()]
    for kind in done:
        for stage, values in probabilities(folder, kind, [*answers["id"]], k).items():
            losses.setdefault(stage, {})[kind] = -np.log(values[rows, right])
            print(folder.name, stage, kind, f"accuracy {(values.argmax(axis=1) == right).mean():.3f}")
    resamples = np.random.default_rng(0).integers(len(right), size=(N_RESAMPLES, len(right)))
    for stage, of_kind in losses.items():
        line = [f"{kind} {loss.mean():.3f}" for kind, loss in of_kind.items()]
        for before, after in pairwise(done):
            gains = of_kind[before] - of_kind[after]
            low, high = np.percentile(gains[resamples].mean(axis=1), [2.5, 97.5])
            line.append(f"{after} over {before} {gains.mean():+.3f} [{low:.3f}, {high:.3f}]")
        print(folder.name, stage, *line, sep=", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--score", action="store_true", help="only read earlier runs")
    args = parser.parse_args()
    for name in args.sets:
        folder = args.work.resolve() / name
        if not args.score:
            write_competition(name, args.data.resolve(), folder)
            for kind in args.kinds:
                run(folder, kind)
        describe(folder)
