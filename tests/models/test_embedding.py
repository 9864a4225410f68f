"""The embedding stage: what is cached, what is fitted, and which encoder it may predict with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import ConfigError, DataError
from competition.tables import Rows
from models.config import EmbeddingStage
from models.embedding import Embedding
from models.frozen import FrozenEncoder
from models.notes import read_notes
from models.stage import Context
from tests.models.encoders import context, publish, table


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


def stage(weights: Path, **changes: Any) -> EmbeddingStage:
    return EmbeddingStage.model_validate({"kind": "embedding", "weights": str(weights), **changes})


def notes(cache: Path) -> Context:
    return replace(context(texts=["note"]), cache=cache)


def fit(config: EmbeddingStage, ctx: Context, train: Rows, folder: Path) -> Embedding:
    folder.mkdir(parents=True)
    fitted = Embedding(config, ctx)
    fitted.fit(train, None, folder)
    return fitted


def test_an_encoder_reads_each_distinct_text_once_for_all_jobs(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    embed = FrozenEncoder.embed
    monkeypatch.setattr(FrozenEncoder, "embed", lambda self, texts: (read.extend(texts), embed(self, texts))[1])
    train, test = table(30), table(10, seed=1)
    train.inputs["note"] = [*train.inputs["note"][:15], *train.inputs["note"][:15]]
    for seed in (1, 2):
        ctx = replace(notes(tmp_path / "cache"), seed=seed)
        fit(stage(published), ctx, train, tmp_path / str(seed)).predict(test, tmp_path / str(seed))
    assert sorted(read) == sorted({*train.inputs["note"], *test.inputs["note"]})


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_texts_go_through_the_encoder_together_and_each_gets_its_own_features(
    published: Path, tmp_path: Path, pooling: str
) -> None:
    texts, sizes = ["red " * (i % 8) + "old " * (i // 8) for i in range(50)], []
    encoder = FrozenEncoder(stage(published, pooling=pooling), tmp_path)
    encoder.loaded[0].register_forward_hook(lambda module, _, out: sizes.append(len(out.last_hidden_state)))
    together, alone = encoder.embed(texts), [encoder.embed([text])[0] for text in texts]
    assert sizes == [32, 18, *[1] * 50]
    for (features, counts), (own, own_counts) in zip(together, alone, strict=True):
        assert np.allclose(features, own, atol=1e-5)
        assert counts == own_counts
    assert len({features.tobytes() for features, _ in together}) == 50


def test_features_do_not_depend_on_what_was_read_before(published: Path, tmp_path: Path) -> None:
    rows, config = table(20), stage(published)
    whole, counts = Embedding(config, notes(tmp_path / "a")).features(rows)
    part, _ = Embedding(config, notes(tmp_path / "b")).features(rows.take(np.arange(15, 20)))
    again, _ = Embedding(config, notes(tmp_path / "b")).features(rows)
    assert np.allclose(part, whole[15:], atol=1e-5)
    assert np.array_equal(again[15:], part)
    assert np.allclose(again, whole, atol=1e-5)
    assert (counts[:, 0] > 2).all()


@pytest.mark.parametrize("change", [{"pooling": "cls"}, {"max_length": 8}, {"too_long": "cut_middle"}])
def test_a_setting_that_changes_the_features_has_its_own_cache(
    change: dict[str, Any], published: Path, tmp_path: Path
) -> None:
    folders = {Embedding(stage(published, **c), notes(tmp_path)).encoder.cache.folder for c in ({}, change)}
    assert len(folders) == 2


def test_mean_pooling_takes_all_tokens_and_cls_the_first(published: Path, tmp_path: Path) -> None:
    rows = table(5)
    mean, cls = (Embedding(stage(published, pooling=p), notes(tmp_path)).features(rows)[0] for p in ("mean", "cls"))
    one = Embedding(stage(published), notes(tmp_path))
    encoder, tokens, _ = one.encoder.loaded
    import torch

    ids, _ = tokens.encode([rows.inputs["note"][0]], 24)
    with torch.inference_mode():
        states = encoder(torch.tensor(ids[0])[None]).last_hidden_state[0].numpy()
    assert np.allclose(mean[0], states.mean(axis=0), atol=1e-6)
    assert np.allclose(cls[0], states[0], atol=1e-6)


def test_it_learns_from_the_text_and_from_the_numbers_beside_it(published: Path, tmp_path: Path) -> None:
    train, fresh = table(200), table(50, seed=7)

    def truth(rows: Rows) -> Any:
        return np.array([[n.count("e")] for n in rows.inputs["note"]]) + 3 * rows.inputs[["pH"]].to_numpy()

    train = Rows(train.ids, train.inputs, truth(train))
    scores = []
    for name, joins in (("with", True), ("without", False)):
        config = stage(published, columns_before_head=joins)
        y_pred = fit(config, notes(tmp_path / "cache"), train, tmp_path / name).predict(fresh, tmp_path / name)
        scores.append(np.corrcoef(y_pred[:, 0], truth(fresh)[:, 0])[0, 1])
    assert scores[0] > 0.95
    assert scores[1] < 0.6


def test_weights_of_rows_reach_the_regressor(published: Path, tmp_path: Path) -> None:
    train = table(60)
    wrong = np.arange(60) % 2 == 0
    y = np.where(wrong[:, None], 50.0, train.y)
    ctx, config = notes(tmp_path / "cache"), stage(published)
    means = []
    for name, low in (("even", 1.0), ("uneven", 1e-6)):
        rows = Rows(train.ids, train.inputs, y, np.where(wrong, low, 1.0))
        means.append(fit(config, ctx, rows, tmp_path / name).predict(train, tmp_path / name).mean())
    assert means[0] > 25
    assert means[1] == pytest.approx(train.y[~wrong].mean(), rel=0.1)


def test_predicting_with_other_weights_than_those_of_the_training_is_a_config_error(
    published: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(published, tmp_path / "weights"))
    fit(stage(own), notes(tmp_path / "cache"), table(), tmp_path / "job")
    (own / "config.json").write_text((own / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match="must be the files that .* was trained with"):
        Embedding(stage(own), notes(tmp_path / "cache")).predict(table(), tmp_path / "job")


def test_texts_that_are_too_long_are_noted_or_refused(published: Path, tmp_path: Path) -> None:
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fit(stage(published, max_length=8), notes(tmp_path / "cache"), train, tmp_path / "cut")
    assert read_notes(tmp_path / "cut") == [
        "4 of 10 training texts have more than 8 tokens; their ends are left out (too_long: cut_end)."
    ]
    with pytest.raises(DataError, match="at most 8 tokens"):
        fit(stage(published, max_length=8, too_long="error"), notes(tmp_path / "cache"), train, tmp_path / "error")


def test_texts_that_the_vocabulary_does_not_know_are_a_config_error(published: Path, tmp_path: Path) -> None:
    train = table(10)
    train.inputs["note"] = ["\u4e2d\u6587" * (i + 1) for i in range(10)]
    with pytest.raises(ConfigError, match=r"are unknown to it\. Name other columns"):
        fit(stage(published), notes(tmp_path / "cache"), train, tmp_path / "job")


def test_a_regressor_that_does_not_exist_is_refused_with_the_settings(published: Path) -> None:
    with pytest.raises(ValueError, match="must be a regressor of scikit-learn"):
        stage(published, regressor="Rigde")
