"""The bundle of an offline notebook: the files that it reads, and nothing else.

A bundle for prediction has no training rows, no labels and no out-of-fold predictions, and only the stages
with a weight in the submission. A bundle for training has no answers, and only the tables that the platform
does not mount. User-defined files are copied, with paths relative to the file that refers to them.

    work/<name>/kernel/dataset/     a data set with code/ work/ weights/ wheels/ requirements.txt and
                                    bundle.json (purpose, competition, packages, digest of the files)
    work/<name>/kernel/notebook/    the notebook and its metadata
"""

import os
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from core.errors import DataError
from core.files import PROJECT, digest, replaced, sha256_of, work_root, write_atomically, write_json
from core.paths import Paths
from core.user_code import Opened, files_to_copy, merge_opened, opened_files, user_code_files
from core.yaml_files import dump_yaml
from models.inputs.weights import WEIGHT_SETS, find_weights
from models.job_folder import REPORT, TEST_FOLDER
from models.jobs.job_files import verify_job
from models.jobs.plan import describe_other_code
from models.stage import Stage
from models.stages.sklearn import HUB_WEIGHTS
from submissions.config import Config, rewrite_paths
from submissions.kaggle.paths import Bundle, Kernel, kaggle_files, kaggle_mount
from submissions.kaggle.wheels import add_wheels
from submissions.manifest import candidate_file, read_manifest, verify_files, write_manifest
from submissions.run import latest_run, name_of_latest, require_same_code

PACKAGES = ("core", "competition", "folds", "models", "submissions", "pipeline")
"""Packages that make and use a run."""
SCRIPTS = ("run.sh", "setup.sh", "pyproject.toml")
CODE = (".py", ".txt", ".html", ".ipynb", ".yaml")
"""Suffixes of the files that are copied. Others next to the code, such as tables or credentials, are not."""
NOT_CODE = {"configs", "data"}
NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
SLUGS = {"prediction": ("pack", "offline"), "training": ("training", "train")}
"""Purpose -> suffixes of the names of the data set and the notebook."""
CPU = "cpu"
GPU = "NvidiaTeslaT4"
NOT_READ = (f"{TEST_FOLDER}/", "oof", "notes.json", "losses.csv")
"""Prefixes of the files of a job that prediction does not read."""


def build(paths: Paths, config: Config | None, owner: str) -> Kernel:
    """Make the folder of a notebook and its bundle, in place of an earlier one. If it fails, nothing changes.

    Args:
        config: settings of a notebook that trains; None for a notebook that predicts with the latest run.
    """
    kernel = Kernel.of(paths, training=config is not None)
    with replaced(kernel.root) as folder:
        bundle = Kernel(folder).bundle
        print("copying code and weights ...", flush=True)
        copy_code(bundle)
        if config:
            manifest = copy_competition(paths.name, config, bundle)
        else:
            config, manifest = copy_run(paths.name, bundle)
        stages = config.stages.values()
        packages = set(chain.from_iterable(stage.optional_packages for stage in stages))
        copy_hub_weights(bundle, packages)
        add_wheels(bundle, packages)
        encoders = list(chain.from_iterable(stage.encoders for stage in stages))
        uses_gpu = any(stage.predicts_on_gpu and stage.gpu > 0 for stage in stages)
        uses_gpu |= any(encoder.kind.uses_gpu for encoder in encoders)
        manifest["accelerator"] = GPU if uses_gpu else CPU
        files = [file for file in sorted(bundle.root.rglob("*")) if file.is_file()]
        manifest["content"] = digest([sha256_of(file) for file in files])
        write_json(bundle.manifest, manifest)
        write_notebook(Kernel(folder).notebook, bundle, manifest, owner)
    return kernel


def copy_code(bundle: Bundle) -> None:
    """Copy the packages and the scripts of `./run.sh`."""
    files = [PROJECT / name for name in SCRIPTS]
    for package in PACKAGES:
        files += [file for file in (PROJECT / package).rglob("*") if file.suffix in CODE]
    for file in files:
        inside = file.relative_to(PROJECT)
        if not any(part in NOT_CODE or part.startswith(".") for part in inside.parts):
            copy(file, bundle.code / inside)


def copy(source: Path, target: Path) -> None:
    """Copy the content of a file; the folder of the target is created."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_of_user(path: Path, bundle: Bundle, base: Path, opened: Opened) -> str:
    """Copy a user-defined file with the modules that it imports and the files that it opened, or a folder of
    predictions.

    Returns:
        Its path relative to `base`, a folder of the bundle.
    """
    folder = bundle.user / digest(str(path), 8)
    if path.is_dir():
        files = [path / "oof.csv", path / "test.csv"]
    else:
        files = files_to_copy(path, opened) if path.suffix == ".py" else [path]
    for file in files:
        copy(file, folder / file.relative_to(path.parent))
    return os.path.relpath(folder / path.name, base)


def copy_weights(weights: str, stage: str, bundle: Bundle) -> str:
    """Copy the pretrained files of a stage; return its setting `weights` in the notebook."""
    folder = bundle.weights / (weights if weights in WEIGHT_SETS else stage)
    for name, file in find_weights(weights).items():
        copy(file, folder / name)
    copied = folder / name if Path(weights).is_file() else folder
    return weights if weights in WEIGHT_SETS else str(copied.relative_to(bundle.root))


def copy_hub_weights(bundle: Bundle, estimators: set[str]) -> None:
    """Copy the weights that packages of estimators downloaded, from the cache of the Hugging Face hub.

    Raises:
        DataError: if they were never downloaded on this machine.
    """
    for estimator in estimators:
        package = estimator.partition(".")[0]
        if package not in HUB_WEIGHTS:
            continue
        repository = f"models--{HUB_WEIGHTS[package].replace('/', '--')}"
        cache = Path(HF_HUB_CACHE) / repository
        if not cache.exists():
            raise DataError(
                f"The weights of {estimator} are not on this machine; train its stage here, which downloads "
                f"{HUB_WEIGHTS[package]}, or leave it out."
            )
        for part in ("refs", "snapshots"):  # the files of snapshots are links into a third folder
            shutil.copytree(cache / part, bundle.hub_cache / repository / part)


def copy_stage_weights(name: str, stage: Stage, dumped: dict[str, Any], bundle: Bundle, trains: bool) -> None:
    """Copy the pretrained files that a stage reads in the notebook, and write their places into its settings.

    Args:
        dumped: dumped settings of the stage, which are changed.
        trains: whether the notebook trains. The folders of finished jobs have the fine-tuned weights of a
            network, or only its adapters.
    """
    weights = stage.initial_weights
    if weights:
        dumped["weights"] = Path(weights).name
        if trains or stage.predicts_with_initial_weights:
            dumped["weights"] = copy_weights(weights, name, bundle)
    features = dumped.get(stage.encoder_setting, [])
    encoders = [feature for feature in features if isinstance(feature, dict)]
    for i, encoder in enumerate(encoders):
        encoder["weights"] = copy_weights(encoder["weights"], f"{name}_{i}", bundle)


def copy_run(name: str, bundle: Bundle) -> tuple[Config, dict[str, Any]]:
    """Copy what prediction with the latest run needs; return settings and manifest of the notebook."""
    run = latest_run(name)
    run_folder = bundle.work / run.folder.relative_to(work_root())
    stages = run.stages_with_weight
    config = run.config.model_copy(update={"stages": stages})
    external = [stage for stage, settings in stages.items() if not settings.is_trained]
    if external:
        raise DataError(
            f"Stages of kind file ({', '.join(external)}) cannot predict hidden rows. Run full without them."
        )
    require_same_code(config, run.manifest)
    for line in describe_other_code(replace(run.plan, stages=stages)):
        print(line)
    settings = _prediction_settings(config, bundle, run_folder, run.manifest.opened)
    for job in run.plan.jobs:
        if job.predicts_test and job.stage in stages:
            target = bundle.work / job.folder.relative_to(work_root())
            report = verify_job(job)
            files = {
                name: sha256 for name, sha256 in report["files"].items() if not name.startswith(NOT_READ)
            }
            for name in files:
                copy(job.folder / name, target / name)
            write_json(target / REPORT, {"files": files, "seconds": report["seconds"]})
    file = candidate_file(run.chosen, ".json")  # the other files of a run are predictions
    stored = verify_files(run.folder, file, manifest=run.manifest)
    copy(run.folder / file, run_folder / file)
    changes = {
        "config": settings,
        "stages": {stage: stored.stages[stage] for stage in stages},
        "files": {file: stored.files[file]},
    }
    write_manifest(run_folder, stored.model_copy(update=changes))
    write_atomically(bundle.work / run.paths.latest_run.relative_to(work_root()), f"{run.folder.name}\n")
    manifest = {
        "name": run.paths.name,
        "purpose": "prediction",
        "kaggle": config.competition.kaggle,
        "run": run.folder.name,
    }
    return config, manifest


def _prediction_settings(config: Config, bundle: Bundle, run_folder: Path, opened: Opened) -> dict[str, Any]:
    """Return the settings for prediction on another machine, and copy user-defined code and encoders."""
    settings: dict[str, Any] = rewrite_paths(
        config.model_dump(),
        lambda path: copy_of_user(path, bundle, run_folder, opened) if path.suffix == ".py" else path.name,
    )
    for name, stage in config.stages.items():
        copy_stage_weights(name, stage, settings["stages"][name], bundle, trains=False)
    return settings


def copy_competition(name: str, config: Config, bundle: Bundle) -> dict[str, Any]:
    """Copy what training needs, with its YAML; return the manifest of the notebook."""
    competition = config.competition
    slug = str(competition.kaggle)
    tables = [competition.train, competition.test, competition.sample_submission]
    downloaded = kaggle_files(slug).resolve()
    opened = _opened_here(config)

    def place(path: Path) -> str:
        inside = path.relative_to(downloaded).as_posix() if path.is_relative_to(downloaded) else path.name
        original = downloaded / inside
        is_there = original.is_file() and ".zip/" not in inside
        if path == competition.train:  # which may be another file of that name
            is_there = is_there and sha256_of(original) == sha256_of(path)
        elif not downloaded.is_dir():
            is_there = True  # a downloaded test table, which the platform replaces
        if path in tables and is_there:
            return str(kaggle_mount(slug) / inside)
        if path in tables:
            is_test = path == competition.test
            hidden = (
                ": the notebook predicts its rows, and not those of a hidden test table" if is_test else ""
            )
            print(
                f"{'WARNING' if is_test else 'note'}: {inside} is packed with the code, since it is not known to be "
                f"a file of the platform{hidden}"
            )
        return copy_of_user(path, bundle, bundle.root, opened)

    document = config.model_dump(exclude_unset=True)
    document["competition"].pop("answers", None)
    document["competition"]["unparsable"] = (
        "drop"  # an invalid row of the hidden table would cost the submission
    )
    document = rewrite_paths(document, place)
    for stage_name, stage in config.stages.items():
        copy_stage_weights(stage_name, stage, document["stages"][stage_name], bundle, trains=True)
    write_atomically(bundle.root / f"{name}.yaml", dump_yaml(document))
    return {"name": name, "purpose": "training", "kaggle": competition.kaggle}


def _opened_here(config: Config) -> Opened:
    """Return what user code has opened in this process, such as in its check, and for the latest run."""
    opened = opened_files(config.model_dump())
    paths = config.competition.paths
    with suppress(DataError):  # if no run exists, or only one of an older version
        return merge_opened(opened, read_manifest(paths.run(name_of_latest(paths))).opened)
    if user_code_files(config.model_dump()):
        print(
            "note: a file that only training or the blend opens, and that no string in your code names, "
            "is packed after ./run.sh full"
        )
    return opened


def write_notebook(folder: Path, bundle: Bundle, manifest: dict[str, Any], owner: str) -> None:
    """Write the notebook and its metadata, and the metadata of the data set."""
    data_set, notebook = (kaggle_slug(manifest["name"], what) for what in SLUGS[manifest["purpose"]])
    about: dict[str, Any] = {"id": f"{owner}/{data_set}", "title": data_set.replace("-", " ")}
    write_json(bundle.metadata, about | {"licenses": [{"name": "other"}]})
    gpu = manifest["accelerator"] != CPU
    about = {
        "id": f"{owner}/{notebook}", "title": notebook.replace("-", " "),  # Kaggle makes the slug from it
        "code_file": f"{notebook}.ipynb", "language": "python", "kernel_type": "notebook", "is_private": True,
        "enable_gpu": gpu, "machine_shape": manifest["accelerator"] if gpu else None,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{data_set}"],
        "competition_sources": [manifest["kaggle"]] if manifest["kaggle"] else [],
    }  # fmt: skip
    write_json(folder / "kernel-metadata.json", about)
    shutil.copyfile(NOTEBOOK, folder / about["code_file"])


def kaggle_slug(name: str, what: str) -> str:
    """Return a name on Kaggle, of 6 to 50 characters."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: 49 - len(what)].strip("-")
    return f"{words or 'competition'}-{what}"
