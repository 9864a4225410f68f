"""Encoders and decoders of Hugging Face's transformers: loading, validation, dropout rates, pooling and adapters.

Decoders are loaded without their output layer, so that both kinds give one vector per token.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from core.errors import ConfigError
from core.files import read_json
from models.inputs.encoder_settings import TextStage
from models.inputs.texts import max_positions, reads_atoms
from models.inputs.tokenization import build_smiles_tokenizer, load_tokenizer, read_vocabulary
from models.inputs.weights import find_weights

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pretrained(config: TextStage, rate: float, quantization: str | None = None) -> tuple[Any, Tokenizer]:
    """Load the encoder and the tokenizer of a stage's weights, with dropout rate `rate` everywhere.

    Args:
        config: settings with the weights and the maximum length.
        rate: dropout rate.
        quantization: nf4 for linear layers of 4 bits; None for float32.

    Raises:
        ConfigError: the weights do not contain a Hugging Face encoder, or do not fit the settings.
    """
    assert config.weights is not None
    files = find_weights(config.weights)
    if "config.json" not in files:
        raise ConfigError(
            f"weights {config.weights!r} must contain config.json, got only {', '.join(files)}."
        )
    folder = files["config.json"].parent
    encoder = load_encoder(folder, config.weights, rate, quantization)
    if reads_atoms(config):
        tokenizer = build_smiles_tokenizer(read_vocabulary(folder / "vocab.txt"))
    else:
        tokenizer = load_tokenizer(folder)
    tokenizer.model_max_length = min(config.max_length, position_limit(encoder))
    return encoder, tokenizer


def pooled(states: Tensor, mask: Tensor, how: str) -> Tensor:
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
    return max_positions(encoder.config.to_dict())


def encoder_from_scratch(
    tokenizer: Tokenizer, width: int, layers: int, heads: int, max_length: int, rate: float
) -> Any:
    """Return an encoder with random weights for the vocabulary of a tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_config_rates(config, rate)
    return new_encoder(config)


class BertBackbone(nn.Module):
    """An encoder and the pooling of its token vectors."""

    def __init__(self, encoder: transformers.PreTrainedModel, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.width: int = encoder.config.hidden_size
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return pooled features (n_rows, width).

        Args:
            input_ids: (n_rows, n_tokens).
            attention_mask: (n_rows, n_tokens), 0 for padding.
        """
        # Token types are left out: all columns are one sequence, and every encoder then takes type 0.
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pooled(tokens.float(), attention_mask, self.pooling)


class AdaptedBackbone(BertBackbone):
    """A frozen encoder with low-rank adapters, which are the only part that is trained.

    Its state has the adapters only: checkpoints and the weights of a job do not repeat the base model.
    """

    def __init__(
        self, encoder: Any, pooling: str, weights: str, rank: int, alpha: int, layers: str | list[str]
    ) -> None:
        """Add adapters to the layers of an encoder, in place.

        Args:
            encoder: encoder with its weights.
            pooling: see `pooled`.
            weights: name of the weights, for messages.
            rank: rank of the adapters.
            alpha: numerator of their factor, alpha / rank.
            layers: all_linear, or names of layers.
        """
        import peft  # here, since most stages do without it

        super().__init__(encoder, pooling)
        modules = "all-linear" if layers == "all_linear" else layers
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, lora_dropout=0.0)
        try:
            peft.inject_adapter_in_model(config, encoder)
        except ValueError as error:
            raise ConfigError(f"lora.layers do not fit the weights {weights!r}: {error}") from None
        self.register_state_dict_post_hook(_remove_base_model)
        self.register_load_state_dict_post_hook(_expect_no_base_model)


def _is_of_base_model(name: str) -> bool:
    """Return whether a name in the state of a network is that of a tensor below the adapters."""
    return "encoder." in name and "lora_" not in name


def _remove_base_model(backbone: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Remove everything that is not trained from the state of a backbone."""
    for name in list(filter(_is_of_base_model, state)):
        del state[name]


def _expect_no_base_model(backbone: nn.Module, keys: Any) -> None:
    """Remove the tensors of the base model from the missing keys of `load_state_dict`."""
    keys.missing_keys[:] = [name for name in keys.missing_keys if not _is_of_base_model(name)]


class PartiallyTrainedEmbedding(nn.Module):
    """An embedding in which only the vectors of some tokens are trained.

    The other tokens would have a gradient of 0, but it would be filled, clipped and applied in each step.
    With the 30,522 tokens of MiniLM and 960 tweets with 3,500 of them, this takes a fifth of the time in
    bf16 and a tenth in float32 (one thread).

    Its state is compatible with that of `nn.Embedding`.

    Attributes:
        place: (n_tokens,), position of a token among the trained ones; -1 for the others.
        seen: (n_seen,), ids of the trained tokens.
        whole: (n_tokens, width), vectors of all tokens before training.
        weight: (n_seen, width), the trained vectors.
    """

    place: Tensor
    seen: Tensor
    whole: Tensor

    def __init__(self, embedding: nn.Embedding, seen: Tensor) -> None:
        super().__init__()
        whole = embedding.weight.detach()
        place = torch.full((len(whole),), -1).index_put((seen,), torch.arange(len(seen)))
        for name, tensor in {"place": place, "seen": seen, "whole": whole}.items():
            self.register_buffer(name, tensor, persistent=False)
        self.weight = nn.Parameter(whole[seen])

    def forward(self, ids: Tensor) -> Tensor:
        """Return vectors (n_rows, n_tokens, width) of token ids (n_rows, n_tokens)."""
        place = self.place[ids]
        trained = nn.functional.embedding(place.clamp(min=0), self.weight)
        return torch.where((place < 0).unsqueeze(-1), self.whole[ids], trained)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.whole.index_copy(0, self.seen, self.weight.detach())

    @torch.no_grad()
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        self.whole.copy_(state_dict[prefix + "weight"])
        self.weight.copy_(self.whole[self.seen])


def train_only(encoder: transformers.PreTrainedModel, ids: ArrayLike) -> None:
    """Let an encoder train only the embeddings of the tokens in `ids`, if they are less than half of all."""
    embedding = encoder.get_input_embeddings()
    seen = torch.unique(torch.as_tensor(ids))
    if isinstance(embedding, nn.Embedding) and len(seen) < embedding.num_embeddings / 2:
        encoder.set_input_embeddings(PartiallyTrainedEmbedding(embedding, seen))
