"""Base models of adapters: what a job stores of them, where they are found again, and what `check` verifies.

A job with `lora` stores the adapter and the head. `base_model.json` in its folder names the base model by its
repository of the hub and the revision, or by the name of its folder, and by the digest of its files.

This module does not import torch.
"""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from safetensors import safe_open

from core.errors import ConfigError
from core.files import read_json, write_json
from models.inputs.encoder_settings import TextStage
from models.inputs.weights import WEIGHTS, digest_of_weights, find_weights, hub_revisions

BASE_MODEL = "base_model.json"
DECODER_SUFFIXES = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures in which a token reads only the tokens before it."""


@dataclass(frozen=True)
class BaseModel:
    """The base model of an adapter.

    Attributes:
        name: repository of the hub, weight set, or name of the folder.
        revision: revision of the repository; None for other weights.
        digest: digest of all files.
        max_length: maximum input length in tokens.
    """

    name: str
    revision: str | None
    digest: str | None
    max_length: int


def write_base_model(weights: str, max_length: int, folder: Path) -> None:
    """Write which base model the adapter in a job's folder belongs to."""
    name = Path(weights).name if Path(weights).is_dir() else weights
    base = BaseModel(name, hub_revision(weights), digest_of_weights(weights), max_length)
    write_json(folder / BASE_MODEL, asdict(base))


def hub_revision(weights: str) -> str | None:
    """Return the revision at which a repository of the hub is read; None for other weights."""
    revisions = read_json(hub_revisions()) if hub_revisions().exists() else {}
    return revisions.get(weights)


def find_base_model(weights: str, folder: Path) -> tuple[Path, BaseModel]:
    """Return the folder of the base model of an adapter, and what the job's folder says about it.

    Args:
        weights: setting of the stage.
        folder: folder of the job.

    Raises:
        ConfigError: if the base model is not there, or is not the one that the adapter was trained on.
    """
    base = BaseModel(**read_json(folder / BASE_MODEL))
    found = find_weights(weights, base.revision)
    if digest_of_weights(weights, base.revision) != base.digest:
        at_revision = f" at revision {base.revision}" if base.revision else ""
        raise ConfigError(
            f"the files of {weights} are not those of the base model {base.name}{at_revision} that the adapter in "
            f"{folder} was trained on. Restore them, or delete that folder to train the adapter again."
        )
    return found["config.json"].parent, base


def base_model_bytes(weights: str) -> int:
    """Return the size of the files of a base model."""
    return sum(file.stat().st_size for file in find_weights(weights).values())


def require_pooling(settings: TextStage) -> None:
    """Raise a ConfigError if the first token is pooled in a decoder, in which it has read nothing of the text."""
    if settings.weights is None or settings.pooling != "cls":
        return
    files = find_weights(settings.weights)
    architectures = read_json(files["config.json"]).get("architectures") if "config.json" in files else None
    decoders = [name for name in architectures or [] if name.endswith(DECODER_SUFFIXES)]
    if decoders:
        raise ConfigError(
            f"pooling: cls reads the first token, which has seen nothing of the text in {settings.weights} "
            f"({decoders[0]}, a decoder). Set pooling: last, or mean."
        )


def require_quantization(quantization: str | None) -> None:
    """Raise a ConfigError if the package of a quantization is not installed."""
    if quantization and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantization: {quantization} requires the package bitsandbytes, which is not installed. "
            "Run pip install bitsandbytes, or remove the setting."
        )


def require_layers(weights: str, layers: list[str]) -> None:
    """Raise a ConfigError if no matrix of the weights is of one of some layers; a .bin file is not read."""
    files = [path for name, path in find_weights(weights).items() if name.endswith(WEIGHTS[0])]
    if not files:
        return
    modules = set[str]()
    for file in files:
        with safe_open(file, framework="numpy") as weights_file:
            names = weights_file.keys()
            for name in names:
                if name.endswith(".weight") and len(weights_file.get_slice(name).get_shape()) == 2:
                    modules.add(name.removesuffix(".weight"))
    unknown = [layer for layer in layers if not any(f".{name}".endswith(f".{layer}") for name in modules)]
    if unknown:
        names = sorted({name.rpartition(".")[2] for name in modules})
        raise ConfigError(
            f"lora.layers names {', '.join(unknown)}, which {weights} does not have; its layers are "
            f"{', '.join(names)}."
        )
