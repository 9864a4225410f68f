"""What of a finished run travels to an offline notebook: what prediction reads, and nothing else.

No training rows, no labels, no out-of-fold predictions, and no path of the machine that packs: files of the user's are
named relative to the pack, where `unpacked` finds them again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from competition.errors import DataError
from competition.files import sha256_of, write_atomically, write_json
from competition.paths import PROJECT, Pack, Paths, work_root
from competition.revision import ROOMS
from models.config import EmbeddingStage
from models.inputs.weights import WEIGHT_SETS, find_weights
from models.jobs.plan import REPORT, Job, code_digest, jobs_of, verify
from models.settings import CustomStage, FileStage
from models.stages.file import TEST as THEIR_TEST
from submissions.apply import KNOWN_LABELS
from submissions.config import Config
from submissions.run import BLEND, CHOICE, MANIFEST, STACK, read_manifest, read_part
from submissions.stacker import STACKS

SCRIPTS = ("run.sh", "setup.sh", "pyproject.toml")
NOT_CODE = ("__pycache__", "configs", "data")
CODE = (".py", ".txt", ".html", ".css", ".js")
"""Other files that a user keeps among the code, such as tables or credentials, stay at home."""
OTHER_CODE = "other code"  # the mark of a stage whose jobs were accepted with --reuse
NOT_READ = ("oof.parquet", "oof_spread.parquet", "notes.json", "pretraining.json", "measures.json")
"""Files of a job that prediction does without: predictions for training rows, and what is told of the training."""
BARE = ("train", "test", "sample_submission", "answers", "metric")
"""Settings of `competition` with a path that prediction does not open."""
KEPT_OF_RUN = (
    "run", "made_from", "stages", "columns", "targets", "outputs", "sample_columns", "n_folds", "label_means",
    "test_key", "versions",
)  # fmt: skip
KEPT_OF_CHOICE = ("chosen", "postprocessing", "cross_fitted_score", "procedure")


def copy_run(paths: Paths, run: str, config: Config, pack: Pack) -> list[str]:
    """Copy code, a run, its jobs, the user's code and pretrained weights into an empty pack.

    Returns:
        Remarks for the person who packs.

    Raises:
        DataError: if a stage cannot predict new rows, a job is not finished or has changed, or a packed file names a
            folder of this machine.
        ConfigError: if pretrained weights are out of reach.
    """
    manifest = read_manifest(paths.run(run))
    require_weights(config)
    require_own_code(manifest, config)
    copy_code(pack)
    kept = {key: manifest[key] for key in KEPT_OF_RUN}
    parts, remarks = copy_parts(paths.run(run), _there(paths.run(run), pack))
    write_json(_there(paths.run(run), pack) / MANIFEST, {**kept, "config": pack_config(config, pack), **parts})
    write_atomically(_there(paths.latest_run, pack), f"{run}\n")
    for stage in manifest["stages"]:
        settings = config.stages[stage["name"]]
        for job in jobs_of(stage["name"], settings, stage["key"], manifest["n_folds"], paths):
            if job.in_column:
                copy_job(job, _there(job.folder, pack))
    require_no_paths(pack, folders_of(paths, config))
    return remarks


def _there(product: Path, pack: Pack) -> Path:
    """Where a product lies in a pack."""
    return pack.work / product.relative_to(work_root())


def require_weights(config: Config) -> None:
    """Check that each stage has weights to predict new rows with.

    Raises:
        DataError: if not.
    """
    fixed = [name for name, stage in config.stages.items() if isinstance(stage, FileStage)]
    if fixed:
        raise DataError(
            f"an offline notebook needs stages with weights; {', '.join(fixed)} (kind: file) have none, only the "
            f"predictions of their {THEIR_TEST}. Run ./run.sh full without them, then ./run.sh kernel again."
        )


def require_own_code(manifest: dict[str, Any], config: Config) -> None:
    """Check that the user's code is what the run was made with.

    Raises:
        DataError: if a file is gone or has changed.
    """
    changed = []
    if config.competition.features:
        file = Path(config.competition.features.rpartition(":")[0])
        if not file.is_file() or sha256_of(file) != manifest["user_code"]["features"][0]:
            changed.append(file)
    for stage in manifest["stages"]:
        settings = config.stages[stage["name"]]
        if isinstance(settings, CustomStage) and OTHER_CODE not in stage["marks"]:
            file = Path(settings.code.rpartition(":")[0])
            if not file.is_file() or not stage["key"].endswith(f"-{code_digest(settings)[:6]}"):
                changed.append(file)
    if changed:
        raise DataError(
            f"code of your own must be as it was in the run; {changed[0]} is gone or has changed. "
            "Run ./run.sh full, then ./run.sh kernel again."
        )


def code_files() -> list[Path]:
    """The four packages and what `./run.sh` needs, relative to the project."""
    found = [file for name in ROOMS for file in sorted((PROJECT / name).rglob("*")) if file.suffix in CODE]
    inside = [file.relative_to(PROJECT) for file in found if file.is_file()]
    hidden = [any(part.startswith(".") or part in NOT_CODE for part in file.parts) for file in inside]
    return [*(file for file, out in zip(inside, hidden, strict=True) if not out), *map(Path, SCRIPTS)]


def copy_code(pack: Pack) -> None:
    """Copy the files of `code_files`."""
    for file in code_files():
        (pack.code / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / file, pack.code / file)


def pack_config(config: Config, pack: Pack) -> dict[str, Any]:
    """The settings as JSON, with paths relative to the pack; copies the files that prediction reads there.

    Raises:
        ConfigError: if pretrained weights are out of reach.
    """
    packed = config.model_dump(mode="json")
    competition = packed["competition"]
    for key in BARE:
        competition[key] = competition[key] and Path(competition[key]).name
    for extra in competition["extra_train"]:
        extra["file"] = Path(extra["file"]).name
    packed["folds"]["file"] = packed["folds"]["file"] and Path(packed["folds"]["file"]).name
    if competition["features"]:
        competition["features"] = copy_code_of_user(competition["features"], "competition", pack)
    for name, stage in config.stages.items():
        section = packed["stages"][name]
        if section.get("code"):
            section["code"] = copy_code_of_user(section["code"], name, pack)
        weights = section.get("weights")
        if isinstance(stage, EmbeddingStage):
            section["weights"] = copy_weights(stage.weights, name, pack)
        elif weights and weights not in WEIGHT_SETS:
            section["weights"] = Path(weights).name  # the job's folder has what they became
    return packed


def unpacked(packed: dict[str, Any], pack: Pack) -> dict[str, Any]:
    """The settings that `pack_config` gave, with the paths of a pack where it is now."""
    config = {**packed, "competition": dict(packed["competition"])}

    def absolute(value: str, below: Path) -> str:
        inside = str(below.relative_to(pack.root)) + "/"
        return str(pack.root / value) if value.startswith(inside) else value

    if config["competition"]["features"]:
        config["competition"]["features"] = absolute(config["competition"]["features"], pack.user)
    config["stages"] = {
        name: {
            **stage,
            **({"code": absolute(stage["code"], pack.user)} if stage.get("code") else {}),
            **({"weights": absolute(stage["weights"], pack.weights)} if stage.get("weights") else {}),
        }
        for name, stage in packed["stages"].items()
    }
    return config


def copy_code_of_user(named: str, owner: str, pack: Pack) -> str:
    """Copy the file of file.py:name; returns its name in the pack."""
    file, _, name = named.rpartition(":")
    copy = pack.user / owner / Path(file).name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, copy)
    return f"{copy.relative_to(pack.root)}:{name}"


def copy_weights(named: str, stage: str, pack: Pack) -> str:
    """Copy the pretrained files of a stage; returns what names them from then on.

    Raises:
        ConfigError: if they are out of reach.
    """
    folder = pack.weights / (named if named in WEIGHT_SETS else stage)
    for name, file in find_weights(named).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return named if named in WEIGHT_SETS else str(folder.relative_to(pack.root))


def copy_parts(run_folder: Path, there: Path) -> tuple[dict[str, Any], list[str]]:
    """What of run.json the chosen candidate needs, its files copied; and remarks for a person.

    Raises:
        DataError: if a file is missing or has changed.
    """
    choice = read_part(run_folder, CHOICE)
    chosen, remarks = choice["chosen"], []
    known = [KNOWN_LABELS] if KNOWN_LABELS in choice["files"] else []
    if known:
        remarks.append(f"{KNOWN_LABELS} travels, with mean labels of training rows: postprocess has known_labels")
    step = STACK if chosen in STACKS else BLEND
    models = read_part(run_folder, step)["candidates"][chosen]["models"]
    corrections = [model.get("correction", {}) for model in models.values()]
    files = {
        CHOICE: _copied(run_folder, there, known),
        step: _copied(run_folder, there, [part["file"] for part in corrections if "file" in part]),
    }
    kept = {key: choice[key] for key in KEPT_OF_CHOICE}
    candidates = {chosen: {"models": models}}
    return {CHOICE: {**kept, "files": files[CHOICE]}, step: {"candidates": candidates, "files": files[step]}}, remarks


def _copied(run_folder: Path, there: Path, files: list[str]) -> dict[str, str]:
    for name in files:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run_folder / name, there / name)
    return {name: sha256_of(there / name) for name in files}


def copy_job(job: Job, there: Path) -> None:
    """Copy a finished job with a report that lists what is copied.

    Raises:
        DataError: if it is not finished, or a file of it is missing or has changed.
    """
    if not job.finished:
        raise DataError(f"every job of the run must be finished; {job.folder} is not. Run ./run.sh full first.")
    report = verify(job)
    files = {name: facts for name, facts in report["files"].items() if name not in NOT_READ}
    for name in files:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.folder / name, there / name)
    write_json(there / REPORT, {"files": files, "seconds": report["seconds"]})


def folders_of(paths: Paths, config: Config) -> list[Path]:
    """Folders of this machine that no packed file may name."""
    competition = config.competition
    named = [competition.train, competition.test, competition.sample_submission]
    codes = [competition.features, competition.metric, *(getattr(s, "code", None) for s in config.stages.values())]
    named += [Path(code.rpartition(":")[0]) for code in codes if code]
    return sorted({PROJECT, paths.root.parent.absolute(), *(file.parent for file in named if file.is_absolute())})


def require_no_paths(pack: Pack, folders: list[Path]) -> None:
    """Check that no packed file of text names one of the folders.

    Raises:
        DataError: if one does.
    """
    for file in sorted(pack.root.rglob("*")):
        if file.is_file() and file.suffix in (".json", ".txt", ".csv", ".py", ".sh", ".toml", ".yaml"):
            content = file.read_bytes()
            for folder in folders:
                if len(folder.parts) > 2 and str(folder).encode() in content:
                    raise DataError(
                        f"what travels must not name folders of this machine; {file.relative_to(pack.root)} names "
                        f"{folder}. Write paths relative to the file that uses them, or leave them out."
                    )
