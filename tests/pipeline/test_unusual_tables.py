"""Tables with cells, columns and molecules that few tables have: a run goes on, and says what it leaves out."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.cells import parse_times
from competition.descriptors import descriptors
from competition.molecules import MAX_ATOMS
from competition.prepare import prepare
from core.errors import DataError, NothingToSubmit
from folds.compare import compare_tables
from folds.groups import scaffold
from folds.make import run as make_folds
from models.inputs import conformers, fingerprints
from pipeline.full import full
from submissions.config import load_config
from submissions.predict import predict
from tests.pipeline.made import N_TEST, N_TRAIN, X, of_x, options, said

pytestmark = pytest.mark.usefixtures("jobs_in_process")

HANDLES = [chr(0x4E00 + i) for i in range(len(X))]
TREES = "kind: lightgbm, max_trees: 20"


@pytest.mark.parametrize("stage", [TREES, "kind: sklearn"])
def test_a_text_column_without_a_shared_sign_is_left_out_with_a_note(tmp_path, stage, capsys):
    links, notes = [f"https {sign}" for sign in HANDLES], ["red", "blue", "red green"] * 24
    path = of_x(tmp_path, X, 0, "text: [note, handle, link]", stage, note=notes, handle=HANDLES, link=links)
    assert full(options(path)) == 0
    assert "no features of handle, link: each n-gram" in capsys.readouterr().out
    assert len(pd.read_csv(predict(str(path), tmp_path / "test.csv", 1))) == N_TEST


def test_a_stage_without_any_feature_says_so(tmp_path, capsys):
    path = of_x(tmp_path, X, 0, "text: [handle], numeric: []", TREES, handle=HANDLES)
    with pytest.raises(NothingToSubmit):
        full(options(path))
    assert "lightgbm has no features: each n-gram of handle" in capsys.readouterr().out


def test_words_of_every_row_are_features_if_their_numbers_differ(tmp_path):
    moves = ["down " * 20 + f"{'up ' * (1 + i % 3)}{'down ' * (i % 7)}" for i in range(len(X))]
    assert full(options(of_x(tmp_path, X, 0, "text: [moves], numeric: []", moves=moves))) == 0


def test_dates_beyond_those_in_nanoseconds_are_times():
    dates = ["2020-01-01", "9999-12-31", "0001-01-01", "2300-05-05"]
    table = pd.DataFrame({"id": list("abcd"), "until": dates})
    times = parse_times(table, "until", "id", "train.csv")
    assert list(times.argsort()) == [2, 0, 3, 1]
    assert times[0] == 18262 * 86400


@pytest.mark.parametrize("roles", ["numeric: [x, fold]", "categorical: [fold], group: fold"])
def test_a_column_called_fold_is_compared_like_any_other(tmp_path, roles):
    """Both tables have the same 60 rows, since the comparison needs distinct inputs."""
    path = of_x(tmp_path, X, 0, roles, fold=np.random.default_rng(0).integers(0, 3, len(X)))
    table = pd.read_csv(tmp_path / "train.csv")
    table.drop(columns="y").to_csv(tmp_path / "test.csv", index=False)
    table[["id", "y"]].to_csv(tmp_path / "sample.csv", index=False)
    config = load_config(str(path))
    make_folds(config.competition, config.folds)
    said, _ = compare_tables(config.competition, config.folds, compute_descriptors=list)
    assert float(re.findall(r"AUC (\S+)", said)[0]) < 0.7
    assert "fold" in said.partition("mean_in_train")[2] and "nan" not in said


def test_numbers_beyond_float32_are_a_warning_with_their_count(tmp_path):
    path = of_x(tmp_path, X, 0, "numeric: [x, huge]", TREES, huge=[1e50, -1e60, *X[2:]])
    assert said(path, "WARNING: 2 numbers of huge are beyond")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert full(options(path)) == 0


def test_cells_that_are_no_numbers_are_missing_and_counted_where_rows_may_be_dropped(tmp_path):
    cells = ["n/d", "inf", "", *X[3:]]
    path = of_x(tmp_path, X, 0, "numeric: [x, z], unparsable: drop", z=cells)
    (line,) = said(path, "WARNING")
    assert line.startswith("WARNING: 2 cells of 'z' in train.csv") and "'n/d'" in line and "'r01'" in line
    is_missing = prepare(load_config(str(path)).competition).train["z"].isna()
    assert is_missing.tolist() == [True] * 3 + [False] * (N_TRAIN - 3)
    with pytest.raises(DataError, match="not finite numbers"):
        said(of_x(tmp_path, X, 0, "numeric: [x, z]", z=cells))


def test_features_that_are_infinite_are_missing_and_counted_where_rows_may_be_dropped(tmp_path, capsys):
    code = "def inverse(table):\n    return {'one': 1 / table['x'] if len(table) else []}\n"
    (tmp_path / "mine.py").write_text(code)
    path = of_x(tmp_path, X, 0, "features: 'mine.py:inverse', unparsable: drop")  # X[0] is 0
    assert np.isnan(prepare(load_config(str(path)).competition).train["feature one"][0])
    assert "WARNING: 1 values of competition.features are infinite" in capsys.readouterr().out


def test_a_submission_of_one_model_has_no_spread(tmp_path):
    path = of_x(tmp_path, X, stage="kind: sklearn, final_fit: refit")
    assert full(options(path)) == 0
    (tmp_path / "new.csv").write_text("id,x\nnew,1.5\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        file = predict(str(path), tmp_path / "new.csv", 1)
    assert not (file.parent / "spread.csv").exists()


LARGE = "C" * (MAX_ATOMS + 1)


def test_of_a_large_molecule_only_what_is_fast_is_computed_and_a_warning_names_it(tmp_path):
    path = of_x(tmp_path, X, 0, "smiles: [SMILES]", SMILES=["CCO", LARGE, *["CCC", "CCN"] * 35])
    (line,) = said(path, "WARNING")
    assert f"1 rows have a molecule with more than {MAX_ATOMS} atoms: 'r01'" in line
    assert np.isnan(descriptors(Chem.MolFromSmiles(LARGE))).all()
    assert not np.isnan(descriptors(Chem.MolFromSmiles(LARGE[1:]))).all()
    for name in ("avalon", "erg", "descriptors"):
        (cache,) = fingerprints.molecule_features([name], 64, tmp_path)
        small, large = cache.load(["CCO", LARGE])
        assert np.isnan(large).all() and not np.isnan(small).all()
    small, large = fingerprints.molecule_features(["atom_pairs"], 0, tmp_path)[0].load(["CCO", LARGE])
    assert len(small) > 0 and len(large) == 0
    assert scaffold("C1CC1" + LARGE) == "C1CC1" + LARGE


@pytest.mark.parametrize(
    "smiles", [LARGE, "c1ccc2ccccc2c1" * 60, "NC(C)C(=O)" * 60, "[Na+].[O-]" + "C" * 300]
)
def test_uni_mol_reads_the_first_atoms_of_a_large_molecule_with_flat_coordinates(smiles):
    molecule = conformers.build_molecule(smiles, "all")
    array = conformers.embed_conformers(molecule)
    assert conformers.is_flat(array)
    assert (array[:, 0] > 1).sum() == molecule.GetNumAtoms() == conformers.MAX_ATOMS
