"""Encoders of Hugging Face's transformers: what is loaded, what is refused, and how they are cut to size."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from competition.errors import ConfigError
from competition.files import read_json
from models.inputs.template import reads_atoms
from models.inputs.tokens import read_vocabulary, smiles_tokens, tokens_of_weights
from models.inputs.weights import find_weights
from models.settings import BertStage, Encoder

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pretrained(config: Encoder | BertStage, rate: float) -> tuple[Any, Tokenizer]:
    """Encoder and tokenizer of the stage's weights, with `rate` for every dropout."""
    assert config.weights is not None
    files = find_weights(config.weights)
    if "config.json" not in files:
        raise ConfigError(f"weights {config.weights!r} must hold config.json; there is only {', '.join(files)}.")
    folder = files["config.json"].parent
    encoder = load_encoder(folder, config.weights, rate)
    if reads_atoms(config):
        tokenizer = smiles_tokens(read_vocabulary(folder / "vocab.txt"))
    else:
        tokenizer = tokens_of_weights(folder)
    tokenizer.model_max_length = min(config.max_length, position_limit(encoder))
    return encoder, tokenizer


def pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Token vectors (n_rows, n_tokens, width) as one vector (n_rows, width): the first, or the mean over real tokens.

    Args:
        mask: (n_rows, n_tokens), 1 for a real token.
    """
    if how == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def load_encoder(folder: Path, name: str, rate: float) -> Any:
    """The encoder with the weights in `folder`, in float32, without its pooler, with `rate` for every dropout."""
    try:
        # Those written before transformers 3, as rxnfp's, name no type.
        config = transformers.AutoConfig.for_model(**{"model_type": "bert", **read_json(folder / "config.json")})
        set_config_rates(config, rate)
        # dtype: transformers 5 keeps the checkpoint's otherwise. weights_only: a .bin is read without running code.
        encoder, found = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, local_files_only=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"weights {name!r} are no Hugging Face encoder that AutoModel reads: {error}") from None
    wrong = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if wrong := sorted(key for key in wrong if not key.startswith("pooler.")):
        raise ConfigError(
            f"weights {name!r} lack {len(wrong)} of a {type(encoder).__name__}, or have them in another shape "
            f"({', '.join(wrong[:5])}); fetch the files again, or correct config.json."
        )
    encoder.pooler = None  # the layer behind the first token, which a masked-language model leaves untrained
    return encoder


def new_encoder(config: Any) -> Any:
    """An encoder with random weights, in float32, without its pooler."""
    encoder = transformers.AutoModel.from_config(config, dtype=torch.float32)
    encoder.pooler = None
    return encoder


def set_config_rates(config: Any, rate: float) -> None:
    """Set every dropout rate of an encoder's config, by whatever name; whole layers are never dropped."""
    for name, value in config.to_dict().items():
        if "drop" in name and type(value) in (int, float):
            setattr(config, name, 0.0 if "layerdrop" in name else rate)


def position_limit(encoder: Any) -> int:
    """Longest input in tokens that the encoder has positions for."""
    for name, part in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            # RoBERTa and its kin count positions from the padding token's id + 1.
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else 2**31
