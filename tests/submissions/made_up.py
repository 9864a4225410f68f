"""Made-up competitions for `./run.sh new`."""

import numpy as np
import pandas as pd

from competition.prepare import prepare
from core.files import write_table
from pipeline import commands
from submissions.config import load_config

RINGS = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"]


def smiles(n, rings=None):
    rings = rings or RINGS
    return ["C" * (1 + i // len(rings)) + rings[i % len(rings)] for i in range(n)]


def notes(n):
    return [f"note {i} about a sample that was {'warm' if i % 2 else 'cold'}" for i in range(n)]


def write(folder, n_train=60, n_test=20, n_targets=1, **inputs):
    """Three CSV files in `folder`; `inputs` have n_train + n_test values. Returns the options that name the
    files.
    """
    rng = np.random.default_rng(0)
    n = n_train + n_test
    table = pd.DataFrame({"id": [f"m{i:03d}" for i in rng.permutation(n)], **inputs})
    train = table[:n_train].assign(
        **{f"y{t}": rng.normal(size=n_train).round(3) * 10**t for t in range(n_targets)}
    )
    test = table[n_train:].sample(frac=1, random_state=0)
    sample = test[["id"]].assign(**{f"y{t}": 0.0 for t in range(n_targets)}).sample(frac=1, random_state=1)
    return write_tables(folder, train, test, sample)


def write_labels(folder, labels, sample, **inputs):
    """Write a competition with these labels and cells of the sample; `inputs` have 20 values more than `labels`."""
    n_train = len(next(iter(labels.values())))
    table = pd.DataFrame(
        {"id": range(n_train + 20), **(inputs or {"n": [k / 7 for k in range(n_train + 20)]})}
    )
    test = table[n_train:]
    return write_tables(folder, table[:n_train].assign(**labels), test, test[["id"]].assign(**sample))


def write_tables(folder, train, test, sample):
    for file, table in zip(files_in(folder), (train, test, sample), strict=True):
        write_table(file, table)
    return [option for file in files_in(folder) for option in (f"--{file.stem}", str(file))]


def files_in(folder):
    return [folder / f"{name}.csv" for name in ("train", "test", "sample")]


def make(folder, files, *options):
    """Run `new`; the YAML loads and its tables pass."""
    path = folder / "mine.yaml"
    commands.main(["new", str(path), *files, "--force", *options])
    config = load_config(str(path))
    prepare(config.competition)
    return config
