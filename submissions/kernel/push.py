"""Upload the data set, and when the platform has it, the notebook, which then runs there once.

Reads: work/<name>/kernel/ or kernel_training/. Writes: <that folder>_pushed.json, by which a second call goes on where
a first one ended.
"""

from __future__ import annotations

import sys
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
        ConfigError: if the owner of data set or notebook is not the user.
        ServiceError: if the platform refuses, or the limit is over.
    """
    kernel = Paths.of(name).training_kernel if training else Paths.of(name).kernel
    dataset = str(read_json(kernel.bundle.metadata, "id")["id"])
    notebook = str(read_json(kernel.notebook / "kernel-metadata.json", "id")["id"])
    require_own(dataset, f"{name} --training" if training else name)
    bundle = {"dataset": dataset, "bundle": sha256_of(kernel.bundle.manifest)}
    pushed: dict[str, Any] = read_json(kernel.pushed) if kernel.pushed.is_file() else {}
    if not bundle.items() <= pushed.items() or client.dataset_status(dataset) is None:
        print(f"data set {dataset}: uploading ...", flush=True)
        manifest = read_json(kernel.bundle.manifest)
        message = f"run {manifest['run']}" if "run" in manifest else manifest["purpose"]
        pushed = {**bundle, "after": client.create_or_version_dataset(kernel.bundle.root, message)}
        write_json(kernel.pushed, pushed)
    else:
        print(f"data set {dataset}: this bundle is there already")
    try:
        wait(f"data set {dataset}", lambda: dataset_state(dataset, pushed["after"]), poll, limit)
    except Failed:
        kernel.pushed.unlink()
        raise
    saved = {"notebook": notebook, "cells": digest([sha256_of(file) for file in sorted(kernel.notebook.iterdir())])}
    if not saved.items() <= pushed.items():
        pushed |= {**saved, "version": client.push_kernel(kernel.notebook)}
        write_json(kernel.pushed, pushed)
        time.sleep(poll)  # until then the state may still be that of the version before
    print(f"notebook {notebook}: version {pushed['version']} runs on Kaggle", flush=True)
    try:
        wait(f"notebook {notebook}", lambda: notebook_state(notebook), poll, limit)
    except Failed:
        write_json(kernel.pushed, {key: value for key, value in pushed.items() if key not in ("cells", "version")})
        raise
    print(f"https://www.kaggle.com/code/{notebook} (version {pushed['version']}) has run to its end")
    ours = "submit its submission.csv" if training else f"./run.sh submit {name} --kernel"
    print(f"Next: look at its output there, then {ours}")


def require_own(dataset: str, name: str) -> None:
    """Check that a data set is the user's own, not of the placeholder of a bundle made without credentials.

    Raises:
        ConfigError: if not.
    """
    owner, user = dataset.split("/")[0], client.username()
    if owner.lower() != user.lower():
        raise ConfigError(
            f"The bundle is made for the owner {owner}, and your credentials are those of {user}; run ./run.sh kernel "
            f"{name} --push --owner {user}."
        )


def dataset_state(dataset: str, after: int) -> str:
    """'' when the platform has a version beyond `after`: the notebook gets the current one, which may be of an old run.

    Raises:
        Failed: if it could not unpack it.
    """
    state, version = client.dataset_status(dataset) or ("not there yet", 0)
    if state in ("failed", "deleted"):
        raise Failed(
            f"Kaggle could not unpack the data set {dataset} ({state}); look at "
            f"https://www.kaggle.com/datasets/{dataset} and run the same command again."
        )
    return "not current yet" if version <= after else "" if state == "ready" else state


def notebook_state(notebook: str) -> str:
    """'' when its newest version has run to its end.

    Raises:
        Failed: if it has not, and ended.
    """
    state, reason = client.kernel_status(notebook)
    if state in ("error", "cancelled"):
        raise Failed(
            f"The notebook {notebook} did not run to its end on Kaggle ({reason or state}); read its log at "
            f"https://www.kaggle.com/code/{notebook}."
        )
    return "" if state == "complete" else state


def wait(what: str, state: Callable[[], str], poll: float, limit: float) -> None:
    """Look again and again until the state is '', with a line on a terminal that says how it is.

    Raises:
        ServiceError: if the limit is over, or as `state`, when it fails for good or several times in a row.
    """
    start, misses = time.monotonic(), 0
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
        seconds = time.monotonic() - start
        if sys.stderr.isatty():
            line = f"{what}: {now or 'done'}, {in_words(seconds)}"
            print(f"\r{line:<79}", end="" if now else "\n", file=sys.stderr, flush=True)
        if not now:
            return
        if seconds + poll > limit:
            raise ServiceError(
                f"Kaggle has not finished the {what} within {in_words(limit)} ({now}); run the same command again to "
                "go on waiting."
            )
        time.sleep(poll)


def pushed_notebook(paths: Paths) -> tuple[str, int]:
    """Id and version of the notebook that was pushed last.

    Raises:
        DataError: if there is none, or it has another bundle than the one here.
    """
    pushed = read_json(paths.kernel.pushed) if paths.kernel.pushed.is_file() else {}
    again = f"run ./run.sh kernel {paths.name} --push."
    if "version" not in pushed:
        raise DataError(f"No notebook of {paths.name} was pushed; {again}")
    if not paths.kernel.bundle.manifest.is_file() or sha256_of(paths.kernel.bundle.manifest) != pushed["bundle"]:
        raise DataError(
            f"Version {pushed['version']} of {pushed['notebook']} on Kaggle has another bundle than "
            f"{paths.kernel.bundle.root}; {again}"
        )
    return str(pushed["notebook"]), int(pushed["version"])
