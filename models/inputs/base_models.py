"""Base models of adapters: what a job stores about them, how they are located, and what `check` verifies.

A job with `lora` stores the adapter, the head and the tokenizer. `base_model.json` in its folder names the
base model by its repository of the hub and the revision, or by the name of its folder, and by the digest of
its files.

This module does not import torch.
"""

from importlib.util import find_spec
from pathlib import Path

from safetensors import safe_open

from core.errors import PIP_INSTALL, ConfigError
from core.files import read_json, write_json
from models.inputs.encoder_settings import TextStage
from models.inputs.weights import WEIGHTS, digest_of_weights, find_weights, hub_revision

BASE_MODEL = "base_model.json"
N_LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
"""Keys of the number of layers in the config.json of encoders."""
DECODER_SUFFIXES = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures in which a token reads only the tokens before it."""


def write_base_model(weights: str, folder: Path) -> None:
    """Write which base model the adapter in a job's folder belongs to."""
    name = Path(weights).name if Path(weights).is_dir() else weights
    record = {"name": name, "revision": hub_revision(weights), "digest": digest_of_weights(weights)}
    write_json(folder / BASE_MODEL, record)


def find_base_model(weights: str, folder: Path) -> Path:
    """Return the folder of the base model of the adapter in a job's folder.

    Args:
        weights: setting of the stage.
        folder: folder of the job.

    Raises:
        ConfigError: if the base model is not there, or is not the one that the adapter was trained on.
    """
    base = read_json(folder / BASE_MODEL)
    files = find_weights(weights, base["revision"])
    if digest_of_weights(weights, base["revision"]) != base["digest"]:
        at_revision = f" at revision {base['revision']}" if base["revision"] else ""
        raise ConfigError(
            f"the files of {weights} differ from the base model {base['name']}{at_revision} "
            f"that the adapter in {folder} was trained on. Restore them, or delete that folder to train the "
            "adapter again."
        )
    return files["config.json"].parent


def require_pooling(settings: TextStage) -> None:
    """Raise a ConfigError if the first token of a decoder is pooled, which has read nothing of the text."""
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


def require_hidden_layers(weights: str, layers: list[int]) -> None:
    """Raise a ConfigError if an encoder of text does not have some layers; 0: the embeddings of tokens."""
    files = find_weights(weights)
    config = read_json(files["config.json"]) if "config.json" in files else {}
    n_layers = next((config[name] for name in N_LAYERS if name in config), max(layers))
    if max(layers) > n_layers:
        raise ConfigError(f"{weights} has the layers 1 to {n_layers}, but layers is {layers}.")


def require_quantization(quantization: str | None) -> None:
    """Raise a ConfigError if the package of a quantization is not installed."""
    if quantization and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantization: {quantization} requires the package bitsandbytes, which is not installed. "
            f"Run {PIP_INSTALL} bitsandbytes, or remove the setting."
        )


def require_layers(weights: str, layers: list[str]) -> None:
    """Raise a ConfigError if no matrix of the weights is of one of some layers; a .bin file is not read."""
    modules = set[str]()
    for file in find_weights(weights).values():
        if file.suffix != WEIGHTS[0]:
            continue
        with safe_open(file, framework="numpy") as tensors:
            names = tensors.keys()
            matrices = [name for name in names if len(tensors.get_slice(name).get_shape()) == 2]
        modules.update(name.removesuffix(".weight") for name in matrices)
    unknown = [layer for layer in layers if not any(f".{name}".endswith(f".{layer}") for name in modules)]
    if modules and unknown:
        last_names = sorted({name.rpartition(".")[2] for name in modules})
        raise ConfigError(
            f"lora.layers names {', '.join(unknown)}, which {weights} does not have; its layers are "
            f"{', '.join(last_names)}."
        )
