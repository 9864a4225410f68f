"""A finished made-up run whose ids, texts and column names try to become markup, and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from competition.files import read_table, read_text_table, write_json, write_table
from competition.paths import PROJECT
from models.jobs.plan import Plan
from submissions.findings import Findings, gather
from submissions.page import page
from submissions.report import markdown
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps

ATTACK = "<img src=x onerror=alert(1)>"
TEXT = '</script><script>alert(2)</script> & "more"'
COLUMN = "<b>note</b>"
SHIFT = {
    "made_from": {"folds.csv": "of other folds"},
    "similarity": [
        {
            "measure": "Tanimoto",
            "test": {"q10": 0.1, "median": 0.2125, "q90": 0.4},
            "held_out": {"kfold": {"q10": 0.2, "median": 0.5, "q90": 0.9, "distance": 0.3125}},
        }
    ],
    "adversarial": {
        "auc": 0.5123,
        "standard_deviation": 0.034,
        "features": [{"feature": ATTACK, "gain": 0.25, "mean_in_train": 1.5, "mean_in_test": 2.5}],
    },
    "recommended": {"kind": "scaffold", "reason": "test molecules are far from training molecules"},
}


@dataclass(frozen=True)
class Made:
    """A run and what is written about it."""

    found: Findings
    html: str
    summary: str


def hostile_competition(folder: Path) -> tuple[Path, Plan]:
    """YAML and finished jobs of a made-up competition with molecules, texts, numbers and a neural stage."""
    roles = {"smiles": ["SMILES"], "text": [COLUMN], "numeric": ["x", "z"]}
    neural = {"kind": "gnn", "epochs": 3, "batch_size": 10, "schedule": "linear", "warmup": 0.1}
    trees = {"kind": "lightgbm"}
    path = fake_competition(folder, 90, 30, competition=roles, stages={"good": trees, "fair": neural, "poor": trees})
    molecules = read_text_table(PROJECT / "competition" / "data" / "smoke" / "train.csv")["SMILES"]
    for name in ("train", "test", "sample_submission", "answers"):
        table = read_text_table(folder / f"{name}.csv")
        table["id"] = ATTACK + table["id"]
        if name in ("train", "test"):
            table["SMILES"] = molecules[: len(table)]
            table[COLUMN] = [f"{TEXT} {i}" for i in range(len(table))]
        write_table(folder / f"{name}.csv", table)
    planned = prepare_and_fake_jobs(path)
    for job in planned.of("fair"):
        history = [{"train_loss": loss + job.fold, "learning_rate": 1e-4} for loss in (3.0, 2.0, 1.0)]
        write_json(job.folder / "training.json", {"history": history})
    return path, planned


def made(folder: Path) -> Made:
    """A hostile competition with all that a run can have beside it: pictures of folds, facts on shift, spread."""
    path, _ = hostile_competition(folder)
    run = run_steps(path)
    ids = read_table(run.paths.test)["id"]
    write_table(run.folder / "spread.csv", pd.DataFrame({"id": ids, "height": range(len(ids)), "depth": 0.0}))
    write_json(run.paths.folds.parent / "shift.json", SHIFT)
    picture = PROJECT / "docs" / "schedules.png"
    (run.paths.folds.parent / "sizes.png").write_bytes(picture.read_bytes())
    found = gather(run)
    return Made(found, page(found), markdown(found))


def with_setting(path: Path, section: str, **values: object) -> Path:
    """The same YAML with other values in a section."""
    document = yaml.safe_load(path.read_text())
    document[section] |= values
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
