"""Small competitions for the program."""

import numpy as np
import pandas as pd
import yaml

from competition.prepare import prepare
from pipeline import commands
from pipeline.check import check_all
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition


def options(path, *more):
    return commands.parse(["full", str(path), "--workers", "1", *more])


def written(folder, train=None, test=None, **sections):
    """The competition of `mixed_tables` with other columns; each section is the inside of a mapping in YAML."""
    tables = [
        table.assign(**(changed or {})) for table, changed in zip(mixed_tables(), (train, test), strict=True)
    ]
    settings = {name: yaml.safe_load(f"{{{text}}}") for name, text in sections.items()}
    return write_competition(folder, *tables, **settings)


def small(folder, **sections):
    """A competition that is trained in a second, without molecules."""
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}}
    sections = {
        "competition": {"smiles": []},
        "stages": stages,
        "submissions": {"trials": 4, "stack": False},
        **sections,
    }
    return write_competition(folder, *mixed_tables(), **sections)


def checked(path, here=True):
    """What `./run.sh check` says."""
    return check_all(load_config(str(path)), here)


N_TRAIN, N_TEST = 60, 12
X = np.tile(np.arange(3.0), 24) + np.linspace(0, 0.3, 72)  # equal inputs would share a fold
NEIGHBORS = "kind: sklearn, estimator: sklearn.neighbors.KNeighborsClassifier, parameters: {n_neighbors: 3}"


def of_x(folder, labels, sample=0, settings="", stage="", **inputs):
    """A competition whose labels are functions of the input `x`, with other inputs and one quick stage.

    Args:
        labels: of the target `y`, or of several targets by name.
        sample: cells of the sample in the column `y`, or of several columns by name.
        settings: inside of the mapping `competition` in YAML, and `stage` that of the stage.
    """
    ids = [f"r{i:02d}" for i in range(len(X))]
    targets, cells = (each if isinstance(each, dict) else {"y": each} for each in (labels, sample))
    table = pd.DataFrame({"id": ids, "x": X, **targets, **inputs})
    table[:N_TRAIN].to_csv(folder / "train.csv", index=False)
    table[N_TRAIN:].drop(columns=targets).to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": ids[N_TRAIN:], **cells}).to_csv(folder / "sample.csv", index=False)
    default = NEIGHBORS if "problem_type" in settings else "kind: sklearn"
    files = {"train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv", "id": "id"}
    roles = {"numeric": ["x"], "targets": [*targets], "metric": "rmse", **yaml.safe_load(f"{{{settings}}}")}
    document = {
        "competition": files | roles,
        "folds": {"n_folds": 3},
        "stages": {"s": yaml.safe_load(f"{{{stage or default}}}")},
        "submissions": {"trials": 4, "stack": False},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def of_table(folder, table, n_test, test_has=(), **settings):
    """A competition of one table, whose last rows are the test table, with the input `x` and one quick stage.

    Args:
        test_has: targets that the test table has, too.
        settings: of the section `competition`.
    """
    roles = {"id": "id", "numeric": ["x"], "targets": ["y"], "metric": "rmse", **settings}
    targets, test = roles["targets"], table[-n_test:]
    constant = dict.fromkeys(targets, table[targets[0]].iloc[0])
    tables = {
        "train": table[:-n_test],
        "test": test.drop(columns=[name for name in targets if name not in test_has]),
        "sample_submission": test[["id"]].assign(**constant),
    }
    for name, rows in tables.items():
        rows.to_csv(folder / f"{name}.csv", index=False)
    files = {name: f"{name}.csv" for name in tables}
    document = {"competition": files | roles, "stages": {"s": {"kind": "sklearn"}}}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def said(path, words=""):
    """What is said of the tables, with these words."""
    lines = prepare(load_config(str(path)).competition).report["said"]
    return [line for line in lines if words in line]
