"""Encoders and decoders of Hugging Face's transformers: loading, validation, dropout rates and pooling.

Decoders are loaded without their output layer, so that both kinds give one vector per token.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from core.errors import ConfigError
from core.files import read_json
from models.bert_config import BertConfig, Lora
from models.inputs.base_models import require_base_model
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.text_template import reads_atoms
from models.inputs.tokenization import build_smiles_tokenizer, load_tokenizer, read_vocabulary
from models.inputs.weights import find_weights

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pretrained(config: EncoderFeature | BertConfig, rate: float) -> tuple[Any, Tokenizer]:
    """Load the encoder and the tokenizer of a stage's weights, with dropout rate `rate` everywhere.

    Raises:
        ConfigError: the weights do not contain a Hugging Face encoder, or do not fit the settings.
    """
    assert config.weights is not None
    files = find_weights(config.weights)
    if "config.json" not in files:
        raise ConfigError(
            f"weights {config.weights!r} must contain config.json, got only {', '.join(files)}."
        )
    require_base_model(config)
    folder = files["config.json"].parent
    encoder = load_encoder(folder, config.weights, rate, config.quantization)
    max_length = min(config.max_length, position_limit(encoder))
    return encoder, pretrained_tokenizer(folder, reads_atoms(config), max_length)


@functools.lru_cache(maxsize=2)
def pretrained_tokenizer(folder: Path, atoms: bool, max_length: int) -> Tokenizer:
    """Return the tokenizer of the weights in a folder.

    Args:
        folder: folder of the weights.
        atoms: whether the vocabulary has one token per atom.
        max_length: maximum input length in tokens.
    """
    tokenizer = (
        build_smiles_tokenizer(read_vocabulary(folder / "vocab.txt")) if atoms else load_tokenizer(folder)
    )
    tokenizer.model_max_length = max_length
    return tokenizer


def pooled(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Pool token vectors into one vector per row, (n_rows, width).

    Args:
        states: token vectors (n_rows, n_tokens, width).
        mask: (n_rows, n_tokens), 1 for a real token and 0 for padding.
        how: "cls" for the first vector, "last" for that of the last real token, whichever side is padded,
            "mean" for the mean over real tokens.
    """
    if how == "cls":
        return states[:, 0]
    if how == "last":
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (mask * positions).argmax(dim=1)
        return states[torch.arange(len(states), device=mask.device), last]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def load_encoder(folder: Path, name: str, rate: float, quantization: str | None = None) -> Any:
    """Load the encoder with the weights in `folder`, in float32, without its pooler, with dropout
    rate `rate`.

    Args:
        folder: folder of the weights.
        name: name of the weights, for messages.
        rate: dropout rate.
        quantization: nf4 for linear layers of 4 bits, by bitsandbytes; None for float32.

    Raises:
        ConfigError: AutoModel cannot read the weights, or tensors are missing or have another shape.
    """
    try:
        # Configurations from before transformers 3, such as that for rxnfp, have no model_type.
        config = transformers.AutoConfig.for_model(
            **{"model_type": "bert", **read_json(folder / "config.json")}
        )
        set_config_rates(config, rate)
        config.use_cache = False  # keys and values of earlier tokens are for generation only
        # dtype: the default of transformers 5 is the type in the checkpoint.
        # weights_only: a .bin is read without running code.
        encoder, loading_info = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, local_files_only=True,
            **(quantization_arguments() if quantization else {}),
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


def quantization_arguments() -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for linear layers of 4 bits, on the GPU if there is one.

    They multiply in bf16, or in fp16 on a GPU without it. Source: Dettmers et al., QLoRA, NeurIPS 2023.
    """
    has_gpu = torch.cuda.is_available()
    gpu_dtype = torch.float16
    if has_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        gpu_dtype = torch.bfloat16
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=gpu_dtype if has_gpu else torch.float32,
    )
    return {"quantization_config": quantization, "device_map": {"": "cuda:0" if has_gpu else "cpu"}}


def add_adapters(encoder: Any, lora: Lora, weights: str) -> None:
    """Add low-rank adapters to the layers of an encoder, and freeze everything else.

    Args:
        encoder: encoder with its weights; it is changed in place.
        lora: settings of the adapters.
        weights: name of the weights, for messages.
    """
    import peft  # here, since most stages do without it

    layers = "all-linear" if lora.layers == "all_linear" else lora.layers
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=layers, lora_dropout=0.0)
    try:
        peft.inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise ConfigError(f"lora.layers do not fit the weights {weights!r}: {error}") from None


def new_encoder(config: Any) -> Any:
    """Return an encoder with random weights, in float32, without its pooler."""
    config.use_cache = False
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
