"""Upload the data set, and when the platform has it, the notebook, which then runs there once.

Reads: work/<name>/kernel/ or kernel_training/. Writes: <that folder>_pushed.json: what is there.
"""

import time

from competition.errors import DataError, ServiceError
from competition.files import read_json, sha256_of, write_json
from competition.paths import Paths
from submissions.leaderboard import client

DONE, BROKEN = {"ready", "complete"}, {"failed", "deleted", "error", "cancel_requested", "cancel_acknowledged"}
"""The states of a data set or a notebook that do not change any more."""


def push(name: str, training: bool = False, poll: float = 15.0, limit: float = 12 * 3600.0) -> None:
    """Upload data set and notebook and wait until it has run; a bundle that is there already is not uploaded again.

    Args:
        poll, limit: seconds between two looks at the platform, and that each of the two may take there.
    """
    kernel = Paths.of(name).training_kernel if training else Paths.of(name).kernel
    about = read_json(kernel.notebook / "kernel-metadata.json", "id")
    notebook, (dataset,) = about["id"], about["dataset_sources"]
    bundle = sha256_of(kernel.bundle.manifest)
    pushed = read_json(kernel.pushed) if kernel.pushed.is_file() else {}
    if pushed.get("bundle") != bundle:
        print(f"data set {dataset}: uploading ...", flush=True)
        message = f"run {read_json(kernel.bundle.manifest).get('run', 'training')}"
        before = client.create_or_version_dataset(kernel.bundle.root, message)

        def dataset_state() -> str:
            state, version = client.dataset_status(dataset) or ("not there yet", 0)
            return "not current yet" if state in DONE and version <= before else state

        state = client.wait(f"data set {dataset}", dataset_state, DONE | BROKEN, poll, limit)
        if state not in DONE:
            raise ServiceError(
                f"Kaggle has not unpacked the data set {dataset} ({state}). Look at "
                f"https://www.kaggle.com/datasets/{dataset}, and run the same command again."
            )
        pushed = {"bundle": bundle, "notebook": notebook, "version": client.push_kernel(kernel.notebook)}
        write_json(kernel.pushed, pushed)
        time.sleep(poll)  # until then the state may still be that of the version before
    state = client.wait(f"notebook {notebook}", lambda: client.kernel_status(notebook)[0], DONE | BROKEN, poll, limit)
    if state not in DONE:
        if state in BROKEN:
            kernel.pushed.unlink()
        raise ServiceError(
            f"The notebook {notebook} has not run to its end on Kaggle ({client.kernel_status(notebook)[1] or state}). "
            f"Read its log at https://www.kaggle.com/code/{notebook}, and run the same command again."
        )
    print(f"https://www.kaggle.com/code/{notebook} (version {pushed['version']}) has run to its end")
    print(f"Next: look at its output, then {'submit it there' if training else f'./run.sh submit {name} --kernel'}")


def pushed_notebook(paths: Paths) -> tuple[str, int]:
    """Id and version of the notebook that was pushed last; a DataError if there is none with the bundle here."""
    pushed = read_json(paths.kernel.pushed) if paths.kernel.pushed.is_file() else {}
    manifest = paths.kernel.bundle.manifest
    if not manifest.is_file() or sha256_of(manifest) != pushed.get("bundle"):
        raise DataError(
            f"The bundle of {paths.name} has no notebook on Kaggle; run ./run.sh kernel {paths.name} --push."
        )
    return str(pushed["notebook"]), int(pushed["version"])
