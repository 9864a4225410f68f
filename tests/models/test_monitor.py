"""`monitor: held_out` watches a training without touching it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from competition.config import load_competition
from competition.files import read_json, sha256_of
from competition.paths import Paths
from competition.prepare import run as prepare_tables
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.jobs.plan import Job
from models.jobs.work import run_job
from models.settings import NeuralStage
from models.training import monitor
from models.training.batches import Batches
from models.training.losses import Labels
from tests.conftest import mixed_tables, write_competition
from tests.models.test_contract import MODELS, SMALL

KINDS = ["unimol", "unimol2", "gnn", "bert"]


def trained(folder: Path, kind: str, **changes: Any) -> Path:
    """The folder of a job on fold 0, always in the same place and with the same seed."""
    yaml_file = write_competition(folder, *mixed_tables(30, 6))
    paths = Paths.of(str(yaml_file))
    competition = load_competition(str(yaml_file))
    prepare_tables(competition, paths, yaml_file)
    make_folds(competition, load_folds_config(str(yaml_file)), paths)
    stage = MODELS[kind].model_validate({"kind": kind, **SMALL[kind], "epochs": 2, **changes})
    job = Job(kind, "key", 0, 0, folder / "-".join(map(str, [kind, *changes.values()])))
    run_job(job, stage, competition, paths, "test")
    return job.folder


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_weights_are_the_same_bytes_with_and_without_it(tmp_path: Path, kind: str) -> None:
    dropout = {"backbone_dropout": 0.1, "pooler_dropout": 0.2}
    plain, watched = (trained(tmp_path, kind, monitor=value, **dropout) for value in ("none", "held_out"))
    for name in ("oof.parquet", "test/test.parquet", "weights.safetensors"):
        assert sha256_of(plain / name) == sha256_of(watched / name), name
    history = read_json(watched / "training.json")["history"]
    without = [{k: epoch[k] for k in ("train_loss", "learning_rate")} for epoch in history]
    assert without == read_json(plain / "training.json")["history"]
    assert all(epoch["held_out_training_mode"] != epoch["held_out_evaluation_mode"] for epoch in history)
    assert not (plain / "measures.json").exists()


def test_without_dropout_both_modes_are_one_and_the_loss_is_that_of_the_predictions(tmp_path: Path) -> None:
    folder = trained(tmp_path, "gnn", monitor="held_out")
    found = read_json(folder / "measures.json")
    assert found["held_out_training_mode"] == pytest.approx(found["held_out_evaluation_mode"])
    assert found["train_training_mode"] == pytest.approx(found["train_evaluation_mode"])
    assert found["seconds_per_step"] > 0
    assert set(read_json(folder / "report.json")["files"]) >= {"measures.json", "training.json"}


def test_random_streams_are_left_as_they_were() -> None:
    batches = Batches(list(np.zeros((4, 1))), np.ones(4, dtype=np.int64), lambda items: {})
    labels = Labels(torch.zeros(4, 1), torch.ones(4, 1))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = monitor.losses(
        lambda part, drops: torch.rand(len(part.items), 1).numpy() * drops, {"held_out": (batches, labels)}, "mse"
    )
    assert torch.equal(torch.rand(3), expected)
    assert found["held_out_evaluation_mode"] == 0 < found["held_out_training_mode"]


def test_training_rows_are_spread_over_the_table_and_no_more_than_held_out_ones() -> None:
    batches = Batches(list(range(10)), np.arange(10), lambda items: {})
    labels = Labels(torch.arange(10.0)[:, None], torch.ones(10, 1))
    part, of_part = monitor.as_many((batches, labels), 4)
    assert part.items == [0, 3, 6, 9] == part.lengths.tolist() == of_part.y[:, 0].tolist()
    assert monitor.as_many((batches, labels), 50)[0].items == batches.items


def test_a_refit_on_all_rows_cannot_be_monitored() -> None:
    with pytest.raises(ValidationError, match="no held-out fold to monitor"):
        NeuralStage.model_validate({"monitor": "held_out", "final_fit": "both"})
