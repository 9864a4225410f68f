"""Encoders of Hugging Face's transformers: loading, validation, dropout rates and pooling."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.errors import ConfigError
from competition.files import read_json
from models.base_config import EncoderFeature
from models.inputs.text_template import reads_atoms
from models.inputs.tokenization import build_smiles_tokenizer, load_tokenizer, read_vocabulary
from models.inputs.weights import find_weights
from models.neural_config import BertConfig

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pretrained(config: EncoderFeature | BertConfig, rate: float) -> tuple[Any, Tokenizer]:
    """Load the encoder and the tokenizer of a stage's weights, with dropout rate `rate` everywhere.

    Raises:
        ConfigError: the weights do not contain a Hugging Face encoder.
    """
    assert config.weights is not None
    files = find_weights(config.weights)
    if "config.json" not in files:
        raise ConfigError(
            f"weights {config.weights!r} must contain config.json, got only {', '.join(files)}."
        )
    folder = files["config.json"].parent
    encoder = load_encoder(folder, config.weights, rate)
    if reads_atoms(config):
        tokenizer = build_smiles_tokenizer(read_vocabulary(folder / "vocab.txt"))
    else:
        tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = min(config.max_length, position_limit(encoder))
    return encoder, tokenizer


def pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Pool token vectors into one vector per row, (n_rows, width).

    Args:
        states: token vectors (n_rows, n_tokens, width).
        mask: (n_rows, n_tokens), 1 for a real token and 0 for padding.
        how: "cls" for the first vector, "mean" for the mean over real tokens.
    """
    if how == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def load_encoder(folder: Path, name: str, rate: float) -> Any:
    """Load the encoder with the weights in `folder`, in float32, without its pooler, with dropout
    rate `rate`.

    Raises:
        ConfigError: AutoModel cannot read the weights, or tensors are missing or have another shape.
    """
    try:
        # Configurations from before transformers 3, such as that for rxnfp, have no model_type.
        config = transformers.AutoConfig.for_model(
            **{"model_type": "bert", **read_json(folder / "config.json")}
        )
        set_config_rates(config, rate)
        # dtype: the default of transformers 5 is the type in the checkpoint.
        # weights_only: a .bin is read without running code.
        encoder, loading_info = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, local_files_only=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"AutoModel cannot read the weights {name!r} as an encoder: {error}") from None
    invalid = [*loading_info["missing_keys"], *(key for key, *_ in loading_info["mismatched_keys"])]
    invalid = sorted(key for key in invalid if not key.startswith("pooler."))
    if invalid:
        raise ConfigError(
            f"weights {name!r}: {len(invalid)} tensors of a {type(encoder).__name__} are missing or have "
            f"another shape ({', '.join(invalid[:5])}); download the files again, or correct config.json."
        )
    encoder.pooler = None  # the layer on the first token, which a masked-language model does not train
    return encoder


def new_encoder(config: Any) -> Any:
    """Return an encoder with random weights, in float32, without its pooler."""
    encoder = transformers.AutoModel.from_config(config, dtype=torch.float32)
    encoder.pooler = None
    return encoder


def set_config_rates(config: Any, rate: float) -> None:
    """Set all dropout rates in the configuration of an encoder, whatever their names; LayerDrop is
    switched off.
    """
    for name, value in config.to_dict().items():
        if "drop" in name and type(value) in (int, float):
            setattr(config, name, 0.0 if "layerdrop" in name else rate)


def position_limit(encoder: Any) -> int:
    """Return the maximum input length in tokens that the encoder has position embeddings for."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its relatives count positions from the padding token's id + 1.
            n_unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - n_unused
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else 2**31
