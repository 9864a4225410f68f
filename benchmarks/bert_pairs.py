"""Compare ways in which `bert` reads two texts that are compared: segments, and both orders of an exchangeable pair.

    python -m benchmarks.bert_pairs --data FOLDER_WITH_COMPETITIONS --work W [--sets sts_benchmark] [--seeds 0 1 2]

Sets are sts_benchmark (Pearson), lcp_phrases, of which the order of columns has a meaning, icwsm_tweets: the mean
sentiment of two tweets, and emotion: do two tweets have one emotion (AUC)? Each seed trains MiniLM on other training
rows, at the settings of the preset `cpu` (or with other `--epochs` and `--learning-rate`), and all predict the same
held-out rows, which share no text with them. Printed are the mean score of the seeds, and the gain over `plain` with
its 95 % interval of a paired bootstrap over held-out rows. Variants, of which several are joined by "+":

plain     the two texts, joined by the separator
segments  the second text has token type 1
random    a row is in a random order in one epoch, and in the other one in the next
doubled   each row is in both orders in each of half as many epochs, so that the time is the same
longer    each row is in both orders in as many epochs, so that the time is doubled

Each is scored as it predicts the texts in the order of the table, and as the mean over both orders ("averaged").
"""

import argparse
import itertools
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from competition.dataset import INPUT_KEY, Dataset
from competition.task import Task
from models.context import Context
from models.networks import encoders
from models.stages.bert import Bert

COLUMNS = ["text_a", "text_b"]
PRESETS = {"regression": {"epochs": 4, "learning_rate": 5e-5}, "binary": {"epochs": 2, "learning_rate": 2e-4}}
N_BOOTSTRAP = 2000
SEPARATOR_ID = 102  # of MiniLM's vocabulary
WITHOUT_TYPES = encoders.BertBackbone.forward


def with_types(backbone, input_ids, attention_mask):
    """Return pooled features; tokens after the first separator have type 1."""
    is_separator = (input_ids == SEPARATOR_ID).long()
    is_second = (is_separator.cumsum(1) - is_separator > 0).long() * attention_mask
    tokens = backbone.encoder(
        input_ids=input_ids, attention_mask=attention_mask, token_type_ids=is_second
    ).last_hidden_state
    return encoders.pooled(tokens.float(), attention_mask, backbone.pooling)


class PairBert(Bert):
    """Bert on rows in a random order, which is the other one in the next epoch."""

    random_order: ClassVar[bool] = False

    @property
    def n_augmentations(self):
        return None if self.random_order else 1, 1

    def encode(self, rows, folder, context, augmentation, seed):
        if self.random_order and augmentation:
            is_second = np.random.default_rng(seed).random(len(rows)) < 0.5
            rows = swapped(rows, is_second ^ bool(augmentation % 2))
        return super().encode(rows, folder, context, augmentation, seed)


class RandomOrder(PairBert):
    random_order: ClassVar[bool] = True


def swapped(rows, mask):
    """Return rows with the two texts in the other order where the mask is true."""
    inputs = rows.inputs.copy()
    inputs.loc[mask, COLUMNS] = rows.inputs.loc[mask, COLUMNS[::-1]].to_numpy()
    return replace(rows, inputs=inputs)


def read_pairs(name, data):
    """Return a table with two texts and `y`, and its problem type; each tweet is in one pair."""
    table = pd.read_csv(data / name / "train.csv", keep_default_na=False)
    if name == "sts_benchmark":
        table = table.rename(columns={"sentence1": "text_a", "sentence2": "text_b", "similarity_score": "y"})
        return table, "regression"
    if name == "lcp_phrases":
        return table.rename(
            columns={"sentence": "text_a", "token": "text_b", "complexity": "y"}
        ), "regression"
    if name == "icwsm_tweets":
        order = np.random.default_rng(0).permutation(len(table) // 2 * 2).reshape(-1, 2)
        texts, y = table.text.to_numpy()[order], table.sentiment.to_numpy()[order].mean(axis=1)
        return pd.DataFrame(texts, columns=COLUMNS).assign(y=y), "regression"
    generator = np.random.default_rng(0)
    remaining = {
        label: list(part) for label, part in table.sample(frac=1, random_state=0).groupby("label").text
    }
    pairs = []
    while sum(map(bool, remaining.values())) > 1:  # each tweet is in one pair
        sizes = np.array([len(texts) for texts in remaining.values()], dtype=float)
        first = generator.choice(list(remaining), p=sizes / sizes.sum())
        is_one = generator.random() < 0.5
        others = [label for label, texts in remaining.items() if texts and (label == first) == is_one]
        if not others or len(remaining[first]) < 2:
            continue
        text = remaining[first].pop()
        pairs.append((text, remaining[generator.choice(others)].pop(), float(is_one)))
    return pd.DataFrame(pairs, columns=[*COLUMNS, "y"]), "binary"


def dataset(table):
    texts = table[COLUMNS].reset_index(drop=True)
    inputs = texts.assign(**{INPUT_KEY: texts.agg("\n".join, axis=1)})
    return Dataset([str(i) for i in range(len(table))], inputs, table[["y"]].to_numpy(float))


def both_orders(rows):
    inputs = pd.concat([rows.inputs, swapped(rows, np.ones(len(rows), bool)).inputs], ignore_index=True)
    return Dataset([str(i) for i in range(2 * len(rows))], inputs, np.vstack([rows.y, rows.y]))


def predict_both(variant, train, held_out, settings, seed, kind, work):
    """Return predictions in the order of the table and in the other one, (n_rows, 2), and the seconds of the fit."""
    words = variant.split("+")
    encoders.BertBackbone.forward = with_types if "segments" in words else WITHOUT_TYPES
    settings = dict(settings)
    if "doubled" in words:
        settings["epochs"] //= 2
    if "doubled" in words or "longer" in words:
        train = both_orders(train)
    stage_type = RandomOrder if "random" in words else PairBert
    stage = stage_type.model_validate({"kind": "bert", "weights": "minilm", **settings})
    classes = ["0", "1"] if kind == "binary" else []
    task = Task(["y"], problem_type=kind, classes=classes)
    folder = work / "job"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = Context([], COLUMNS, [], [], task, seed=seed, cache=work / "cache")
    start = time.process_time()
    stage.fit(train, folder, context)
    seconds = time.process_time() - start
    other = swapped(held_out, np.ones(len(held_out), bool))
    with torch.autocast("cpu", torch.bfloat16, enabled=stage.precision == "bf16"):
        preds = [stage.predict(rows.without_labels(), folder, context)[:, 0] for rows in (held_out, other)]
    return np.stack(preds, axis=1), seconds


def score(y, y_pred, kind):
    return roc_auc_score(y, y_pred) if kind == "binary" else np.corrcoef(y, y_pred)[0, 1]


def gain(y, after, before, kind):
    """Return the mean gain over seeds and its 95 % interval; predictions are (n_seeds, n_rows)."""

    def difference(rows):
        pairs = zip(after, before, strict=True)
        return np.mean([score(y[rows], a[rows], kind) - score(y[rows], b[rows], kind) for a, b in pairs])

    generator = np.random.default_rng(0)
    draws = [difference(generator.integers(len(y), size=len(y))) for _ in range(N_BOOTSTRAP)]
    of_seeds = [score(y, a, kind) - score(y, b, kind) for a, b in zip(after, before, strict=True)]
    low, high = np.quantile(draws, [0.025, 0.975])
    seeds = " ".join(f"{value:+.4f}" for value in of_seeds)
    return f"{difference(np.arange(len(y))):+.4f} [{low:+.4f}, {high:+.4f}], of each seed {seeds}"


@dataclass
class Comparison:
    """Training rows, held-out rows and predictions of a set."""

    name: str
    kind: str
    rest: pd.DataFrame
    held_out: pd.DataFrame
    preds: dict[str, list] = field(default_factory=dict)

    @classmethod
    def of(cls, name, arguments):
        table, kind = read_pairs(name, arguments.data)
        order = np.random.default_rng(1).permutation(len(table))
        held_out = table.iloc[order[: arguments.held_out]]
        texts = {*held_out.text_a, *held_out.text_b}
        rest = table.iloc[order[arguments.held_out :]]
        rest = rest[~rest.text_a.isin(texts) & ~rest.text_b.isin(texts)]
        print(f"{name}: {len(rest)} training rows to draw from, {len(held_out)} held-out rows", flush=True)
        return cls(name, kind, rest, held_out)

    def add(self, variant, seed, arguments):
        """Train one model, or read its predictions, and print its scores."""
        settings = dict(PRESETS[self.kind])
        if arguments.epochs:
            settings |= {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate}
        settings["precision"] = arguments.precision
        train = dataset(self.rest.sample(min(arguments.rows, len(self.rest)), random_state=seed))
        shape = [len(train), len(self.held_out), *settings.values()]
        file = arguments.work / f"{self.name}_{variant}_{seed}_{'_'.join(map(str, shape))}.npz"
        if not file.exists():
            held_out = dataset(self.held_out)
            work = arguments.work / self.name
            both, seconds = predict_both(variant, train, held_out, settings, seed, self.kind, work)
            np.savez(file, both=both, seconds=seconds)
        saved = np.load(file)
        both = saved["both"]
        self.preds.setdefault(variant, []).append(both)
        y = self.held_out.y.to_numpy(float)
        one, mean = score(y, both[:, 0], self.kind), score(y, both.mean(axis=1), self.kind)
        line = f"  {self.name}, {len(train)} rows, {settings}, seed {seed}, {variant}: {one:.4f}"
        print(f"{line}, averaged {mean:.4f}, {saved['seconds']:.0f} s", flush=True)

    def summarize(self):
        """Print the gains over `plain`."""
        y = self.held_out.y.to_numpy(float)
        plain = np.array(self.preds["plain"])[:, :, 0]
        for variant, both in self.preds.items():
            forms = {"": np.array(both)[:, :, 0], ", averaged": np.array(both).mean(axis=2)}
            for form, y_pred in forms.items():
                mean = np.mean([score(y, row, self.kind) for row in y_pred])
                print(
                    f"{self.name}, {variant}{form}: {mean:.4f}, {gain(y, y_pred, plain, self.kind)}",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["sts_benchmark", "emotion"])
    parser.add_argument("--variants", nargs="+", default=["plain", "segments", "random", "doubled"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=800)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--precision", default="auto", help="bf16 is faster on a CPU with avx512_bf16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    comparisons = [Comparison.of(name, arguments) for name in arguments.sets]
    for seed, comparison in itertools.product(arguments.seeds, comparisons):
        for variant in arguments.variants:
            comparison.add(variant, seed, arguments)
        if seed == arguments.seeds[-1]:
            comparison.summarize()


if __name__ == "__main__":
    main()
