"""The bert stage from rows to predictions, on encoders of one layer and width 32."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tokenizers
import transformers

from competition.dataset import Dataset
from models.context import HeldOut
from models.inputs import tokenization as text
from models.stages.bert import Bert
from tests.models.encoders import TINY, context, fit, stage, table
from tests.models.made import build_stage, predictions_per_augmentation


def test_epochs_take_other_spellings_and_a_prediction_is_the_mean_of_them_and_the_canonical_one(
    tmp_path: Path,
) -> None:
    ctx, rows, settings = (
        context(["SMILES"]),
        table(seed=5),
        {"enumerate_smiles": True, "epochs": 3, "test_augmentations": 3},
    )
    with mock.patch.object(Bert, "encode", autospec=True, side_effect=Bert.encode) as encoded:
        fitted = fit(tmp_path, stage(**settings), ctx)
    assert [call.args[4] for call in encoded.call_args_list if call.args[4]] == [1, 2, 3]
    per_augmentation = predictions_per_augmentation(fitted, 3, rows, tmp_path)
    assert np.abs(np.mean(per_augmentation, axis=0) - fitted.predict(rows, tmp_path)).max() < 1e-6
    assert np.abs(build_stage(stage(), ctx).predict(rows, tmp_path) - per_augmentation[0]).max() < 1e-6
    assert np.abs(per_augmentation[0] - per_augmentation[1]).max() > 1e-5


@pytest.mark.parametrize(
    ("column", "rare", "kind"), [("note", "zyzzyva", "texts"), ("SMILES", "[Se]", "smiles")]
)
def test_a_learned_vocabulary_never_sees_what_only_held_out_rows_have(
    column: str, rare: str, kind: str, tmp_path: Path
) -> None:
    train, rows = table(), table(seed=1)
    rows.inputs[column] = rare
    ctx: Any = context(**{kind: [column]})  # type: ignore[arg-type]
    scores: list[Any] = []
    held_out = HeldOut(rows.without_labels(), lambda y_pred: scores.append(y_pred) or 0.0)  # type: ignore[func-returns-value]
    fit(tmp_path / "with", stage(), replace(ctx, held_out=held_out), train)
    assert len(scores) == 1
    build_stage(stage(), ctx).initial_backbone(train, tmp_path)
    assert (tmp_path / "with" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_predict_works_after_the_weights_are_gone_and_nothing_is_printed(
    published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(published, tmp_path / "weights"))
    fitted = fit(tmp_path / "job", stage(weights=str(copied)), context(texts=["note"]))
    y_pred = fitted.predict(table(), tmp_path / "job")
    shutil.rmtree(copied)
    moved = (tmp_path / "job").rename(tmp_path / "moved")
    restored = build_stage(stage(weights=str(copied)), context(texts=["note"], seed=9)).predict(
        table(), moved
    )
    assert np.array_equal(restored, y_pred)
    assert capfd.readouterr() == ("", "")


def test_it_learns_from_the_text(published: Path, tmp_path: Path) -> None:
    train, fresh = table(60), table(40, seed=7)
    for rows in (train, fresh):
        rows.inputs["pH"] = [float(note.count("e")) for note in rows.inputs["note"]]
    config = stage(
        weights=str(published), epochs=15, learning_rate=6e-3, columns=["note"], use_tabular_columns=False
    )
    labelled = Dataset(train.ids, train.inputs, train.inputs[["pH"]].to_numpy())
    y_pred = fit(tmp_path, config, context(["SMILES"], ["note"]), labelled).predict(fresh, tmp_path)
    assert np.corrcoef(y_pred[:, 0], fresh.inputs["pH"])[0, 1] > 0.8


def test_a_roberta_with_byte_pairs_pads_by_its_token(tmp_path: Path) -> None:
    """Another family: byte pairs, padding by 1, positions from 2, no token for the unknown, no head."""
    special, weights = ["<s>", "<pad>", "</s>"], tmp_path / "roberta"
    vocabulary = [*special, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({token: i for i, token in enumerate(vocabulary)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(weights)
    config = transformers.RobertaConfig(
        **{**TINY, "vocab_size": 300}, max_position_embeddings=40, pad_token_id=1
    )
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(weights)

    fitted = fit(
        tmp_path, stage(weights=str(weights), columns=["note", "SMILES"]), context(["SMILES"], ["note"])
    )
    saved, rows = text.Tokenizer.from_pretrained(tmp_path), table(seed=5)
    assert (saved.pad_token_id, saved.model_max_length) == (1, 38)
    alone = fitted.predict(rows.take(np.array([0])), tmp_path)
    assert np.abs(alone - fitted.predict(rows, tmp_path)[:1]).max() < 1e-5
    joined = [f"{a}</s>{b}" for a, b in zip(rows.inputs["note"], rows.inputs["SMILES"], strict=True)]
    reference = transformers.AutoTokenizer.from_pretrained(weights)(joined, truncation=True, max_length=38)
    assert [row.tolist() for row in text.encode(saved, joined)[0]] == reference["input_ids"]
