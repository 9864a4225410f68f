"""Planted leaks are named by `check`, and good features are not."""

import numpy as np
import pandas as pd
import pytest

from competition.prepare import describe, prepare
from folds.leaks import describe_leaks
from folds.make import make_folds
from submissions.config import load_config
from tests.pipeline.made import of_table

N, N_TEST = 240, 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)
NOISE = RNG.normal(size=N)
Y = X + 0.5 * NOISE
CLASS = np.where(Y > 0, "toxic", "safe")
THREE = np.array(["a", "b", "c"])[pd.qcut(Y, 3, labels=False)]
ORDER = np.argsort(Y)
RANK = np.argsort(ORDER)
DAYS = (pd.Timestamp("2024-01-01") + pd.to_timedelta(RANK, unit="D")).astype(str)
ASSAY = RNG.integers(3, size=N)
SHUFFLED = RNG.permutation(N)
BINARY = {"problem_type": "binary", "metric": "roc_auc"}
NAMED = {"problem_type": "multiclass", "metric": "accuracy"}


def texts(n, seed=1):
    """Different texts of several words."""
    words = np.array(["red", "green", "blue", "warm", "cold", "old", "new", "fast", "slow", "small"])
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(words, 5))} w{chr(97 + k % 26)}{chr(97 + k // 26)}" for k in range(n)]


def lines_about(folder, table, **settings):
    """The lines about leaks and about the tables; the last rows are the test table."""
    config = load_config(str(of_table(folder, table, N_TEST, **settings)))
    tables = make_folds(config.competition, config.folds, prepare(config.competition))
    return list(describe_leaks(tables, config.competition)), describe(tables.report).splitlines()


def table(y=Y, **columns):
    """A table with ids and rows in no order of the labels, one good input, and more columns."""
    ids = [f"r{number:03d}" for number in SHUFFLED]
    return pd.DataFrame({"id": ids, "x": X, "y": y, **columns})


def sort(rows, key):
    """The rows in another order of training rows; the test rows stay the last."""
    return rows.iloc[np.concatenate([np.argsort(key[:-N_TEST], kind="stable"), np.arange(N - N_TEST, N)])]


BLOCKS = np.where(np.arange(N) // 30 % 2 == 0, "toxic", "safe")
PLANTED = {
    "ids sorted by label": (table().assign(id=RANK), {}, "the id 'id'"),
    "padded ids sorted by label": (table().assign(id=[f"mol-{k:05d}" for k in RANK]), {}, "the id"),
    "ids that name the class": (table(CLASS, id=[f"{c[0]}{k}" for k, c in enumerate(CLASS)]), BINARY, "the id"),
    "odd ids are a class": (
        table(np.where(SHUFFLED % 2, "toxic", "safe")).assign(id=[f"r{k}" for k in SHUFFLED]), BINARY, "the id",
    ),
    "rows sorted by label": (sort(table(), Y), {}, "the position in train.csv"),
    "rows sorted by class": (sort(table(CLASS), Y), BINARY, "the position"),
    "rows in blocks of a class": (table(BLOCKS), BINARY, "the position"),
    "three classes in turn": (table(np.tile(["a", "b", "c"], N // 3)), NAMED, "the position"),
    "other units, rounded": (table(pounds=(Y * 2.2).round(1)), {"numeric": ["x", "pounds"]}, "the column 'pounds'"),
    "whole numbers of a label": (table(Y * 3, level=(Y * 3).round()), {"numeric": ["x", "level"]}, "'level'"),
    "logarithm": (table(np.exp(2 * Y), log=2 * Y + 3), {"numeric": ["x", "log"]}, "'log'"),
    "reciprocal": (table(np.exp(2 * Y), inverse=np.exp(-2 * Y)), {"numeric": ["x", "inverse"]}, "'inverse'"),
    "rank": (table(rank=RANK), {"numeric": ["x", "rank"]}, "'rank'"),
    "number with a unit": (table(RANK + 100.5, mass=[f"{k + 100.5} mg" for k in RANK]), {}, "'mass'"),
    "decimal commas": (table(mass=[f"{y:.3f}".replace(".", ",") for y in Y + 9]), {}, "'mass'"),
    "a third of the labels": (
        table(third=pd.Series(THREE).map({"a": "low", "b": "middle", "c": "top"})),
        {"categorical": ["third"]}, "'third'",
    ),
    "code of a class": (
        table(THREE, code=pd.Series(THREE).map({"a": "K7", "b": "Q2", "c": "B9"})),
        NAMED | {"categorical": ["code"]}, "'code'",
    ),
    "several codes of a class": (
        table(CLASS, code=[f"{SHUFFLED[k] % 7}{c[1]}{c[2]}" for k, c in enumerate(CLASS)]),
        BINARY | {"categorical": ["code"]}, "'code'",
    ),
    "a number is missing for one class": (
        table(CLASS, dose=np.where(CLASS == "safe", np.nan, NOISE)), BINARY | {"numeric": ["x", "dose"]}, "'dose'",
    ),
    "a category is missing for one class": (
        table(CLASS, site=np.where(CLASS == "safe", "", np.array(["n", "s"])[SHUFFLED % 2])),
        BINARY | {"categorical": ["site"]}, "'site'",
    ),
    "the label in half of the rows": (
        table(repeat=np.where(SHUFFLED % 2, Y * 5, np.nan)), {"numeric": ["x", "repeat"]}, "'repeat'",
    ),
    "dates sorted by label": (table(day=DAYS), {}, "the column 'day'"),
    "the length of a text": (
        table(CLASS, note=[f"{t} again" if c == "safe" else t[:20] for t, c in zip(texts(N), CLASS, strict=True)]),
        BINARY | {"text": ["note"]}, "the length of 'note'",
    ),
    "a target that is known": (table(z=Y**3), {"targets": ["y", "z"], "test_has": ["z"]}, "the column 'z' predicts y"),
}  # fmt: skip


@pytest.mark.parametrize("leak", PLANTED)
def test_a_leak_of_a_label_is_named_with_its_column(tmp_path, leak):
    rows, settings, named = PLANTED[leak]
    warnings, _ = lines_about(tmp_path, rows, **settings)
    assert len(warnings) <= 2
    assert any(named in line and "almost perfectly" in line for line in warnings)
    assert all(line.startswith("WARNING: ") for line in warnings)


def test_what_two_texts_have_in_common_is_no_feature_of_the_user(tmp_path):
    rows = table(CLASS, a=texts(N), b=np.where(CLASS == "safe", texts(N), texts(N, 2)))
    warnings, _ = lines_about(tmp_path, rows, **BINARY, text=["a", "b"], pairs=[["a", "b"]])
    assert warnings
    assert all(
        "of competition.pairs predicts y" in line and "take it out of competition.pairs" in line
        for line in warnings
    )


HONEST = {
    "a correlation of 0.98": (table(X + 0.2 * NOISE), {}),
    "of ranks of a skewed target": (table(np.exp(X + 0.2 * NOISE)), {}),
    "19 of 20 classes": (table(np.where((X > 0) ^ (SHUFFLED % 20 == 0), "toxic", "safe")), BINARY),
    "assays of other ranges": (
        table(2 * (ASSAY) + 0.6 * Y, assay=(ASSAY).astype(str)),
        {"categorical": ["assay"]},
    ),
    "patients of one class, and others in the test table": (
        table(
            np.where(np.repeat(np.random.default_rng(5).random(N // 6) < 0.5, 6), "toxic", "safe"),
            patient=[f"p{k}" for k in np.repeat(np.random.default_rng(6).permutation(N // 6), 6)],
        ).sample(frac=1, random_state=0).sort_values("patient", key=lambda names: names > "p33", kind="stable"),
        BINARY,
    ),
    "a few rows of a class": (table(np.where(RANK < 6, "toxic", "safe"), flag=(RANK < 6) * 1), BINARY),
    "a trend": (table(Y + RANK / N).assign(day=pd.date_range("2024-01-01", periods=N).astype(str)), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", HONEST)
def test_a_good_column_is_no_leak(tmp_path, case):
    rows, settings = HONEST[case]
    assert lines_about(tmp_path, rows, **settings)[0] == []
