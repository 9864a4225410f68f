"""The notebook that runs a pack without internet, and what notebook and data set are uploaded with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from competition.errors import ConfigError
from competition.files import write_atomically, write_json
from competition.paths import Pack
from models.config import EmbeddingStage
from models.settings import NeuralStage
from submissions.config import Config

FIND = """\
# The pack is wherever its pack.json is mounted. Kaggle unpacks the archives of a data set; where not, do it here.
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

inputs = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
working = Path(os.environ.get("KAGGLE_WORKING", "/kaggle/working"))
found = [
    Path(folder)
    for folder, _, files in os.walk(inputs)
    if "pack.json" in files
    and {wanted}.items() <= json.loads((Path(folder) / "pack.json").read_text()).items()
]
if len(found) != 1:
    raise RuntimeError(f"One data set with the pack for {what} must be attached; found: {{found or 'none'}}.")
pack = found[0]
if archives := sorted(pack.glob("*.zip")):
    unpacked = Path(tempfile.mkdtemp())
    for path in pack.iterdir():
        if path in archives:
            zipfile.ZipFile(path).extractall(unpacked / path.stem)
        elif path.is_file():
            (unpacked / path.name).write_bytes(path.read_bytes())
        else:
            (unpacked / path.name).symlink_to(path)
    pack = unpacked
facts = json.loads((pack / "pack.json").read_text())
print(f"pack {{pack}}, {{facts['purpose']}} of {{facts.get('run', facts['name'])}}")"""

INSTALL = """\
# Packages that the image has not come from the pack; nothing is downloaded.
def run(*command, **variables):
    environment = {**os.environ, "PYTHONPATH": str(pack / "code"), "PYTHONUNBUFFERED": "1", **variables}
    process = subprocess.Popen(
        command, cwd=pack, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        print(line, end="")
    if process.wait():
        raise RuntimeError(f"{' '.join(map(str, command))} failed; the lines above say why.")


run(sys.executable, "-P", "-m", "submissions.kernel.install")"""

PREDICT = """\
# Predict the competition's test file with the saved weights of all folds; checked, then written to submission.csv.
run(sys.executable, "-P", "-m", "submissions.kernel.offline")"""

TRAIN = """\
# Train, and make the submission. Everything is written below WORK_DIR; the pack is read-only.
name, work = facts["name"], working / "work"
options = ["--budget", "8h"]  # the most that training may take, below the limit of the session
# What an earlier session has finished is taken over, where its output is attached.
if any(path for path in inputs.rglob(f"{name}/models") if not any((up / "pack.json").exists() for up in path.parents)):
    options += ["--from", str(inputs)]
offline = {"WEIGHTS_DIR": str(pack / "weights"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
run("bash", str(pack / "code" / "run.sh"), "full", f"{name}.yaml", *options, WORK_DIR=str(work), **offline)"""

RESULT = """\
# The submission, where Kaggle looks for it; the report is in work/NAME/report.
import shutil

submissions = work / name / "submissions"
run_folder = submissions / (submissions / "latest").read_text().strip()
print(f"{run_folder / 'submission.csv'} -> {shutil.copy(run_folder / 'submission.csv', working)}")"""

SHOW = """\
import pandas as pd

submission = pd.read_csv(working / "submission.csv")
print(submission.head().to_string(index=False))
submission[facts["targets"]].describe().loc[["mean", "min", "max"]]"""


NAMES = {"prediction": ("pack", "offline"), "training": ("training", "train")}
"""How data set and notebook are called after the competition."""
CPU, GPU = "cpu", "NvidiaTeslaT4"


def default_accelerator(config: Config) -> str:
    """A GPU where a stage has a network."""
    networks = [stage for stage in config.stages.values() if isinstance(stage, NeuralStage | EmbeddingStage)]
    return GPU if networks else CPU


def write(folder: Path, pack: Pack, facts: dict[str, Any], owner: str, accelerator: str) -> None:
    """Write the notebook and its metadata into `folder`, and the metadata of the data set into the pack.

    Args:
        owner: user name on Kaggle.
        accelerator: cpu, or an id of Kaggle's.

    Raises:
        ConfigError: if the competition's name gives no name on Kaggle.
    """
    data_set, kernel = (slug_of(facts["name"], what) for what in NAMES[facts["purpose"]])
    write_json(
        pack.metadata,
        {"id": f"{owner}/{data_set}", "title": title_of(data_set), "licenses": [{"name": "other"}]},
    )
    has_gpu = accelerator != CPU
    write_json(
        folder / "kernel-metadata.json",
        {
            "id": f"{owner}/{kernel}",
            "title": title_of(kernel),
            "code_file": f"{kernel}.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": has_gpu,
            "enable_tpu": False,
            "enable_internet": False,
            **({"machine_shape": accelerator} if has_gpu else {}),
            "dataset_sources": [f"{owner}/{data_set}"],
            "competition_sources": [facts["kaggle"]] if facts["kaggle"] else [],
            "kernel_sources": [],
            "model_sources": [],
        },
    )
    write_atomically(folder / f"{kernel}.ipynb", json.dumps(notebook(facts), indent=1) + "\n")


def slug_of(name: str, what: str) -> str:
    """Name on Kaggle, of 6 to 50 characters, that `title_of` gives back.

    Raises:
        ConfigError: if there is no letter or digit in the competition's name.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: 49 - len(what)].strip("-")
    if not words:
        raise ConfigError(f"a competition must have letters or digits in its name to be packed; found {name!r}.")
    return f"{words}-{what}"


def title_of(slug: str) -> str:
    """A title of which Kaggle makes the slug."""
    return slug.replace("-", " ")


def notebook(facts: dict[str, Any]) -> dict[str, Any]:
    """The notebook as JSON, without outputs."""
    if facts["purpose"] == "training":
        words = (
            f"# {facts['name']}: training without internet\n\n"
            f"Trains every stage of `{facts['name']}.yaml` of the attached data set and writes the submission. Where "
            "the session is too short, save the version, attach its output to this notebook, and run it again."
        )
        codes = [TRAIN, RESULT]
    else:
        words = (
            f"# {facts['name']}: offline prediction\n\n"
            f"Run `{facts['run']}` of the pipeline, predicting the competition's test file with saved weights, without "
            f"internet. Nothing is trained here.\n\n"
            f"Score to expect: {facts['metric']} {facts['cross_fitted_score']:.5g} (cross-fitted on the training rows)."
        )
        codes = [PREDICT]
    cells = [("markdown", words), *(("code", text) for text in (_find(facts), INSTALL, *codes, SHOW))]
    return {
        "cells": [
            {
                "cell_type": kind,
                "id": f"cell-{i}",
                "metadata": {},
                **({"execution_count": None, "outputs": []} if kind == "code" else {}),
                "source": text.splitlines(keepends=True),
            }
            for i, (kind, text) in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _find(facts: dict[str, Any]) -> str:
    wanted = {key: facts[key] for key in ("name", "purpose")}
    return FIND.format(wanted=wanted, what=f"{facts['purpose']} of {facts['name']}")
