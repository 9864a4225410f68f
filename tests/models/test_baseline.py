"""The stage that every budget trains first: what it reads, within which limits."""

import numpy as np
import pytest

from competition.task import Task
from models.stages import baseline
from models.stages.baseline import Baseline
from tests.models.made import context, fitted, rows

WORDS = ["red", "blue", "green", "grey", "pink"]
RNG = np.random.default_rng(0)


def stage(folder, y, task=None, **columns):
    """Return a baseline that is fitted on columns of these roles, such as text=(name, cells)."""
    roles = {role: [name] for role, (name, _) in columns.items()}
    train = rows(y, **dict(columns.values()))
    made = context(folder, **roles, task=task or Task(["y"]))
    return fitted(Baseline(kind="baseline"), made, train, folder)


def texts_of(n_rows):
    return [" ".join(RNG.choice(WORDS, 6)) for _ in range(n_rows)]


def test_texts_molecules_numbers_and_categories_are_read_together(tmp_path):
    """The label is a sum of an effect of each column, and 80 rows of the same kind are predicted."""
    texts, numbers, letters = texts_of(200), RNG.normal(size=200), RNG.choice(["p", "q"], 200)
    smiles = RNG.choice(["CCO", "CCN", "c1ccccc1"], 200)
    effects = np.c_[["red" in text for text in texts], smiles == "CCN", numbers, letters == "q"].astype(float)
    columns = {
        "text": ("t", texts),
        "smiles": ("s", smiles),
        "numeric": ("n", numbers),
        "categorical": ("c", letters),
    }
    y = effects @ np.ones(4)
    train = {role: (name, cells[:120]) for role, (name, cells) in columns.items()}
    held_out = rows(**{name: cells[120:] for name, cells in columns.values()})
    y_pred = stage(tmp_path, y[:120], **train).predict(held_out, tmp_path)[:, 0]
    for effect in effects[120:].T:
        slope = np.polyfit(effect, y_pred, 1)[0]
        assert 0.5 < slope < 1.5


def test_a_parabola_of_a_number_is_learned_by_its_bins(tmp_path):
    x = RNG.uniform(-1, 1, 300)
    y_pred = stage(tmp_path, x**2, numeric=("x", x)).predict(rows(x=[-0.9, 0.0, 0.9]), tmp_path)[:, 0]
    assert y_pred == pytest.approx([0.81, 0, 0.81], abs=0.15)


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]])
def test_probabilities_are_those_of_the_classes(tmp_path, classes):
    y = np.arange(60) % len(classes)
    texts = [f"some {WORDS[label]} words" for label in y]
    problem_type = "binary" if len(classes) == 2 else "multiclass"
    task = Task(["y"], problem_type=problem_type, classes=classes)
    y_pred = stage(tmp_path, y, task, text=("t", texts)).predict(rows(t=texts[:3]), tmp_path)
    expected = np.eye(len(classes))[y[:3]] if len(classes) > 2 else y[:3, None]
    assert np.abs(y_pred - expected).max() < 0.4
    assert len(classes) == 2 or y_pred.sum(axis=1) == pytest.approx(1)


def test_texts_without_blanks_are_read_by_their_characters(tmp_path):
    texts = ["".join(RNG.choice(list("アイウエオ"), 12)) for _ in range(200)]
    y = np.array([text.count("ア") for text in texts], dtype=float)
    y_pred = stage(tmp_path, y[:150], text=("t", texts[:150])).predict(rows(t=texts[150:]), tmp_path)[:, 0]
    assert np.corrcoef(y_pred, y[150:])[0, 1] > 0.8


def test_only_the_beginnings_of_long_texts_are_read(tmp_path, monkeypatch):
    """100 rows of 400 characters, and 10,000 that may be read."""
    monkeypatch.setattr(baseline, "MAX_CHARACTERS", 10_000)
    monkeypatch.setattr(baseline, "MAX_CHARACTERS_TWICE", 10_000)
    texts = [f"{text:<400}" for text in texts_of(100)]
    made = stage(tmp_path, RNG.normal(size=100), text=("t", texts))
    ends = [text[:100] + "red" * 100 for text in texts]
    assert np.array_equal(made.predict(rows(t=texts), tmp_path), made.predict(rows(t=ends), tmp_path))
    beginnings = ["red " * 25 + text[100:] for text in texts]
    assert not np.allclose(made.predict(rows(t=texts), tmp_path), made.predict(rows(t=beginnings), tmp_path))


def test_n_grams_of_characters_are_left_out_where_there_are_many(tmp_path, monkeypatch):
    """A misspelt word has no n-gram of words in common with the word."""
    texts = [f"{word} and so on" for word in ["wonderful", "horrible"] * 20]
    misspelt = rows(t=["wonderfull and so on", "horribel and so on"])
    differences = []
    for limit in (baseline.MAX_CHARACTERS_TWICE, 100):
        monkeypatch.setattr(baseline, "MAX_CHARACTERS_TWICE", limit)
        folder = tmp_path / str(limit)
        folder.mkdir()
        y_pred = stage(folder, [1.0, 0.0] * 20, text=("t", texts)).predict(misspelt, folder)[:, 0]
        differences.append(y_pred[0] - y_pred[1])
    assert differences[0] > 0.2
    assert differences[1] == pytest.approx(0, abs=1e-6)
