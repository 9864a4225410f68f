"""Upload the packed run: the data set, and when the platform has it, the notebook, which then runs there once.

Reads: work/<name>/kernel/. Writes: work/<name>/pushed.json, by which a second call goes on where a first one ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from competition.durations import in_words
from competition.errors import ConfigError, DataError, ServiceError
from competition.files import digest, read_json, sha256_of, write_json
from competition.paths import Kernel, Paths
from submissions.leaderboard import client
from submissions.leaderboard.client import MISSES

DATASET_METADATA, NOTEBOOK_METADATA = "dataset-metadata.json", "kernel-metadata.json"


def push(
    name: str,
    training: bool = False,
    poll: float = 15.0,
    dataset_limit: float = 2 * 3600.0,
    notebook_limit: float = 12 * 3600.0,
) -> None:
    """Upload data set and notebook and wait for both; what has arrived already is not uploaded again.

    Args:
        name: of the competition.
        training: whether to upload what trains, not what predicts.
        poll: seconds between two looks at the platform.
        dataset_limit: seconds that the platform may take to unpack the data set.
        notebook_limit: seconds that the notebook may take there.

    Raises:
        DataError: if there is nothing to push.
        ConfigError: if the owner of data set or notebook is not the user.
        ServiceError: if the platform refuses, or a limit is over.
    """
    kernel = Paths.of(name).training_kernel if training else Paths.of(name).prediction_kernel
    if not kernel.pack.facts.is_file() or not (kernel.notebook / NOTEBOOK_METADATA).is_file():
        raise DataError(f"{kernel.root} must hold data set and notebook, and does not; run ./run.sh kernel {name}.")
    dataset = str(read_json(kernel.pack.root / DATASET_METADATA, "id")["id"])
    notebook = str(read_json(kernel.notebook / NOTEBOOK_METADATA, "id")["id"])
    require_own(f"{name} --training" if training else name, dataset, notebook)
    pushed: dict[str, Any] = read_json(kernel.pushed) if kernel.pushed.is_file() else {}
    if _push_dataset(dataset, kernel, pushed):
        write_json(kernel.pushed, pushed)
    try:
        after = pushed["dataset"]["after"]
        wait(f"data set {dataset}", lambda: _dataset_state(dataset, after), poll, dataset_limit)
        if _push_notebook(notebook, kernel, pushed):
            write_json(kernel.pushed, pushed)
            time.sleep(poll)  # until then the state may still be that of the version before
        wait(f"notebook {notebook}", lambda: _notebook_state(notebook), poll, notebook_limit)
    except Failed as failed:
        write_json(kernel.pushed, {key: value for key, value in pushed.items() if key not in failed.lost})
        raise
    version = pushed["notebook"]["version"]
    print(f"notebook    https://www.kaggle.com/code/{notebook} (version {version}) has run to its end")
    ours = "submit its submission.csv" if training else f"./run.sh submit {name} --kernel"
    print(f"Next: look at its output there, then {ours}")


def _push_dataset(dataset: str, kernel: Kernel, pushed: dict[str, Any]) -> bool:
    """Upload the pack, unless `pushed` has it; then it is in `pushed`."""
    pack = {"id": dataset, "digest": sha256_of(kernel.pack.facts)}
    facts = read_json(kernel.pack.facts)
    what = f"run {facts['run']}" if "run" in facts else facts["purpose"]
    if _same(pack, pushed.get("dataset")) and client.dataset_status(dataset) is not None:
        print(f"data set    {dataset}: this {what.split()[0]} is there already")
        return False
    print(f"data set    {dataset}: uploading {what} ...", flush=True)
    after = client.create_or_version_dataset(kernel.pack.root, what)
    pushed.clear()
    pushed["dataset"] = {**pack, "after": after}
    return True


def _push_notebook(notebook: str, kernel: Kernel, pushed: dict[str, Any]) -> bool:
    """Save the notebook, which Kaggle then runs, unless `pushed` has it; then it is in `pushed`."""
    files = sorted(path for path in kernel.notebook.iterdir() if path.is_file())
    saved = {"id": notebook, "digest": digest([[path.name, sha256_of(path)] for path in files])}
    if _same(saved, pushed.get("notebook")):
        print(f"notebook    {notebook}: version {pushed['notebook']['version']} is there already")
        return False
    pushed["notebook"] = {**saved, "version": client.push_kernel(kernel.notebook)}
    print(f"notebook    {notebook}: version {pushed['notebook']['version']} runs on Kaggle", flush=True)
    return True


def _same(wanted: dict[str, str], known: dict[str, Any] | None) -> bool:
    return known is not None and wanted == {key: known[key] for key in wanted}


class Failed(ServiceError):
    """The platform gave up: what is `lost` has to be pushed again, waiting would not help."""

    def __init__(self, message: str, *lost: str) -> None:
        super().__init__(message)
        self.lost = lost


def require_own(name: str, *ids: str) -> None:
    """Check that data set and notebook are the user's own.

    Raises:
        ConfigError: if not, such as the placeholder of a pack that was made without credentials.
    """
    user = client.username()
    for one in ids:
        owner = one.split("/")[0]
        if owner.lower() != user.lower():
            raise ConfigError(
                f"The owner of {one} must be you, {user} on Kaggle, and is {owner}; run ./run.sh kernel {name} --push "
                f"--owner {user}."
            )


def _dataset_state(dataset: str, after: int) -> str:
    found = client.dataset_status(dataset)
    if found is None:
        return "not there yet"
    state, version = found
    if state in ("failed", "deleted"):
        raise Failed(
            f"Kaggle must unpack the data set {dataset}, and says {state}; look at "
            f"https://www.kaggle.com/datasets/{dataset} and run the same command again.",
            "dataset",
            "notebook",
        )
    # The notebook gets the current version, and until the new one is that, it would predict with the old run.
    return "" if state == "ready" and version > after else state if version > after else "not current yet"


def _notebook_state(notebook: str) -> str:
    state, reason = client.kernel_status(notebook)
    if state in ("error", "cancelled"):
        raise Failed(
            f"The notebook {notebook} must run to its end, and Kaggle says {state}"
            f"{f' ({reason})' if reason else ''}; read its log at https://www.kaggle.com/code/{notebook}.",
            "notebook",
        )
    return "" if state == "complete" else state


def wait(what: str, state: Callable[[], str], poll: float, limit: float) -> None:
    """Look again and again until the state is '', with a line on a terminal that says how it is.

    Raises:
        ServiceError: if the limit is over, or as `state`, when it fails for good or several times in a row.
    """
    start, misses, shown = time.monotonic(), 0, sys.stderr.isatty()
    while True:
        try:
            now, misses = state(), 0
        except Failed:
            raise
        except ServiceError:
            misses += 1
            if misses > MISSES:
                raise
            now = "no answer"
        seconds = time.monotonic() - start
        if shown:
            line = f"{what}: {now or 'done'}, {in_words(seconds)}"
            print(f"\r{line:<79}", end="" if now else "\n", file=sys.stderr, flush=True)
        if not now:
            return
        if seconds + poll > limit:
            raise ServiceError(
                f"The {what} must be done within {in_words(limit)}, and is not ({now}); run the same command again to "
                "go on waiting."
            )
        time.sleep(poll)


def pushed_notebook(paths: Paths) -> tuple[str, int]:
    """Id and version of the notebook that was pushed last.

    Raises:
        DataError: if there is none, or it has another pack than the one here.
    """
    pushed = read_json(paths.pushed) if paths.pushed.is_file() else {}
    found = pushed.get("notebook")
    if not found:
        raise DataError(
            f"{paths.root} must have a notebook on Kaggle, and none was pushed; run ./run.sh kernel {paths.name} "
            "--push."
        )
    if not paths.pack.facts.is_file() or sha256_of(paths.pack.facts) != pushed["dataset"]["digest"]:
        raise DataError(
            f"{paths.pack.root} must be the pack that version {found['version']} of {found['id']} has on Kaggle, and "
            f"is not; run ./run.sh kernel {paths.name} --push."
        )
    return str(found["id"]), int(found["version"])
