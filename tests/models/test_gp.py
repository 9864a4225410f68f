"""The Gaussian process: its kernels, its regression against scikit-learn, and the stage."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from scipy.sparse import csr_array
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError
from models.inputs.fingerprints import (
    GENERATORS,
    load_fingerprints,
    minmax_kernel,
    molecule_features,
)
from models.stages import gp, gp_regression
from models.stages.gp import Gp
from models.stages.gp_regression import calibrate, decompose, fit_target, latent_variance
from tests.models.made import context, fitted, rows

CHAINS = [f"{'C' * n}{end}" for n in range(1, 13) for end in ("", "O", "N", "Cl")]
LENGTHS = np.array([float(smiles.count("C") - smiles.count("Cl")) for smiles in CHAINS])
RNG = np.random.default_rng(0)


def gaussian_kernel(x: Any, others: Any) -> Any:
    return np.exp(-((x[:, None] - others) ** 2))


def fit(folder: Path, train: Dataset, task: Task | None = None, config: Any = None, **columns: Any) -> Any:
    settings = Gp.model_validate({"kind": "gp", **(config or {})})
    return fitted(settings, context(folder, task=task or Task(["y"]), **columns), train, folder)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_minmax_kernel_of_counts_is_the_tanimoto_similarity_of_rdkit(name: str, tmp_path: Path) -> None:
    smiles = ["CCO", "CCCCCCCC", "c1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "C", "OCCO"]
    fingerprints = load_fingerprints(molecule_features([name], 0, tmp_path)[0], smiles)
    kernel = minmax_kernel(fingerprints[:3], fingerprints)
    counts = [GENERATORS[name].GetSparseCountFingerprint(Chem.MolFromSmiles(each)) for each in smiles]
    expected = [[DataStructs.TanimotoSimilarity(a, b) for b in counts] for a in counts[:3]]
    np.testing.assert_allclose(kernel, expected, rtol=1e-12)


def test_the_minmax_kernel_of_two_molecules_without_environments_is_1_and_of_one_0() -> None:
    """By hand: minima 1 + 2, maxima 3 + 2 + 4 for the others."""
    fingerprints = csr_array(([3, 2, 1, 4, 2], [7, 9, 7, 8, 9], [0, 2, 5, 5]), shape=(3, 2**32))
    expected = [[1, 3 / 9, 0], [3 / 9, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(minmax_kernel(fingerprints, fingerprints), expected, rtol=1e-15)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_gaussian_process_is_that_of_scikit_learn(is_weighted: bool) -> None:
    """Mean, and standard deviation of the function without noise, for the same mean of the labels."""
    x, new = RNG.normal(size=40), RNG.normal(size=15)
    y = np.sin(3 * x) + 0.1 * RNG.normal(size=40) + 5
    weights = RNG.uniform(0.5, 2, 40) if is_weighted else np.ones(40)
    both = np.append(x, new)
    kernel = gaussian_kernel(both, both)
    fit = fit_target(decompose(kernel[:40, :40].copy(), weights), y)

    def similarity(a: Any, b: Any, **_: Any) -> float:
        return float(kernel[int(a[0]), int(b[0])])

    reference = GaussianProcessRegressor(
        PairwiseKernel(metric=similarity), alpha=fit.noise / weights, optimizer=None
    ).fit(np.arange(40)[:, None], y - fit.mean)
    mean, std = reference.predict(np.arange(40, 55)[:, None], return_std=True)
    np.testing.assert_allclose(fit.mean + kernel[40:, :40] @ fit.coefficients, mean + fit.mean, atol=1e-8)
    variance = latent_variance(kernel[:40, :40].copy(), kernel[40:, :40], fit.noise, weights)
    np.testing.assert_allclose(np.sqrt(variance), std, atol=1e-8)


def test_leave_one_out_predictions_are_those_of_refits_without_the_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = RNG.normal(size=25)
    y, weights = np.sin(3 * x) + 0.2 * RNG.normal(size=25), RNG.uniform(0.5, 2, 25)
    kernel = gaussian_kernel(x, x)
    fit = fit_target(decompose(kernel.copy(), weights), y)
    monkeypatch.setattr(gp_regression, "NOISES", np.array([fit.noise]))
    for i in range(25):
        others = np.arange(25) != i
        refit = fit_target(decompose(kernel[np.ix_(others, others)].copy(), weights[others]), y[others])
        assert refit.mean + kernel[i, others] @ refit.coefficients == pytest.approx(
            fit.leave_one_out[i], abs=1e-9
        )


def test_a_row_of_weight_2_is_two_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp_regression, "NOISES", np.array([0.1]))
    x, y = RNG.normal(size=20), RNG.normal(size=20)
    twice = np.append(np.arange(20), 3)
    weighted = fit_target(decompose(gaussian_kernel(x, x), np.where(np.arange(20) == 3, 2.0, 1.0)), y)
    repeated = fit_target(decompose(gaussian_kernel(x[twice], x[twice]), np.ones(21)), y[twice])
    predictions = [
        fit.mean + gaussian_kernel(np.linspace(-2, 2, 9), points) @ fit.coefficients
        for fit, points in ((weighted, x), (repeated, x[twice]))
    ]
    np.testing.assert_allclose(*predictions, atol=1e-9)


def test_a_calibration_without_information_is_the_share_of_the_class() -> None:
    """Leave-one-out means are lower for rows of the class: the slope would be negative."""
    y = (np.arange(50) < 10).astype(float)
    means = (y.sum() - y) / 49
    slope, intercepts = calibrate(np.c_[1 - means, means], np.c_[1 - y, y], np.ones(50))
    assert slope == 0
    assert 1 / (1 + np.exp(intercepts[0] - intercepts[1])) == pytest.approx(0.2, abs=1e-4)


def test_duplicates_with_other_labels_are_averaged_and_constant_labels_are_predicted(tmp_path: Path) -> None:
    smiles = CHAINS[:20] * 2
    y = np.append(LENGTHS[:20] - 1, LENGTHS[:20] + 1)
    stage = fit(tmp_path / "twice", rows(y, SMILES=smiles), smiles=["SMILES"])
    y_pred = stage.predict(rows(SMILES=CHAINS[:20]), tmp_path / "twice")
    assert np.abs(y_pred[:, 0] - LENGTHS[:20]).max() < 0.75
    stage = fit(tmp_path / "constant", rows(np.full(20, 3.0), SMILES=CHAINS[:20]), smiles=["SMILES"])
    test = rows(SMILES=["CCBr"])
    assert stage.predict(test, tmp_path / "constant").item() == pytest.approx(3)
    assert stage.predict_std(test, tmp_path / "constant").item() == pytest.approx(0)


def test_two_labelled_rows_are_enough(tmp_path: Path) -> None:
    y = np.full(20, np.nan)
    y[[2, 7]] = [1.0, 3.0]
    stage = fit(tmp_path, rows(y, SMILES=CHAINS[:20]), smiles=["SMILES"])
    y_pred = stage.predict(rows(SMILES=CHAINS), tmp_path)
    assert 1 - 1e-6 < y_pred.min() < y_pred.max() < 3 + 1e-6


def test_numbers_and_categories_have_a_kernel_of_their_own(tmp_path: Path) -> None:
    """The label is a function of both, and a missing number and an unseen category are predicted."""
    x = np.tile(np.linspace(0, 1, 20), 2)
    site = np.repeat(["a", "b"], 20)
    y = np.sin(4 * x) + 2.0 * (site == "b")
    stage = fit(tmp_path, rows(y, x=x, site=site), None, {"kernels": []}, numeric=["x"], categorical=["site"])
    y_pred = stage.predict(rows(x=[0.3, 0.3, np.nan, 0.3], site=["a", "b", "a", "c"]), tmp_path)[:, 0]
    assert y_pred[:2] == pytest.approx([np.sin(1.2), np.sin(1.2) + 2], abs=0.05)
    assert np.isfinite(y_pred).all()


def test_kernels_that_gain_nothing_get_no_weight(tmp_path: Path) -> None:
    """The label is a function of the molecule; the numbers are noise."""
    train = rows(LENGTHS, SMILES=CHAINS, x=RNG.normal(size=len(CHAINS)))
    fit(tmp_path, train, None, {"kernels": ["ecfp4"]}, smiles=["SMILES"], numeric=["x"])
    model, _ = gp.load_model(tmp_path)
    molecule_weight, number_weight = model["kernel_weights"][:, 0]
    assert molecule_weight >= 0.75
    assert molecule_weight + number_weight == 1


def test_targets_with_labels_in_the_same_rows_share_a_decomposition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()

    def counted(kernel: Any, weights: Any) -> Any:
        sizes.append(len(kernel))
        return decompose(kernel, weights)

    monkeypatch.setattr(gp_regression, "decompose", counted)
    y = np.c_[LENGTHS, 2 * LENGTHS, LENGTHS]
    y[:10, 2] = np.nan
    train = rows(y, SMILES=CHAINS)
    stage = fit(tmp_path, train, Task(["a", "b", "c"]), {"kernels": ["ecfp4"]}, smiles=["SMILES"])
    assert sizes == [48, 38]
    y_pred = stage.predict(train, tmp_path)
    np.testing.assert_allclose(y_pred[:, 1], 2 * y_pred[:, 0], rtol=1e-6)


def test_standard_deviations_cover_the_labels_of_new_rows(tmp_path: Path) -> None:
    """Labels with noise of .5: about 68 and 95 % are within one and two standard deviations."""
    x = RNG.uniform(0, 1, 600)
    y = np.sin(6 * x) + 0.5 * RNG.normal(size=600)
    stage = fit(tmp_path, rows(y[:200], x=x[:200]), None, {"kernels": []}, numeric=["x"])
    test = rows(x=x[200:])
    errors = np.abs(stage.predict(test, tmp_path)[:, 0] - y[200:])
    std = stage.predict_std(test, tmp_path)[:, 0]
    assert 0.6 < (errors < std).mean() < 0.76
    assert 0.92 < (errors < 2 * std).mean() < 0.98


def test_predictions_do_not_depend_on_the_size_of_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = fit(tmp_path, rows(LENGTHS, SMILES=CHAINS), smiles=["SMILES"])
    test = rows(SMILES=[f"{a}{b}" for a, b in itertools.product(("O=C", "N#C"), CHAINS[::5])])
    y_pred = stage.predict(test, tmp_path)
    monkeypatch.setattr(gp, "BLOCK_ROWS", 3)
    np.testing.assert_allclose(stage.predict(test, tmp_path), y_pred, rtol=1e-12)


def test_kernels_without_their_columns_and_too_many_rows_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"ecfp4, .* need a column of competition.smiles, which is empty"):
        fit(tmp_path, rows([1.0, 2], x=[1.0, 2]), numeric=["x"])
    with pytest.raises(
        ConfigError, match=r"kernels: \[\] uses the numbers and categories alone, and the comp"
    ):
        fit(tmp_path, rows([1.0, 2], SMILES=["C", "CC"]), None, {"kernels": []}, smiles=["SMILES"])
    monkeypatch.setattr(gp, "memory_bytes", lambda: 10_000)
    with pytest.raises(ConfigError, match=r"Gaussian process of 48 training rows needs .* GiB of memory"):
        fit(tmp_path, rows(LENGTHS, SMILES=CHAINS), smiles=["SMILES"])
