"""Upload the data set, and when the platform has it, the notebook, which then runs there once.

Reads: work/<name>/kernel/ or kernel_training/. Writes: <that folder>_pushed.json, by which a second call goes on where
a first one ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from competition.durations import in_words
from competition.errors import ConfigError, DataError, ServiceError
from competition.files import digest, read_json, sha256_of, write_json
from competition.paths import Paths
from submissions.leaderboard import client


class Failed(ServiceError):
    """The platform gave up: waiting would not help, what was uploaded has to be uploaded again."""


def push(name: str, training: bool = False, poll: float = 15.0, limit: float = 12 * 3600.0) -> None:
    """Upload data set and notebook and wait for both; what has arrived already is not uploaded again.

    Args:
        name: of the competition.
        training: whether to upload what trains, not what predicts.
        poll: seconds between two looks at the platform.
        limit: seconds that each of the two may take there.

    Raises:
        ConfigError: if the bundle was made for another owner.
        ServiceError: if the platform refuses, or the limit is over.
    """
    kernel = Paths.of(name).training_kernel if training else Paths.of(name).kernel
    dataset = str(read_json(kernel.bundle.metadata, "id")["id"])
    notebook = str(read_json(kernel.notebook / "kernel-metadata.json", "id")["id"])
    owner, user = dataset.split("/")[0], client.username()
    if owner.lower() != user.lower():
        raise ConfigError(
            f"The bundle is made for the owner {owner}, and your credentials are those of {user}; run ./run.sh kernel "
            f"{name}{' --training' if training else ''} --push --owner {user}."
        )
    bundle = {"dataset": dataset, "bundle": sha256_of(kernel.bundle.manifest)}
    saved = {"notebook": notebook, "cells": digest([sha256_of(file) for file in sorted(kernel.notebook.iterdir())])}
    pushed: dict[str, Any] = read_json(kernel.pushed) if kernel.pushed.is_file() else {}
    try:
        if not bundle.items() <= pushed.items() or client.dataset_status(dataset) is None:
            print(f"data set {dataset}: uploading ...", flush=True)
            about = read_json(kernel.bundle.manifest)
            after = client.create_or_version_dataset(kernel.bundle.root, f"run {about.get('run', 'training')}")
            pushed = {**bundle, "after": after}
            write_json(kernel.pushed, pushed)
        wait(f"data set {dataset}", lambda: _dataset_state(dataset, pushed["after"]), poll, limit)
        if not saved.items() <= pushed.items() or "version" not in pushed:
            pushed |= {**saved, "version": client.push_kernel(kernel.notebook)}
            write_json(kernel.pushed, pushed)
            time.sleep(poll)  # until then the state may still be that of the version before
        wait(f"notebook {notebook}", lambda: _notebook_state(notebook), poll, limit)
    except Failed:
        if not pushed.pop("version", None):
            pushed.clear()
        write_json(kernel.pushed, pushed)
        raise
    print(f"https://www.kaggle.com/code/{notebook} (version {pushed['version']}) has run to its end")
    print(f"Next: look at its output, then {'submit it there' if training else f'./run.sh submit {name} --kernel'}")


def _dataset_state(dataset: str, after: int) -> str:
    """'' when the current version, which the notebook gets, is one beyond `after`."""
    state, version = client.dataset_status(dataset) or ("not there yet", 0)
    if state in ("failed", "deleted"):
        raise Failed(
            f"Kaggle could not unpack the data set {dataset} ({state}); look at "
            f"https://www.kaggle.com/datasets/{dataset} and run the same command again."
        )
    return "not current yet" if version <= after else "" if state == "ready" else state


def _notebook_state(notebook: str) -> str:
    """'' when its newest version has run to its end."""
    state, reason = client.kernel_status(notebook)
    if state in ("error", "cancelled"):
        raise Failed(
            f"The notebook {notebook} did not run to its end on Kaggle ({reason or state}); read its log at "
            f"https://www.kaggle.com/code/{notebook}."
        )
    return "" if state == "complete" else state


def wait(what: str, state: Callable[[], str], poll: float, limit: float) -> None:
    """Look again and again until the state is ''; a new one is printed.

    Raises:
        ServiceError: if the limit is over, or as `state`, when it fails for good or several times in a row.
    """
    end, misses, said = time.monotonic() + limit, 0, ""
    while True:
        try:
            now, misses = state(), 0
        except Failed:
            raise
        except ServiceError:
            misses += 1
            if misses > client.MISSES:
                raise
            now = "no answer"
        if now != said:
            print(f"{what}: {now or 'done'}", flush=True)
        if not now:
            return
        if time.monotonic() + poll > end:
            raise ServiceError(
                f"Kaggle has not finished the {what} within {in_words(limit)} ({now}); run the same command again to "
                "go on waiting."
            )
        said = now
        time.sleep(poll)


def pushed_notebook(paths: Paths) -> tuple[str, int]:
    """Id and version of the notebook that was pushed last.

    Raises:
        DataError: if there is none, or it has another bundle than the one here.
    """
    pushed = read_json(paths.kernel.pushed) if paths.kernel.pushed.is_file() else {}
    manifest = paths.kernel.bundle.manifest
    if "version" not in pushed or not manifest.is_file() or sha256_of(manifest) != pushed["bundle"]:
        raise DataError(
            f"The bundle of {paths.name} has no notebook on Kaggle; run ./run.sh kernel {paths.name} --push."
        )
    return str(pushed["notebook"]), int(pushed["version"])
