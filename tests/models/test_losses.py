"""Losses, weights of classes and R-Drop's penalty against numbers computed by hand; losses of the user's."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import ConfigError
from models.jobs.plan import code_files
from models.registry import make_stage
from models.targets import with_bounds
from models.training.losses import LINKS, LabelBatch, exclude_absent_classes, load_loss
from tests.models import made

NAN = float("nan")


def labels(y, weights=1.0, sides=0.0):
    truth = torch.tensor(y)
    is_labelled = ~torch.isnan(truth)
    return LabelBatch(
        torch.nan_to_num(truth), torch.tensor(weights) * is_labelled, torch.tensor(sides) * is_labelled
    )


def mean_error(loss, outputs, batch):
    return loss.mean_error(torch.tensor(outputs), batch).item()


@pytest.mark.parametrize(
    ("y", "expected"), [([[0.0, NAN], [NAN, 1.0]], (1 + 9) / 2), ([[NAN, NAN], [NAN, NAN]], 0)]
)
def test_errors_are_averaged_over_the_labels_there_are(y, expected):
    assert mean_error(load_loss("mse"), [[1.0, 2.0], [3.0, 4.0]], labels(y)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", (0.25 + 9) / 2), ("mae", 1.75), ("huber", (0.125 + 2.5) / 2)]
)
def test_each_loss_of_the_settings_matches_its_name(name, expected):
    """Errors 0.5 and -3."""
    result = mean_error(load_loss(name), [[0.5], [-3.0]], labels([[0.0], [0.0]]))
    assert result == pytest.approx(expected)


def test_losses_of_classes_are_the_cross_entropy_of_the_labels_there_are():
    result = mean_error(load_loss(None, "multilabel"), [[2.0, 9.0]], labels([[1.0, NAN]]))
    assert result == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    log_p = np.log(np.exp([1.0, 2, 4]) / np.exp([1.0, 2, 4]).sum())
    logits, y = [[1.0, 2, 4], [9.0, 8, 7]], labels([[1.0], [NAN]])
    result = mean_error(load_loss(None, "multiclass"), logits, y)
    assert result == pytest.approx(-log_p[1], rel=1e-5)


def test_weights_multiply_errors_and_do_not_cancel_out():
    """A batch of light rows alone must pull lightly."""
    loss = load_loss("mse")
    assert mean_error(loss, [[1.0], [2.0]], labels([[0.0], [0.0]], [[1.0], [0.1]])) == pytest.approx(1.4 / 2)
    assert mean_error(loss, [[2.0]], labels([[0.0]], [[0.1]])) == pytest.approx(0.4)


def penalty(loss, one, other, weights):
    batch = labels(np.zeros_like(weights).tolist(), weights)
    return loss.mean_penalty(torch.tensor(one), torch.tensor(other), batch).item()


@pytest.mark.parametrize(("weights", "expected"), [([[1.0], [1.0]], (0.25 + 4) / 2), ([[0.0], [2.0]], 4)])
def test_the_r_drop_penalty_of_numbers_is_their_mean_squared_difference_where_labels_are(weights, expected):
    result = penalty(load_loss("mse"), [[1.0], [2.0]], [[1.5], [0.0]], weights)
    assert result == pytest.approx(expected)


def both_kls(p, q):
    """Half of KL(p, q) + KL(q, p)."""
    return ((p - q) * np.log(p / q)).sum(axis=-1) / 2


def test_the_r_drop_penalty_of_classes_is_half_of_both_kls_where_labels_are():
    one, other = np.array([[0.5, 0.5, 3.0]] * 2), np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 3.0]])
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in (one, other))
    several = load_loss(None, "multiclass")
    assert penalty(several, one, other, [[1.0], [0.5]]) == pytest.approx(both_kls(p, q).mean(), rel=1e-5)
    # Of three targets of two classes each, of which one has a label.
    p, q = (1 / (1 + np.exp([-logits[1, 1], logits[1, 1]])) for logits in (one, other))
    result = penalty(load_loss(None, "multilabel"), one, other, [[0.0, 0, 0], [0, 1, 0]])
    assert result == pytest.approx(3 * both_kls(p, q), rel=1e-5)


def test_a_class_without_training_rows_has_the_probability_0_and_one_alone_the_probability_1():
    logits = torch.tensor([[5.0, 1.0, 2.0]], dtype=torch.float64)
    assert LINKS["multiclass"](exclude_absent_classes(logits, [[1]]))[0].tolist() == [0, 1, 0]
    result = LINKS["multilabel"](exclude_absent_classes(logits, [[0, 1], [0], [1]]))
    assert result[0].tolist() == [pytest.approx(1 / (1 + math.exp(-5))), 0, 1]


MINE = """
wrong = lambda outputs, y: 1 - outputs.softmax(1).gather(1, y.long())
mean = lambda outputs, y: (outputs - y).mean()
bad = lambda outputs, y: c
"""


def test_a_loss_of_the_users_sees_logits_and_numbers_of_classes_and_keeps_their_link(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    loss = load_loss(f"{tmp_path}/mine.py:wrong", "multiclass")
    assert mean_error(loss, [[0.0] * 4] * 2, labels([[3.0], [0.0]])) == pytest.approx(0.75)
    assert loss.link is LINKS["multiclass"]
    for name, message in (
        ("mean", "error per label"),
        ("bad", r"mine\.py:bad must .*NameError in line 4: name 'c'"),
    ):
        with pytest.raises(ConfigError, match=message):
            mean_error(load_loss(f"{tmp_path}/mine.py:{name}"), [[1.0]], labels([[0.0]]))


def test_the_content_of_a_users_loss_is_in_the_key_of_a_job(tmp_path):
    stage, keys = make_stage({"kind": "gnn", "loss": f"{tmp_path}/mine.py:wrong"}), []
    for code in (MINE, MINE, MINE.replace("1 - ", "2 - ")):
        (tmp_path / "mine.py").write_text(code)
        keys.append(code_files(stage, made.context(Path("unused"))))
    assert keys[0] == keys[1] != keys[2]


def test_a_bound_has_an_error_only_on_its_wrong_side():
    """y > 1 with outputs 0 and 3, y < 1 with outputs 0 and 3, a label of 1 with output 3, a missing label."""
    outputs = [[0.0], [3.0], [0.0], [3.0], [3.0], [9.0]]
    batch = labels([[1.0]] * 5 + [[NAN]], sides=[[1.0], [1], [-1], [-1], [0], [0]])
    assert mean_error(load_loss("mse"), outputs, batch) == pytest.approx((1 + 0 + 0 + 4 + 4) / 5)
    assert mean_error(load_loss("mae"), outputs, batch) == pytest.approx((1 + 0 + 0 + 2 + 2) / 5)


def test_the_bounds_of_censored_labels_take_their_places():
    y = np.array([[1.0, NAN], [NAN, NAN]])
    bounds = np.array([[[NAN, NAN], [5, NAN]], [[NAN, -2], [NAN, NAN]]])
    labels_with_bounds, sides = with_bounds(y, bounds)
    np.testing.assert_array_equal(labels_with_bounds, [[1, 5], [-2, NAN]])
    np.testing.assert_array_equal(sides, [[0, 1], [-1, 0]])
