"""A small real run with a tree, a ridge and a stage of the user's own, and its pack; no package is fetched."""

from __future__ import annotations

import shutil
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from competition.config import load_competition
from competition.paths import Pack, Paths
from competition.prepare import run as prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs.plan import plan
from models.jobs.train import train
from submissions.kernel import wheels
from submissions.kernel.pack import build
from tests.conftest import mixed_tables, write_competition
from tests.submissions.fakes import run_steps

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

OWN_STAGE = '''
import json

import numpy as np


class Shrunk:
    """Half the mean of the labels."""

    def __init__(self, settings, context):
        pass

    def fit(self, train, valid, folder):
        (folder / "half.json").write_text(json.dumps((np.nanmean(train.y, axis=0) / 2).tolist()))

    def predict(self, rows, folder):
        return np.tile(json.loads((folder / "half.json").read_text()), (len(rows), 1))
'''

OWN_FEATURES = '''
def lengths(inputs):
    """Characters of a molecule."""
    return inputs[["SMILES"]].map(len)
'''


def tiny_wheel(folder: Path, name: str, version: str, requires: list[str], tag: str = "py3-none-any") -> Path:
    """A wheel that holds nothing but what it declares."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-{tag}.whl"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def fetch_tiny(name: str, version: str, cache: Path, python: str) -> None:
    """Stands in for pip: a wheel that declares what the installed package does."""
    tiny_wheel(cache, name, version, metadata.requires(name) or [])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the YAML and tables of the competition `mixed` and, in `work`, its run and its pack."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        patch.setattr(wheels, "fetch", fetch_tiny)
        run_and_build(_competition(folder))
    return folder


def run_and_build(yaml: Path) -> None:
    """All steps of a competition called `mixed`, and its pack."""
    config, paths = load_competition(str(yaml)), Paths.of(str(yaml))
    prepare(config, paths, yaml)
    make_folds(config, load_folds_config(str(yaml)), paths)
    stages = load_stages(str(yaml))
    train(config, stages, paths, plan(config, stages, paths), 2)
    run_steps(yaml)
    build("mixed", "me", PYTHON, None)


def _competition(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    training, test = mixed_tables(n_train=60, n_test=20)
    training["lumo"] = rng.normal(size=len(training))  # with all digits: found wherever one of them stands
    training["mu"] = training["mu"].where(training["mu"].isna(), rng.normal(size=len(training)))
    (folder / "own.py").write_text(OWN_STAGE)
    (folder / "features.py").write_text(OWN_FEATURES)
    return write_competition(
        folder,
        training,
        test,
        competition={"kaggle": "some-molecules", "features": "features.py:lengths"},
        folds={"n_folds": 2},
        stages={
            "trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 15},
            "ridge": {"kind": "sklearn", "regressor": "Ridge", "n_bits": 64, "final_fit": "refit"},
            "own": {"kind": "custom", "code": "own.py:Shrunk"},
        },
        submissions={"trials": 4, "bootstrap": 100, "stack": False, "default": "mean", "postprocess": []},
    )


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Paths:
    """A copy of the products, with the pack, that a test may change."""
    shutil.copytree(made / "work", tmp_path / "work")
    return Paths("mixed")


@pytest.fixture
def mounted(made: Path, tmp_path: Path) -> Pack:
    """The pack as an input of a notebook: kaggle/input/datasets/me/mixed-pack below `tmp_path`; no competition yet."""
    folder = tmp_path / "kaggle" / "input" / "datasets" / "me" / "mixed-pack"
    shutil.copytree(made / "work" / "mixed" / "kernel" / "dataset", folder)
    return Pack(folder)


def mount_competition(made: Path, inputs: Path) -> Path:
    """The competition's tables as an input of a notebook; returns their folder."""
    folder = inputs / "competitions" / "some-molecules"
    folder.mkdir(parents=True)
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        shutil.copy(made / name, folder)
    return folder
