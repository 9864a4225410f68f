"""Encoders and tokenizers, on encoders of one layer and width 32."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from competition.errors import ConfigError
from competition.files import read_json, sha256_of
from competition.paths import PROJECT
from competition.tables import Rows
from models import bert, text
from models.bert import Bert
from models.config import BertStage
from models.dropout import audit, rates
from models.stage import Context

WORDS = ["red", "green", "blue", "warm", "cold", "old", "new", "fast", "slow", "small"]
SMILES = ["CCO", "c1ccccc1Cl", "CC(=O)[O-]", "C[C@H](N)C(=O)O", "BrCCBr", "C%12CCCC%12", "CC#N", "CCCCCC"]
needs_rxnfp = pytest.mark.skipif(
    importlib.util.find_spec("rxnfp") is None, reason="the package rxnfp (requirements-weights.txt) is not installed"
)


def stage(**changes: Any) -> BertStage:
    small = {"layers": 1, "width": 32, "heads": 2, "epochs": 2, "vocabulary": 100, "batch_size": 8}
    return BertStage.model_validate({"kind": "bert", "learning_rate": 1e-3, **small, **changes})


def context(smiles: list[str] | None = None, texts: list[str] | None = None, seed: int = 1) -> Context:
    return Context(smiles or [], texts or [], ["pH"], [], ["y"], seed, Path("unused"))


def table(n: int = 24, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    inputs = pd.DataFrame(
        {
            "SMILES": [SMILES[i] for i in rng.integers(len(SMILES), size=n)],
            "note": [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(n)],
            "pH": rng.normal(size=n),
        }
    )
    y = np.array(
        [[len(smiles) + note.count("e")] for smiles, note in zip(inputs["SMILES"], inputs["note"], strict=True)]
    )
    return Rows([f"r{i}" for i in range(n)], inputs, y.astype(float))


def fit(folder: Path, config: BertStage, ctx: Context, train: Rows | None = None, valid: Rows | None = None) -> Bert:
    folder.mkdir(parents=True, exist_ok=True)
    fitted = Bert(config, ctx)
    fitted.fit(train or table(), valid, folder)
    return fitted


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published masked-language model as a folder: its head, its pooler, its dropout, its tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    tokens = text.learn_word_pieces([" ".join(WORDS)] * 2, 100, lowercase=True)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=24,
    )  # fmt: skip
    transformers.BertForPreTraining(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens.tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def own(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def change_weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(change(state), metadata={"format": "pt"}))


# Tokens ---------------------------------------------------------------------------------------------------------------


def pieces(tokens: text.Tokens, value: str, max_length: int = 64) -> list[str]:
    ids, _ = tokens.encode([value], max_length)
    return [tokens.tokenizer.id_to_token(int(i)) for i in ids[0]]


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CCO", ["C", "C", "O"]),
        ("c1ccccc1Cl", ["c", "1", "c", "c", "c", "c", "c", "1", "Cl"]),
        ("C[C@H](N)C(=O)O", ["C", "[C@H]", "(", "N", ")", "C", "(", "=", "O", ")", "O"]),
        ("BrC%12.[Na+]>>CB", ["Br", "C", "%12", ".", "[Na+]", ">>", "C", "B"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("C%(100)N", ["C", "%(100)", "N"]),
        ("[nH]1cc1~*$O", ["[nH]", "1", "c", "c", "1", "~", "*", "$", "O"]),
    ],
)
def test_a_smiles_is_cut_into_atoms_bonds_and_rings(smiles: str, expected: list[str]) -> None:
    tokens = text.learn_smiles_tokens([smiles])
    assert pieces(tokens, smiles) == ["[CLS]", *expected, "[SEP]"]


def test_what_the_expression_does_not_know_becomes_unknown_and_is_not_dropped() -> None:
    tokens = text.learn_smiles_tokens(["CCO"])
    assert pieces(tokens, "CXO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]
    assert pieces(tokens, "CNO") == ["[CLS]", "C", "[UNK]", "O", "[SEP]"]


def test_a_learned_smiles_vocabulary_is_sorted_behind_the_special_tokens() -> None:
    vocabulary = text.learn_smiles_tokens(["OCl", "CO"]).tokenizer.get_vocab()
    assert sorted(vocabulary, key=vocabulary.get) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "Cl", "O"]


@needs_rxnfp
def test_rxnfp_has_its_own_ids() -> None:
    from models.weights import find_weights

    tokens = text.smiles_tokens(text.read_vocabulary(find_weights("rxnfp")["vocab.txt"]))
    ids, _ = tokens.encode(["CC(=O)Cl.c1ccncc1"], 64)
    # vocab.txt by line, from 0: c 15, C 16, ( 17, ) 18, O 19, 1 20, = 22, N 23, . 24, n 25, Cl 28.
    assert ids[0].tolist() == [12, 16, 16, 17, 22, 19, 18, 28, 24, 15, 20, 15, 15, 25, 15, 15, 20, 13]
    assert (tokens.pad_id, tokens.unknown_id) == (0, 11)
    assert tokens.tokenizer.token_to_id("[MASK]") == 14
    assert tokens.tokenizer.get_vocab_size() == 591


def test_a_vocabulary_file_reads_the_same_with_and_without_its_last_newline(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[PAD]\nC\nO")
    (tmp_path / "b").write_text("[PAD]\nC\nO\n")
    assert text.read_vocabulary(tmp_path / "a") == text.read_vocabulary(tmp_path / "b") == ["[PAD]", "C", "O"]


def test_a_vocabulary_without_special_tokens_is_a_config_error_that_names_them() -> None:
    with pytest.raises(ConfigError, match=r"lacks \[UNK\], \[CLS\], \[SEP\]"):
        text.smiles_tokens(["[PAD]", "C", "O"])


def test_molecules_are_joined_by_a_dot_and_texts_by_the_separator() -> None:
    inputs = pd.DataFrame({"a": ["CC", ""], "b": ["O", "N"], "s": ["hot", "cold"], "t": ["day", "night"]})
    joined = text.join_columns(inputs, ["a", "b", "s", "t"], ["a", "b"], "[SEP]")
    assert joined == ["CC.O[SEP]hot[SEP]day", "N[SEP]cold[SEP]night"]


def test_the_separator_between_columns_is_one_token() -> None:
    tokens = text.learn_word_pieces(["red blue"] * 2, 100, lowercase=True)
    assert pieces(tokens, "red[SEP]blue") == ["[CLS]", "red", "[SEP]", "blue", "[SEP]"]


LEARN = """
import csv, hashlib
from models.text import learn_word_pieces
rows = csv.DictReader(open("competition/data/tweet_sentiment/train.csv"))
tokens = learn_word_pieces([row["text"] for row in rows][:300], 1000, lowercase=True)
print(hashlib.sha256(tokens.tokenizer.to_str().encode()).hexdigest())
"""


def test_word_pieces_are_the_same_in_every_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own trainer numbers the pieces in the order of a hash map with a random seed per process."""
    monkeypatch.chdir(PROJECT)
    exec(LEARN, {})
    here = capsys.readouterr().out
    other = subprocess.run([sys.executable, "-c", LEARN], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert here == other.stdout


def test_word_pieces_keep_to_their_number_and_spell_every_training_word() -> None:
    tokens = text.learn_word_pieces([" ".join(WORDS)] * 2, 100, lowercase=True)
    assert tokens.tokenizer.get_vocab_size() <= 100
    assert pieces(tokens, "Red SLOW") == ["[CLS]", "red", "slow", "[SEP]"]
    ids, _ = tokens.encode(WORDS, 16)
    assert tokens.unknown_share(ids) == 0


@pytest.mark.parametrize(
    ("column", "rare", "token", "kind"), [("note", "zyzzyva", "z", "texts"), ("SMILES", "[Se]", "[Se]", "smiles")]
)
def test_a_learned_vocabulary_never_sees_what_only_held_out_rows_have(
    column: str, rare: str, token: str, kind: str, tmp_path: Path
) -> None:
    train, valid = table(), table(seed=1)
    valid.inputs[column] = rare
    ctx = context(**{kind: [column]})
    fit(tmp_path / "with", stage(keep="best_on_held_out"), ctx, train, valid)
    fit(tmp_path / "without", stage(), ctx, train)
    assert (tmp_path / "with" / "tokenizer.json").read_bytes() == (tmp_path / "without" / "tokenizer.json").read_bytes()
    assert token not in read_json(tmp_path / "with" / "tokenizer.json")["model"]["vocab"]


def test_which_tokens_a_stage_takes_from_scratch_depends_on_its_columns(tmp_path: Path) -> None:
    fit(tmp_path / "a", stage(columns=["SMILES"]), context(["SMILES"], ["note"]))
    fit(tmp_path / "b", stage(), context(["SMILES"], ["note"]))
    fit(tmp_path / "c", stage(columns=["note"], tokens="smiles"), context(["SMILES"], ["note"]))
    models = [read_json(tmp_path / name / "tokenizer.json")["model"]["type"] for name in "abc"]
    assert models == ["WordLevel", "WordPiece", "WordLevel"]
    assert [read_json(tmp_path / name / "text.json")["columns"] for name in "abc"] == [["SMILES"], ["note"], ["note"]]


# Columns and lengths --------------------------------------------------------------------------------------------------


def test_without_named_columns_text_comes_before_molecules() -> None:
    assert bert.input_columns(stage(), context(["a", "b"], ["s", "t"])) == ["s", "t"]
    assert bert.input_columns(stage(), context(["a", "b"])) == ["a", "b"]
    assert bert.input_columns(stage(columns=["b", "s"]), context(["a", "b"], ["s"])) == ["b", "s"]


@pytest.mark.parametrize(("columns", "smiles"), [(["colour"], ["a"]), (["pH"], ["a"]), ([], [])])
def test_a_column_that_is_no_input_is_a_config_error_that_lists_the_inputs(
    columns: list[str], smiles: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"\(a\); found (colour|pH)|there are none.*no text or molecule column"):
        Bert(stage(columns=columns), context(smiles))


def test_inputs_longer_than_the_limit_are_cut_and_counted(tmp_path: Path) -> None:
    train = table(10)
    train.inputs["SMILES"] = ["C" * n for n in (1, 2, 5, 6, 7, 8, 9, 10, 20, 30)]
    fit(tmp_path, stage(max_length=8), context(["SMILES"]), train)  # 6 atoms and 2 special tokens
    report = read_json(tmp_path / "text.json")
    assert (report["cut_rows"], report["rows"], report["longest"], report["max_length"]) == (6, 10, 8, 8)


def test_a_cut_input_still_ends_with_the_separator() -> None:
    tokens = text.learn_smiles_tokens(["CCCCCCCC"])
    assert pieces(tokens, "CCCCCCCC", max_length=5) == ["[CLS]", "C", "C", "C", "[SEP]"]


def test_no_input_is_longer_than_the_encoder_has_positions(published: Path, tmp_path: Path) -> None:
    train = table()
    train.inputs["note"] = " ".join(WORDS * 5)
    fit(tmp_path, stage(weights=str(published), epochs=1), context(texts=["note"]), train)
    report = read_json(tmp_path / "text.json")
    assert (report["max_length"], report["cut_rows"]) == (24, len(train))


TINY = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (transformers.BertConfig(**TINY, max_position_embeddings=20), 20),
        (transformers.RobertaConfig(**TINY, max_position_embeddings=20, pad_token_id=1), 18),
        (transformers.ModernBertConfig(**TINY, max_position_embeddings=20, pad_token_id=0), 20),
    ],
)
def test_roberta_loses_two_positions_to_its_padding(config: Any, positions: int) -> None:
    encoder = transformers.AutoModel.from_config(config)
    assert bert.position_limit(encoder) == positions
    encoder(input_ids=torch.full((1, positions), 5), attention_mask=torch.ones(1, positions, dtype=torch.long))


# Weights --------------------------------------------------------------------------------------------------------------


def test_pretrained_weights_arrive_in_the_encoder_and_its_heads_are_left_behind(published: Path) -> None:
    with bert.gathered({path.name: path for path in published.iterdir()}, "mine") as folder:
        encoder = bert.load_encoder(folder, "mine", 0.0)
    state = safetensors.torch.load_file(published / "model.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[f"bert.{name}"]), name
    assert {name for name in state if not name.startswith(("cls.", "bert.pooler."))} == {
        f"bert.{name}" for name in encoder.state_dict()
    }


def load(folder: Path) -> Any:
    with bert.gathered({path.name: path for path in folder.iterdir()}, "mine") as gathered:
        return bert.load_encoder(gathered, "mine", 0.0)


def test_a_renamed_key_is_a_config_error_that_names_both_names(own: Path) -> None:
    key = "bert.encoder.layer.0.output.dense.weight"
    change_weights(
        own, lambda state: {("bert.encoder.layer.0.out.weight" if k == key else k): v for k, v in state.items()}
    )
    with pytest.raises(ConfigError) as error:
        load(own)
    assert "1 missing (encoder.layer.0.output.dense.weight)" in str(error.value)
    assert "1 with no place (" in str(error.value)
    assert "encoder.layer.0.out.weight" in str(error.value)


def test_a_key_of_another_shape_is_a_config_error(own: Path) -> None:
    key = "bert.embeddings.position_embeddings.weight"
    change_weights(own, lambda state: {**state, key: state[key][:10].clone()})
    with pytest.raises(ConfigError, match=r"1 of another shape \(embeddings\.position_embeddings\.weight\)"):
        load(own)


def test_a_checkpoint_of_something_else_is_a_config_error(own: Path) -> None:
    change_weights(own, lambda state: {f"visual.{k}": v for k, v in state.items()})
    with pytest.raises(ConfigError, match="missing"):
        load(own)


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_a_config_error(absent: str, own: Path, tmp_path: Path) -> None:
    (own / absent).unlink()
    with pytest.raises(ConfigError, match=r"weights .*must (be|have)"):
        fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))


def test_an_old_bin_file_is_read_without_running_what_is_in_it(own: Path) -> None:
    state = safetensors.torch.load_file(own / "model.safetensors")
    (own / "model.safetensors").unlink()
    torch.save(state, own / "pytorch_model.bin")
    encoder = load(own)
    assert torch.equal(encoder.state_dict()["embeddings.LayerNorm.weight"], state["bert.embeddings.LayerNorm.weight"])

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (own / "was_here",)  # type: ignore[return-value]

    torch.save({**state, "x": Evil()}, own / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load(own)
    assert not (own / "was_here").exists()


def test_weights_in_half_precision_are_trained_in_float32(own: Path, tmp_path: Path) -> None:
    change_weights(own, lambda state: {name: tensor.bfloat16() for name, tensor in state.items()})
    values = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**values, "dtype": "bfloat16"}))
    fitted = fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))
    state = safetensors.torch.load_file(tmp_path / "job" / "weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert np.isfinite(fitted.predict(table(), tmp_path / "job")).all()


@needs_rxnfp
def test_rxnfp_loads_whole_though_its_config_names_no_model(tmp_path: Path) -> None:
    from models.weights import find_weights

    encoder, tokens = Bert(stage(weights="rxnfp"), context(["SMILES"]))._from_weights()
    state = torch.load(find_weights("rxnfp")["pytorch_model.bin"], weights_only=True)
    assert {f"bert.{name}" for name in encoder.state_dict()} == {
        name for name in state if not name.startswith(("cls.", "bert.pooler."))
    }
    assert all(torch.equal(tensor, state[f"bert.{name}"]) for name, tensor in encoder.state_dict().items())
    assert max(rates(encoder).values()) == 0
    assert type(encoder).__name__ == "BertModel"


@needs_rxnfp
def test_words_for_a_vocabulary_of_atoms_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"are unknown to it\. Name other columns"):
        fit(tmp_path, stage(weights="rxnfp", epochs=1), context(["SMILES"], ["note"]))


# Dropout --------------------------------------------------------------------------------------------------------------

FAMILIES = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 32},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "modernbert": {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1, "pad_token_id": 0},
    "mpnet": {},
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
}


def family(name: str, rate: float) -> Any:
    known = {} if name in ("distilbert", "gpt2") else {k: v for k, v in TINY.items() if k != "vocab_size"}
    config = transformers.AutoConfig.for_model(name, vocab_size=60, **known, **FAMILIES[name])
    bert.set_config_rates(config, rate)
    return bert.BertBackbone(bert.without_pooler(transformers.AutoModel.from_config(config)), "mean")


BATCH = {"input_ids": torch.arange(5, 25).reshape(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.long)}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_dropout_of_every_family_can_be_switched_off_and_on(name: str) -> None:
    assert audit(family(name, 0.0), BATCH) == {}
    dropping = family(name, 0.3).train()
    assert max(rates(dropping).values()) == 0.3
    assert not torch.equal(dropping(**BATCH), dropping(**BATCH))


def test_backbone_dropout_reaches_a_pretrained_encoder(published: Path, tmp_path: Path) -> None:
    for rate in (0.0, 0.2):
        encoder, _ = Bert(stage(weights=str(published), backbone_dropout=rate), context(texts=["note"]))._from_weights()
        assert set(rates(encoder).values()) == {rate}
    fitted = fit(tmp_path, stage(weights=str(published), backbone_dropout=0.2), context(texts=["note"]))
    assert np.array_equal(fitted.predict(table(), tmp_path), fitted.predict(table(), tmp_path))


# The stage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_a_rows_company_does_not_change_its_prediction(pooling: str, published: Path, tmp_path: Path) -> None:
    fitted = fit(tmp_path, stage(weights=str(published), pooling=pooling, epochs=4), context(texts=["note"]))
    rows = table(seed=5)
    together = fitted.predict(rows, tmp_path)
    alone = np.concatenate([fitted.predict(rows.take(np.array([i])), tmp_path) for i in range(4)])
    assert np.abs(alone - together[:4]).max() < 1e-5
    assert np.abs(together - together.mean()).max() > 1e-2


def test_predict_works_after_the_weights_are_gone(own: Path, tmp_path: Path) -> None:
    fitted = fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))
    y_pred = fitted.predict(table(), tmp_path / "job")
    shutil.rmtree(own)
    moved = (tmp_path / "job").rename(tmp_path / "moved")
    again = Bert(stage(weights=str(own)), context(texts=["note"], seed=9)).predict(table(), moved)
    assert np.array_equal(again, y_pred)


@pytest.mark.parametrize("source", ["scratch", "published"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(source: str, published: Path, tmp_path: Path) -> None:
    weights = str(published) if source == "published" else None
    digests = []
    for i, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(i)
        fit(folder, stage(weights=weights, head={"kind": "multi_sample"}), context(texts=["note"], seed=seed))
        digests.append({path.name: sha256_of(path) for path in folder.iterdir()})
    assert set(digests[0]) == {"encoder.json", "tokenizer.json", "text.json", "weights.safetensors", "training.json"}
    assert digests[0] == digests[1]
    assert digests[0]["weights.safetensors"] != digests[2]["weights.safetensors"]


def test_it_learns_from_the_text(published: Path, tmp_path: Path) -> None:
    train = table(60)
    config = stage(weights=str(published), epochs=40, learning_rate=3e-3, columns=["note"])
    fitted = fit(tmp_path, config, context(["SMILES"], ["note"]), Rows(train.ids, train.inputs, _es(train)))
    fresh = table(40, seed=7)
    assert np.corrcoef(fitted.predict(fresh, tmp_path)[:, 0], _es(fresh)[:, 0])[0, 1] > 0.8


def _es(rows: Rows) -> Any:
    return np.array([[float(note.count("e"))] for note in rows.inputs["note"]])


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another family: byte pairs, padding by 1, positions from 2, no token for the unknown, no head."""
    folder = tmp_path_factory.mktemp("roberta")
    special = ["<s>", "<pad>", "</s>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    ).save_pretrained(folder)
    config = transformers.RobertaConfig(**{**TINY, "vocab_size": 300}, max_position_embeddings=40, pad_token_id=1)
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_a_roberta_with_byte_pairs_pads_by_its_own_token_and_has_no_pooler(roberta: Path, tmp_path: Path) -> None:
    fitted = fit(tmp_path, stage(weights=str(roberta), columns=["note", "SMILES"]), context(["SMILES"], ["note"]))
    report = read_json(tmp_path / "text.json")
    assert (report["pad_id"], report["unknown_id"], report["separator"], report["max_length"]) == (1, None, "</s>", 38)
    rows = table(seed=5)
    alone = fitted.predict(rows.take(np.array([0])), tmp_path)
    assert np.abs(alone - fitted.predict(rows, tmp_path)[:1]).max() < 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(roberta)
    joined = text.join_columns(rows.inputs, ["note", "SMILES"], ["SMILES"], "</s>")
    ids, _ = text.Tokens.load(tmp_path / "tokenizer.json", 1, None, "</s>").encode(joined, 38)
    assert [row.tolist() for row in ids] == tokenizer(joined, truncation=True, max_length=38)["input_ids"]


def test_nothing_is_printed(published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fitted = fit(tmp_path, stage(weights=str(published)), context(texts=["note"]))
    fitted.predict(table(), tmp_path)
    assert capfd.readouterr() == ("", "")
