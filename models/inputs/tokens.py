"""Tokenizers: of pretrained weights, atoms of a SMILES, word pieces learned from the training rows.

Each is one of transformers' tokenizers on a `tokenizer.json`, so that a job's folder needs no hub and no package. Its
`model_max_length` is the longest input of the stage.
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

from competition.errors import ConfigError, DataError
from competition.types import Integers

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would compete with the workers

SMILES_TOKEN = (
    r"(\%\([0-9]{3}\)|\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$"
    r"|\%[0-9]{2}|[0-9]|.)"
)
"""Atoms, bonds, ring closures; and, as ours, any other character by itself, which a search would leave out.

Source: Schwaller et al., Molecular Transformer, ACS Central Science 2019, as in the package rxnfp.
"""

ATOMS = pre_tokenizers.Split(tokenizers.Regex(SMILES_TOKEN), behavior="isolated")
SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
PAD, UNKNOWN, FIRST, SEPARATOR, _ = SPECIAL.values()
Ids = Integers


def encode(tokenizer: Tokenizer, texts: Iterable[str], too_long: str = "cut_end") -> tuple[list[Ids], int]:
    """Token ids of each text, special tokens included, and how many texts were too long and cut; with `too_long: error`
    a DataError instead.
    """
    texts, longest = list(texts), tokenizer.model_max_length
    ids = tokenizer(texts, verbose=False)["input_ids"]
    n_cut = sum(len(row) > longest for row in ids)
    if n_cut and too_long == "error":
        raise DataError(
            f"{n_cut} of {len(ids)} texts have more than {longest} tokens (the longest {max(map(len, ids))}); raise "
            "max_length as far as the encoder allows, or set too_long: cut_middle."
        )
    if n_cut and too_long == "cut_end":
        ids = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    head = longest // 4  # Sun et al.: 128 of 512
    ids = [row if len(row) <= longest else [*row[:head], *row[head - longest :]] for row in ids]
    # A model without special tokens would get a row of length 0 for an empty text.
    return [np.array(row or [tokenizer.pad_token_id or 0], dtype=np.int64) for row in ids], n_cut


def unknown_share(tokenizer: Tokenizer, ids: list[Ids]) -> float:
    """Share of the tokens that the vocabulary does not know."""
    return float((np.concatenate(ids) == tokenizer.unk_token_id).mean())


def separator_of(tokenizer: Tokenizer) -> str:
    """What stands between columns."""
    return tokenizer.sep_token or tokenizer.eos_token or "\n"


def pad(items: list[Ids], pad_id: int | None) -> dict[str, torch.Tensor]:
    """Token ids (n_rows, longest of the batch) and the mask of real tokens, same shape."""
    ids = [torch.from_numpy(row) for row in items]
    mask = [torch.ones_like(row) for row in ids]
    return {"input_ids": pad_sequence(ids, True, pad_id or 0), "attention_mask": pad_sequence(mask, True)}


def smiles_tokens(vocabulary: list[str]) -> Tokenizer:
    """Atom tokens with the ids of `vocabulary`, which must hold the special tokens."""
    lacking = [token for token in (PAD, UNKNOWN, FIRST, SEPARATOR) if token not in vocabulary]
    if lacking:
        raise ConfigError(f"the vocab.txt for tokens: smiles lacks {', '.join(lacking)}; set tokens: auto.")
    ids = {token: i for i, token in enumerate(vocabulary)}
    return _tokenizer(models.WordLevel(vocab=ids, unk_token=UNKNOWN), None, ATOMS, ids)


def learn_smiles_tokens(texts: Iterable[str]) -> Tokenizer:
    """Atom tokens with a vocabulary of what stands in `texts`."""
    found = {token for text in texts for token, _ in ATOMS.pre_tokenize_str(text)}
    return smiles_tokens([*SPECIAL.values(), *sorted(found - set(SPECIAL.values()))])


def learn_word_pieces(texts: list[str], size: int, lowercase: bool) -> Tokenizer:
    """Word pieces (as BERT's) with at most `size` tokens, learned from `texts`; equal texts give equal ids.

    The library's trainer numbers the pieces inside words in the order of a hash map that differs from process
    to process, and breaks ties by these numbers. So the alphabet is given to it as special tokens first, in a
    fixed order, and the tokenizer is built anew from the vocabulary alone.
    """
    normalizer, words = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(c for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text)) for c in word)
    # A quarter of the vocabulary at most, twice (first in a word, and inside): the rest is left for pieces.
    common = sorted(counts, key=lambda c: (-counts[c], c))[: size // 4]
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = normalizer, words
    learner.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,  # a piece seen once cannot be learned
            show_progress=False,
            special_tokens=[*SPECIAL.values(), *common, *(f"##{c}" for c in common)],
            initial_alphabet=common,
            limit_alphabet=len(common),
        ),
    )
    ids = learner.get_vocab()
    return _tokenizer(models.WordPiece(vocab=ids, unk_token=UNKNOWN), normalizer, words, ids)


def _tokenizer(model: Any, normalizer: Any, pre_tokenizer: Any, ids: dict[str, int]) -> Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.post_processor = processors.BertProcessing((SEPARATOR, ids[SEPARATOR]), (FIRST, ids[FIRST]))
    return Tokenizer(tokenizer_object=tokenizer, **{name: token for name, token in SPECIAL.items() if token in ids})


def read_vocabulary(path: Path) -> list[str]:
    """Tokens of a vocab.txt, in the order of their ids."""
    if not path.exists():
        raise ConfigError("tokens: smiles needs weights with a vocab.txt, and these have none; set tokens: auto.")
    # By lines as the file has them: str.splitlines would also split at rare characters of a text vocabulary.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def tokens_of_weights(folder: Path) -> Tokenizer:
    """The tokenizer that came with weights in `folder`, which the `tokenizers` library must be able to run."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return Tokenizer(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    except Exception as error:  # the library raises many kinds; each means that the files are no usable tokenizer
        raise ConfigError(
            f"AutoTokenizer cannot read the tokenizer of the weights; put tokenizer.json beside them: {error}"
        ) from None
