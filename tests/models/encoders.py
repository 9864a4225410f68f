"""Encoders of one layer and width 32, and rows for them, shared by the tests of the bert stage."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from models.inputs.tokenization import train_word_piece_tokenizer
from models.stages.bert import Bert
from tests.models import made

WORDS = ["red", "green", "blue", "warm", "cold", "old", "new", "fast", "slow", "small"]
SMILES = ["CCO", "c1ccccc1Cl", "CC(=O)[O-]", "C[C@H](N)C(=O)O", "BrCCBr", "C%12CCCC%12", "CC#N", "CCCCCC"]
TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
needs_rxnfp = pytest.mark.skipif(
    importlib.util.find_spec("rxnfp") is None,
    reason="the package rxnfp (requirements-weights.txt) is not installed",
)


def stage(**changes):
    size = {} if changes.get("weights") else {"layers": 1, "width": 32, "heads": 2}
    common = {"kind": "bert", "learning_rate": 1e-3, "epochs": 1, "batch_size": 8}
    return Bert.model_validate({**common, **size, **changes})


def context(smiles=None, texts=None, seed=1):
    return made.context(Path("unused"), smiles=smiles or [], text=texts or [], numeric=["pH"], seed=seed)


def table(n=24, seed=0):
    rng = np.random.default_rng(seed)
    molecules = [SMILES[i] for i in rng.integers(len(SMILES), size=n)]
    notes = [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(n)]
    y = [len(molecule) + note.count("e") for molecule, note in zip(molecules, notes, strict=True)]
    return made.rows(y, SMILES=molecules, note=notes, pH=rng.normal(size=n))


def fit(folder, config, ctx, train=None):
    return made.fitted(config, ctx, train or table(), folder)


def publish(folder):
    """A published masked-language model as a folder: its head, its pooler, its dropout, its tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_word_piece_tokenizer([" ".join(WORDS)] * 2, 100, lowercase=True)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    size = {**TINY, "vocab_size": 100, "intermediate_size": 64, "max_position_embeddings": 24}
    transformers.BertForPreTraining(transformers.BertConfig(**size)).save_pretrained(folder)
    return folder


def publish_decoder(folder):
    """A published decoder in the shape of Qwen3: byte pairs, grouped heads, no token for padding."""
    torch.manual_seed(0)
    vocabulary = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "<|im_end|>"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({token: i for i, token in enumerate(vocabulary)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.save_pretrained(folder)
    size = {**TINY, "vocab_size": 260, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = transformers.Qwen3Config(**size, max_position_embeddings=96, tie_word_embeddings=True)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder
