"""Frozen encoders among features: what is cached, fitted, and predicted with."""

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

from competition.errors import ConfigError, DataError
from competition.tables import Rows
from models.config import SklearnStage, StagesConfig
from models.inputs import frozen
from models.inputs.cache import Cache
from models.inputs.weights import named_weights, reads_graphs
from models.registry import build_stage, shared_caches
from models.stage import Context, read_notes
from tests.models.encoders import SMILES, context, table
from tests.models.made import fitted


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def stage(weights: Path, **changes: Any) -> SklearnStage:
    features = [{"encoder": str(weights), **changes}]
    return SklearnStage(kind="sklearn", features=features, tfidf_features=0, estimator="Ridge")


def notes(cache: Path) -> Context:
    return replace(context(texts=["note"]), cache=cache)


def test_what_changes_the_features_of_a_text_has_a_cache_of_its_own(published: Path, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"pooling": "cls"}, {"max_length": 8}, {"too_long": "cut_middle"}]
    folders = {frozen.encoder_cache(stage(published, **change).encoders[0], tmp_path).folder for change in changes}
    assert len(folders) == 4


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_texts_go_through_the_encoder_together_and_each_gets_its_own_features(published: Path, pooling: str) -> None:
    texts = ["red " * (i % 8) + "old " * (i // 8) for i in range(50)]
    (config,) = stage(published, pooling=pooling).encoders
    encoder, tokenizer = frozen._loaded(config.model_dump_json())
    together = frozen.embedded(config, texts)[:, 0]
    for text, found in zip(texts, together, strict=True):
        (ids,) = tokenizer([text])["input_ids"]
        with torch.inference_mode():
            states = encoder(torch.tensor(ids)[None]).last_hidden_state[0].numpy()
        assert np.allclose(found[:-3], states[0] if pooling == "cls" else states.mean(axis=0), atol=1e-5)
        assert found[-3:].tolist() == [len(ids), ids.count(tokenizer.unk_token_id), 0]


def test_long_texts_are_noted_or_refused_and_unknown_ones_are_refused(
    published: Path, cache: Path, tmp_path: Path
) -> None:
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fitted(stage(published, max_length=8), notes(cache), train, tmp_path / "cut")
    assert read_notes(tmp_path / "cut")[0].startswith("4 of 10 training texts have more than 8 tokens")
    with pytest.raises(DataError, match="more than 8 tokens"):
        fitted(stage(published, max_length=8, too_long="error"), notes(cache), train, tmp_path / "error")
    train.inputs["note"] = ["\u4e2d\u6587" * (i + 1) for i in range(10)]
    with pytest.raises(ConfigError, match="are unknown to the weights"):
        fitted(stage(published), notes(cache), train, tmp_path / "unknown")


def message_passing(folder: Path) -> Path:
    shape = {"d_h": 16, "depth": 2}
    torch.manual_seed(0)
    state = BondMessagePassing(**shape).state_dict()
    torch.save({"hyper_parameters": shape, "state_dict": state}, folder / "mp.pt")
    return folder / "mp.pt"


def test_frozen_message_passing_is_chemprops_mean_over_atoms(tmp_path: Path) -> None:
    weights = message_passing(tmp_path)
    found = frozen.passed(str(weights), SMILES)[:, 0]
    content = torch.load(weights)
    theirs = BondMessagePassing(**content["hyper_parameters"]).eval()
    theirs.load_state_dict(content["state_dict"])
    graph = BatchMolGraph([SimpleMoleculeMolGraphFeaturizer()(Chem.MolFromSmiles(smiles)) for smiles in SMILES])
    assert np.allclose(found, MeanAggregation()(theirs(graph), graph.batch).detach(), atol=1e-5)


def with_encoders(kind: str, published: Path, graphs: Path) -> Any:
    blocks = ["maccs", {"encoder": str(published), "columns": ["note"]}, {"encoder": str(graphs)}]
    blocks.append({"encoder": str(published), "columns": ["note"], "pooling": "cls"})
    own = {"sklearn": {"estimator": "Ridge"}, "lightgbm": {"max_trees": 20}, "catboost": {"max_trees": 20, "depth": 2}}
    settings = {"kind": kind, "features": blocks, "tfidf_features": 0, **own[kind]}
    return StagesConfig.model_validate({"stages": {"s": settings}}).stages["s"]


@pytest.mark.parametrize("kind", ["sklearn", "lightgbm", "catboost"])
def test_encoders_stand_beside_fingerprints_computed_before_the_jobs_and_with_the_weights_of_the_training(
    kind: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is a frozen feature of the text, which the stage finds."""
    own = Path(shutil.copytree(published, tmp_path / "weights"))
    config = with_encoders(kind, own, message_passing(tmp_path))
    ctx = replace(notes(tmp_path / "cache"), smiles=["SMILES"])
    train, test = table(150), table(30, seed=1)
    for cache, keys in shared_caches(config, ctx, [train, test]):
        cache.compute_shard(keys)
    monkeypatch.setattr(Cache, "compute_shard", lambda *_: pytest.fail("computed again"))
    cache = frozen.encoder_cache(config.encoders[0], ctx.cache)
    y, truth = (np.concatenate(cache.load(rows.inputs["note"]))[:, :1] for rows in (train, test))
    folder = tmp_path / "job"
    y_pred = fitted(config, ctx, Rows(train.ids, train.inputs, y), folder).predict(test, folder)
    assert np.corrcoef(y_pred[:, 0], truth[:, 0])[0, 1] > (0.99 if kind == "sklearn" else 0.7)
    (own / "config.json").write_text((own / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match="are not those that .* was trained with"):
        build_stage(config, ctx).predict(test, folder)


def test_an_encoder_among_the_features_is_read_back_from_resolved_settings_and_named_with_the_weights() -> None:
    config = SklearnStage.model_validate({"kind": "sklearn", "features": ["morgan", {"encoder": "minilm"}]})
    assert SklearnStage.model_validate(config.model_dump(mode="json")) == config
    assert named_weights(config) == ["minilm"]
    assert reads_graphs("chemeleon") and not reads_graphs("minilm")
    with pytest.raises(ValueError, match="encodr"):
        SklearnStage.model_validate({"kind": "sklearn", "features": [{"encodr": "minilm"}]})
