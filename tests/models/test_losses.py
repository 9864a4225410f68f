"""Losses, weights of targets and R-Drop's penalty against numbers computed by hand."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from competition.errors import DataError
from models.settings import NeuralStage
from models.training.labels import target_scale
from models.training.losses import LOSSES, Labels, as_labels, r_drop_penalty, target_weights, training_loss

NAN = float("nan")


def labels(y: list[list[float]], weights: list[list[float]] | None = None) -> Labels:
    truth = torch.tensor(y)
    known = ~torch.isnan(truth)
    return Labels(torch.nan_to_num(truth), known.float() if weights is None else torch.tensor(weights) * known)


def test_errors_are_averaged_over_the_labels_there_are() -> None:
    y_pred = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = training_loss("mse", y_pred, labels([[0.0, NAN], [NAN, 1.0]]))
    assert loss.item() == pytest.approx((1 + 9) / 2)
    loss.backward()
    assert y_pred.grad is not None
    assert y_pred.grad.tolist() == [[1.0, 0.0], [0.0, 3.0]]


def test_a_batch_without_labels_is_zero_and_pulls_nowhere() -> None:
    y_pred = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = training_loss("mse", y_pred, labels([[NAN, NAN]]))
    loss.backward()
    assert loss.item() == 0
    assert y_pred.grad is not None
    assert y_pred.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Errors 0.5 and -3: squares .25 and 9; Huber .125 and 3 - .5.
    [("mse", 4.625), ("mae", 1.75), ("huber", (0.125 + 2.5) / 2), ("weighted_mae", 1.75)],
)
def test_each_loss_is_what_its_name_says(kind: str, expected: float) -> None:
    assert training_loss(kind, torch.tensor([[0.5], [-3.0]]), labels([[0.0], [0.0]])).item() == pytest.approx(expected)


def test_every_loss_of_the_settings_has_its_own_function_and_no_other_name_trains() -> None:
    assert set(LOSSES) == set(get_args(NeuralStage.model_fields["loss"].annotation))
    with pytest.raises(KeyError, match="log_cosh"):
        training_loss("log_cosh", torch.tensor([[0.5]]), labels([[0.0]]))


def test_the_gaussian_loss_is_the_negative_log_likelihood_up_to_a_constant() -> None:
    variance = 0.25
    raw = 7 * math.atanh(math.log(variance) / 7)
    loss = training_loss("gaussian", torch.tensor([[1.0, raw]]), labels([[2.0]]))
    assert loss.item() == pytest.approx(0.5 * (math.log(variance) + 1 / variance), rel=1e-5)


def test_weights_multiply_errors_and_do_not_cancel_out() -> None:
    y_pred = torch.tensor([[1.0], [2.0]])
    loss = training_loss("mse", y_pred, labels([[0.0], [0.0]], [[1.0], [0.1]]))
    assert loss.item() == pytest.approx((1 + 0.1 * 4) / 2)
    # A batch of light rows alone must pull lightly.
    assert training_loss("mse", y_pred[1:], labels([[0.0]], [[0.1]])).item() == pytest.approx(0.4)


def test_weighted_mae_weighs_targets_by_range_and_root_of_labels_in_their_own_units() -> None:
    y = np.array([[0.0, 0.0], [10.0, 100.0], [NAN, 50.0], [NAN, 50.0]])
    weights = target_weights("weighted_mae", y)
    scale = target_scale(y)[1]
    # In own units the weight is proportional to 1 / (range * sqrt(n)): 1 / (10 * sqrt 2) and 1 / (100 * 2).
    own = weights / scale
    assert own[0] / own[1] == pytest.approx(200 / (10 * math.sqrt(2)))
    assert weights.mean() == pytest.approx(1)
    assert target_weights("mae", y).tolist() == [1, 1]


def test_the_r_drop_penalty_of_numbers_is_their_mean_squared_difference() -> None:
    one, other = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [0.0]])
    assert r_drop_penalty("mse", one, other, known([[1.0], [1.0]])).item() == pytest.approx((0.25 + 4) / 2)
    assert r_drop_penalty("mse", one, other, known([[0.0], [2.0]])).item() == pytest.approx(4)  # only where labels are


def known(weights: list[list[float]]) -> Labels:
    return Labels(torch.zeros(len(weights), len(weights[0])), torch.tensor(weights))


def kl(mean: float, variance: float, other_mean: float, other_variance: float) -> float:
    return 0.5 * (
        math.log(other_variance / variance) + (variance + (mean - other_mean) ** 2) / other_variance - 1
    )  # fmt: skip


def gaussian(mean: float, variance: float) -> Tensor:
    return torch.tensor([[mean, 7 * math.atanh(math.log(variance) / 7)]])


def test_the_r_drop_penalty_of_distributions_is_the_symmetric_kl() -> None:
    one, other, labels = gaussian(1.0, 0.5), gaussian(2.0, 2.0), known([[1.0]])
    found = r_drop_penalty("gaussian", one, other, labels).item()
    assert found == pytest.approx((kl(1, 0.5, 2, 2) + kl(2, 2, 1, 0.5)) / 2, rel=1e-4)
    assert r_drop_penalty("gaussian", gaussian(1.0, 0.5), gaussian(1.0, 0.5), known([[1.0]])).item() == pytest.approx(
        0, abs=1e-6
    )


def test_standardised_labels_have_mean_zero_and_spread_one_and_zero_weight_where_missing() -> None:
    y = np.array([[1.0, 5.0], [3.0, NAN], [NAN, 5.0]])
    mean, scale = target_scale(y)
    assert (mean.tolist(), scale.tolist()) == ([2.0, 5.0], [1.0, 1.0])
    found = as_labels(y, np.array([1.0, 0.5, 1.0]), np.array([1.0, 2.0]), mean, scale)
    assert found.y.tolist() == [[-1, 0], [1, 0], [0, 0]]
    assert found.weights.tolist() == [[1, 2], [0.5, 0], [0, 2]]


def test_a_target_without_any_label_is_a_data_error_that_says_which() -> None:
    with pytest.raises(DataError, match="target number 2"):
        target_scale(np.array([[1.0, NAN], [3.0, NAN]]))
