"""Pack a competition for training in a notebook without internet: `./run.sh kernel [COMPETITION] --training`.

Reads: the YAML, its tables, the pretrained weights that its stages name, packages of the index pip is set to. Needs no
finished run. Writes:

    work/<name>/kernel_training/dataset/     for one data set: NAME.yaml, code/ weights/ data/ wheels/ and pack.json
    work/<name>/kernel_training/notebook/    the notebook, which trains and writes the submission

The competition's own tables stay where the platform mounts them; NAME.yaml names them there. Its other paths lead into
the pack, and are right for a process that stands in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from competition.config import CompetitionConfig
from competition.errors import ConfigError
from competition.files import read_json, replaced, write_atomically, write_json
from competition.paths import Kernel, Pack, Paths, kaggle_files, kaggle_listing, kaggle_mount
from models.settings import FileStage
from models.stages.file import files_of
from submissions.check import check
from submissions.config import Config
from submissions.kernel import notebook
from submissions.kernel.contents import copy_code, copy_code_of_user, copy_weights, folders_of, require_no_paths
from submissions.kernel.facts import with_wheels
from submissions.kernel.packages import needs_of_training

TABLES = ("train", "test", "sample_submission")


def require_on_platform(competition: CompetitionConfig, name: str) -> None:
    """Check that a notebook of the platform can have the competition's tables.

    Raises:
        ConfigError: if not.
    """
    if competition.holdout_of:
        raise ConfigError(f"tables must be those of the platform, and {name} has its own; leave out --holdout.")
    if not competition.kaggle:
        raise ConfigError(
            "competition.kaggle must name the competition on Kaggle, whose tables the notebook trains on, and is not "
            f"set in the YAML of {name}; add kaggle: SLUG, the last part of the address of the competition's page."
        )


def build_training(name: str, config: Config, owner: str, python: str, accelerator: str | None) -> Kernel:
    """Make the folder work/<name>/kernel_training, whole or not at all; an earlier one is replaced.

    Args:
        name: of the competition, or its YAML.
        owner: user name on Kaggle.
        python: of the notebook's image, such as 3.12.
        accelerator: cpu, or an id of Kaggle's; None for a GPU where a stage has use for one.

    Raises:
        ConfigError: if weights are out of reach, or as `submissions.check.check`.
        DataError: if a table is wrong, a packed file names a folder of this machine, or a package cannot travel.
        ServiceError: if a package cannot be fetched.
    """
    paths = Paths.of(name)
    kernel = paths.training_kernel
    print(check(config), flush=True)
    with replaced(kernel.root) as folder:
        new = Kernel(folder, kernel.pushed)
        print("copying code and weights ...", flush=True)
        copy_code(new.pack)
        settings = training_settings(config, new.pack)
        write_atomically(
            new.pack.root / f"{paths.name}.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        )
        require_no_paths(new.pack, folders_of(paths, config))
        facts = {
            "name": paths.name,
            "purpose": "training",
            "kaggle": config.competition.kaggle,
            "targets": config.competition.columns_in_sample,
            **with_wheels(needs_of_training(new.pack, python), new.pack, python),
        }
        write_json(new.pack.facts, facts)
        notebook.write(new.notebook, new.pack, facts, owner, accelerator or notebook.default_accelerator(config))
    return kernel


def training_settings(config: Config, pack: Pack) -> dict[str, Any]:
    """What the YAML sets, with paths of the notebook; copies the files that they name into the pack.

    Raises:
        ConfigError: if pretrained weights are out of reach.
    """
    document = config.model_dump(mode="json", exclude_unset=True)
    competition = document["competition"]
    competition.pop("answers", None)
    for key in TABLES:
        competition[key] = _mounted(getattr(config.competition, key), str(config.competition.kaggle), pack)
    for i, extra in enumerate(competition.get("extra_train", [])):
        extra["file"] = _copy_data(Path(extra["file"]), f"extra_train_{i}", pack)
    for key in ("metric", "features"):
        if ":" in (competition.get(key) or ""):
            competition[key] = copy_code_of_user(competition[key], f"competition/{key}", pack)
    if config.folds.file:
        document["folds"]["file"] = _copy_data(config.folds.file, "folds", pack)
    for name, stage in document["stages"].items():
        if stage.get("code"):
            stage["code"] = copy_code_of_user(stage["code"], name, pack)
        if stage.get("weights"):
            stage["weights"] = copy_weights(stage["weights"], name, pack)
        if isinstance(theirs := config.stages[name], FileStage):
            stage["folder"] = [str(Path(_copy_data(file, name, pack)).parent) for file in files_of(theirs)][0]
    return document


def _mounted(table: Path, slug: str, pack: Pack) -> str:
    """Where the notebook finds a table of the competition; one that the platform has only in an archive travels."""
    downloaded, listing = kaggle_files(slug).resolve(), kaggle_listing(slug)
    inside = table.relative_to(downloaded).as_posix() if table.is_relative_to(downloaded) else table.name
    if listing.is_file() and inside not in read_json(listing, "listed")["listed"]:
        print(f"note: {inside} is in an archive on the platform, so it travels with the code")
        return _copy_data(table, slug, pack)
    return str(kaggle_mount(slug) / inside)


def _copy_data(file: Path, owner: str, pack: Pack) -> str:
    """Copy a table; returns its name in the pack."""
    copy = pack.data / owner / file.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, copy)
    return str(copy.relative_to(pack.root))
