"""The Gaussian process: its kernels, its regression against scikit-learn, and the stage."""

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from scipy.sparse import csr_array
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from core.errors import ConfigError
from models.inputs.fingerprints import GENERATORS, load_fingerprints, minmax_kernel, molecule_features
from models.stages import gp, gp_regression
from models.stages.gp import Gp
from models.stages.gp_regression import calibrate, cholesky_factor, decompose, fit_target, latent_variance
from tests.models.made import context, fitted, rows

CHAINS = [f"{'C' * n}{end}" for n in range(1, 13) for end in ("", "O", "N", "Cl")]
RNG = np.random.default_rng(0)


def gaussian_kernel(x, others):
    return np.exp(-((x[:, None] - others) ** 2))


def fit(folder, train, config=None, **columns):
    settings = Gp.model_validate({"kind": "gp", **(config or {})})
    return fitted(settings, context(folder, **columns), train, folder)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_minmax_kernel_of_counts_is_the_tanimoto_similarity_of_rdkit(name, tmp_path):
    smiles = ["CCO", "CCCCCCCC", "c1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "C", "OCCO"]
    fingerprints = load_fingerprints(molecule_features([name], 0, tmp_path)[0], smiles)
    counts = [GENERATORS[name].GetSparseCountFingerprint(Chem.MolFromSmiles(each)) for each in smiles]
    expected = [[DataStructs.TanimotoSimilarity(a, b) for b in counts] for a in counts[:3]]
    np.testing.assert_allclose(minmax_kernel(fingerprints[:3], fingerprints), expected, rtol=1e-12)


def test_the_minmax_kernel_of_two_molecules_without_environments_is_1_and_of_one_0():
    """By hand: minima 1 + 2, maxima 3 + 2 + 4 for the others."""
    fingerprints = csr_array(([3, 2, 1, 4, 2], [7, 9, 7, 8, 9], [0, 2, 5, 5]), shape=(3, 2**32))
    expected = [[1, 3 / 9, 0], [3 / 9, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(minmax_kernel(fingerprints, fingerprints), expected, rtol=1e-15)


def test_the_gaussian_process_is_that_of_scikit_learn():
    """Mean, and standard deviation of the function without noise, for the same mean of the labels."""
    x = RNG.normal(size=55)
    y = np.sin(3 * x[:40]) + 0.1 * RNG.normal(size=40) + 5
    weights = RNG.uniform(0.5, 2, 40)
    kernel = gaussian_kernel(x, x)
    own = kernel[:40, :40]
    fit = fit_target(decompose(own.copy(), weights), y)

    def similarity(a, b, **_):
        return float(kernel[int(a[0]), int(b[0])])

    numbers = np.arange(55)[:, None]
    reference = GaussianProcessRegressor(
        PairwiseKernel(metric=similarity), alpha=fit.noise / weights, optimizer=None
    ).fit(numbers[:40], y - fit.mean)
    mean, std = reference.predict(numbers[40:], return_std=True)
    np.testing.assert_allclose(kernel[40:, :40] @ fit.coefficients, mean, atol=1e-8)
    variance = latent_variance(cholesky_factor(own.copy(), fit.noise, weights), kernel[40:, :40])
    np.testing.assert_allclose(np.sqrt(variance), std, atol=1e-8)


def test_leave_one_out_predictions_are_those_of_refits_without_the_row(
    monkeypatch,
):
    x = RNG.normal(size=25)
    y, weights = np.sin(3 * x) + 0.2 * RNG.normal(size=25), RNG.uniform(0.5, 2, 25)
    kernel = gaussian_kernel(x, x)
    fit = fit_target(decompose(kernel.copy(), weights), y)
    monkeypatch.setattr(gp_regression, "NOISES", np.array([fit.noise]))
    refits = []
    for i in range(25):
        others = np.arange(25) != i
        refit = fit_target(decompose(kernel[np.ix_(others, others)].copy(), weights[others]), y[others])
        refits.append(refit.mean + kernel[i, others] @ refit.coefficients)
    np.testing.assert_allclose(fit.leave_one_out, refits, atol=1e-9)


def test_a_calibration_without_information_is_the_share_of_the_class():
    """Leave-one-out means are lower for rows of the class: the slope would be negative."""
    y = (np.arange(50) < 10).astype(float)
    means = (y.sum() - y) / 49
    slope, intercepts = calibrate(np.c_[1 - means, means], np.c_[1 - y, y], np.ones(50))
    assert slope == 0
    assert 1 / (1 + np.exp(intercepts[0] - intercepts[1])) == pytest.approx(0.2, abs=1e-4)


def test_constant_labels_are_predicted_without_a_standard_deviation(tmp_path):
    stage, test = fit(tmp_path, rows([3.0] * 20, s=CHAINS[:20]), smiles=["s"]), rows(s=["CCBr"])
    assert stage.predict(test, tmp_path).item() == pytest.approx(3)
    assert stage.predict_std(test, tmp_path).item() == pytest.approx(0)


def test_two_labelled_rows_are_enough_and_no_prediction_is_beyond_the_labels(tmp_path):
    stage = fit(tmp_path, rows([1.0, 3.0, *[np.nan] * 18], s=CHAINS[:20]), smiles=["s"])
    y_pred = stage.predict(rows(s=CHAINS), tmp_path)
    assert 1 - 1e-6 < y_pred.min() < y_pred.max() < 3 + 1e-6


def test_numbers_and_categories_have_a_kernel_of_their_own(tmp_path):
    x, site = np.tile(np.linspace(0, 1, 20), 2), np.repeat(["a", "b"], 20)
    train = rows(np.sin(4 * x) + 2.0 * (site == "b"), x=x, site=site)
    stage = fit(tmp_path, train, {"kernels": []}, numeric=["x"], categorical=["site"])
    y_pred = stage.predict(rows(x=[0.3, 0.3, np.nan], site=["a", "b", "unseen"]), tmp_path)
    assert y_pred[:2, 0] == pytest.approx([np.sin(1.2), np.sin(1.2) + 2], abs=0.05)


def test_standard_deviations_cover_the_labels_of_new_rows(tmp_path, monkeypatch):
    """Labels with noise of .5: about 68 and 95 % are within one and two standard deviations."""
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 1, 600)
    y = np.sin(6 * x) + 0.5 * rng.normal(size=600)
    stage = fit(tmp_path, rows(y[:200], x=x[:200]), {"kernels": []}, numeric=["x"])
    test = rows(x=x[200:])
    errors = np.abs(stage.predict(test, tmp_path)[:, 0] - y[200:])
    std = stage.predict_std(test, tmp_path)[:, 0]
    assert 0.6 < (errors < std).mean() < 0.76
    assert 0.92 < (errors < 2 * std).mean() < 0.98
    monkeypatch.setattr(gp, "BLOCK_ROWS", 150)
    assert stage.predict_std(test, tmp_path)[:, 0] == pytest.approx(std)


@pytest.mark.parametrize(
    ("columns", "kernels", "message"),
    [
        ({"numeric": ["x"]}, ["ecfp4"], "ecfp4 need a column of competition.smiles, which is empty"),
        ({"smiles": ["s"]}, [], r"kernels: \[\] uses the numbers and categories alone, and the comp"),
        ({"smiles": ["s"]}, ["ecfp4"], "Gaussian process of 2 training rows needs .* GiB of memory"),
    ],
)
def test_kernels_without_their_columns_and_too_many_rows_are_errors(
    columns, kernels, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(gp, "memory_bytes", lambda: 10)
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, rows([1.0, 2], x=[1.0, 2], s=["C", "CC"]), {"kernels": kernels}, **columns)
