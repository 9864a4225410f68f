"""The bert stage from rows to predictions, on encoders of one layer and width 32."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers

from competition.errors import ConfigError, DataError
from competition.files import read_json, sha256_of
from competition.tables import Rows
from models.config import BertStage
from models.inputs import tokens as text
from models.notes import read_notes
from models.stages.bert import Bert
from tests.models.encoders import TINY, WORDS, context, fit, publish, stage, table


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture
def own(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def test_without_named_columns_text_comes_before_molecules() -> None:
    assert Bert(stage(), context(["a", "b"], ["s", "t"])).template.columns == ["s", "t"]
    assert Bert(stage(), context(["a", "b"])).template.columns == ["a", "b"]
    assert Bert(stage(columns=["b", "s"]), context(["a", "b"], ["s"])).template.columns == ["b", "s"]


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


def test_what_was_cut_is_noted_for_a_person(tmp_path: Path) -> None:
    train = table(10)
    train.inputs["SMILES"] = ["C" * n for n in (1, 2, 5, 6, 7, 8, 9, 10, 20, 30)]
    fit(tmp_path / "short", stage(), context(["SMILES"]), train)
    fit(tmp_path / "long", stage(max_length=8, too_long="cut_middle"), context(["SMILES"]), train)
    assert read_notes(tmp_path / "short") == []
    assert read_notes(tmp_path / "long") == [
        "6 of 10 training texts have more than 8 tokens; their middles are left out (too_long: cut_middle)."
    ]
    with pytest.raises(DataError, match="at most 8 tokens; 6 of 10 have more"):
        fit(tmp_path / "error", stage(max_length=8, too_long="error"), context(["SMILES"]), train)


@pytest.mark.parametrize(("weights", "rate", "epochs"), [(None, 1e-3, 20), ("rxnfp", 5e-5, 4)])
def test_random_weights_take_larger_and_more_steps_and_the_saved_settings_show_the_numbers(
    weights: str | None, rate: float, epochs: int
) -> None:
    config = BertStage.model_validate({"kind": "bert", "weights": weights, "learning_rate": None})
    saved = config.model_dump(mode="json")
    assert (saved["learning_rate"], saved["pretrain_learning_rate"], saved["epochs"]) == (rate, rate, epochs)
    assert BertStage.model_validate(saved) == config
    assert [stage(enumerate_smiles=many).test_forms for many in (False, True)] == [1, 5]
    own = BertStage.model_validate({"kind": "bert", "weights": weights, "learning_rate": 2e-4, "epochs": 3})
    assert (own.learning_rate, own.epochs) == (2e-4, 3)


def test_a_prediction_is_the_mean_over_spellings_of_which_the_first_is_the_canonical_one(tmp_path: Path) -> None:
    ctx, rows = context(["SMILES"]), table(seed=5)
    settings = {"columns": ["SMILES"], "enumerate_smiles": True}
    fitted = fit(tmp_path, stage(**settings, test_forms=3), ctx)
    of_view = []
    for view in range(3):
        alone = Bert(stage(**settings, test_forms=1), ctx)
        alone.encode = partial(lambda rows, folder, _, seed, view: fitted.encode(rows, folder, view, seed), view=view)  # type: ignore[method-assign]
        of_view.append(alone.predict(rows, tmp_path))
    assert np.abs(np.mean(of_view, axis=0) - fitted.predict(rows, tmp_path)).max() < 1e-6
    assert np.array_equal(Bert(stage(columns=["SMILES"]), ctx).predict(rows, tmp_path), of_view[0])
    assert np.abs(of_view[0] - of_view[1]).max() > 1e-4


def test_every_epoch_trains_on_other_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = Bert.encode

    def watched(self: Bert, rows: Rows, folder: Path, view: int, seed: int) -> Any:
        seen.append(view)
        return encode(self, rows, folder, view, seed)

    monkeypatch.setattr(Bert, "encode", watched)
    fit(tmp_path / "a", stage(columns=["SMILES"], enumerate_smiles=True, epochs=3), context(["SMILES"]))
    assert [view for view in seen if view] == [1, 2, 3]
    seen.clear()
    fit(tmp_path / "b", stage(columns=["SMILES"], epochs=3), context(["SMILES"]))
    assert set(seen) == {0}


def test_a_molecule_of_many_rows_is_spelled_in_as_many_ways_in_one_epoch(tmp_path: Path) -> None:
    train = table()
    train.inputs["ligand"] = "CC(C)c1cc(OC)c(N)cc1C(=O)O"
    ctx = context(["SMILES", "ligand"])
    fitted = fit(tmp_path, stage(columns=["SMILES", "ligand"], enumerate_smiles=True), ctx, train)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["".join(map(tokenizer.id_to_token, items)) for items in fitted.encode(train, tmp_path, 1, 0).items]
    ligands = {text.removesuffix("[SEP]").split(".")[-1] for text in texts}
    assert len(ligands) == train.inputs["SMILES"].nunique()  # rows that are alike in all columns are spelled alike


def test_training_in_bf16_on_a_cpu_takes_the_attention_that_is_fast_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train = table()
    for precision, attention in (("bf16", "eager"), ("auto", "sdpa")):
        backbone = Bert(stage(precision=precision), context(["SMILES"])).start(train, tmp_path)
        assert backbone.encoder.config._attn_implementation == attention
        assert Bert(stage(), context(["SMILES"])).restore(tmp_path).encoder.config._attn_implementation == "sdpa"


def test_spellings_of_what_is_no_molecule_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"enumerate_smiles needs a column of molecules; this stage reads note\."):
        Bert(stage(enumerate_smiles=True), context(["SMILES"], ["note"]))
    with pytest.raises(ValueError, match="test_forms above 1 needs enumerate_smiles"):
        stage(test_forms=2)


def test_the_order_of_columns_changes_only_where_they_are_a_side_of_a_reaction() -> None:
    Bert(stage(enumerate_smiles="order"), context(["SMILES"]))  # its cells may hold mixtures
    Bert(stage(enumerate_smiles="order", template="{a}.{b}>>"), context(["a", "b"]))
    with pytest.raises(ConfigError, match=r'this stage reads a, b in their order.*template: "\{a\}\.\{b\}>>"'):
        Bert(stage(enumerate_smiles="order"), context(["a", "b"]))


def test_a_reaction_is_read_from_several_columns_by_a_template(tmp_path: Path) -> None:
    train = table()
    train.inputs["product"] = "CCO"
    ctx = context(["SMILES", "product"])
    fitted = fit(tmp_path, stage(template="{SMILES}.{product}>>{product}", enumerate_smiles=True), ctx, train)
    items = fitted.encode(train, tmp_path, 0, 0).items
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    pieces = [tokenizer.id_to_token(int(i)) for i in items[0]]
    assert "".join(pieces) == f"[CLS]{train.inputs['SMILES'][0]}.CCO>>CCO[SEP]"
    assert np.isfinite(fitted.predict(train, tmp_path)).all()


def test_no_input_is_longer_than_the_encoder_has_positions(published: Path, tmp_path: Path) -> None:
    train = table()
    train.inputs["note"] = " ".join(WORDS * 5)
    fit(tmp_path, stage(weights=str(published), epochs=1), context(texts=["note"]), train)
    report = read_json(tmp_path / "text.json")
    assert (report["max_length"], report["cut_rows"]) == (24, len(train))


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
    own = {"encoder.json", "tokenizer.json", "text.json"}
    assert set(digests[0]) == own | {"columns.json", "weights.safetensors", "training.json"}
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
    joined = [f"{a}</s>{b}" for a, b in zip(rows.inputs["note"], rows.inputs["SMILES"], strict=True)]
    ids, _ = text.Tokens.load(tmp_path / "tokenizer.json", 1, None, "</s>").encode(joined, 38)
    assert [row.tolist() for row in ids] == tokenizer(joined, truncation=True, max_length=38)["input_ids"]


def test_nothing_is_printed(published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fitted = fit(tmp_path, stage(weights=str(published)), context(texts=["note"]))
    fitted.predict(table(), tmp_path)
    assert capfd.readouterr() == ("", "")
