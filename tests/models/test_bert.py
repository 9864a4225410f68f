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
from competition.files import read_json
from competition.tables import Rows
from models.inputs import tokens as text
from models.notes import read_notes
from models.settings import BertStage
from models.stages.bert import Bert
from tests.models.encoders import TINY, context, fit, stage, table


def texts_of(fitted: Bert, rows: Rows, folder: Path, augmentation: int = 0) -> list[str]:
    """What the encoder reads, token by token."""
    tokenizer = text.Tokenizer.from_pretrained(folder)
    items = fitted.encode(rows, folder, augmentation, 0).items
    return ["".join(tokenizer.convert_ids_to_tokens(ids.tolist())) for ids in items]


@pytest.mark.parametrize("too_long", ["cut_middle", "error"])
def test_what_is_too_long_is_cut_and_noted_for_a_person_or_an_error(too_long: str, tmp_path: Path) -> None:
    train = table(10)
    train.inputs["SMILES"] = ["C" * n for n in (1, 2, 5, 6, 7, 8, 9, 10, 20, 30)]  # 6 atoms and 2 special tokens fit
    one = Bert(stage(max_length=8, too_long=too_long), context(["SMILES"]))
    if too_long == "error":
        with pytest.raises(DataError, match="at most 8 tokens; 6 of 10 have more"):
            one.start(train, tmp_path)
        return
    one.start(train, tmp_path)
    (note,) = read_notes(tmp_path)
    assert note.startswith("6 of 10 training texts have more than 8 tokens; their middles are left out")


@pytest.mark.parametrize(("weights", "rate", "epochs"), [(None, 1e-3, 20), ("rxnfp", 5e-5, 4)])
def test_random_weights_take_larger_and_more_steps_and_the_saved_settings_show_the_numbers(
    weights: str | None, rate: float, epochs: int
) -> None:
    config = BertStage.model_validate({"kind": "bert", "weights": weights, "learning_rate": None})
    saved = config.model_dump(mode="json")
    assert (saved["learning_rate"], saved["pretrain_learning_rate"], saved["epochs"]) == (rate, rate, epochs)
    assert BertStage.model_validate(saved) == config
    assert [stage(enumerate_smiles=many).test_forms for many in (False, True)] == [1, 5]
    assert stage(weights=weights, epochs=3).epochs == 3
    with pytest.raises(ValueError, match="test_forms above 1 needs enumerate_smiles"):
        stage(test_forms=2)


def test_epochs_train_on_other_spellings_and_a_prediction_is_their_mean_with_the_canonical_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = Bert.encode

    def watched(self: Bert, rows: Rows, folder: Path, augmentation: int, seed: int) -> Any:
        seen.append(augmentation)
        return encode(self, rows, folder, augmentation, seed)

    monkeypatch.setattr(Bert, "encode", watched)
    ctx, rows, settings = context(["SMILES"]), table(seed=5), {"enumerate_smiles": True, "epochs": 3}
    fitted = fit(tmp_path, stage(**settings, test_forms=3), ctx)
    assert [number for number in seen if number] == [1, 2, 3]
    forms = []
    for number in range(3):
        alone = Bert(stage(**settings, test_forms=1), ctx)
        alone.encode = partial(  # type: ignore[method-assign]
            lambda rows, folder, _, seed, number: encode(fitted, rows, folder, number, seed), number=number
        )
        forms.append(alone.predict(rows, tmp_path))
    assert np.abs(np.mean(forms, axis=0) - fitted.predict(rows, tmp_path)).max() < 1e-6
    assert np.array_equal(Bert(stage(), ctx).predict(rows, tmp_path), forms[0])
    assert np.abs(forms[0] - forms[1]).max() > 1e-5


def test_a_molecule_of_many_rows_is_spelled_in_as_many_ways_in_one_epoch(tmp_path: Path) -> None:
    train = table()
    train.inputs["ligand"] = "CC(C)c1cc(OC)c(N)cc1C(=O)O"
    one = Bert(stage(enumerate_smiles=True), context(["SMILES", "ligand"]))
    one.start(train, tmp_path)
    ligands = {text.removesuffix("[SEP]").split(".")[-1] for text in texts_of(one, train, tmp_path, augmentation=1)}
    assert len(ligands) == train.inputs["SMILES"].nunique()  # rows that are alike in all columns are spelled alike


def test_training_in_bf16_on_a_cpu_takes_the_attention_that_is_fast_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for precision, attention in (("bf16", "eager"), ("auto", "sdpa")):
        backbone = Bert(stage(precision=precision), context(["SMILES"])).start(table(), tmp_path)
        assert backbone.encoder.config._attn_implementation == attention
        assert Bert(stage(), context(["SMILES"])).restore(tmp_path).encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("how", "ctx"), [(True, (["SMILES"], ["note"])), ("order", (["a", "b"],))])
def test_what_cannot_be_spelled_or_ordered_is_a_config_error(how: Any, ctx: Any) -> None:
    with pytest.raises(ConfigError, match="enumerate_smiles"):
        Bert(stage(enumerate_smiles=how), context(*ctx))


@pytest.mark.parametrize(("column", "rare", "kind"), [("note", "zyzzyva", "texts"), ("SMILES", "[Se]", "smiles")])
def test_a_learned_vocabulary_never_sees_what_only_held_out_rows_have(
    column: str, rare: str, kind: str, tmp_path: Path
) -> None:
    train, valid = table(), table(seed=1)
    valid.inputs[column] = rare
    ctx: Any = context(**{kind: [column]})  # type: ignore[arg-type]
    fit(tmp_path / "with", stage(keep="best_on_held_out"), ctx, train, valid)
    Bert(stage(), ctx).start(train, tmp_path)
    assert (tmp_path / "with" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_which_tokens_a_stage_takes_from_scratch_depends_on_its_columns(tmp_path: Path) -> None:
    own: list[tuple[dict[str, Any], str]] = [
        ({"columns": ["SMILES"]}, "WordLevel"), ({}, "WordPiece"), ({"tokens": "smiles"}, "WordLevel"),
    ]  # fmt: skip
    for settings, model in own:
        Bert(stage(**settings), context(["SMILES"], ["note"])).start(table(), tmp_path)
        assert read_json(tmp_path / "tokenizer.json")["model"]["type"] == model


def test_predict_works_after_the_weights_are_gone_and_nothing_is_printed(
    published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(published, tmp_path / "weights"))
    fitted = fit(tmp_path / "job", stage(weights=str(own)), context(texts=["note"]))
    y_pred = fitted.predict(table(), tmp_path / "job")
    shutil.rmtree(own)
    moved = (tmp_path / "job").rename(tmp_path / "moved")
    again = Bert(stage(weights=str(own)), context(texts=["note"], seed=9)).predict(table(), moved)
    assert np.array_equal(again, y_pred)
    assert capfd.readouterr() == ("", "")


def test_it_learns_from_the_text(published: Path, tmp_path: Path) -> None:
    train, fresh = table(60), table(40, seed=7)
    config = stage(weights=str(published), epochs=15, learning_rate=6e-3, columns=["note"])
    fitted = fit(tmp_path, config, context(["SMILES"], ["note"]), Rows(train.ids, train.inputs, _es(train)))
    assert np.corrcoef(fitted.predict(fresh, tmp_path)[:, 0], _es(fresh)[:, 0])[0, 1] > 0.8


def _es(rows: Rows) -> Any:
    return np.array([[float(note.count("e"))] for note in rows.inputs["note"]])


def test_a_roberta_with_byte_pairs_pads_by_its_own_token_and_has_no_pooler(tmp_path: Path) -> None:
    """Another family: byte pairs, padding by 1, positions from 2, no token for the unknown, no head."""
    special, weights = ["<s>", "<pad>", "</s>"], tmp_path / "roberta"
    vocabulary = [*special, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(weights)
    config = transformers.RobertaConfig(**{**TINY, "vocab_size": 300}, max_position_embeddings=40, pad_token_id=1)
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(weights)

    fitted = fit(tmp_path, stage(weights=str(weights), columns=["note", "SMILES"]), context(["SMILES"], ["note"]))
    saved = text.Tokenizer.from_pretrained(tmp_path)
    found = (saved.pad_token_id, saved.unk_token_id, text.separator_of(saved), saved.model_max_length)
    assert found == (1, None, "</s>", 38)
    rows = table(seed=5)
    alone = fitted.predict(rows.take(np.array([0])), tmp_path)
    assert np.abs(alone - fitted.predict(rows, tmp_path)[:1]).max() < 1e-5
    joined = [f"{a}</s>{b}" for a, b in zip(rows.inputs["note"], rows.inputs["SMILES"], strict=True)]
    theirs = transformers.AutoTokenizer.from_pretrained(weights)(joined, truncation=True, max_length=38)
    assert [row.tolist() for row in text.encode(saved, joined)[0]] == theirs["input_ids"]
