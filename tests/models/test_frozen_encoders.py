"""Frozen encoders as features: what is cached, fitted, and used for predictions."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chemprop.data import BatchMolGraph
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.nn import BondMessagePassing, MeanAggregation
from rdkit import Chem

from competition.dataset import Dataset
from competition.errors import ConfigError, DataError
from models.config import StagesConfig
from models.feature_config import SklearnConfig
from models.inputs import frozen_encoders
from models.inputs.cache import Cache
from models.inputs.stage_caches import shared_caches
from models.inputs.weights import reads_graphs, weights_of_stage
from models.registry import build_stage
from models.stage import Context, read_notes
from tests.models.encoders import SMILES, context, table
from tests.models.made import fitted


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def stage(weights: Path, **changes: Any) -> SklearnConfig:
    features = [{"encoder": str(weights), **changes}]
    return SklearnConfig(kind="sklearn", features=features, tfidf_features=0, estimator="Ridge")


def note_context(cache: Path) -> Context:
    return replace(context(texts=["note"]), cache=cache)


def test_every_setting_that_changes_the_features_of_a_text_has_a_separate_cache(
    published: Path, tmp_path: Path
) -> None:
    changes: list[dict[str, Any]] = [{}, {"pooling": "cls"}, {"max_length": 8}, {"truncation": "middle"}]
    folders = {
        frozen_encoders.encoder_cache(stage(published, **change).encoders[0], tmp_path).folder
        for change in changes
    }
    assert len(folders) == 4


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_batch_of_texts_gets_the_features_of_single_texts(published: Path, pooling: str) -> None:
    texts = ["red " * (i % 8) + "old " * (i // 8) for i in range(50)]
    (config,) = stage(published, pooling=pooling).encoders
    encoder, tokenizer = frozen_encoders._load_encoder(config.model_dump_json())
    together = frozen_encoders.embed_texts(config, texts)[:, 0]
    for text, row in zip(texts, together, strict=True):
        (ids,) = tokenizer([text])["input_ids"]
        with torch.inference_mode():
            states = encoder(torch.tensor(ids)[None]).last_hidden_state[0].numpy()
        assert np.allclose(row[:-3], states[0] if pooling == "cls" else states.mean(axis=0), atol=1e-5)
        assert row[-3:].tolist() == [len(ids), ids.count(tokenizer.unk_token_id), 0]


def test_long_texts_are_noted_or_rejected_and_unknown_ones_are_rejected(
    published: Path, cache: Path, tmp_path: Path
) -> None:
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fitted(stage(published, max_length=8), note_context(cache), train, tmp_path / "cut")
    assert read_notes(tmp_path / "cut")[0].startswith("4 of 10 training texts have more than 8 tokens")
    with pytest.raises(DataError, match="more than 8 tokens"):
        fitted(
            stage(published, max_length=8, truncation="error"), note_context(cache), train, tmp_path / "error"
        )
    train.inputs["note"] = ["\u4e2d\u6587" * (i + 1) for i in range(10)]
    with pytest.raises(ConfigError, match="are unknown to the weights"):
        fitted(stage(published), note_context(cache), train, tmp_path / "unknown")


def message_passing(folder: Path) -> Path:
    shape = {"d_h": 16, "depth": 2}
    torch.manual_seed(0)
    state = BondMessagePassing(**shape).state_dict()
    torch.save({"hyper_parameters": shape, "state_dict": state}, folder / "mp.pt")
    return folder / "mp.pt"


def test_frozen_message_passing_is_chemprops_mean_over_atoms(tmp_path: Path) -> None:
    weights = message_passing(tmp_path)
    embeddings = frozen_encoders.embed_molecules(str(weights), SMILES)[:, 0]
    content = torch.load(weights)
    reference = BondMessagePassing(**content["hyper_parameters"]).eval()
    reference.load_state_dict(content["state_dict"])
    featurizer = SimpleMoleculeMolGraphFeaturizer()
    graph = BatchMolGraph([featurizer(Chem.MolFromSmiles(smiles)) for smiles in SMILES])
    expected = MeanAggregation()(reference(graph), graph.batch).detach()
    assert np.allclose(embeddings, expected, atol=1e-5)


def with_encoders(kind: str, published: Path, graphs: Path) -> Any:
    blocks = ["maccs", {"encoder": str(published), "columns": ["note"]}, {"encoder": str(graphs)}]
    blocks.append({"encoder": str(published), "columns": ["note"], "pooling": "cls"})
    small = {
        "sklearn": {"estimator": "Ridge"},
        "lightgbm": {"max_trees": 20},
        "catboost": {"max_trees": 20, "depth": 2},
    }
    settings = {"kind": kind, "features": blocks, "tfidf_features": 0, **small[kind]}
    return StagesConfig.model_validate({"stages": {"s": settings}}).stages["s"]


@pytest.mark.parametrize("kind", ["sklearn", "lightgbm", "catboost"])
def test_encoders_and_fingerprints_are_computed_before_the_jobs_and_changed_weights_are_rejected(
    kind: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is a frozen feature of the text, which the stage must learn."""
    weights = Path(shutil.copytree(published, tmp_path / "weights"))
    config = with_encoders(kind, weights, message_passing(tmp_path))
    ctx = replace(note_context(tmp_path / "cache"), smiles=["SMILES"])
    train = table(150)
    test = table(30, seed=1)
    for cache, keys in shared_caches(config, ctx, [train, test]):
        cache.compute_shard(keys)
    monkeypatch.setattr(Cache, "compute_shard", lambda *_: pytest.fail("computed again"))
    cache = frozen_encoders.encoder_cache(config.encoders[0], ctx.cache)
    y, truth = (np.concatenate(cache.load(rows.inputs["note"]))[:, :1] for rows in (train, test))
    folder = tmp_path / "job"
    y_pred = fitted(config, ctx, Dataset(train.ids, train.inputs, y), folder).predict(test, folder)
    assert np.corrcoef(y_pred[:, 0], truth[:, 0])[0, 1] > (0.99 if kind == "sklearn" else 0.7)
    (weights / "config.json").write_text((weights / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match="are not those that .* was trained with"):
        build_stage(config, ctx).predict(test, folder)


def test_an_encoder_among_the_features_survives_resolved_settings_and_is_among_the_weights() -> None:
    config = SklearnConfig.model_validate({"kind": "sklearn", "features": ["morgan", {"encoder": "minilm"}]})
    assert SklearnConfig.model_validate(config.model_dump(mode="json")) == config
    assert weights_of_stage(config) == ["minilm"]
    assert reads_graphs("chemeleon") and not reads_graphs("minilm")
    with pytest.raises(ValueError, match="encodr"):
        SklearnConfig.model_validate({"kind": "sklearn", "features": [{"encodr": "minilm"}]})
