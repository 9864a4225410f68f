"""Upload the data set of a notebook to Kaggle, and then the notebook, which runs there once.

What was uploaded is written to kernel_pushed.json or kernel_training_pushed.json, next to that folder.
"""

from core.errors import DataError, ServiceError
from core.files import read_json, sha256_of, write_json
from core.paths import Paths
from submissions.kaggle import client
from submissions.kaggle.paths import Kernel

READY = "ready"
"""State of a data set that can be used."""
BROKEN = {"failed", "deleted"}
"""States of a data set that will not become ready."""
LIMIT = 3600.0
"""Seconds to wait for a data set."""


def push(name: str, training: bool) -> None:
    """Upload a data set, wait until the platform has unpacked it, and upload its notebook."""
    kernel = Kernel.of(Paths.for_competition(name), training)
    about = read_json(kernel.notebook / "kernel-metadata.json", "id")
    notebook = about["id"]
    (dataset,) = about["dataset_sources"]
    print(f"data set {dataset}: uploading ...", flush=True)
    message = f"run {read_json(kernel.bundle.manifest).get('run', 'training')}"
    before = client.create_or_version_dataset(kernel.bundle.root, message)

    def look() -> str:
        state, version = client.dataset_status(dataset) or ("not there yet", 0)
        return "not current yet" if state == READY and version <= before else state

    state = client.wait(f"data set {dataset}", look, {READY, *BROKEN}, LIMIT)
    if state != READY:
        raise ServiceError(
            f"Kaggle has not unpacked the data set {dataset} ({state}). Look at "
            f"https://www.kaggle.com/datasets/{dataset}, and run the command again."
        )
    version = client.push_kernel(kernel.notebook)
    bundle = sha256_of(kernel.bundle.manifest)
    write_json(kernel.pushed, {"bundle": bundle, "notebook": notebook, "version": version})
    print(
        f"https://www.kaggle.com/code/{notebook} (version {version}) is running; see its log and output there"
    )
    print(
        f"Next, once it has finished: {'submit it there' if training else f'./run.sh submit {name} --kernel'}"
    )


def pushed_notebook(paths: Paths) -> tuple[str, int]:
    """Return id and version of the notebook that was uploaded last.

    Raises:
        DataError: if the current bundle was not uploaded.
    """
    kernel = Kernel.of(paths)
    pushed = read_json(kernel.pushed) if kernel.pushed.is_file() else {}
    manifest = kernel.bundle.manifest
    if not manifest.is_file() or sha256_of(manifest) != pushed.get("bundle"):
        raise DataError(
            f"The bundle of {paths.name} has no notebook on Kaggle; run ./run.sh kernel {paths.name} --push."
        )
    return str(pushed["notebook"]), int(pushed["version"])
