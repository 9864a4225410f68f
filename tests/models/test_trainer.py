"""The training loop on a network of a few dozen weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from competition.errors import ConfigError, DataError
from competition.files import read_json, sha256_of
from competition.paths import PROJECT
from models.jobs.work import seconds_in_checkpoints
from models.settings import NeuralStage
from models.training import trainer
from models.training.batches import Batches, Sample, step_plan
from models.training.heads import Head, Network
from models.training.losses import Labels
from models.training.optimizer import make_optimizer
from models.training.schedules import with_warmup


class Backbone(nn.Module):
    """One hidden layer and a norm."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 24)
        self.norm = nn.LayerNorm(24)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(torch.tanh(self.hidden(x))))


class Drops(Backbone):
    """Drops by a number that no name shows."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


def network(seed: int = 0, backbone: type[Backbone] = Backbone, n_targets: int = 2) -> Network:
    trainer.seed_everything(seed)
    return Network(backbone(), Head(24, n_targets, [0.0]))


def rows(n: int = 40, seed: int = 0) -> tuple[Batches, NDArray[np.float64]]:
    """Points and two smooth functions of them, in units far from 1."""
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    y = np.stack([1000 + 50 * x[:, 0], -3 + 0.01 * np.sin(x[:, 1]) + 0.01 * x[:, 2]], axis=1).astype(np.float64)
    return batches(x), y


def batches(x: NDArray[np.float32]) -> Batches:
    lengths = np.arange(len(x)) % 7
    return Batches(list(x), lengths, lambda items: {"x": torch.from_numpy(np.stack(items))})


def settings(**changes: Any) -> NeuralStage:
    return NeuralStage.model_validate(
        {"epochs": 30, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0, **changes}
    )


def fit(
    folder: Path, y: Any = None, seed: int = 0, valid: Any = None, net: Network | None = None, **changes: Any
) -> Any:
    inputs, labels = rows()
    folder.mkdir(exist_ok=True)
    net = net or network(seed)
    labels = labels if y is None else y
    trainer.fit(net, sample(inputs, labels), settings(**changes), seed, folder, lambda done, total: None, valid)
    return net


def sample(inputs: Batches, y: NDArray[np.float64], weights: Any = None) -> Sample:
    return Sample(lambda view: inputs, y, np.ones_like(y) if weights is None else weights)


def predict(net: Network, inputs: Batches, folder: Path, **changes: Any) -> NDArray[np.float64]:
    return trainer.predict(net, lambda view: inputs, 1, settings(**changes), folder, 2)[0]


def plan(lengths: NDArray[np.int64], seed: int = 1, epoch: int = 0, device: str = "cpu", **changes: Any) -> list[Any]:
    equal_lengths = changes.pop("equal_lengths", False)
    inputs = Batches(list(lengths), lengths, lambda items: {}, equal_lengths)
    return step_plan(inputs, settings(**{"batch_size": 16, **changes}), seed, epoch, device)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"device": "cuda"}, {"equal_lengths": True}])
def test_the_steps_of_an_epoch_hold_each_row_once(changes: dict[str, Any]) -> None:
    steps = plan(np.arange(1003) % 50, **changes)
    assert sorted(np.concatenate([rows for step in steps for rows in step])) == list(range(1003))
    largest = max(sum(map(len, step)) for step in steps)
    assert largest == 16 * changes.get("accumulate", 1)


def test_the_steps_are_a_function_of_seed_and_epoch() -> None:
    lengths = np.arange(300) % 50

    def sets(seed: int, epoch: int) -> list[frozenset[int]]:
        return [frozenset(np.concatenate(step).tolist()) for step in plan(lengths, seed, epoch)]

    assert sets(1, 2) == sets(1, 2)
    assert sets(1, 2) != sets(2, 2)
    assert not set(sets(1, 0)) & set(sets(1, 1))  # other company each epoch, not only another order


def test_a_step_is_drawn_whatever_the_length_and_its_pieces_pad_little() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 2000)
    steps = plan(lengths, batch_size=32)
    means = [lengths[np.concatenate(step)].mean() for step in steps]
    assert np.std(means[:-1]) < 1.3 * lengths.std() / np.sqrt(32)  # as rows at random have; by length it is far more
    assert {len(rows) for step in steps[:-1] for rows in step} == {8}

    def tokens(pieces: list[NDArray[np.intp]]) -> float:
        return sum(len(rows) * lengths[rows].max() for rows in pieces) / lengths.sum()

    assert tokens([rows for step in steps for rows in step]) < 1.3
    assert tokens([np.concatenate(step) for step in steps]) > 1.8


def test_rows_of_one_length_go_through_in_whole_batches() -> None:
    assert [len(step) for step in plan(np.ones(64, dtype=np.int64))] == [1, 1, 1, 1]


def test_it_overfits_a_small_set(tmp_path: Path) -> None:
    net = fit(tmp_path, epochs=150)
    inputs, y = rows()
    y_pred = predict(net, inputs, tmp_path)
    assert (((y_pred - y) / y.std(axis=0)) ** 2).mean() < 0.02
    history = read_json(tmp_path / "training.json")["history"]
    assert history[0]["train_loss"] > 2 * history[-1]["train_loss"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    digests = []
    for i, seed in enumerate((0, 0, 1)):
        fit(tmp_path / str(i), seed=seed, epochs=3)
        digests.append([sha256_of(tmp_path / str(i) / name) for name in ("weights.safetensors", "training.json")])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_predictions_are_in_the_targets_units_whatever_order_and_company(tmp_path: Path) -> None:
    fit(tmp_path)
    inputs, y = rows()
    fresh = network(seed=5)  # other random weights: all that counts is in the folder
    y_pred = predict(fresh, inputs, tmp_path)
    assert np.abs(y_pred.mean(axis=0) - y.mean(axis=0)).max() < 10
    assert np.corrcoef(y_pred[:, 0], y[:, 0])[0, 1] > 0.9
    order = np.random.default_rng(1).permutation(len(y))[:9]
    some = batches(np.stack([inputs.items[i] for i in order]))
    assert np.allclose(predict(fresh, some, tmp_path), y_pred[order], rtol=1e-6)


def test_missing_labels_train_and_change_nothing_of_what_the_others_say(tmp_path: Path) -> None:
    _, y = rows()
    y[::3, 0] = np.nan
    y[0] = np.nan
    net = fit(tmp_path, y=y, epochs=100)
    y_pred = predict(net, rows()[0], tmp_path)
    assert np.isfinite(y_pred).all()
    known = ~np.isnan(y[:, 0])
    assert np.corrcoef(y_pred[known, 0], y[known, 0])[0, 1] > 0.97


def test_a_loss_that_is_not_finite_is_a_data_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Lower the stage's learning_rate"):
        fit(tmp_path, learning_rate=1e30, schedule="constant", warmup=0)
    assert not (tmp_path / "weights.safetensors").exists()


def test_vectors_have_no_decay_and_the_head_has_its_own_rate() -> None:
    net = network()
    optimizer = make_optimizer(net, settings(weight_decay=0.1, head_learning_rate=0.5))
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {
        names[id(parameter)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "backbone.hidden.weight": (0.1, 0.01),
        "backbone.hidden.bias": (0.0, 0.01),
        "backbone.norm.weight": (0.0, 0.01),
        "backbone.norm.bias": (0.0, 0.01),
        "head.linear.weight": (0.1, 0.5),
        "head.linear.bias": (0.0, 0.5),
    }


def test_the_learning_rate_in_the_history_follows_the_schedule(tmp_path: Path) -> None:
    fit(tmp_path, epochs=4, schedule="cosine", warmup=0.25, learning_rate=1e-3)
    history = read_json(tmp_path / "training.json")["history"]
    rate = with_warmup("cosine", 0.25, 20)  # 40 rows, batches of 8, 4 epochs
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([1e-3 * rate(5 * n) for n in (1, 2, 3, 4)])


def test_progress_counts_every_step_up_to_the_last(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    inputs, y = rows()
    trainer.fit(
        network(), sample(inputs, y), settings(epochs=2), 0, tmp_path, lambda done, total: seen.append((done, total))
    )  # fmt: skip
    assert seen == [(step, 10) for step in range(1, 11)]


def test_best_on_held_out_keeps_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    inputs, y = rows()
    # The held-out labels are those of a start that training only moves away from: the first epoch is the best.
    away = Batches(inputs.items, inputs.lengths, inputs.collate)
    y_valid = np.repeat(y.mean(axis=0, keepdims=True), len(y), axis=0)
    net = fit(tmp_path, epochs=12, valid=sample(away, y_valid), keep="best_on_held_out", learning_rate=3e-3)
    losses = [epoch["held_out_evaluation_mode"] for epoch in read_json(tmp_path / "training.json")["history"]]
    assert losses.index(min(losses)) < 11
    y_pred = predict(net, away, tmp_path)
    loss = (((y_pred - y_valid) / y.std(axis=0)) ** 2).mean()
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_without_held_out_rows_the_last_weights_are_kept(tmp_path: Path) -> None:
    net = fit(tmp_path, epochs=3)
    last = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in last.items())
    assert "held_out_evaluation_mode" not in read_json(tmp_path / "training.json")["history"][0]


def test_held_out_rows_choose_an_epoch_and_do_not_touch_the_training(tmp_path: Path) -> None:
    inputs, y = rows(seed=3)
    histories = []
    for i, valid in enumerate((None, sample(inputs, y), sample(inputs, -y))):
        fit(tmp_path / str(i), epochs=3, valid=valid, keep="best_on_held_out")
        report = read_json(tmp_path / str(i) / "training.json")
        histories.append(([epoch["train_loss"] for epoch in report["history"]], report["mean"], report["scale"]))
    assert histories[0] == histories[1] == histories[2]


def test_a_backbone_that_drops_unseen_stops_the_run_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other outputs in training mode"):
        fit(tmp_path, net=network(backbone=Drops))


def test_a_rate_in_a_module_is_switched_off_or_set_as_the_stage_says(tmp_path: Path) -> None:
    for rate in (0.0, 0.3):
        net = Network(Backbone(dropout=0.1), Head(24, 2, [0.0]))
        fit(tmp_path / str(rate), net=net, epochs=1, backbone_dropout=rate)
        assert net.backbone.dropout.p == rate


def test_half_precision_without_hardware_that_has_it_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(trainer, "cpu_has_bf16", lambda: False)
    for precision in ("fp16", "bf16"):
        with pytest.raises(ConfigError, match="precision: auto"):
            trainer.make_accelerator(precision)


def test_in_bf16_products_are_of_half_precision_while_weights_and_predictions_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
    net, seen = network(), set()
    net.backbone.hidden.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    fit(tmp_path, net=net, precision="bf16")
    assert torch.bfloat16 in seen
    assert {weights.dtype for weights in net.state_dict().values()} == {torch.float32}
    inputs, y = rows()
    y_pred = predict(net, inputs, tmp_path, precision="bf16")
    assert ((y_pred - y).std(axis=0) < 0.2 * y.std(axis=0)).all()
    if not torch.cuda.is_available():
        np.testing.assert_array_equal(y_pred, predict(net, inputs, tmp_path, precision="float32"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    with pytest.raises(RuntimeError, match="size mismatch"):
        trainer.predict(network(n_targets=3), lambda view: rows()[0], 1, settings(), tmp_path, 2)


def test_two_small_batches_in_a_step_train_as_one_large_batch(tmp_path: Path) -> None:
    inputs, y = rows(32)
    y[:20, 0] = np.nan  # batches with few labels must not count as much as those with many
    same_length = Batches(inputs.items, np.zeros(32, dtype=np.int64), inputs.collate)
    states = []
    for batch_size, accumulate in ((32, 1), (8, 4)):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        net = network()
        trainer.fit(
            net, sample(same_length, y), settings(epochs=3, batch_size=batch_size, accumulate=accumulate), 0, folder,
            lambda done, total: None,
        )  # fmt: skip
        states.append(net.state_dict())
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], atol=1e-5), name


def test_r_drop_runs_the_backbone_once_where_only_the_head_drops_and_on_a_doubled_batch_else(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(Backbone):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    for i, rates in enumerate(({"pooler_dropout": 0.2}, {"backbone_dropout": 0.2})):
        net = Network(Counting(dropout=0.1), Head(24, 2, [rates.get("pooler_dropout", 0.0)]))
        seen.clear()
        fit(tmp_path / str(i), net=net, epochs=1, batch_size=8, r_drop=1.0, **rates)
        assert max(seen[-4:]) == (8 if i == 0 else 16)


def test_the_r_drop_loss_is_that_of_both_passes_and_their_difference() -> None:
    class Two(nn.Module):
        """A head that adds 1 to the second pass."""

        def forward(self, features: Tensor) -> Tensor:
            half = len(features) // 2
            return torch.cat([features[:half], features[half:] + 1])

    net = Network(nn.Identity(), Two())
    net.features = lambda batch: batch["x"]  # type: ignore[method-assign, assignment]
    target = Labels(torch.zeros(2, 1), torch.ones(2, 1))
    loss = trainer.label_loss(
        net, {"x": torch.tensor([[1.0], [2.0]])}, target, settings(r_drop=3.0, pooler_dropout=0.1)
    )
    # Squares 1, 4 and 4, 9: means 2.5 and 6.5; the passes differ by 1 everywhere.
    assert loss.item() == pytest.approx((2.5 + 6.5) / 2 + 3.0 * 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"r_drop": 1.0},
        {"mc_dropout": 5},
        {"r_drop": 1.0, "head": {"kind": "multi_sample"}, "backbone_dropout": 0.1},
        {"pooler_dropout": 0.1, "head": {"kind": "multi_sample"}},
    ],
)
def test_a_rate_of_zero_where_one_is_needed_is_a_mistake(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="needs|cannot|remove"):
        settings(**changes)


def test_mc_dropout_gives_a_mean_and_a_spread_that_grows_with_the_rate(tmp_path: Path) -> None:
    inputs, y = rows()
    spreads = []
    for i, rate in enumerate((0.05, 0.5)):
        folder = tmp_path / str(i)
        net = Network(Backbone(), Head(24, 2, [rate]))
        chosen = {"epochs": 30, "mc_dropout": 20, "pooler_dropout": rate}
        fit(folder, net=net, **chosen)
        y_pred, spread = trainer.predict(net, lambda view: inputs, 1, settings(**chosen), folder, 2)
        again, _ = trainer.predict(net, lambda view: inputs, 1, settings(**chosen), folder, 2)
        assert np.array_equal(y_pred, again)
        assert spread is not None and spread.shape == y.shape
        spreads.append((spread / y.std(axis=0)).mean())
        assert np.corrcoef(y_pred[:, 0], y[:, 0])[0, 1] > 0.8
    assert 0 < 2 * spreads[0] < spreads[1]


@pytest.mark.parametrize("average", ["ema", "last_epochs"])
def test_averaged_weights_are_kept_and_are_not_the_last(tmp_path: Path, average: str) -> None:
    net = fit(tmp_path, epochs=6, average=average)
    kept = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert set(kept) == set(net.state_dict())
    assert not torch.equal(kept["head.linear.weight"], net.state_dict()["head.linear.weight"])


def test_auxiliary_targets_shape_the_features_and_are_not_predicted(tmp_path: Path) -> None:
    inputs, y = rows()
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        net = network(n_targets=2)
        trainer.fit(
            net, sample(inputs, y), settings(auxiliary_weight=weight), 0, folder, lambda d, t: None, n_auxiliary=1
        )  # fmt: skip
        y_pred, _ = trainer.predict(net, lambda view: inputs, 1, settings(), folder, n_targets=1)
        assert y_pred.shape == (len(y), 1)
    one, other = (
        safetensors.torch.load_file(tmp_path / name / "weights.safetensors")["backbone.hidden.weight"]
        for name in ("0.0", "1.0")
    )
    assert not torch.equal(one, other)


def test_dropouts_that_are_on_are_listed_by_module(tmp_path: Path) -> None:
    net = Network(Backbone(dropout=0.1), Head(24, 2, [0.25]))
    fit(tmp_path, net=net, epochs=1, backbone_dropout=0.3, pooler_dropout=0.25)
    assert read_json(tmp_path / "training.json")["dropout"] == {"backbone.dropout.p": 0.3, "head.dropouts.0.p": 0.25}


def test_memory_that_runs_out_names_a_batch_size_to_try(tmp_path: Path) -> None:
    class Greedy(Backbone):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(
        DataError, match=r"of batch_size 8, 8 rows together do not\. Set batch_size: 4 and accumulate: 2"
    ):
        fit(tmp_path, net=Network(Greedy(), Head(24, 2, [0.0])), epochs=1)


def test_where_nothing_may_be_padded_pieces_have_one_length_and_steps_have_several() -> None:
    lengths = np.random.default_rng(0).integers(3, 9, 200)
    steps = plan(lengths, equal_lengths=True)
    assert all(len(set(lengths[rows])) == 1 and len(rows) <= 4 for step in steps for rows in step)
    assert np.mean([len(set(lengths[np.concatenate(step)])) for step in steps]) > 2


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {project!r})
from models.training import checkpoint
from tests.models import test_trainer as t
checkpoint.SECONDS_BETWEEN = 0.0
net, (inputs, y) = t.network(), t.rows()
def progress(done, total):
    if done == 23:  # in the middle of the fifth of six epochs
        os.kill(os.getpid(), signal.SIGKILL)
t.trainer.fit(net, t.sample(inputs, y), t.settings(**{changes!r}), 0, Path({folder!r}), progress)
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"average": "ema", "pooler_dropout": 0.3, "schedule": "cosine"},
        {"average": "last_epochs", "head": {"kind": "multi_sample"}, "accumulate": 2, "batch_size": 4},
    ],
)
def test_a_fold_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 6, **changes}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    script = INTERRUPTED.format(project=str(PROJECT), changes=changes, folder=str(killed))
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=PROJECT)
    assert done.returncode == -9
    assert (killed / "checkpoint.pt").exists()
    assert not (killed / "weights.safetensors").exists()
    before = seconds_in_checkpoints(killed)
    assert 0 < before < 60
    steps: list[int] = []
    inputs, y = rows()
    trainer.fit(
        network(seed=9), sample(inputs, y), settings(**changes), 0, killed, lambda done, total: steps.append(done)
    )  # fmt: skip
    assert steps[0] > 1  # it did not begin anew
    fit(whole, **changes)
    for name in ("weights.safetensors", "training.json"):
        assert sha256_of(killed / name) == sha256_of(whole / name), name
