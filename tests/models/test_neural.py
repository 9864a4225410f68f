"""What neural stages share, on message passing of width 16: columns before the head, extra rows, several
molecules; and published weights of message passing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from chemprop.nn import BondMessagePassing

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError
from core.files import read_json
from models.jobs.plan import code_files
from models.stages.gnn import Gnn
from models.training.labels import require_auxiliary
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
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


def stage(
    smiles: str = "s", auxiliary: tuple[str, ...] = (), task: Task | None = None, **changes: Any
) -> made.Bound:
    small = {"width": 16, "hidden_width": 16, "epochs": 2, "batch_size": 8}
    config = Gnn.model_validate({"kind": "gnn", **small, **changes})
    columns = {"numeric": ["x"], "categorical": ["k"]} if smiles == "s" else {}
    stage_context = made.context(Path("unused"), smiles=list(smiles), auxiliary=list(auxiliary), **columns)
    return made.build_stage(config, replace(stage_context, task=task or stage_context.task))


def rows(n: int = 48, seed: int = 0) -> Dataset:
    """The target is a number of the table and an effect of its category; the molecule says nothing."""
    rng = np.random.default_rng(seed)
    x, k = rng.normal(300, 20, n), rng.choice(["a", "b"], n)
    return made.rows((x - 300) / 20 + np.where(k == "a", 2.0, -2.0), s=rng.choice(SMILES, n), x=x, k=k)


def fit(one: made.Bound, train: Dataset, folder: Path) -> made.Bound:
    folder.mkdir(exist_ok=True)
    one.fit(train, folder)
    return one


@pytest.mark.parametrize("before_head", [True, False])
def test_numbers_and_categories_reach_the_head_if_configured(before_head: bool, tmp_path: Path) -> None:
    one = fit(stage(use_tabular_columns=before_head, epochs=1), rows(), tmp_path)
    test = made.rows(s=["CCO"] * 4, x=[300, 310, 300, np.nan], k=["a", "a", "b", "never seen"])
    y_pred = one.predict(test, tmp_path)
    assert np.isfinite(y_pred).all()
    assert len(set(y_pred[:, 0].round(5))) == (4 if before_head else 1)


@pytest.mark.parametrize(("how", "mean"), [("train", 50), ("pretrain", 0)])
def test_extra_rows_come_first_and_alone_if_configured(how: str, mean: float, tmp_path: Path) -> None:
    train_rows = rows(96)
    train_rows.y[48:] += 100
    fit(stage(extra_rows=how), replace(train_rows, extra=np.repeat([False, True], 48)), tmp_path)
    trained = read_json(tmp_path / "training.json")
    assert trained["mean"][0] == pytest.approx(mean, abs=5)  # pretrain: scaled by the competition's own rows
    assert len(trained.get("pretrain_history", [])) == (2 if how == "pretrain" else 0)


def test_a_class_of_extra_rows_alone_keeps_its_probability_where_they_came_first(tmp_path: Path) -> None:
    train_rows = replace(rows(60), y=np.arange(60.0)[:, None] // 20, extra=np.arange(60) >= 40)
    y_pred = fit(stage(task=KINDS, extra_rows="pretrain"), train_rows, tmp_path).predict(train_rows, tmp_path)
    assert read_json(tmp_path / "training.json")["classes"] == [[0, 1, 2]]
    assert (y_pred[:, 2] > 0).all()


@pytest.mark.parametrize(("weight", "n_outputs"), [(0.3, 2), (0.0, 1)])
def test_auxiliary_targets_are_trained_on_by_weight_and_not_predicted(
    tmp_path: Path, weight: float, n_outputs: int
) -> None:
    train = rows()
    both = Dataset(
        train.ids, train.inputs, train.y, np.full(len(train), 0.5), auxiliary=np.ones((len(train), 1))
    )
    one = fit(stage(auxiliary=("z",), auxiliary_weight=weight, epochs=1), both, tmp_path)
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors")["head.linear.bias"].shape == (
        n_outputs,
    )
    assert one.predict(train, tmp_path).shape == (len(train), 1)
    weights = one.prepare(both, tmp_path)[1].weights
    assert weights[0].tolist() == pytest.approx([0.5, 0.5 * weight][:n_outputs])


def with_assay(n: int, n_extra: int) -> Dataset:
    """Rows with a target near 0, and below them extra rows with an auxiliary target of about 500 only."""
    both = rows(n + n_extra)
    is_extra = np.arange(n + n_extra) >= n
    auxiliary = np.where(is_extra, 500 + 20 * both.y[:, 0], np.nan)[:, None]
    return replace(both, y=np.where(is_extra[:, None], np.nan, both.y), auxiliary=auxiliary, extra=is_extra)


@pytest.mark.parametrize("how", ["train", "pretrain"])
def test_rows_with_auxiliary_labels_only_train_their_head_and_do_not_change_the_scale_of_the_target(
    how: str, tmp_path: Path
) -> None:
    train = with_assay(48, 96)
    one = fit(stage(auxiliary=("z",), extra_rows=how), train, tmp_path)
    training = read_json(tmp_path / "training.json")
    assert train.auxiliary is not None
    own, assay = train.y[:48, 0], train.auxiliary[48:, 0]
    assert training["mean"] == pytest.approx([own.mean(), assay.mean()])
    assert training["scale"] == pytest.approx([own.std(), assay.std()])
    # Of labels in other units the loss would be thousands.
    losses = [epoch["train_loss"] for epoch in training.get("pretrain_history", training["history"])]
    assert max(losses) < 2
    assert one.predict(train, tmp_path).shape == (144, 1)
    assert not (tmp_path / "notes.json").exists()


def test_an_auxiliary_target_without_labels_has_an_untrained_head_and_a_note(tmp_path: Path) -> None:
    train = replace(rows(), auxiliary=np.full((48, 1), np.nan))
    one = stage(auxiliary=("z",), epochs=1, batch_size=48)
    before = one.prepare(train, tmp_path)[0].head.linear.weight[1].tolist()
    fit(one, train, tmp_path)
    after = safetensors.torch.load_file(tmp_path / "weights.safetensors")["head.linear.weight"]
    assert after[1].tolist() == before
    assert np.isfinite(one.predict(train, tmp_path)).all()
    note = "no training row has a label of the auxiliary targets z, so their heads are not trained"
    assert read_json(tmp_path / "notes.json") == [note]


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_classes_are_predicted_also_if_an_auxiliary_target_has_no_labels(
    weights: str, tmp_path: Path
) -> None:
    y = np.arange(48.0)[:, None] % 2 * np.ones(2)
    train = replace(rows(), y=y, auxiliary=np.full((48, 1), np.nan))
    one = stage(auxiliary=("z",), task=LABELS, epochs=1, class_weights=weights)
    y_pred = fit(one, train, tmp_path).predict(train, tmp_path)
    assert ((y_pred > 0) & (y_pred < 1)).all()


LABELS = Task(["y", "v"], problem_type="multilabel", classes=["no", "yes"])
KINDS = Task(["y"], problem_type="multiclass", classes=["low", "middle", "high"])


def test_balanced_classes_have_the_same_weight_in_the_loss_and_that_of_auxiliary_targets(
    tmp_path: Path,
) -> None:
    train = rows(4)
    both = replace(train, y=np.array([[0.0], [0], [0], [1]]), auxiliary=np.array([[1.0], [0], [1], [np.nan]]))
    binary = Task(["y"], problem_type="binary", classes=["0", "1"])
    one = stage(auxiliary=("z",), task=binary, class_weights="balanced", auxiliary_weight=0.5)
    assert one.prepare(both, tmp_path)[1].weights == pytest.approx(
        np.array([[2 / 3, 0.375], [2 / 3, 0.75], [2 / 3, 0.375], [2, 0]])
    )


@pytest.mark.parametrize(
    ("task", "message"), [(LABELS, "must be 0 or 1 in classification, and z has"), (KINDS, "cannot be")]
)
def test_auxiliary_targets_together_with_classes_are_labels_of_two_classes(
    task: Task, message: str, tmp_path: Path
) -> None:
    train = rows(48)
    y = np.arange(48.0)[:, None] % len(task.classes) * np.ones(len(task.targets))
    both = replace(train, y=y, auxiliary=np.where(np.arange(48) < 9, np.nan, 0.5)[:, None])
    with pytest.raises(ConfigError, match=rf"auxiliary_targets {message}.*set auxiliary_weight: 0"):
        require_auxiliary(both.auxiliary, ["z"], task.problem_type)
    if task is LABELS:
        one = fit(
            stage(auxiliary=("z",), task=task), replace(both, auxiliary=2 * both.auxiliary), tmp_path / "fit"
        )
        assert one.predict(train, tmp_path / "fit").shape == (48, 2)
        assert read_json(tmp_path / "fit" / "training.json")["classes"] == [[0, 1], [0, 1], [1]]


def test_several_molecule_columns_share_one_backbone_and_are_not_mixed_up(tmp_path: Path) -> None:
    train = rows()
    both = Dataset(train.ids, train.inputs.assign(t=train.inputs["s"][::-1].to_numpy()), train.y)
    one = fit(stage("st", epochs=1), both, tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert sum(name.endswith("W_i.weight") for name in weights) == 1
    assert weights["join.0.weight"].shape == (16, 32)
    swapped = Dataset(both.ids, both.inputs.rename(columns={"s": "t", "t": "s"}), None)
    assert not np.allclose(one.predict(swapped, tmp_path), one.predict(both, tmp_path))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as CheMeleon is published: the shape's settings and the weights."""
    torch.manual_seed(5)
    shape = {"d_v": 72, "d_e": 14, "d_h": 24, "depth": 4, "dropout": 0.3, "activation": "relu", "d_vd": None}
    state = BondMessagePassing(**shape).state_dict()
    torch.save({"hyper_parameters": {**shape, "cls": "x"}, "state_dict": state}, tmp_path / "mp.pt")
    return tmp_path / "mp.pt"


def test_published_weights_decide_the_shape_and_are_what_training_starts_from(
    published: Path, tmp_path: Path
) -> None:
    one = stage(weights=str(published), use_tabular_columns=False)
    messages: Any = one.initial_backbone(rows(3), tmp_path).message_passing
    published_state = torch.load(published, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, published_state[name]) for name, tensor in messages.state_dict().items())
    assert (messages.depth, messages.dropout.p) == (4, 0)  # theirs is .3
    one.fit(rows(3), tmp_path)
    published.unlink()  # what prediction needs is in the job's folder
    assert np.isfinite(one.predict(rows(3), tmp_path)).all()


def test_a_user_defined_loss_lies_next_to_the_yaml_and_its_content_is_in_the_jobs_key(tmp_path: Path) -> None:
    path = write_competition(
        tmp_path, *mixed_tables(), stages={"net": {"kind": "gnn", "loss": "mine.py:errors"}}
    )
    net, keys = load_config(str(path)).stages["net"], []
    for power in (2, 2, 3):
        (tmp_path / "mine.py").write_text(
            f"def errors(outputs, y):\n    return (outputs - y).abs() ** {power}\n"
        )
        keys.append(code_files(net))
    assert keys[0] == keys[1] != keys[2]


def test_a_network_learns_the_bounds_of_censored_labels(tmp_path: Path) -> None:
    train = rows(96)
    is_censored = (train.inputs["k"] == "a").to_numpy()
    y = np.where(is_censored[:, None], np.nan, train.y)
    bounds = np.full((96, 1, 2), np.nan)
    bounds[is_censored, 0, 0] = 3.0
    test = made.rows(s=["CCO"], x=[300.0], k=["a"])
    y_pred = {}
    for name, given in (("mask", None), ("bound", bounds)):
        one = fit(stage(epochs=30), replace(train, y=y, bounds=given), tmp_path / name)
        y_pred[name] = one.predict(test, tmp_path / name)[0, 0]
    assert y_pred["mask"] < 1  # only rows with values near -2 are labelled
    assert y_pred["bound"] > 2
    encoded = stage().prepare(replace(train, y=y, bounds=bounds), tmp_path)[1]
    assert np.array_equal(encoded.sides[:, 0], is_censored)
    assert (encoded.y[is_censored] == 3).all()


def test_bounds_of_auxiliary_targets_are_used_if_these_are_learned(tmp_path: Path) -> None:
    bounds = np.full((12, 2, 2), np.nan)
    bounds[4, 1, 1] = 7.0
    auxiliary = np.arange(12.0)[:, None]
    auxiliary[4] = np.nan
    both = replace(rows(12), auxiliary=auxiliary, bounds=bounds)
    encoded = stage(auxiliary=("z",)).prepare(both, tmp_path)[1]
    assert (encoded.y[4, 1], encoded.sides[4, 1]) == (7.0, -1.0)
    encoded = stage(auxiliary=("z",), auxiliary_weight=0.0).prepare(both, tmp_path)[1]
    assert encoded.sides.shape == (12, 1) and not encoded.sides.any()
