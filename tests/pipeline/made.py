"""Small competitions for the program."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from pipeline import commands
from pipeline.check import check_all
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition


def options(path: Path, *more: str) -> Namespace:
    return commands.parse(["full", str(path), "--workers", "1", *more])


def written(
    folder: Path, train: dict[str, Any] | None = None, test: dict[str, Any] | None = None, **sections: str
) -> Path:
    """The competition of `mixed_tables` with other columns; each section is the inside of a mapping in YAML."""
    tables = [table.assign(**(changed or {})) for table, changed in zip(mixed_tables(), (train, test), strict=True)]
    settings = {name: yaml.safe_load(f"{{{text}}}") for name, text in sections.items()}
    return write_competition(folder, *tables, **settings)


def small(folder: Path, **sections: object) -> Path:
    """A competition that is trained in a second, without molecules."""
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}}
    sections = {
        "competition": {"smiles": []},
        "stages": stages,
        "submissions": {"trials": 4},
        **sections,
    }
    return write_competition(folder, *mixed_tables(), **sections)


def checked(path: Path, here: bool = True) -> str:
    """What `./run.sh check` says."""
    return check_all(load_config(str(path)), here)
