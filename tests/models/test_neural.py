"""What neural stages share, on message passing of width 16: columns before the head, extra rows, auxiliary targets,
bounds, several molecules; and published weights of message passing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from chemprop.nn import BondMessagePassing

from competition.task import Task
from core.errors import ConfigError
from core.files import read_json
from models.job_folder import read_notes
from models.stages.gnn import Gnn
from models.targets import require_auxiliary
from models.training.loss_log import read_losses
from tests.models import made

SMILES = [
    "CCO",
    "CCN",
    "CCC",
    "CCCl",
    "CCF",
    "CCCO",
    "CCCN",
    "CCCC",
    "c1ccccc1",
    "Cc1ccccc1",
    "CC(=O)O",
    "CC#N",
]
BINARY = Task(["y"], problem_type="binary", classes=["no", "yes"])


def stage(smiles="s", auxiliary=(), task=None, **changes):
    small = {"width": 16, "hidden_width": 16, "epochs": 2, "batch_size": 8}
    config = Gnn.model_validate({"kind": "gnn", **small, **changes})
    columns = {"numeric": ["x"], "categorical": ["k"]} if smiles == "s" else {}
    stage_context = made.context(Path("unused"), smiles=list(smiles), auxiliary=list(auxiliary), **columns)
    return made.build_stage(config, replace(stage_context, task=task or stage_context.task))


def rows(n=48):
    """The target is a number of the table and an effect of its category; the molecule says nothing."""
    rng = np.random.default_rng(0)
    x, k = rng.normal(300, 20, n), rng.choice(["a", "b"], n)
    return made.rows((x - 300) / 20 + np.where(k == "a", 2.0, -2.0), s=rng.choice(SMILES, n), x=x, k=k)


def fit(one, train, folder):
    folder.mkdir(exist_ok=True)
    one.fit(train, folder)
    return one


def weights_of(folder):
    return safetensors.torch.load_file(folder / "weights.safetensors")


@pytest.mark.parametrize("before_head", [True, False])
def test_numbers_and_categories_reach_the_head_if_configured(before_head, tmp_path):
    one = fit(stage(use_tabular_columns=before_head, epochs=1), rows(), tmp_path)
    test = made.rows(s=["CCO"] * 4, x=[300, 310, 300, np.nan], k=["a", "a", "b", "never seen"])
    y_pred = one.predict(test, tmp_path)
    assert len(set(y_pred[:, 0].round(5))) == (4 if before_head else 1)


def test_steps_are_reported_with_their_total(tmp_path):
    one = stage()
    steps: list[tuple[int, int]] = []
    one = replace(one, context=replace(one.context, progress=lambda *step: steps.append(step)))
    fit(one, rows(96), tmp_path)
    assert steps[:24] == [(step, 24) for step in range(1, 25)]  # of eight rows, in two epochs
    assert [row.step for row in read_losses(tmp_path)] == [12, 24]


def test_rows_with_auxiliary_labels_only_train_their_head_and_do_not_change_the_scale_of_the_target(tmp_path):
    """Extra rows with an auxiliary target of about 500 only. Of labels in other units the loss would be thousands."""
    both, is_extra = rows(144), np.arange(144) >= 48
    assay = np.where(is_extra, 500 + 20 * both.y[:, 0], np.nan)
    own = np.where(is_extra, np.nan, both.y[:, 0])
    train = replace(both, y=own[:, None], auxiliary=assay[:, None], extra=is_extra)
    one = fit(stage(auxiliary=("z",)), train, tmp_path)
    training = read_json(tmp_path / "training.json")
    assert training["mean"] == pytest.approx([np.nanmean(own), np.nanmean(assay)])
    assert training["scale"] == pytest.approx([np.nanstd(own), np.nanstd(assay)])
    assert max(row.loss for row in read_losses(tmp_path)) < 2
    assert one.predict(train, tmp_path).shape == (144, 1)


def test_an_auxiliary_target_without_labels_has_an_untrained_head_and_a_note(tmp_path):
    train = replace(rows(), y=np.arange(48.0)[:, None] % 2, auxiliary=np.full((48, 1), np.nan))
    one = stage(auxiliary=("z",), task=BINARY, epochs=1)
    before = one.prepare(train, tmp_path)[0].head.linear.weight[-1].tolist()
    one.fit(train, tmp_path)
    assert weights_of(tmp_path)["head.linear.weight"][-1].tolist() == before
    assert np.isfinite(one.predict(train, tmp_path)).all()
    note = "no training row has a label of the auxiliary targets z, so their heads are not trained"
    assert read_notes(tmp_path) == [note]


def test_weights_of_labels_are_those_of_rows_and_auxiliary_targets(tmp_path):
    y, auxiliary = np.array([[0.0], [0], [0], [1]]), np.array([[1.0], [0], [1], [np.nan]])
    train = replace(rows(4), y=y, auxiliary=auxiliary, weights=np.full(4, 0.5))

    def weights(**changes):
        return stage(auxiliary=("z",), **changes).prepare(train, tmp_path)[1].weights.tolist()

    assert weights(auxiliary_weight=0.3) == [[0.5, 0.15]] * 4
    assert weights(auxiliary_weight=0.0) == [[0.5]] * 4


def test_auxiliary_targets_together_with_classes_must_be_labels_of_two_classes():
    message = "auxiliary_targets must be 0 or 1 in classification, and z has.*set auxiliary_weight: 0"
    with pytest.raises(ConfigError, match=message):
        require_auxiliary(np.array([[0.0], [0.5], [np.nan]]), ["z"], "multilabel")
    require_auxiliary(np.array([[0.0], [1.0], [np.nan]]), ["z"], "multilabel")


def test_several_molecule_columns_share_one_backbone_and_are_not_mixed_up(tmp_path):
    train = rows()
    both = replace(train, inputs=train.inputs.assign(t=train.inputs["s"][::-1].to_numpy()))
    one = fit(stage("st", epochs=1), both, tmp_path)
    assert sum(name.endswith("W_i.weight") for name in weights_of(tmp_path)) == 1
    swapped = replace(both, inputs=both.inputs.rename(columns={"s": "t", "t": "s"}))
    assert not np.allclose(one.predict(swapped, tmp_path), one.predict(both, tmp_path))


def test_published_weights_decide_the_shape_and_are_what_training_starts_from(tmp_path):
    """A file as CheMeleon is published: the shape's settings and the weights."""
    shape = {"d_v": 72, "d_e": 14, "d_h": 24, "depth": 4, "dropout": 0.3, "activation": "relu", "d_vd": None}
    state = BondMessagePassing(**shape).state_dict()
    published = tmp_path / "mp.pt"
    torch.save({"hyper_parameters": {**shape, "cls": "x"}, "state_dict": state}, published)
    one = stage(weights=str(published), use_tabular_columns=False)
    messages: Any = one.initial_backbone(rows(3), tmp_path).message_passing
    assert all(torch.equal(tensor, state[name]) for name, tensor in messages.state_dict().items())
    assert (messages.depth, messages.dropout.p) == (4, 0)  # theirs is .3
    one.fit(rows(3), tmp_path)
    published.unlink()  # what prediction needs is in the job's folder
    assert np.isfinite(one.predict(rows(3), tmp_path)).all()


def test_a_network_learns_the_bounds_of_censored_labels(tmp_path):
    train = rows(96)
    is_censored = (train.inputs["k"] == "a").to_numpy()
    y = np.where(is_censored[:, None], np.nan, train.y)  # those with values near -2 are left
    bounds = np.full((96, 1, 2), np.nan)
    bounds[is_censored, 0, 0] = 3.0
    one = fit(stage(epochs=30), replace(train, y=y, bounds=bounds), tmp_path)
    assert one.predict(made.rows(s=["CCO"], x=[300.0], k=["a"]), tmp_path)[0, 0] > 2


@pytest.mark.parametrize(("weight", "sides"), [(0.3, [0, -1]), (0.0, [0])])
def test_bounds_of_auxiliary_targets_are_used_if_these_are_learned(weight, sides, tmp_path):
    bounds = np.full((12, 2, 2), np.nan)
    bounds[:, 1, 1] = 7.0
    both = replace(rows(12), auxiliary=np.full((12, 1), np.nan), bounds=bounds)
    encoded = stage(auxiliary=("z",), auxiliary_weight=weight).prepare(both, tmp_path)[1]
    assert encoded.sides[0].tolist() == sides
