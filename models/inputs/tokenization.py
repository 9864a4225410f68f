"""Tokenizers: those of pretrained weights, one token per atom of a SMILES, and word pieces that are
trained on the training rows.

Each is a fast tokenizer of transformers, which is saved as a `tokenizer.json`, so that a job's
folder does not depend on the hub or on a package. Its `model_max_length` is the maximum input
length of the stage.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast as Tokenizer

from core.errors import ConfigError
from core.types import Integers
from models.inputs.texts import SMILES_TOKEN, pieces

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would compete with the jobs

ATOMS = pre_tokenizers.Split(tokenizers.Regex(SMILES_TOKEN), behavior="isolated")
SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
PAD, UNKNOWN, CLS, SEP, _ = SPECIAL.values()
Ids = Integers


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[list[Ids], list[bool]]:
    """Return the token ids of each text, special tokens included, and whether it was truncated.

    Args:
        tokenizer: its `model_max_length` is the maximum length.
    """
    max_length = tokenizer.model_max_length
    encoded: list[Ids] = []
    is_cut: list[bool] = []
    for piece in pieces(list(texts)):
        ids = tokenizer(piece, verbose=False)["input_ids"]
        is_too_long = [len(row) > max_length for row in ids]
        is_cut += is_too_long
        if any(is_too_long):
            ids = tokenizer(piece, truncation=True, max_length=max_length)["input_ids"]
        # Without special tokens, an empty text would have no token at all.
        encoded += [np.array(row or [tokenizer.pad_token_id or 0], dtype=np.int64) for row in ids]
    return encoded, is_cut


def unknown_share(tokenizer: Tokenizer, ids: list[Ids]) -> float:
    """Return the share of the tokens that the vocabulary does not contain."""
    return float((np.concatenate(ids) == tokenizer.unk_token_id).mean())


def separator_of(tokenizer: Tokenizer) -> str:
    """Return the string that joins the input columns of a row: a special token if the tokenizer has one for it."""
    return tokenizer.sep_token or tokenizer.eos_token or "\n"


def pad(items: list[Ids], pad_id: int | None) -> dict[str, torch.Tensor]:
    """Return padded token ids and the mask of real tokens, both (n_rows, longest of the batch)."""
    ids = [torch.from_numpy(row) for row in items]
    mask = [torch.ones_like(row) for row in ids]
    return {"input_ids": pad_sequence(ids, True, pad_id or 0), "attention_mask": pad_sequence(mask, True)}


def build_smiles_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """Return a tokenizer with one token per atom. Ids are positions in `vocabulary`, which must contain
    [PAD], [UNK], [CLS] and [SEP].
    """
    missing = [token for token in (PAD, UNKNOWN, CLS, SEP) if token not in vocabulary]
    if missing:
        raise ConfigError(
            f"tokenizer: smiles requires a vocab.txt with {', '.join(missing)}; set tokenizer: auto."
        )
    ids = {token: i for i, token in enumerate(vocabulary)}
    return _tokenizer(models.WordLevel(vocab=ids, unk_token=UNKNOWN), None, ATOMS, ids)


def train_smiles_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer with one token per atom, and a vocabulary of the tokens in `texts`."""
    tokens = set[str]()
    for text in texts:
        tokens.update(token for token, _ in ATOMS.pre_tokenize_str(text))
    return build_smiles_tokenizer([*SPECIAL.values(), *sorted(tokens - set(SPECIAL.values()))])


def train_word_piece_tokenizer(texts: list[str], size: int, lowercase: bool) -> Tokenizer:
    """Train a word-piece tokenizer (as BERT's) with at most `size` tokens. The same texts give the
    same ids.

    The trainer of the library numbers the pieces inside words in the order of a hash map, which
    differs between processes, and breaks ties by these numbers. So the alphabet is passed to it as
    special tokens, in a fixed order, and the tokenizer is then built from the vocabulary only.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            counts.update(word)
    # A character takes two tokens, at the start of words and inside. Half of the vocabulary remains for
    # pieces.
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))[: size // 4]
    untrained = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    untrained.normalizer = normalizer
    untrained.pre_tokenizer = pre_tokenizer
    untrained.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,  # a piece seen once cannot be learned
            show_progress=False,
            special_tokens=[*SPECIAL.values(), *alphabet, *(f"##{character}" for character in alphabet)],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
        ),
    )
    ids = untrained.get_vocab()
    return _tokenizer(models.WordPiece(vocab=ids, unk_token=UNKNOWN), normalizer, pre_tokenizer, ids)


def _tokenizer(model: Any, normalizer: Any, pre_tokenizer: Any, ids: dict[str, int]) -> Tokenizer:
    """Return a tokenizer of transformers that puts texts between [CLS] and [SEP]."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.post_processor = processors.BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
    return Tokenizer(
        tokenizer_object=tokenizer, **{name: token for name, token in SPECIAL.items() if token in ids}
    )


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens of a vocab.txt, in the order of their ids."""
    if not path.exists():
        raise ConfigError(
            "tokenizer: smiles requires weights with a vocab.txt; set tokenizer: auto for these."
        )
    # str.splitlines would also split at rare characters that are tokens of a text vocabulary.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer in a folder of weights. It must be a fast tokenizer, not one in Python only.

    A tokenizer without a padding token, as those of some decoders, pads with its end-of-text token: padding
    is masked, so that only its id must be in the vocabulary.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        fast = Tokenizer(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    except Exception as error:  # the library raises many types of errors for unusable files
        raise ConfigError(
            f"AutoTokenizer cannot read the tokenizer of the weights; add tokenizer.json to their folder: "
            f"{error}"
        ) from None
    if fast.pad_token is None:
        fast.pad_token = fast.eos_token or fast.unk_token
    return fast
