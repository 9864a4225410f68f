"""The notebook that runs a bundle without internet, and what notebook and data set are uploaded with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

from competition.files import write_json
from competition.paths import Bundle

TEMPLATE = Path(__file__).with_name("notebook.ipynb")
PURPOSES = {
    "prediction": ("pack", "offline", "", "Predicts with the saved weights of the run $run; score to expect: $score."),
    "training": ("training", "train", "--budget 8h", "Trains $name.yaml of the attached data set. If the session is "
                 "too short, save the version, attach its output, and run it again."),
}  # fmt: skip
"""How data set and notebook are called after the competition, options of `offline`, and what stands above the cell."""
CPU, GPU = "cpu", "NvidiaTeslaT4"


def write_notebook(folder: Path, bundle: Bundle, manifest: dict[str, Any], owner: str, accelerator: str) -> None:
    """Write the notebook and its metadata into `folder`, and the metadata of the data set into the bundle.

    Args:
        owner: user name on Kaggle.
        accelerator: cpu, or an id of Kaggle's.
    """
    *slugs, options, text = PURPOSES[manifest["purpose"]]
    data_set, notebook = (slug_of(manifest["name"], what) for what in slugs)
    about = {"id": f"{owner}/{data_set}", "title": data_set.replace("-", " "), "licenses": [{"name": "other"}]}
    write_json(bundle.metadata, about)
    about = {
        "id": f"{owner}/{notebook}",
        "title": notebook.replace("-", " "),  # of which Kaggle makes the slug again
        "code_file": f"{notebook}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": accelerator != CPU,
        "machine_shape": None if accelerator == CPU else accelerator,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{data_set}"],
        "competition_sources": [manifest["kaggle"]] if manifest["kaggle"] else [],
    }
    write_json(folder / "kernel-metadata.json", about)
    document = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    for cell in document["cells"]:
        source = "".join(cell["source"]).replace("$text", text)
        cell["source"] = Template(source).substitute(manifest, options=options)
    write_json(folder / f"{notebook}.ipynb", document)


def slug_of(name: str, what: str) -> str:
    """A name on Kaggle, of 6 to 50 characters."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: 49 - len(what)].strip("-")
    return f"{words or 'competition'}-{what}"
