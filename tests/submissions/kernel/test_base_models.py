"""Adapters in a bundle: the base model travels with them, and its size is named."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.files import read_json, sha256_of
from core.paths import Paths
from submissions.config import load_config
from submissions.kernel import pack
from submissions.run import latest_run
from tests.conftest import mixed_tables, write_competition
from tests.models import made
from tests.models.encoders import publish_decoder
from tests.models.made import build_stage
from tests.submissions.fakes import built, train_all


def with_adapters(folder: Path) -> Path:
    """The YAML of a competition with adapters on a decoder."""
    base = publish_decoder(folder / "base")
    stage = {"kind": "bert", "weights": str(base), "lora": {"rank": 2}, "columns": ["note"], "epochs": 1}
    return write_competition(
        folder,
        *mixed_tables(n_train=24, n_test=6),
        folds={"n_folds": 2},
        stages={"adapted": {**stage, "pooling": "last"}},
        submissions={"trials": 2, "stack": False, "default": "mean"},
    )


def test_a_bundle_predicts_by_its_own_copy_of_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    yaml = with_adapters(tmp_path)
    train_all(yaml, 1)
    built(yaml)
    bundle = pack.build(Paths("mixed"), None, "me", None).bundle
    weights = bundle.weights / "adapted"
    assert {file.name: sha256_of(file) for file in weights.iterdir()} == {
        file.name: sha256_of(file) for file in (tmp_path / "base").iterdir()
    }
    jobs = [path.parent for path in bundle.work.rglob("report.json")]
    assert len(jobs) == 2
    for job in jobs:
        assert (job / "weights.safetensors").stat().st_size < (weights / "model.safetensors").stat().st_size
    stored = read_json(next(bundle.work.glob("mixed/submissions/*/run.json")))
    assert stored["config"]["stages"]["adapted"]["weights"] == "weights/adapted"
    assert str(tmp_path).encode() not in b"".join(
        path.read_bytes() for path in jobs[0].rglob("*") if path.is_file()
    )

    run = latest_run("mixed")
    rows = made.rows(note=["red or blue", "green"], SMILES=["C", "CC"], pH=[7.0, 6.0], site=["a", "b"])
    context = made.context(
        tmp_path / "cache", text=["note"], smiles=["SMILES"], numeric=["pH"], categorical=["site"]
    )
    context = replace(context, task=run.task)
    own = run.config.stages["adapted"]
    expected = build_stage(own, context).predict(rows, run.plan.jobs[0].folder)
    (tmp_path / "base" / "config.json").unlink()
    job = bundle.work / run.plan.jobs[0].folder.relative_to(tmp_path / "work")
    with contextlib.chdir(bundle.root):
        there = build_stage(own.model_copy(update={"weights": "weights/adapted"}), context)
        assert np.array_equal(there.predict(rows, job), expected)


def test_a_bundle_that_trains_has_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    yaml = with_adapters(tmp_path)
    yaml.write_text(yaml.read_text().replace("competition:", "competition:\n  kaggle: some-texts", 1))
    paths = Paths("mixed")
    bundle = pack.build(paths, load_config(str(yaml)), "me", None).bundle
    assert (bundle.weights / "adapted" / "model.safetensors").is_file()
