"""Tokenizers: of pretrained weights, atoms of a SMILES, word pieces learned from the training rows.

Each ends as one `tokenizer.json` of the `tokenizers` library, so that a job's folder needs no hub and no package.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence

from competition.errors import ConfigError, DataError
from competition.files import write_atomically

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would compete with the workers

SMILES_TOKEN = (
    r"(\%\([0-9]{3}\)|\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$"
    r"|\%[0-9]{2}|[0-9]|.)"
)
"""Atoms, bonds, ring closures; and, as ours, any other character by itself, which a search would leave out.

Source: Schwaller et al., Molecular Transformer, ACS Central Science 2019, as in the package rxnfp.
"""

PAD, UNKNOWN, FIRST, SEPARATOR, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with what encoding and padding need to know of it.

    pad_id: fills a batch's shorter rows.
    unknown_id: stands for what the vocabulary lacks; None where a tokenizer can spell everything.
    separator: stands between columns.
    """

    tokenizer: tokenizers.Tokenizer
    pad_id: int
    unknown_id: int | None
    separator: str

    def encode(
        self, texts: Iterable[str], max_length: int, too_long: str = "cut_end"
    ) -> tuple[list[NDArray[np.int64]], int]:
        """Token ids of each text, special tokens included, and how many texts were cut to `max_length` tokens.

        Args:
            too_long: a value of the setting of that name.

        Raises:
            DataError: with `too_long: error`, if a text is.
        """
        self.tokenizer.no_padding()
        if too_long == "cut_end":
            self.tokenizer.enable_truncation(max_length)
        else:
            self.tokenizer.no_truncation()
        encodings = self.tokenizer.encode_batch(list(texts))
        # A model without special tokens would get a row of length 0 for an empty text.
        ids = [np.array(encoding.ids or [self.pad_id], dtype=np.int64) for encoding in encodings]
        n_cut = sum(bool(encoding.overflowing) or len(encoding.ids) > max_length for encoding in encodings)
        if n_cut and too_long == "error":
            raise DataError(
                f"a text must have at most {max_length} tokens; {n_cut} of {len(ids)} have more (the longest "
                f"{max(map(len, ids))}). Raise max_length as far as the encoder allows, or set too_long: cut_middle."
            )
        head = max_length // 4  # Sun et al.: 128 of 512
        cut = [np.concatenate([row[:head], row[head - max_length :]]) if len(row) > max_length else row for row in ids]
        return cut, n_cut

    def unknown_share(self, ids: list[NDArray[np.int64]]) -> float:
        """Share of the tokens that the vocabulary does not know."""
        flat = np.concatenate(ids)
        return 0.0 if self.unknown_id is None else float((flat == self.unknown_id).mean())

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`, from which `Tokens.load` restores it."""
        write_atomically(path, self.tokenizer.to_str(pretty=True))

    @staticmethod
    def load(path: Path, pad_id: int, unknown_id: int | None, separator: str) -> Tokens:
        """What `save` wrote, with what is kept beside it."""
        return Tokens(tokenizers.Tokenizer.from_file(str(path)), pad_id, unknown_id, separator)


def pad(items: list[NDArray[np.int64]], pad_id: int) -> dict[str, torch.Tensor]:
    """Token ids (n_rows, longest of the batch) and the mask of real tokens, same shape."""
    ids = [torch.from_numpy(row) for row in items]
    mask = [torch.ones_like(row) for row in ids]
    return {"input_ids": pad_sequence(ids, True, pad_id), "attention_mask": pad_sequence(mask, True)}


def smiles_tokens(vocabulary: list[str]) -> Tokens:
    """Atom tokens with the ids of `vocabulary`, which must hold the special tokens.

    Raises:
        ConfigError: if a special token is not in it.
    """
    ids = {token: i for i, token in enumerate(vocabulary)}
    lacking = [token for token in (PAD, UNKNOWN, FIRST, SEPARATOR) if token not in ids]
    if lacking:
        raise ConfigError(
            f"a vocab.txt for SMILES tokens must hold {', '.join(SPECIAL[:4])}; it lacks {', '.join(lacking)}. "
            "Set tokens: auto to use the tokenizer of the weights."
        )
    split = pre_tokenizers.Split(tokenizers.Regex(SMILES_TOKEN), behavior="isolated")
    return _tokens(models.WordLevel(vocab=ids, unk_token=UNKNOWN), None, split, ids)


def learn_smiles_tokens(texts: Iterable[str]) -> Tokens:
    """Atom tokens with a vocabulary of what stands in `texts`."""
    split = pre_tokenizers.Split(tokenizers.Regex(SMILES_TOKEN), behavior="isolated")
    found = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    return smiles_tokens([*SPECIAL, *sorted(found - set(SPECIAL))])


def learn_word_pieces(texts: list[str], size: int, lowercase: bool) -> Tokens:
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
            special_tokens=[*SPECIAL, *common, *(f"##{c}" for c in common)],
            initial_alphabet=common,
            limit_alphabet=len(common),
        ),
    )
    ids = learner.get_vocab()
    return _tokens(models.WordPiece(vocab=ids, unk_token=UNKNOWN), normalizer, words, ids)


def _tokens(model: Any, normalizer: Any, pre_tokenizer: Any, ids: dict[str, int]) -> Tokens:
    tokenizer = tokenizers.Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens([token for token in SPECIAL if token in ids])
    tokenizer.post_processor = processors.BertProcessing((SEPARATOR, ids[SEPARATOR]), (FIRST, ids[FIRST]))
    return Tokens(tokenizer, ids[PAD], ids[UNKNOWN], SEPARATOR)


def read_vocabulary(path: Path) -> list[str]:
    """Tokens of a vocab.txt, in the order of their ids.

    Raises:
        ConfigError: if there is none.
    """
    if not path.exists():
        raise ConfigError(
            "tokens: smiles needs weights with a vocab.txt, and these have none. "
            "Set tokens: auto to use their tokenizer."
        )
    # By lines as the file has them: str.splitlines would also split at rare characters of a text vocabulary.
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def tokens_of_weights(folder: Path) -> Tokens:
    """The tokenizer that came with weights in `folder`.

    Raises:
        ConfigError: if there is none, or none that the `tokenizers` library can run.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        # A copy, since the settings of padding and cutting are changed here.
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # the library raises many kinds; each means that the files are no usable tokenizer
        advice = "Put tokenizer.json beside them, or set tokens: smiles where they have a vocab.txt of SMILES tokens."
        if list(folder.glob("*.model")) and importlib.util.find_spec("sentencepiece") is None:
            advice = "Install sentencepiece, which reads their .model file (as of DeBERTa v3)."
        raise ConfigError(
            f"AutoTokenizer must be able to read the tokenizer of the weights: {first_line(error)} {advice}"
        ) from None
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
    return Tokens(backend, pad_id, tokenizer.unk_token_id, separator)


def first_line(error: Exception) -> str:
    """The first line that a library says about an error, or the error's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
