"""Pretrained weights: where they are looked for, and the digests that decide whether to trust them.

A named set of `weight_sets.yaml` is looked for in the user's folders ($WEIGHTS_DIR, $UNIMOL_WEIGHT_DIR, `weights/`), in
a package that carries it (an installed one, or `models`), in the hub's cache, then on the hub. What is found must have
the digests of the table. A repository of the hub is read at the revision that it had when it was first used.
"""

import importlib.util
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from competition.errors import ConfigError
from competition.files import digest, read_json, sha256_of, write_atomically, write_json
from competition.paths import hub_revisions, weight_folders


@dataclass(frozen=True)
class WeightSet:
    """A published set of files; the table says what each field means."""

    files: dict[str, str | None]
    licence: str
    hub: str | None = None
    package: tuple[str, str] | None = None
    url: str | None = None
    labels: str | None = None
    atoms: bool = False
    kind: str = "bert"


TABLE = yaml.safe_load(Path(__file__).with_name("weight_sets.yaml").read_text(encoding="utf-8"))
WEIGHT_SETS = {name: WeightSet(**known) for name, known in TABLE.items()}
WEIGHTS = (".safetensors", ".bin")
PATIENCE = 5
"""Seconds to wait for the hub's first answer."""
FETCHED = Path.home() / ".chemprop"
"""Where chemprop keeps what it fetches."""


def find_weights(name: str) -> dict[str, Path]:
    """Files of a named set, of a folder, of a single file, or of a hub repository, by their names."""
    path = Path(name)
    if name in WEIGHT_SETS:
        return _of_set(name, WEIGHT_SETS[name])
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        return {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise ConfigError(
            f"there are no weights {name!r}; name one of {', '.join(WEIGHT_SETS)}, a file, a folder or a repository "
            "OWNER/MODEL of the hub."
        )
    folder = _from_hub(name, name, [])
    return {file: folder / file for file in _of_encoder(file.name for file in folder.iterdir())}


def reads_graphs(name: str) -> bool:
    """Whether weights are of message passing, by their name, and not of an encoder of text."""
    return WEIGHT_SETS[name].kind == "gnn" if name in WEIGHT_SETS else name.endswith(".pt")


def named_weights(stage: Any) -> list[str]:
    """The weights that a stage starts from, and those of the encoders among its features."""
    named = [getattr(stage, "weights", None), *(encoder.weights for encoder in stage.encoders)]
    return [*dict.fromkeys(filter(None, named))]


def require_matching_weights(stage: Any) -> None:
    """Check that the named sets of a stage are of its kind of network, and those of its frozen encoders of theirs."""
    allowed = [(getattr(stage, "weights", None), [stage.kind])]
    allowed += [(encoder.weights, ["bert", "gnn"]) for encoder in stage.encoders]
    for name, kinds in allowed:
        if name in WEIGHT_SETS and WEIGHT_SETS[name].kind not in kinds:
            fitting = [other for other, weight_set in WEIGHT_SETS.items() if weight_set.kind in kinds]
            raise ConfigError(
                f"the weights {name} are of kind {WEIGHT_SETS[name].kind}, and {' or '.join(kinds)} is required here. "
                f"Choose from {', '.join(fitting)}."
            )


def digest_of_weights(name: str | None) -> str | None:
    """Digest of the content of all files of `find_weights`; None where a stage starts from random weights."""
    return None if name is None else digest({file: _sha256(path) for file, path in find_weights(name).items()})


def _sha256(path: Path) -> str:
    """Computed once while the file stays as it is: jobs ask again and again."""
    known = path.stat()
    return _sha256_once(path, known.st_size, known.st_mtime_ns)


@cache
def _sha256_once(path: Path, size: int, changed: int) -> str:
    _require_whole(path)
    return sha256_of(path)


def _require_whole(path: Path) -> None:
    """Reject a file of weights without its end: torch would fail on it after hours. Files of torch before 1.6 pass."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start and path.suffix in (".pt", *WEIGHTS):
            raise zipfile.BadZipFile("it is empty")
        if path.suffix == WEIGHTS[0]:
            with safe_open(path, framework="numpy"):  # compares the sizes in the header with the size of the file
                pass
        elif start == b"PK\x03\x04":  # torch's files are zip files, with the directory at the end
            zipfile.ZipFile(path).close()
    except (SafetensorError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path} is cut short or damaged ({error}). Its download was probably interrupted: delete it and fetch it "
            "again."
        ) from None


def _of_set(name: str, known: WeightSet) -> dict[str, Path]:
    """Files of a named set, each with the digest of the table."""
    places = [*(place for folder in weight_folders() for place in (folder / name, folder)), FETCHED]
    package, inside = known.package or ("", "")
    if package and (spec := importlib.util.find_spec(package)) and spec.submodule_search_locations:
        places.append(Path(spec.submodule_search_locations[0]) / inside)
    folder = next((place for place in places if all((place / file).is_file() for file in known.files)), None)
    if folder is None and known.hub:
        folder = _from_hub(name, known.hub, list(known.files))
    elif folder is None and known.url:
        folder = _from_web(name, known.url, list(known.files))
    elif folder is None and places[-1] == FETCHED:
        raise _unreachable(name, "its package is not installed")
    elif folder is None:
        missing = [str(places[-1] / file) for file in known.files if not (places[-1] / file).is_file()]
        raise ConfigError(
            f"the package {package} is installed without {', '.join(missing)}, the weights {name!r}. Restore what was "
            "deleted, by git or by installing the package again."
        )
    for file, expected in known.files.items():
        if expected and (found := _sha256(folder / file)) != expected:
            raise ConfigError(
                f"{folder / file} is not the published file of {name!r}: its sha256 is {found}, not {expected}. "
                "Put the published file in its place."
            )
    return {file: folder / file for file in known.files}


def _from_hub(name: str, repository: str, files: list[str]) -> Path:
    """The folder of a repository at its revision of the first use, from the hub's cache where that has it.

    `files` must be there; without any, those of an encoder.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    revisions = read_json(hub_revisions()) if hub_revisions().exists() else {}
    revision, needed = revisions.get(repository), files or ["config.json"]
    try:
        cached = [try_to_load_from_cache(repository, file, revision=revision) for file in needed]
        is_there = all(isinstance(path, str) for path in cached)
        folder = Path(str(cached[0])).parents[needed[0].count("/")] if is_there else None
        if folder is None or not (files or any(file.suffix in WEIGHTS for file in folder.iterdir())):
            # Asked before the download, which alone retries for half a minute, or waits for ever.
            info = HfApi().repo_info(repository, revision=revision, timeout=PATIENCE)
            wanted = files or _of_encoder(file.rfilename for file in info.siblings or [])
            folder = Path(
                snapshot_download(repository, revision=info.sha, allow_patterns=wanted, etag_timeout=PATIENCE)
            )
    except Exception as error:  # the hub's client raises many kinds; each means that there is nothing
        raise _unreachable(name, str(error) or type(error).__name__) from error
    if folder.name != revision:
        write_json(hub_revisions(), {**revisions, repository: folder.name})
    return folder


def _of_encoder(files: Iterable[str]) -> list[str]:
    """Files of a repository that an encoder needs: the safe form of its weights where there is one."""
    known = sorted(name for name in files if "/" not in name and name.endswith((".json", ".txt", ".model", *WEIGHTS)))
    is_safe = any(name.endswith(WEIGHTS[0]) for name in known)
    return [name for name in known if not (is_safe and name.endswith(WEIGHTS[1]))]


def _from_web(name: str, url: str, files: list[str]) -> Path:
    """Download files from a folder of the web and return the folder with them."""
    try:
        for file in files:
            with urllib.request.urlopen(f"{url}/{file}", timeout=PATIENCE) as answer:
                write_atomically(FETCHED / file, answer.read())
    except OSError as error:
        raise _unreachable(name, str(error)) from error
    return FETCHED


def _unreachable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"the weights {name!r} are in no folder of yours and in no installed package, and could not be reached: "
        f"{why.splitlines()[0].rstrip('.')}. Run ./run.sh once with the network, put the files into "
        f"{weight_folders()[-1] / name.split('/')[-1]}, or set WEIGHTS_DIR to the folder that has them."
    )
