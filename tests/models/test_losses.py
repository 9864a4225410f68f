"""Losses, weights of classes and R-Drop's penalty against numbers computed by hand; losses of the user's."""

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from chemprop.nn.metrics import BoundedMAE, BoundedMSE
from sklearn.utils.class_weight import compute_sample_weight

from core.errors import ConfigError
from models.training.labels import balanced_weights, with_bounds
from models.training.losses import LINKS, LOSSES, LabelBatch, Loss, exclude_absent_classes, load_loss
from models.training.settings import LossName

NAN = float("nan")


def labels(y: list[list[float]], weights: list[list[float]] | None = None) -> LabelBatch:
    truth = torch.tensor(y)
    is_labelled = ~torch.isnan(truth)
    return LabelBatch(
        torch.nan_to_num(truth),
        is_labelled.float() if weights is None else torch.tensor(weights) * is_labelled,
        torch.zeros_like(truth),
    )


@pytest.mark.parametrize(
    ("y", "loss", "gradient"),
    [
        ([[0.0, NAN], [NAN, 1.0]], (1 + 9) / 2, [[1.0, 0.0], [0.0, 3.0]]),
        ([[NAN, NAN], [NAN, NAN]], 0, [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_errors_are_averaged_over_the_labels_there_are(
    y: list[list[float]], loss: float, gradient: object
) -> None:
    y_pred = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    result = load_loss("mse").mean_error(y_pred, labels(y))
    result.backward()
    assert result.item() == pytest.approx(loss)
    assert y_pred.grad is not None and y_pred.grad.tolist() == gradient


def test_each_loss_of_the_settings_matches_its_name() -> None:
    # Errors 0.5 and -3: squares .25 and 9; Huber .125 and 3 - .5.
    expected = {"mse": 4.625, "mae": 1.75, "huber": (0.125 + 2.5) / 2}
    assert {*expected, "bce", "cross_entropy"} == set(LOSSES) == set(get_args(LossName))
    for name, loss in expected.items():
        result = load_loss(name).mean_error(torch.tensor([[0.5], [-3.0]]), labels([[0.0], [0.0]]))
        assert result.item() == pytest.approx(loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_of_classes_are_the_cross_entropy_of_the_labels_there_are(smoothing: float) -> None:
    # Of two classes a label is p or 1 - p; smoothing moves it towards a half by half of it.
    p, target = 1 / (1 + np.exp([-2.0, 0.5])), np.array([1 - smoothing / 2, smoothing / 2])
    by_hand = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    loss = load_loss(None, "multilabel", smoothing)
    loss_of_labelled = loss.mean_error(
        torch.tensor([[2.0, 9.0], [9.0, -0.5]]), labels([[1.0, NAN], [NAN, 0.0]])
    )
    assert loss_of_labelled.item() == pytest.approx(by_hand, rel=1e-5)
    # Of three, smoothing spreads its share over all.
    p, target = np.exp([1.0, 2.0, 4.0]) / np.exp([1.0, 2.0, 4.0]).sum(), np.full(3, smoothing / 3)
    target[1] += 1 - smoothing
    loss, logits = load_loss(None, "multiclass", smoothing), torch.tensor([[1.0, 2.0, 4.0], [9.0, 8.0, 7.0]])
    loss_of_labelled = loss.mean_error(logits.requires_grad_(), labels([[1.0], [NAN]]))
    assert loss_of_labelled.item() == pytest.approx(-(target * np.log(p)).sum(), rel=1e-5)
    nothing = loss.mean_error(logits, labels([[NAN], [NAN]]))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_weights_multiply_errors_and_do_not_cancel_out() -> None:
    y_pred, loss = torch.tensor([[1.0], [2.0]]), load_loss("mse")
    assert loss.mean_error(y_pred, labels([[0.0], [0.0]], [[1.0], [0.1]])).item() == pytest.approx(1.4 / 2)
    # A batch of light rows alone must pull lightly.
    assert loss.mean_error(y_pred[1:], labels([[0.0]], [[0.1]])).item() == pytest.approx(0.4)


def test_balanced_weights_are_scikit_learns_for_each_target_and_give_its_classes_the_same_total() -> None:
    y = np.array([[0.0, 1.0], [0.0, NAN], [1.0, 0.0], [2.0, 1.0], [2.0, 1.0]])
    result, labelled_rows = balanced_weights(y), [0, 2, 3, 4]
    assert result[:, 0] == pytest.approx(compute_sample_weight("balanced", y[:, 0]))
    assert result[labelled_rows, 1] == pytest.approx(compute_sample_weight("balanced", y[labelled_rows, 1]))
    assert result[1, 1] == 0
    assert (balanced_weights(y * NAN) == 0).all()
    rows = np.array(
        [[1.0], [2.0], [3.0], [4.0], [5.0]]
    )  # of 15 in all a third for each class, shared by weight
    assert balanced_weights(y, rows)[:, 0] == pytest.approx([5 / 3, 10 / 3, 5, 20 / 9, 25 / 9])


def penalty(loss: Loss, one: Any, other: Any, weights: object) -> float:
    y = torch.tensor(weights)
    return loss.mean_penalty(
        torch.tensor(one), torch.tensor(other), LabelBatch(torch.zeros_like(y), y, torch.zeros_like(y))
    ).item()


@pytest.mark.parametrize(("weights", "expected"), [([[1.0], [1.0]], (0.25 + 4) / 2), ([[0.0], [2.0]], 4)])
def test_the_r_drop_penalty_of_numbers_is_their_mean_squared_difference(
    weights: object, expected: float
) -> None:
    result = penalty(load_loss("mse"), [[1.0], [2.0]], [[1.5], [0.0]], weights)
    assert result == pytest.approx(expected)  # only where labels are


def kl(p: Any, q: Any) -> Any:
    return (p * np.log(p / q)).sum(axis=-1)


def test_the_r_drop_penalty_of_classes_is_half_of_both_kls_where_labels_are() -> None:
    one, other = np.array([[1.0, 0.0, -2.0], [0.5, 0.5, 3.0]]), np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 3.0]])
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in (one, other))
    by_hand, several = (kl(p, q) + kl(q, p)) / 2, load_loss(None, "multiclass")
    assert penalty(several, one, other, [[1.0], [0.5]]) == pytest.approx(by_hand.mean(), rel=1e-5)
    assert penalty(several, one, other, [[0.0], [1.0]]) == pytest.approx(by_hand[1], rel=1e-5)
    # Of three targets of two classes each: the sum over them.
    p, q = (
        np.stack([1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))], axis=-1) for logits in (one, other)
    )
    by_hand, of_two = (kl(p, q) + kl(q, p)) / 2, load_loss(None, "multilabel")
    assert penalty(of_two, one, other, [[1.0] * 3] * 2) == pytest.approx(by_hand.sum(axis=1).mean(), rel=1e-5)
    assert penalty(of_two, one, other, [[0.0, 1, 0], [0, 0, 0]]) == pytest.approx(3 * by_hand[0, 1], rel=1e-5)


def test_a_class_without_training_rows_has_the_probability_0_and_one_alone_the_probability_1() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0]], dtype=torch.float64)
    result = LINKS["multiclass"](exclude_absent_classes(logits, [[1, 2]]))
    assert result[0].tolist() == pytest.approx([0, 1 / (1 + math.e), math.e / (1 + math.e)])
    assert LINKS["multiclass"](exclude_absent_classes(logits, [[1]]))[0].tolist() == [0, 1, 0]
    result = LINKS["multilabel"](exclude_absent_classes(logits, [[0, 1], [0], [1]]))
    assert result[0].tolist() == [pytest.approx(1 / (1 + math.exp(-5))), 0, 1]


def test_a_loss_of_the_users_sees_logits_and_numbers_of_classes_and_keeps_their_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def wrong(outputs, y):\n    return 1 - outputs.softmax(1).gather(1, y.long())\n")
    loss = load_loss(f"{mine}:wrong", "multiclass")
    assert loss.mean_error(torch.zeros(2, 4), labels([[3.0], [0.0]])).item() == pytest.approx(0.75)
    assert loss.link is LINKS["multiclass"]
    one = labels([[0.0], [1.0]])  # and it gives the error of each label
    mine.write_text(
        "cubed = lambda a, b: (a - b).abs() ** 3\nmean = lambda a, b: cubed(a, b).mean()\nbad = lambda a, "
        "b: c\n"
    )
    loss = load_loss(f"{mine}:cubed").mean_error(torch.tensor([[1.0], [3.0]]), one)
    assert loss.item() == pytest.approx((1 + 8) / 2)
    with pytest.raises(ConfigError, match="error per label"):
        load_loss(f"{mine}:mean").mean_error(torch.tensor([[1.0], [3.0]]), one)
    with pytest.raises(ConfigError, match=r"mine\.py:bad must .*NameError in line 3: name 'c'"):
        load_loss(f"{mine}:bad").mean_error(torch.tensor([[1.0], [3.0]]), one)


def test_a_bound_has_an_error_only_on_its_wrong_side_as_in_chemprop() -> None:
    # y > 1 with outputs 0 and 3, y < 1 with outputs 0 and 3, a label of 1 with output 3, a missing label.
    outputs = torch.tensor([[0.0], [3.0], [0.0], [3.0], [3.0], [9.0]], requires_grad=True)
    y, weights = torch.ones(6, 1), torch.tensor([[1.0], [1], [1], [1], [1], [0]])
    sides = torch.tensor([[1.0], [1], [-1], [-1], [0], [0]])
    batch = LabelBatch(y, weights, sides)
    loss = load_loss("mse").mean_error(outputs, batch)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 0 + 0 + 4 + 4) / 5)
    assert outputs.grad is not None
    assert outputs.grad[:, 0].tolist() == pytest.approx([-0.4, 0, 0, 0.8, 0.8, 0])
    assert load_loss("mae").mean_error(outputs, batch).item() == pytest.approx((1 + 0 + 0 + 2 + 2) / 5)
    for name, theirs in (("mse", BoundedMSE()), ("mae", BoundedMAE())):
        masks = (weights > 0, torch.ones(6), sides < 0, sides > 0)
        assert load_loss(name).mean_error(outputs, batch).item() == pytest.approx(
            theirs(outputs, y, *masks).item()
        )


def test_parts_of_a_batch_keep_their_bounds() -> None:
    batch = LabelBatch(torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([[1.0], [0.0], [-1.0]]))
    part = batch.take(np.array([2, 0]), torch.device("cpu"))
    assert part.sides[:, 0].tolist() == [-1, 1]


def test_the_bounds_of_censored_labels_take_their_places() -> None:
    y = np.array([[1.0, NAN], [NAN, NAN]])
    bounds = np.array([[[NAN, NAN], [5, NAN]], [[NAN, -2], [NAN, NAN]]])
    labels_with_bounds, sides = with_bounds(y, bounds)
    np.testing.assert_array_equal(labels_with_bounds, [[1, 5], [-2, NAN]])
    np.testing.assert_array_equal(sides, [[0, 1], [-1, 0]])
