"""The Gaussian process: its kernels, its regression against scikit-learn, and the stage."""

from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from scipy.optimize import approx_fprime
from scipy.sparse import csr_array
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from competition.task import Task
from core.errors import ConfigError
from models.inputs.fingerprints import GENERATORS, load_fingerprints, minmax_kernel, molecule_features
from models.stages import gp, gp_regression
from models.stages.gp import Gp, Inputs, load_model
from models.stages.gp_regression import (
    calibrate,
    cholesky_factor,
    fit_columns,
    fit_target,
    latent_variance,
    leave_one_group_out,
    minus_log_likelihood,
    weighted_sum,
)
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
    fit = fit_target(cholesky_factor(own.copy(), 0.05, weights), y)

    def similarity(a, b, **_):
        return float(kernel[int(a[0]), int(b[0])])

    numbers = np.arange(55)[:, None]
    reference = GaussianProcessRegressor(
        PairwiseKernel(metric=similarity), alpha=0.05 / weights, optimizer=None
    ).fit(numbers[:40], y - fit.mean)
    mean, std = reference.predict(numbers[40:], return_std=True)
    np.testing.assert_allclose(kernel[40:, :40] @ fit.coefficients, mean, atol=1e-8)
    variance = latent_variance(cholesky_factor(own.copy(), 0.05, weights), kernel[40:, :40])
    np.testing.assert_allclose(np.sqrt(variance), std, atol=1e-8)


@pytest.mark.parametrize(
    "groups", [np.arange(25), np.arange(25) // 2, np.repeat([4, 0, 9], [1, 4, 20]), [7] * 25]
)
def test_predictions_of_left_out_groups_are_those_of_refits_without_them(groups):
    """Or without each row, if all are one group."""
    groups = np.array(groups)
    left_out = groups if len(set(groups)) > 1 else np.arange(25)
    x = RNG.normal(size=25)
    y, weights = np.sin(3 * x) + 0.2 * RNG.normal(size=25), RNG.uniform(0.5, 2, 25)
    kernel = gaussian_kernel(x, x)
    lower = cholesky_factor(kernel.copy(), 0.1, weights)
    refits = []
    for i in range(25):
        others = left_out != left_out[i]
        own = kernel[np.ix_(others, others)]
        refit = fit_target(cholesky_factor(own, 0.1, weights[others]), y[others])
        refits.append(refit.mean + kernel[i, others] @ refit.coefficients)
    of_formula = leave_one_group_out(fit_target(lower, y), lower, y, groups)
    np.testing.assert_allclose(of_formula, refits, atol=1e-9)


def test_the_gradient_of_the_marginal_likelihood_is_that_of_finite_differences():
    x = RNG.normal(size=(40, 3))
    kernels = [gaussian_kernel(column, column) for column in x.T]
    y, weights = np.sin(x[:, 0]) + x[:, 1] + 7, RNG.uniform(0.5, 2, 40)
    parameters = np.array([0.4, -0.7, 1.1, -1.5])
    expected = approx_fprime(parameters, lambda at: minus_log_likelihood(at, kernels, y, weights)[0], 1e-6)
    np.testing.assert_allclose(minus_log_likelihood(parameters, kernels, y, weights)[1], expected, rtol=1e-4)


def test_weights_and_noise_are_those_of_the_labels_that_are_used(monkeypatch):
    """The second of three kernels made the labels, with noise of .15 on average, and of .04 on the rows that choose
    the weights. Labels of rows with weight 0 have no part."""
    monkeypatch.setattr(gp_regression, "WEIGHT_ROWS", 150)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3))
    kernels = [gaussian_kernel(column, column) for column in x.T]
    function = rng.multivariate_normal(np.zeros(300), kernels[1])
    y = (function + np.tile([0.2, 0.5], 150) * rng.normal(size=300))[:, None]
    row_weights = np.where(np.arange(300) < 250, 1.0, 0.0)[:, None]

    def fit():
        return fit_columns(kernels, y, row_weights, lambda done, total: None, np.arange(300))

    fitted = fit()
    assert fitted["kernel_weights"][1, 0] > 0.8
    assert 0.1 < (fitted["noise"] * fitted["variance"]).item() < 0.2
    rows = np.arange(250)
    kernel = weighted_sum(kernels, fitted["kernel_weights"][:, 0], rows, rows)
    likelihoods = []
    for factor in (0.7, 1, 1.4):
        lower = cholesky_factor(kernel.copy(), factor * fitted["noise"].item(), np.ones(250))
        likelihoods.append(fit_target(lower, y[:250, 0]).log_likelihood)
    assert np.argmax(likelihoods) == 1
    y[250:] = 1e6
    for name, values in fit().items():
        np.testing.assert_array_equal(values, fitted[name], name)


def test_a_calibration_without_information_is_the_share_of_the_class():
    """Leave-one-out means are lower for rows of the class: the slope would be negative."""
    y = (np.arange(50) < 10).astype(float)
    means = (y.sum() - y) / 49
    slope, intercepts = calibrate(np.c_[1 - means, means], np.c_[1 - y, y], np.ones(50))
    assert slope == 0
    assert 1 / (1 + np.exp(intercepts[0] - intercepts[1])) == pytest.approx(0.2, abs=1e-4)


def test_probabilities_are_calibrated_on_groups_that_are_left_out_whole(tmp_path):
    """Both rows of a site have one random label, which the other row would give away."""
    y = np.repeat(np.arange(60) % 2, 2).astype(float)
    train = rows(y, site=np.repeat([f"s{k}" for k in range(60)], 2))
    task = Task(["y"], None, "binary", ["no", "yes"])
    slopes = []
    for name, groups in (("rows", None), ("groups", np.repeat(np.arange(60), 2))):
        given = replace(train, groups=groups)
        fit(tmp_path / name, given, {"kernels": []}, categorical=["site"], task=task)
        slopes.append(load_model(tmp_path / name)[0]["slopes"].item())
    assert slopes[0] > 1 and slopes[1] == pytest.approx(0, abs=1e-6)


def test_constant_labels_are_predicted_without_a_standard_deviation(tmp_path):
    stage, test = fit(tmp_path, rows([3.0] * 20, s=CHAINS[:20]), smiles=["s"]), rows(s=["CCBr"])
    assert stage.predict(test, tmp_path).item() == pytest.approx(3)
    assert stage.predict_std(test, tmp_path).item() == pytest.approx(0)


def test_a_class_of_few_rows_is_among_the_rows_that_choose_the_kernels(monkeypatch):
    monkeypatch.setattr(gp_regression, "WEIGHT_ROWS", 10)
    chosen = []
    choose = gp_regression.choose_kernel_weights

    def noted(kernels, y, weights):
        chosen.append(y)
        return choose(kernels, y, weights)

    monkeypatch.setattr(gp_regression, "choose_kernel_weights", noted)
    y = np.zeros((100, 1))
    y[[7, 19, 33]] = 1  # every tenth row has none
    gp_regression.fit_columns([np.eye(100)], y, np.ones((100, 1)), lambda done, total: None)
    assert sorted(chosen[0]) == [0.0] * 9 + [1.0]


def test_conditions_may_act_differently_on_each_molecule(tmp_path):
    """Labels grow with the chain under one condition and fall under the other: no sum of two effects fits them."""
    molecules, sites = CHAINS * 2, np.repeat(["warm", "cold"], len(CHAINS))
    y = np.array([len(text) for text in molecules]) * np.where(sites == "warm", 1.0, -1.0)
    is_new = np.arange(len(y)) % 5 == 0
    columns = {"smiles": ["s"], "categorical": ["site"]}
    table = rows(y, s=molecules, site=sites)
    stage = fit(tmp_path, table.take(~is_new), {"kernels": ["ecfp4"]}, **columns)
    predicted = stage.predict(table.take(is_new).without_labels(), tmp_path)[:, 0]
    assert np.abs(predicted - y[is_new]).mean() < 0.3 * np.abs(y[is_new]).mean()


def test_kernels_of_encoders_are_multiplied_with_that_of_the_conditions_and_descriptors_are_not():
    """By hand: the median squared distance is 1 or 4 in each block, so that each kernel of the two rows is exp(-1)."""
    numbers = {
        "descriptors": np.array([[0.0], [1.0]]),
        "molecules": np.array([[0.0], [2.0]]),
        "numbers": np.array([[0.0], [1.0]]),
    }
    inputs = Inputs([], numbers)
    own = np.array([[1, np.exp(-1)], [np.exp(-1), 1]])
    np.testing.assert_allclose(inputs.kernels(inputs), [own, own, own, own**2])


def test_two_labelled_rows_are_enough_and_no_prediction_is_beyond_the_labels(tmp_path):
    stage = fit(tmp_path, rows([1.0, 3.0, *[np.nan] * 18], s=CHAINS[:20]), smiles=["s"])
    y_pred = stage.predict(rows(s=CHAINS), tmp_path)
    assert 1 - 1e-6 < y_pred.min() < y_pred.max() < 3 + 1e-6


def test_equal_rows_with_large_weights_are_fitted(tmp_path):
    train = rows([1.0, 2.0, 5.0] * 10, weights=np.full(30, 1e15), s=["C", "CC", "CCO"] * 10)
    stage = fit(tmp_path, train, smiles=["s"])
    test = rows(s=["C", "CC", "CCO"])
    assert stage.predict(test, tmp_path)[:, 0] == pytest.approx([1, 2, 5], abs=0.05)
    assert np.isfinite(stage.predict_std(test, tmp_path)).all()


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
