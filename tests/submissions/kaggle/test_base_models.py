"""Adapters in a bundle: the base model travels with them."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from core.files import read_json, sha256_of
from core.paths import Paths
from submissions.kaggle import pack
from submissions.run import latest_run
from tests.conftest import mixed_tables, write_competition
from tests.models import made
from tests.models.encoders import publish_decoder
from tests.models.made import build_stage
from tests.submissions.fakes import built, train_all

pytestmark = pytest.mark.usefixtures("image")

ONLY_TEXT = {"smiles": [], "numeric": [], "categorical": []}


def test_a_bundle_predicts_by_its_own_copy_of_the_base_model(
    tmp_path,
):
    base = publish_decoder(tmp_path / "base")
    stage = {"kind": "bert", "weights": str(base), "lora": {"rank": 2}, "epochs": 1, "pooling": "last"}
    yaml = write_competition(
        tmp_path,
        *mixed_tables(n_train=24, n_test=6),
        competition=ONLY_TEXT,
        folds={"n_folds": 2},
        stages={"adapted": stage},
        submissions={"trials": 2, "stack": False, "default": "mean"},
    )
    train_all(yaml)
    built(yaml)
    bundle = pack.build(Paths("mixed"), None, "me").bundle
    weights = bundle.weights / "adapted"
    copied, original = ({f.name: sha256_of(f) for f in folder.iterdir()} for folder in (weights, base))
    assert copied == original
    run = latest_run("mixed")
    job = run.plan.jobs[0].folder
    packed = bundle.work / job.relative_to(tmp_path / "work")
    adapters, base_weights = packed / "weights.safetensors", weights / "model.safetensors"
    assert adapters.stat().st_size < base_weights.stat().st_size
    stored = read_json(next(bundle.work.glob("mixed/submissions/*/run.json")))
    assert stored["config"]["stages"]["adapted"]["weights"] == "weights/adapted"
    files = [path.read_bytes() for path in packed.rglob("*") if path.is_file()]
    assert str(tmp_path).encode() not in b"".join(files)

    rows, context = made.rows(note=["red or blue", "green"]), made.context(tmp_path / "cache", text=["note"])
    context = replace(context, task=run.task)
    own = run.config.stages["adapted"]
    expected = build_stage(own, context).predict(rows, job)
    (base / "config.json").unlink()
    with contextlib.chdir(bundle.root):
        there = build_stage(own.model_copy(update={"weights": "weights/adapted"}), context)
        np.testing.assert_array_equal(there.predict(rows, packed), expected)
