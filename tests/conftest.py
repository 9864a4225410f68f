"""Small real data for every test, and products that go to a temporary folder."""

import gc
import os
import sys
from unittest.mock import MagicMock

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import pandas as pd
import pytest
import yaml

from core.files import PROJECT, write_table
from core.opened_files import CONTENTS, OPENED

SMOKE = PROJECT / "competition" / "data" / "smoke"
WORDS = ["red", "green", "blue", "warm", "cold", "old", "new", "fast", "slow", "small"]


def pytest_configure():
    """Bytecode has the second of the last change of its source, and tests edit a module within that second.

    No test cuts the power, so none waits until its files are on the disk.
    """
    sys.dont_write_bytecode = True
    os.fsync = lambda file: None


def pytest_collection_modifyitems(items):
    """The long file comes first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")


@pytest.fixture(scope="module", autouse=True)
def _short_collections():
    """What libraries have made is not searched for garbage: training collects it often, since it frees cards."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _products_go_to_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _figures_are_blank(request, monkeypatch):
    """Only tests that are marked `draws_figures`, and other processes, wait for Matplotlib."""
    if not request.node.get_closest_marker("draws_figures"):
        leave_figures_blank(monkeypatch)


def leave_figures_blank(patch):
    """Do so until `patch` ends: for fixtures of a whole module."""
    for module in ("folds.compare", "submissions.report.figures"):
        patch.setattr(f"{module}.new_figure", _blank_figure)
    patch.setattr("submissions.report.figures.as_svg", lambda figure: "<svg></svg>")


def _blank_figure(n_rows=1, n_columns=1, width=0.0, height=0.0):
    """A figure and its axes, on which everything can be drawn, and nothing is."""
    axes = np.empty((n_rows, n_columns), dtype=object)
    axes.fill(MagicMock())
    return MagicMock(), axes


@pytest.fixture
def jobs_in_process(monkeypatch):
    """Commands run their jobs one after another in this process, where the libraries are loaded."""
    run_jobs_in_process(monkeypatch)


def run_jobs_in_process(patch):
    """Do so until `patch` ends: for fixtures of a whole module."""
    from tests.models.jobs.common import InlineExecutor

    for module in ("models.jobs.cluster", "submissions.predict"):
        patch.setattr(f"{module}.LocalExecutor", InlineExecutor)


def new_process():
    """From now on, as in a new process, nothing was opened by user code yet."""
    OPENED.clear()
    CONTENTS.clear()


def mixed_tables(n_train=60, n_test=20):
    """Real molecules with made-up text, a number with gaps and a category; two targets, one with missing
    labels.
    """
    rng = np.random.default_rng(0)
    molecules = pd.read_csv(SMOKE / "train.csv").iloc[: n_train + n_test]
    n = len(molecules)
    table = pd.DataFrame({"id": [f"m{i:03d}" for i in rng.permutation(n)], "SMILES": molecules["SMILES"]})
    table["note"] = [" ".join(rng.choice(WORDS, 4)) for _ in range(n)]
    table["pH"] = np.where(rng.random(n) < 0.2, np.nan, rng.normal(7, 1, n).round(2))
    table["site"] = rng.choice(["a", "b", "c"], n)
    table["lumo"] = molecules["lumo_eV"]
    table["mu"] = np.where(rng.random(n) < 0.3, np.nan, molecules["mu_D"])
    train, test = table.iloc[:n_train], table.iloc[n_train:]
    return train.reset_index(drop=True), test.drop(columns=["lumo", "mu"]).reset_index(drop=True)


def write_competition(folder, train, test, **sections):
    """A YAML and its three CSV files in `folder`; `sections` replace or add to those below."""
    write_table(folder / "train.csv", train)
    write_table(folder / "test.csv", test)
    competition = {
        "train": "train.csv", "test": "test.csv", "sample_submission": "sample_submission.csv", "id": "id",
        "targets": ["lumo", "mu"], "smiles": ["SMILES"], "text": ["note"], "numeric": ["pH"], "categorical": ["site"],
        "metric": "rmse", **sections.pop("competition", {}),
    }  # fmt: skip
    sample = pd.DataFrame({competition["id"]: test[competition["id"]]})
    names = competition.get("submission_columns", competition["targets"])
    write_table(folder / "sample_submission.csv", sample.assign(**dict.fromkeys(names, 0.0)))
    document = {
        "competition": competition,
        "folds": {"n_folds": 3},
        "stages": {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 20}},
        **sections,
    }
    path = folder / "mixed.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
