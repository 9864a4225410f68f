"""Features of molecules, and feature blocks compared with values computed by hand."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors

from core.errors import DataError
from models import features
from models.inputs import ngrams
from models.inputs.columns import numeric_block
from models.inputs.fingerprints import FEATURES, molecule_features
from models.stages.gnn import Gnn
from models.stages.sklearn import Sklearn
from tests.models.made import context, rows

NAN = np.nan


def test_ngrams_that_two_training_rows_share_are_counted(tmp_path):
    """`red` and `pear` are words of two rows, and x is one of two words."""
    train = rows(note=["red pear", "red plum", "by ox", "green pear", "hut box"])
    fitted = ngrams.fit_ngrams(train, 99, context(tmp_path, text=["note"]), tmp_path)
    (_, words), (_, characters) = fitted
    assert sorted(words["vocabulary"]) == ["pear", "red"]
    assert {"x ", "ox", "ear", " re"} <= {*characters["vocabulary"]}
    assert not {"ed p", "hut", "kiwi"} & {*characters["vocabulary"]}
    block = ngrams.ngram_counts(rows(note=["pear red", "red red", "狐"]), fitted).toarray()
    assert block[:, :2].tolist() == [[1, 1], [0, 2], [0, 0]]
    assert block[2, 2:].sum() == 2  # the blanks before and after a word


def test_ngrams_of_a_long_table_are_chosen_by_some_of_its_rows_and_counted_in_all(tmp_path, monkeypatch):
    """Of 48 characters, 24 are read: those of every second row."""
    monkeypatch.setattr(ngrams, "MAX_CHARACTERS", 24)
    train = rows(note=["red pear", "hut pear", "red plum", "hut plum", "big plum", "hut nuts"])
    words, _ = fitted = ngrams.fit_ngrams(train, 99, context(tmp_path, text=["note"]), tmp_path)
    assert words[1]["vocabulary"] == ["plum", "red"]
    counts = ngrams.ngram_counts(train, fitted).toarray()
    assert counts[:, :2].tolist() == [[0, 1], [0, 0], [1, 1], [1, 0], [1, 0], [0, 0]]


def test_molecule_columns_are_concatenated_and_numbers_keep_their_gaps(tmp_path):
    table = rows(s=["CC", "CO"], t=["O", "CC"], x=[1.0, NAN])
    stage_context = context(tmp_path, smiles=["s", "t"], numeric=["x"])
    stage = Gnn(kind="gnn", molecule_features=["maccs"])
    block = np.hstack(features.molecule_blocks(table, stage, stage_context, tmp_path))
    assert block.shape == (2, 2 * 167)
    assert np.array_equal(block[0, :167], block[1, 167:])
    assert np.array_equal(numeric_block(table, stage_context), [[1.0], [NAN]], equal_nan=True)


def test_an_encoder_of_molecules_reads_the_columns_that_it_names(tmp_path):
    table = rows(s=["CCO", "CCN"], t=["CCC", "CCC"])
    stage_context = context(tmp_path, smiles=["s", "t"])
    blocks = []
    for columns in (["t"], ["s"], []):
        stage = Sklearn(
            kind="sklearn", estimator="sklearn.svm.SVR", features=[{"encoder": "minimol", "columns": columns}]
        )
        features.fit_encoders(table, stage, stage_context, tmp_path)
        blocks.append(np.hstack(features.molecule_blocks(table, stage, stage_context, tmp_path)))
    assert np.array_equal(blocks[0][0], blocks[0][1]) and not np.array_equal(blocks[1][0], blocks[1][1])
    assert np.array_equal(np.hstack([blocks[1], blocks[0]]), blocks[2])


def feature(name, smiles, n_bits=512):
    return FEATURES[name](Chem.MolFromSmiles(smiles), n_bits)


def test_features_count_what_their_names_say():
    """Ethane: one environment of radius 0 counted twice, one of radius 1 once. Two carboxylic acids count
    more than one. ErG depends on the distance of a donor from a ring, MACCS on the presence of a ring.
    """
    counts = feature("morgan", "CC")
    assert sorted(counts[counts > 0].tolist()) == [1.0, 2.0]
    one_acid, two_acids = feature("avalon", "OC(=O)CCCC"), feature("avalon", "OC(=O)CCCCC(=O)O")
    assert ((two_acids > one_acid) & (one_acid > 0)).any()
    assert not np.array_equal(feature("erg", "NCc1ccccc1"), feature("erg", "NCCCCc1ccccc1"))
    assert [feature("maccs", smiles)[165] for smiles in ("C1CCCCC1", "CCCCCC")] == [1, 0]


@pytest.mark.parametrize(
    "smiles", ["CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "O=S(=O)(N)c1cc(F)c(Br)nc1", "[Pt]"]
)
def test_descriptors_are_those_of_rdkit(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    expected = Descriptors.CalcMolDescriptors(molecule, missingVal=NAN, silent=True)
    del expected["Ipc"], expected["AvgIpc"]  # their time grows with the fourth power of the atoms
    assert np.array_equal(feature("descriptors", smiles), list(expected.values()), equal_nan=True)


def test_maplight_is_four_features_repeated_features_count_once_and_each_length_has_a_cache(
    tmp_path,
):
    caches = molecule_features(["descriptors", "maplight"], 64, tmp_path)
    assert [cache.name for cache in caches] == ["descriptors", "morgan", "avalon", "erg"]
    longer = {cache.name: cache.folder for cache in molecule_features(["maplight"], 128, tmp_path)}
    assert {cache.name for cache in caches if longer[cache.name] != cache.folder} == {"morgan", "avalon"}


def test_a_feature_that_fails_names_the_molecule(tmp_path, monkeypatch):
    def broken(molecule, n_bits):
        raise ZeroDivisionError("no atoms")

    monkeypatch.setitem(FEATURES, "maccs", broken)
    (cache,) = molecule_features(["maccs"], 0, tmp_path)
    with pytest.raises(DataError, match="the feature maccs of CCO fails: ZeroDivisionError: no atoms"):
        cache.load(["CCO"])
