"""Stages of a user: one that says which job it trained, two whose predictions tell what they saw, one that fails."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.files import read_json, write_json
from models.api import Stage
from models.job_folder import write_notes


class Counted(Stage):
    """Predicts the mean of the training labels, takes some seconds, and waits as long as the file `hold` is there."""

    log: str
    """A file to which each job writes its name, when it begins, and its driver."""
    seconds: float = 0.0
    hold: str = ""
    note: str = ""

    def fit(self, train, folder, context):
        stage, seed, fold = folder.parents[2].name, folder.parent.name, folder.name.split(".")[1]
        with Path(self.log).open("a") as log:
            log.write(f"{stage}/{seed}/{fold} {os.getppid()}\n")
        time.sleep(self.seconds)
        while self.hold and Path(self.hold).exists():
            time.sleep(0.05)
        write_notes(folder, [self.note] if self.note else [])
        write_json(folder / "mean.json", {"mean": np.nanmean(train.y, axis=0).tolist(), "seed": context.seed})

    def predict(self, rows, folder, context):
        return np.tile(read_json(folder / "mean.json")["mean"], (len(rows), 1))


class Echo(Stage):
    """Predicts the number in a row's id, so what comes out of place is seen at once."""

    most_rows: int

    def fit(self, train, folder, context):
        write_json(folder / "model.json", {})

    def predict(self, rows, folder, context):
        assert len(rows) <= self.most_rows
        return np.array([[float(i[1:]), -float(i[1:])] for i in rows.ids])


class Memoriser(Stage):
    """Knows the labels of every input it was fitted on, and predicts 0 for any other."""

    def fit(self, train, folder, context):
        labels = dict(zip(train.inputs["SMILES"], np.nan_to_num(train.y).tolist(), strict=True))
        write_json(folder / "labels.json", labels)

    def predict(self, rows, folder, context):
        assert rows.y is None, "held-out rows come without labels"
        labels = read_json(folder / "labels.json")
        return np.array([labels.get(smiles, [0.0, 0.0]) for smiles in rows.inputs["SMILES"]])


class Unpicklable(Exception):
    """An exception that cannot be made again from its arguments, as those of HTTP clients."""

    def __init__(self, text, *, response):
        super().__init__(text)
        self.response = response


class Silent(Exception):
    """An exception without a message that could be printed."""

    def __str__(self):
        raise SystemExit(9)


class Failing(Stage):
    """Predicts zeros, except in one fold."""

    how: str
    fold: int = 2
    mend: str = ""
    """A file that, if it exists, lets it pass."""

    def fit(self, train, folder, context):
        write_json(folder / "model.json", {})
        is_mended = bool(self.mend) and Path(self.mend).exists()
        if folder.name == f".fold_{self.fold}" and not is_mended:
            fail(self.how)

    def predict(self, rows, folder, context):
        return np.zeros((len(rows), len(context.task.outputs)))


def leave_traces():
    os.chdir("/")
    os.environ.clear()
    raise ValueError("changed the folder and the environment")


ERRORS = {
    "raises": ValueError("fold 2 has\nno molecules"),
    "config": ConfigError("lower the learning_rate"),
    "unpicklable": Unpicklable("HTTP 404", response=404),
    "interrupts": KeyboardInterrupt(),
    "silent": Silent(),
    "exits": SystemExit(7),
}
ENDS: dict[str, Any] = {
    "leaves_traces": leave_traces,
    "leaves": lambda: os._exit(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "hangs": lambda: time.sleep(3600),
}


def fail(how):
    if how in ERRORS:
        raise ERRORS[how]
    ENDS[how]()
