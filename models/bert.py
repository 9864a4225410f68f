"""Any Hugging Face encoder on text or SMILES, pretrained or from scratch, under the one training loop.

A job's folder holds all that prediction needs: encoder.json (the encoder's shape), tokenizer.json, text.json
(columns, lengths, rows that were cut), and the trainer's weights.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from competition.errors import ConfigError
from competition.files import read_json, write_atomically, write_json
from competition.tables import Rows
from models.batches import Batches
from models.config import BertStage
from models.heads import AttentionPooling, pool
from models.neural import Neural
from models.stage import Context
from models.text import (
    Tokens,
    join_columns,
    learn_smiles_tokens,
    learn_word_pieces,
    pad,
    read_vocabulary,
    smiles_tokens,
    tokens_of_weights,
)
from models.weights import find_weights

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ENCODER, TOKENIZER, TEXT = "encoder.json", "tokenizer.json", "text.json"
SMILES_WEIGHTS = ("rxnfp",)
"""Named sets whose vocab.txt holds atoms."""
OTHER_HEADS = re.compile(
    r"(cls|lm_head|head|decoder|predictions|sop_classifier|vocab_\w+|lm_predictions|mask_predictions"
    r"|discriminator_predictions|generator_predictions|generator_lm_head"
    r"|pooler|classifier|regression|score|qa_outputs)\.|(.*\.)?position_ids$|norm_(mean|std)$"
)
"""Keys of a checkpoint that an encoder alone has no use for: heads of its pre-training or of an earlier task."""
MOST_UNKNOWN = 0.5
"""Share of unknown tokens above which a vocabulary cannot be the one for these inputs."""


class BertBackbone(nn.Module):
    """An encoder and the pooling of its token vectors."""

    def __init__(self, encoder: nn.Module, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.width = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.attention = AttentionPooling(self.width) if pooling == "attention" else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled features (n_rows, width) of token ids (n_rows, n_tokens) and their mask, 1 for a real token."""
        # Token types are left out: all columns are one sequence, and every encoder then takes type 0.
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(self.pooling, tokens, attention_mask, self.attention)


class Bert(Neural):
    """The stage; see `models.neural.Neural`."""

    def __init__(self, config: BertStage, context: Context) -> None:
        super().__init__(config, context)
        self.columns = input_columns(config, context)

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """The configured weights, or random ones; writes tokenizer, the encoder's shape, and what was counted."""
        encoder, tokens = self._from_weights() if self.config.weights else self._from_scratch(train)
        max_length = min(self.config.max_length, position_limit(encoder))
        texts = join_columns(train.inputs, self.columns, self.context.smiles, tokens.separator)
        items, cut = tokens.encode(texts, max_length)
        unknown = tokens.unknown_share(items)
        if unknown > MOST_UNKNOWN:
            raise ConfigError(
                f"the vocabulary of weights {self.config.weights!r} must know the tokens of "
                f"{', '.join(self.columns)}; {unknown:.0%} are unknown to it. Name other columns, other weights, or "
                "tokens: smiles for a vocab.txt of atoms."
            )
        write_atomically(folder / ENCODER, config_json(encoder))
        tokens.save(folder / TOKENIZER)
        write_json(
            folder / TEXT,
            {
                "columns": self.columns,
                "max_length": max_length,
                "pad_id": tokens.pad_id,
                "unknown_id": tokens.unknown_id,
                "separator": tokens.separator,
                "rows": len(train),
                "cut_rows": cut,
                "longest": max(len(ids) for ids in items),
                "unknown_share": unknown,
            },
        )
        return BertBackbone(encoder, self.config.pooling)

    def restore(self, folder: Path) -> nn.Module:
        """The encoder's shape from `folder` alone: neither hub nor package nor the original weights are asked."""
        encoder = transformers.AutoModel.from_config(
            transformers.AutoConfig.from_pretrained(folder / ENCODER, local_files_only=True), dtype=torch.float32
        )
        return BertBackbone(without_pooler(encoder), self.config.pooling)

    def encode(self, rows: Rows, folder: Path, view: int, seed: int) -> Batches:
        """Token ids of all rows."""
        text = read_json(folder / TEXT)
        tokens = Tokens.load(folder / TOKENIZER, text["pad_id"], text["unknown_id"], text["separator"])
        texts = join_columns(rows.inputs, self.columns, self.context.smiles, tokens.separator)
        items, _ = tokens.encode(texts, text["max_length"])
        lengths = np.array([len(ids) for ids in items], dtype=np.int64)
        return Batches(items, lengths, lambda batch: pad(batch, tokens.pad_id))

    def _from_weights(self) -> tuple[nn.Module, Tokens]:
        assert self.config.weights is not None
        with gathered(find_weights(self.config.weights), self.config.weights) as folder:
            encoder = load_encoder(folder, self.config.weights, self.config.backbone_dropout)
            if self.config.tokens == "smiles" or self.config.weights in SMILES_WEIGHTS:
                path = folder / "vocab.txt"
                tokens = smiles_tokens(read_vocabulary(path if path.exists() else None))
            else:
                tokens = tokens_of_weights(folder, transformers.AutoTokenizer.from_pretrained)
        size = encoder.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if tokens.tokenizer.get_vocab_size() > size:
            raise ConfigError(
                f"the tokenizer of weights {self.config.weights!r} must not have more tokens than the encoder; "
                f"it has {tokens.tokenizer.get_vocab_size()}, the encoder {size}. "
                "Put the tokenizer of these weights beside them."
            )
        return encoder, tokens

    def _from_scratch(self, train: Rows) -> tuple[nn.Module, Tokens]:
        molecules = [column in self.context.smiles for column in self.columns]
        texts = [str(value) for column in self.columns for value in train.inputs[column]]
        if self.config.tokens == "smiles" or all(molecules):
            # "." joins molecules and need not stand inside one.
            tokens = learn_smiles_tokens([*texts, "."])
        else:
            tokens = learn_word_pieces(texts, self.config.vocabulary, lowercase=not any(molecules))
        config = transformers.BertConfig(
            vocab_size=tokens.tokenizer.get_vocab_size(),
            hidden_size=self.config.width,
            num_hidden_layers=self.config.layers,
            num_attention_heads=self.config.heads,
            intermediate_size=4 * self.config.width,
            max_position_embeddings=self.config.max_length,
            pad_token_id=tokens.pad_id,
        )
        set_config_rates(config, self.config.backbone_dropout)
        return without_pooler(transformers.AutoModel.from_config(config, dtype=torch.float32)), tokens


def input_columns(config: BertStage, context: Context) -> list[str]:
    """Columns that the stage reads, in their order.

    Raises:
        ConfigError: if one is not an input, or there is none to read.
    """
    known = [*context.smiles, *context.text, *context.categorical]
    foreign = [column for column in config.columns if column not in known]
    columns = config.columns or context.text or context.smiles
    if foreign or not columns:
        raise ConfigError(
            "columns of a bert stage must be inputs with molecules, text or categories "
            f"({', '.join(known) or 'there are none'}); found {', '.join(foreign) or 'no text or molecule column'}. "
            "Name the column under competition.text or competition.smiles."
        )
    return list(columns)


@contextmanager
def gathered(files: dict[str, Path], name: str) -> Iterator[Path]:
    """A folder with links to exactly the files whose digests were checked, and a config with a model type.

    Raises:
        ConfigError: if there is no config.json.
    """
    if "config.json" not in files:
        raise ConfigError(
            f"weights {name!r} must be a folder with config.json, tokenizer and weights; found {', '.join(files)}."
        )
    values = read_json(files["config.json"])
    if "model_type" not in values and "type_vocab_size" in values:
        values["model_type"] = "bert"  # written before transformers 3, as rxnfp's
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file, path in files.items():
            if file != "config.json":
                (folder / file).symlink_to(path.resolve())
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
        yield folder


def load_encoder(folder: Path, name: str, rate: float) -> nn.Module:
    """The encoder with the weights in `folder`, in float32, without its pooler, with `rate` for every dropout.

    Raises:
        ConfigError: if a weight of the encoder is missing or has another shape, or one of the file has no place.
    """
    safely = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **safely)
        set_config_rates(config, rate)
        # dtype: transformers 5 keeps the checkpoint's otherwise. weights_only: a .bin is read without running code.
        encoder, found = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True,
            ignore_mismatched_sizes=True, **safely,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"weights {name!r} must be a Hugging Face encoder that AutoModel reads, with safetensors or "
            f"pytorch_model.bin, and they are not: {line}"
        ) from None
    wrong = {
        "missing": sorted(key for key in found["missing_keys"] if not key.startswith("pooler.")),
        "with no place": sorted(key for key in found["unexpected_keys"] if not OTHER_HEADS.match(key)),
        "of another shape": sorted(str(key[0]) for key in found["mismatched_keys"]),
    }
    if any(wrong.values()):
        what = "; ".join(f"{len(keys)} {how} ({_some(keys)})" for how, keys in wrong.items() if keys)
        raise ConfigError(
            f"weights {name!r} must have exactly the weights of a {type(encoder).__name__}; found {what}. "
            "Fetch the files again, or correct config.json."
        )
    if config.is_encoder_decoder:
        raise ConfigError(f"weights {name!r} must be an encoder; {type(encoder).__name__} also has a decoder.")
    return without_pooler(encoder)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")


def without_pooler(encoder: nn.Module) -> nn.Module:
    """The encoder without the layer behind its first token, which a masked-language model leaves untrained."""
    if getattr(encoder, "pooler", None) is not None:
        setattr(encoder, "pooler", None)  # noqa: B010 (a module of any kind; the name is theirs)
    return encoder


def set_config_rates(config: Any, rate: float) -> None:
    """Set every dropout rate of an encoder's config, by whatever name; whole layers are never dropped."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float | int) and not isinstance(value, bool):
            setattr(config, name, 0.0 if "layerdrop" in name else rate)


def position_limit(encoder: nn.Module) -> int:
    """Longest input in tokens that the encoder has positions for."""
    for name, part in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            # RoBERTa and its kin count positions from the padding token's id + 1.
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else 2**31


def config_json(encoder: nn.Module) -> str:
    """The encoder's config without the place it was loaded from, so that equal jobs write equal bytes."""
    values = encoder.config.to_dict()  # type: ignore[union-attr, operator]
    values.pop("_name_or_path", None)
    return json.dumps({**values, "dtype": "float32"}, indent=1, sort_keys=True) + "\n"
