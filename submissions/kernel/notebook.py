"""The notebook that runs a bundle without internet, and what notebook and data set are uploaded with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

from competition.errors import ConfigError
from competition.files import write_atomically, write_json
from competition.paths import Bundle

TEMPLATE = Path(__file__).with_name("notebook.ipynb")
SLUGS = {"prediction": ("pack", "offline"), "training": ("training", "train")}
"""How data set and notebook are called on the platform, after the competition."""
TEXTS = {
    "prediction": (
        "Run `{run}` predicts the competition's test table with saved weights; nothing is trained here. "
        "Score to expect: {metric} {cross_fitted_score:.5g}, cross-fitted on the training rows."
    ),
    "training": (
        "Trains every stage of `{name}.yaml` in the attached data set, and writes the submission. Where the session "
        "is too short, save the version, attach its output to this notebook, and run it again."
    ),
}
OPTIONS = {"prediction": "", "training": "--budget 8h"}
"""What `offline` is called with; a budget below the limit of the session."""
CPU, GPU = "cpu", "NvidiaTeslaT4"


def write_notebook(folder: Path, bundle: Bundle, manifest: dict[str, Any], owner: str, accelerator: str) -> None:
    """Write the notebook and its metadata into `folder`, and the metadata of the data set into the bundle.

    Args:
        owner: user name on Kaggle.
        accelerator: cpu, or an id of Kaggle's.

    Raises:
        ConfigError: if the competition's name gives no name on Kaggle.
    """
    purpose = manifest["purpose"]
    data_set, notebook = (slug_of(manifest["name"], what) for what in SLUGS[purpose])
    write_json(
        bundle.metadata,
        {"id": f"{owner}/{data_set}", "title": data_set.replace("-", " "), "licenses": [{"name": "other"}]},
    )
    metadata = {
        "id": f"{owner}/{notebook}",
        "title": notebook.replace("-", " "),  # of which Kaggle makes the slug
        "code_file": f"{notebook}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": accelerator != CPU,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{data_set}"],
        "competition_sources": [manifest["kaggle"]] if manifest["kaggle"] else [],
        "kernel_sources": [],
        "model_sources": [],
    }
    write_json(
        folder / "kernel-metadata.json", metadata | ({} if accelerator == CPU else {"machine_shape": accelerator})
    )
    document = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    text = TEXTS[purpose].format(**manifest)
    for cell in document["cells"]:
        filled = Template("".join(cell["source"])).substitute(manifest, text=text, options=OPTIONS[purpose])
        cell["source"] = filled.splitlines(keepends=True)
    write_atomically(folder / f"{notebook}.ipynb", json.dumps(document, indent=1) + "\n")


def slug_of(name: str, what: str) -> str:
    """A name on Kaggle, of 6 to 50 characters.

    Raises:
        ConfigError: if there is no letter or digit in the competition's name.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: 49 - len(what)].strip("-")
    if not words:
        raise ConfigError(f"The name {name!r} has no letter or digit, which a name on Kaggle needs; rename the YAML.")
    return f"{words}-{what}"
