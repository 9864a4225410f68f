"""Scaled numbers and categories, compared with values computed by hand and with scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import QuantileTransformer

from models.inputs import scaling
from models.inputs.scaling import fit_scaling, scaled_blocks, scaled_matrix
from models.job_folder import read_notes

NAN = np.nan


def numbers(*columns):
    return {"numbers": np.column_stack(columns).astype(float)}


def test_numbers_are_standardised_within_the_training_range_and_have_indicators_of_gaps(tmp_path):
    """x has mean 2 and standard deviation sqrt(2 / 3); c is constant; p is in mol per litre, with picomolar
    values; d is the output of a dead neuron. A column without gaps in training gets no indicator of missing
    values. An unseen category is none of the others.
    """
    x = [1.0, 3.0, NAN, 2.0]
    p = [1e-12, 3e-12, 2e-12, 2e-12]
    d = [1e-33, 0.0, 2e-33, 0.0]
    train = numbers(x, [5.0] * 4, p, d) | {"categories": pd.DataFrame({"k": ["b", "a", "b", "a"]})}
    columns = [3.0, NAN, 1e9], [6.0, NAN, 5.0], p[:3], d[:3]
    test = numbers(*columns) | {"categories": pd.DataFrame({"k": ["a", "b", "new"]})}
    fit_scaling(train, tmp_path)
    x_max, p_max = 1.5**0.5, 2**0.5
    expected = [[x_max, 0, -p_max, 0, 0, 1, 0], [0, 0, p_max, 0, 1, 0, 1], [x_max, 0, 0, 0, 0, 0, 0]]
    assert scaled_matrix(test, tmp_path) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("ranked", [[], ["numbers"]])
def test_small_differences_of_large_numbers_are_not_lost(ranked, tmp_path):
    """Such as total energies, dates in seconds and counters."""
    z = np.array([0.0, 1.0, 0.0, 1.0])
    train = numbers(-40518.5 + 2e-5 * z, 1e9 + z, 1e12 + 1000 * z, z)
    fit_scaling(train, tmp_path, ranked)
    scaled = scaled_matrix(train, tmp_path)
    assert scaled == pytest.approx(np.tile(scaled[:, 3:], 4), abs=1e-3)
    assert np.ptp(scaled[:, 3]) > 0.9


def test_categories_are_those_of_their_column_whatever_its_name(tmp_path):
    names = ["c", "c.npy", "numbers medians"]
    table = pd.DataFrame([["a", "p", "x"], ["b", "q", "x"]], columns=names)
    fit_scaling({"categories": table}, tmp_path)
    assert scaled_matrix({"categories": table}, tmp_path).tolist() == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 1]]


def test_of_many_categories_the_most_frequent_have_a_column_and_a_note_counts_the_others(
    tmp_path, monkeypatch
):
    """Of the two that are equally frequent it is the first one in the order of the alphabet."""
    monkeypatch.setattr(scaling, "MAX_CATEGORIES", 2)
    users, sites = ["u4", "u3", "u3", "u1", "u1", "u2", "u2", "u2"], ["x", "y"] * 4
    train = {"categories": pd.DataFrame({"user": users, "site": sites})}
    fit_scaling(train, tmp_path)
    scaled = scaled_matrix(train, tmp_path)[:, :2]
    assert scaled.tolist() == [[0, 0]] * 3 + [[1, 0]] * 2 + [[0, 1]] * 3
    assert read_notes(tmp_path) == ["user: only its 2 most frequent values are read, and not the other 2"]


def test_an_outlier_of_the_training_rows_is_clipped_and_huge_numbers_are_finite(tmp_path):
    """Among 100 equal numbers, another one is ten standard deviations from the mean."""
    train = numbers([0.0] * 100 + [1.0], [-3e38, 3e38] * 50 + [0.0])
    fit_scaling(train, tmp_path)
    scaled = scaled_matrix(train, tmp_path)
    assert scaled[-1] == pytest.approx([scaling.MAX_STANDARDISED, 0])
    assert np.abs(scaled[:, 1]).max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_are_those_of_scikit_learn_and_keep_the_precision(dtype, tmp_path):
    rng = np.random.default_rng(0)
    columns = rng.normal(size=500), rng.poisson(1, 500), rng.binomial(1, 0.01, 500), np.full(500, 3)
    train = np.column_stack(columns).astype(dtype)
    fit_scaling({"features": train}, tmp_path, ranked=["features"])
    scaled = scaled_matrix({"features": train}, tmp_path)
    expected = QuantileTransformer(n_quantiles=200).fit_transform(train)
    assert scaled == pytest.approx(expected, abs=1e-6)
    assert scaled.dtype == dtype


def test_ranks_end_at_the_training_range_and_a_missing_number_has_that_of_the_median(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "MAX_ROWS", 400)  # every third row
    x = np.arange(1000.0)
    x[5] = NAN
    fit_scaling(numbers(x, np.full(1000, NAN)), tmp_path, ranked=["numbers"])
    scaled = scaled_matrix(numbers([-1e9, 1e9, NAN, 250.0], [7.0, NAN, NAN, NAN]), tmp_path)
    expected = [[0, 0, 0, 0], [1, 0, 0, 1], [0.5, 0, 1, 1], [0.25, 0, 0, 1]]
    assert scaled == pytest.approx(np.array(expected), abs=0.01)


def test_blocks_are_scaled_apart_and_may_have_no_columns(tmp_path):
    table = pd.DataFrame(index=range(3))
    blocks = {"features": np.arange(3.0)[:, None], **numbers([1.0, 2.0, 3.0]), "categories": table}
    fit_scaling(blocks, tmp_path, ranked=["features"])
    scaled = scaled_blocks(blocks, tmp_path)
    assert [block.shape[1] for block in scaled.values()] == [1, 1, 0]
    assert scaled["features"][:, 0] == pytest.approx([0, 0.5, 1])
    assert scaled["numbers"].mean() == pytest.approx(0)
    fit_scaling({"categories": table}, tmp_path)
    assert scaled_matrix({"categories": table}, tmp_path).shape == (3, 0)
