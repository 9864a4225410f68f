"""The training loop on a network of a few dozen weights."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, sha256_of
from models.context import Context, HeldOut
from models.stage import read_notes
from models.stages.gnn import Gnn
from models.training import neural, prediction, trainer
from models.training.batches import Batches, EncodedDataset
from models.training.checkpoint import Checkpoint
from models.training.hardware import peak_gpu_gib
from models.training.loss_log import LossRecord, read_losses
from models.training.losses import LabelBatch
from models.training.network import Head, Network
from models.training.schedules import with_warmup
from models.training.settings import NeuralStage
from tests.models.made import build_stage

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.stack([1000 + 50 * X[:, 0], -3 + 0.01 * np.sin(X[:, 1]) + 0.01 * X[:, 2]], axis=1).astype(np.float64)
"""Two smooth functions of the points, in units far from 1."""
INPUTS = Batches(list(X), np.arange(40) % 7, lambda items: {"x": torch.from_numpy(np.stack(items))})


class Backbone(nn.Module):
    """One hidden layer and a norm."""

    width = 24

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 24)
        self.norm = nn.LayerNorm(24)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(torch.tanh(self.hidden(x))))


def network(seed: int = 0, rate: float = 0.0, dropout: float = 0.0) -> Network:
    set_seed(seed)
    return Network(Backbone(dropout), 2, [rate])


def settings(**changes: Any) -> NeuralStage:
    small = {"kind": "test", "epochs": 30, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0}
    return NeuralStage.model_validate({**small, **changes})


def sample(y: NDArray[np.float64] = Y, weights: Any = 1.0, inputs: Batches = INPUTS) -> EncodedDataset:
    return EncodedDataset(lambda number: inputs, y, weights * np.ones_like(y), np.zeros_like(y))


def mean_error(y_pred: NDArray[np.float64]) -> float:
    """Draw from all global generators, as a user's metric may, and return the error of the first 12 rows."""
    random.random()
    np.random.random()
    torch.rand(1)
    return float(np.abs(y_pred - Y[:12]).mean())


HELD_OUT = HeldOut(Dataset([], pd.DataFrame(), None), mean_error)
"""The first 12 rows, which `make` encodes."""
PROBLEMS = {
    "regression": Task(["y", "z"]),
    "multilabel": Task(["y", "z"], problem_type="multilabel", classes=["no", "yes"]),
    "multiclass": Task(["y"], problem_type="multiclass", classes=["a", "b", "c"]),
}


def make(folder: Path, net: Network | None = None, progress: Any = None, **changes: Any) -> trainer.Trainer:
    folder.mkdir(exist_ok=True)
    task = PROBLEMS[changes.pop("learns", "regression")]
    progress = progress or (lambda done, total: None)
    context = Context([], [], [], [], task, 0, folder, progress, held_out=changes.pop("held_out", None))
    return trainer.Trainer(
        net or network(), settings(**changes), folder, context, lambda number: INPUTS.take(np.arange(12))
    )


def fit(folder: Path, net: Network | None = None, **changes: Any) -> Network:
    of = changes.pop("of", sample())
    training = make(folder, net, **changes)
    training.fit(of)
    return training.network


def predict(net: Network, folder: Path, inputs: Batches = INPUTS, **changes: Any) -> Any:
    return prediction.predict(net, lambda number: inputs, settings(**changes), folder, PROBLEMS["regression"])


def saved_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / prediction.WEIGHTS)


def history(folder: Path, name: str) -> list[float]:
    return [epoch[name] for epoch in read_json(folder / prediction.TRAINING)["history"]]


def make_plan(
    lengths: NDArray[np.int64], seed: int = 1, epoch: int = 0, device: str = "cpu", **changes: Any
) -> list[Any]:
    inputs = Batches(list(lengths), lengths, lambda items: {}, changes.pop("equal_lengths", False))
    return inputs.step_plan(settings(**{"batch_size": 16, **changes}), seed, epoch, device)


@pytest.mark.parametrize(
    "changes", [{}, {"gradient_accumulation_steps": 3}, {"device": "cuda"}, {"equal_lengths": True}]
)
def test_an_epoch_has_each_row_once_in_steps_that_are_a_function_of_seed_and_epoch(
    changes: dict[str, Any],
) -> None:
    steps = make_plan(np.arange(1003) % 50, **changes)
    assert sorted(np.concatenate([rows for step in steps for rows in step])) == list(range(1003))
    assert max(sum(map(len, step)) for step in steps) == 16 * changes.get("gradient_accumulation_steps", 1)

    def sets(seed: int, epoch: int) -> set[frozenset[int]]:
        return {
            frozenset(np.concatenate(step).tolist())
            for step in make_plan(np.arange(300) % 50, seed, epoch, **changes)
        }

    assert sets(1, 0) == sets(1, 0)
    assert not sets(1, 0) & (sets(1, 1) | sets(2, 0))  # other company, not only another order


@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta is loaded by a thread, as a GPU is
@pytest.mark.parametrize("first", [0, 3, 5])
def test_an_epoch_goes_on_from_any_step(device: str, first: int) -> None:
    labels = LabelBatch(torch.from_numpy(Y), torch.ones(Y.shape), torch.zeros(Y.shape))
    steps = list(INPUTS.steps(labels, settings(), 1, 0, torch.device(device), first))
    planned = INPUTS.step_plan(settings(), 1, 0, device)[first:]
    sizes = [[len(batch.labels.y) for batch in step] for step in steps]
    assert sizes == [[len(rows) for rows in step] for step in planned]
    assert len(steps) == 5 - first


def test_a_step_is_drawn_whatever_the_length_and_its_micro_batches_pad_little_or_nothing() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 2000)
    steps = make_plan(lengths, batch_size=32)
    means = [lengths[np.concatenate(step)].mean() for step in steps]
    assert np.std(means[:-1]) < 1.3 * lengths.std() / np.sqrt(
        32
    )  # as rows at random have; by length it is far more
    assert sum(len(rows) * lengths[rows].max() for step in steps for rows in step) < 1.3 * lengths.sum()
    assert [len(step) for step in make_plan(np.ones(64, dtype=np.int64))] == [
        1,
        1,
        1,
        1,
    ]  # with nothing to pad
    unpadded = make_plan(lengths % 6, equal_lengths=True)
    assert all(len(set(lengths[rows] % 6)) == 1 and len(rows) <= 4 for step in unpadded for rows in step)
    assert np.mean([len(set(lengths[np.concatenate(step)] % 6)) for step in unpadded]) > 2


def test_it_overfits_a_small_set_and_predicts_in_the_targets_units_whatever_order_and_company(
    tmp_path: Path,
) -> None:
    fit(tmp_path, epochs=100)
    fresh = network(seed=5)  # other random weights: all that counts is in the folder
    y_pred = predict(fresh, tmp_path)
    assert (((y_pred - Y) / Y.std(axis=0)) ** 2).mean() < 0.03
    order = np.random.default_rng(1).permutation(len(Y))[:9]
    assert np.allclose(predict(fresh, tmp_path, INPUTS.take(order)), y_pred[order], rtol=1e-6)


def test_labels_are_standardised_and_have_their_weights_and_none_where_missing(tmp_path: Path) -> None:
    y = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 9.0]])
    labels = make(tmp_path).prepare(sample(y, np.array([1.0, 0.5])))
    assert labels.y.tolist() == [[-1, -1], [1, 0], [0, 1]]
    assert labels.weights.tolist() == [[1, 0.5], [1, 0], [0, 0.5]]


def test_probabilities_are_averaged_over_forms_and_sum_to_1_without_classes_without_training_rows(
    tmp_path: Path,
) -> None:
    """The rows have the classes 0 and 2 of three; class 1 stays in the network and gets no probability."""
    y = 2.0 * (X[:, :1] > 0)
    set_seed(0)
    net = fit(tmp_path, Network(Backbone(), 3, [0.0]), of=sample(y), learns="multiclass")
    assert read_json(tmp_path / prediction.TRAINING)["classes"] == [[0, 2]]

    def predicted(*augmentations: Batches) -> Any:
        passes = (1, len(augmentations))
        with mock.patch.object(NeuralStage, "n_augmentations", passes):
            return prediction.predict(
                net, augmentations.__getitem__, settings(), tmp_path, PROBLEMS["multiclass"]
            )

    other = replace(INPUTS, items=list(3 * X[::-1]))
    one, two, both = predicted(INPUTS), predicted(other), predicted(INPUTS, other)
    assert both == pytest.approx((one + two) / 2, abs=1e-12)  # the mean of logits would lie elsewhere
    assert np.abs(both.sum(axis=1) - 1).max() < 1e-12
    assert not both[:, 1].any()
    assert (2 * (one[:, 2] > 0.5) == y[:, 0]).all()


def test_the_gradient_of_a_step_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CLIP_NORM", 1e-3)
    with mock.patch.object(torch.optim.AdamW, "zero_grad"):
        net = fit(tmp_path, epochs=1, batch_size=40)
    assert sum(float(part.grad.square().sum()) for part in net.parameters()) ** 0.5 == pytest.approx(
        1e-3, rel=1e-3
    )


def test_a_loss_that_is_not_finite_is_a_data_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower the stage's learning_rate"):
        fit(tmp_path, learning_rate=1e30, schedule="constant", warmup=0)
    assert not (tmp_path / prediction.WEIGHTS).exists()


def test_the_rate_in_the_history_follows_the_schedule_and_progress_counts_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    schedule_settings = {"epochs": 4, "schedule": "cosine", "warmup": 0.25, "learning_rate": 1e-3}
    fit(tmp_path, progress=lambda *step: seen.append(step), **schedule_settings)
    rate = with_warmup("cosine", 0.25, 20)  # 40 rows, batches of 8, 4 epochs
    assert history(tmp_path, "learning_rate") == pytest.approx([1e-3 * rate(5 * n) for n in (1, 2, 3, 4)])
    assert seen == [(step, 20) for step in range(1, 21)]


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_the_score_after_each_epoch_changes_no_weights_and_the_last_one_is_that_of_the_saved_weights(
    tmp_path: Path, averaging: str
) -> None:
    changes: dict[str, Any] = {"epochs": 3, "pooler_dropout": 0.3, "weight_averaging": averaging}
    net = fit(tmp_path / "with", network(rate=0.3), held_out=HELD_OUT, **changes)
    fit(tmp_path / "without", network(rate=0.3), **changes)
    weights = [sha256_of(tmp_path / name / prediction.WEIGHTS) for name in ("with", "without")]
    assert weights[0] == weights[1]
    scores = [row.held_out_score for row in read_losses(tmp_path / "with")]
    assert len(set(scores)) == 3
    assert scores[-1] == mean_error(predict(net, tmp_path / "with")[:12])
    assert [row.held_out_score for row in read_losses(tmp_path / "without")] == [None] * 3


@pytest.mark.parametrize("score", [lambda y_pred: float("nan"), lambda y_pred: 1 / 0])
def test_a_metric_that_cannot_score_the_fold_leaves_the_cell_empty(tmp_path: Path, score: Any) -> None:
    fit(tmp_path, held_out=replace(HELD_OUT, score=score), epochs=1)
    assert (tmp_path / "losses.csv").read_text().splitlines()[1].endswith(",")
    assert read_losses(tmp_path)[0].held_out_score is None


class CachesAngles(Backbone):
    """Keeps a tensor of its first pass, as encoders with rotary positions do, and multiplies by it."""

    angles: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.angles is None or not self.training:
            self.angles = torch.ones(24)
        return super().forward(x) * self.angles


def test_what_a_network_caches_while_it_is_scored_can_be_trained_with(tmp_path: Path) -> None:
    net = Network(CachesAngles(), 2, [0.0])
    assert fit(tmp_path, net, held_out=HELD_OUT, epochs=2) is net


@pytest.mark.parametrize(("rate", "on"), [(0.0, {}), (0.3, {"backbone.dropout.p": 0.3})])
def test_rates_are_set_and_audited_and_listed_where_they_are_on(tmp_path: Path, rate: float, on: Any) -> None:
    with mock.patch.object(trainer, "audit") as audit:
        net = fit(tmp_path, network(dropout=0.1, rate=0.25), epochs=1, backbone_dropout=rate)
    assert audit.called is (rate == 0)
    assert net.backbone.dropout.p == rate
    assert read_json(tmp_path / prediction.TRAINING)["dropout"] == {**on, "head.dropouts.0.p": 0.25}


def test_weights_of_bf16_and_predictions_on_a_cpu_are_of_full_precision(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(prediction, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
    net = fit(tmp_path, precision="bf16", epochs=1)
    assert {weights.dtype for weights in saved_weights(tmp_path).values()} == {torch.float32}
    if not torch.cuda.is_available():
        np.testing.assert_array_equal(predict(net, tmp_path, precision="bf16"), predict(net, tmp_path))
        with pytest.raises(ConfigError, match="precision: auto"):
            prediction.make_accelerator("fp16")


@pytest.mark.parametrize(("named", "on_card"), [("auto", "float32"), ("bf16", "auto"), ("fp16", "fp16")])
def test_predictions_on_a_card_are_of_full_precision_unless_one_is_reported(
    named: str, on_card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = fit(tmp_path, epochs=1)
    accelerator = prediction.make_accelerator("float32")
    makes = mock.Mock(return_value=accelerator)
    monkeypatch.setattr(prediction, "make_accelerator", makes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    predict(net, tmp_path, precision=named)
    makes.assert_called_once_with(on_card)


def test_the_peak_of_gpu_memory_is_that_of_the_training_and_0_without_a_gpu(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    assert (peak_gpu_gib() > 0) is torch.cuda.is_available()


class Shifted(Head):
    """A head whose second pass gives half of its logits."""

    def forward(self, features: Tensor) -> Tensor:
        one, other = super().forward(features).chunk(2)
        return torch.cat([one, other / 2])


@pytest.mark.parametrize(
    ("head", "n_gaps", "changes"),
    [
        (Head, (20, 0), {}),
        (Shifted, (28, 28), {"learns": "multilabel", "r_drop": 5.0, "pooler_dropout": 0.1}),
    ],
)
def test_several_small_batches_in_a_step_train_as_one_large_batch_however_many_labels_each_has(
    head: type[Head], n_gaps: tuple[int, int], changes: dict[str, Any], tmp_path: Path
) -> None:
    y = (Y[:32] > Y.mean(axis=0)).astype(float) if changes else Y[:32].copy()
    y[np.arange(32)[:, None] < n_gaps] = np.nan
    of = sample(y, inputs=replace(INPUTS.take(np.arange(32)), lengths=np.zeros(32, dtype=np.int64)))
    networks = []
    for n in (1, 4):
        set_seed(0)
        net = Network(Backbone(), 2, [0.0])
        net.head = head(24, 2, [0.0])
        networks.append(
            fit(
                tmp_path / str(n),
                net,
                of=of,
                epochs=3,
                batch_size=32 // n,
                gradient_accumulation_steps=n,
                **changes,
            )
        )
    for (name, one), four in zip(
        networks[0].state_dict().items(), networks[1].state_dict().values(), strict=True
    ):
        assert torch.allclose(one, four, atol=1e-5), name


@pytest.mark.parametrize("backbone_dropout", [0.0, 0.1])
def test_the_r_drop_loss_is_that_of_both_passes_and_their_difference(
    backbone_dropout: float, tmp_path: Path
) -> None:
    class Two(nn.Module):
        """A head that adds 1 to the second pass."""

        def forward(self, features: Tensor) -> Tensor:
            half = len(features) // 2
            return torch.cat([features[:half], features[half:] + 1])

    net = network()
    net.head = Two()
    net.features = lambda batch: batch["x"]  # type: ignore[method-assign, assignment]
    training = make(tmp_path, net, r_drop=3.0, pooler_dropout=0.1, backbone_dropout=backbone_dropout)
    inputs = Batches(
        [1.0, 2.0], np.ones(2, dtype=np.int64), lambda items: {"x": torch.tensor(items)[:, None]}
    )
    labels = LabelBatch(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1))
    device = torch.device("cpu")
    ((batch,),) = inputs.steps(labels, training.settings, 0, 0, device)
    assert len(batch.inputs["x"]) == (
        4 if backbone_dropout else 2
    )  # where the backbone drops it runs twice per row
    # Squares 1, 4 and 4, 9: means 2.5 and 6.5; the passes differ by 1 everywhere.
    assert training.training_loss(batch.inputs, batch.labels).item() == pytest.approx(
        (2.5 + 6.5) / 2 + 3.0 * 1
    )


def small_stage(folder: Path) -> tuple[Any, Dataset]:
    """A stage, and rows to fit it on."""
    stage = Gnn(kind="gnn", epochs=1, batch_size=8, width=8, hidden_width=8)
    rows = Dataset(["a", "b"], pd.DataFrame({"SMILES": ["CC", "CCO"]}), np.array([[0.0], [1.0]]))
    return build_stage(stage, Context(["SMILES"], [], [], [], Task(["y"]), 0, folder)), rows


def test_the_mean_of_the_labels_is_distinguished_from_what_is_better(tmp_path: Path) -> None:
    flat = make(tmp_path)
    nn.init.zeros_(flat.network.head.linear.weight)
    nn.init.zeros_(flat.network.head.linear.bias)
    assert not flat.beats_mean_predictor(sample(), flat.prepare(sample()))
    assert make(tmp_path).fit(sample(Y))
    assert make(tmp_path, epochs=1, learning_rate=1e-9, learns="multilabel").fit(
        sample((X[:, :2] > 0).astype(float))
    )


def test_auxiliary_targets_and_rows_that_only_have_them_do_not_count_as_better_than_the_mean(
    tmp_path: Path,
) -> None:
    trained = make(tmp_path, epochs=100)
    trained.fit(sample())
    labels = trained.prepare(sample())
    with (
        torch.no_grad()
    ):  # the first target is now worse than its mean, and the second one hardly has an error
        trained.network.head.linear.weight[0] = 0
        trained.network.head.linear.bias[0] = 0.5
    assert trained.beats_mean_predictor(sample(), labels)
    trained.context = replace(trained.context, task=Task(["y"]))
    assert not trained.beats_mean_predictor(sample(), labels)
    y = np.where(np.arange(len(Y))[:, None] % 4 > [0, 9], np.nan, Y)  # every fourth row has the first target
    some = sample(y)
    batches, some_labels = trained.evenly_spaced_rows(some, trained.make_labels(some), 3)
    assert (some_labels.weights[:, 0] == 1).all()
    assert len(batches.items) == 3


@pytest.mark.parametrize(
    ("learned", "said"), [([False, True], "another."), ([False, False], "not better either.")]
)
def test_a_fold_no_better_than_the_mean_is_trained_once_more_with_another_seed_and_reported(
    tmp_path: Path, learned: list[bool], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, tries = trainer.Trainer.fit, []

    def bad_luck(self: trainer.Trainer, *samples: Any) -> bool:
        tries.append((self.context.seed, float(self.network.head.linear.weight.detach().sum())))
        fit(self, *samples)
        return learned[len(tries) - 1]

    monkeypatch.setattr(trainer.Trainer, "fit", bad_luck)
    fitted, rows = small_stage(tmp_path)
    fitted.fit(rows, tmp_path)
    assert len({seed for seed, _ in tries}) == len({weights for _, weights in tries}) == len(tries) == 2
    (note,) = read_notes(tmp_path)
    assert note.startswith("not better than the mean of the training labels") and note.endswith(said)


def test_where_memory_runs_out_batches_are_halved_and_steps_have_as_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    halved = neural.halve_batch_size(settings(), full)
    assert (halved.batch_size, halved.gradient_accumulation_steps) == (4, 2)
    odd = neural.halve_batch_size(settings(batch_size=50), full)
    assert (
        odd.batch_size * odd.gradient_accumulation_steps == 50
    )  # never another number of rows, which is another number of steps
    with pytest.raises(DataError, match="too small for a single row"):
        neural.halve_batch_size(settings(batch_size=1), full)
    with pytest.raises(RuntimeError, match="shapes"):
        neural.halve_batch_size(settings(), RuntimeError("shapes do not match"))
    fit, sizes = trainer.Trainer.fit, []

    def full_at_first(self: trainer.Trainer, *samples: Any) -> bool:
        sizes.append((self.settings.batch_size, self.settings.gradient_accumulation_steps))
        if len(sizes) < 3:
            raise full
        fit(self, *samples)
        return True

    monkeypatch.setattr(trainer.Trainer, "fit", full_at_first)
    fitted, rows = small_stage(tmp_path)
    fitted.fit(rows, tmp_path)
    assert sizes == [(8, 1), (4, 2), (2, 4)]
    assert read_notes(tmp_path) == ["the memory is too small for batches of 8: a step has 4 of 2."]


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each step, and a row of losses.csv."""
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    monkeypatch.setattr("models.training.loss_log.SECONDS_BETWEEN_ROWS", 0.0)


EMA = {"weight_averaging": "ema", "schedule": "cosine"}
ACCUMULATED = {"weight_averaging": "ema", "gradient_accumulation_steps": 2, "batch_size": 4}
PRETRAIN = sample(Y[:, ::-1].copy())


def fit_until(folder: Path, stop_at: int | None, seed: int = 0, **changes: Any) -> list[int]:
    """Pretrain for 10 steps in two epochs and train for 10; raise in step `stop_at`, before its checkpoint."""
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == stop_at:
            raise KeyboardInterrupt

    changes = {"epochs": 2, "pooler_dropout": 0.3, "held_out": HELD_OUT, **changes}
    make(folder, network(seed, rate=0.3), progress=progress, **changes).fit(sample(), PRETRAIN)
    return seen


@pytest.mark.parametrize("changes", [EMA, ACCUMULATED])
def test_a_job_that_was_killed_inside_an_epoch_goes_on_to_the_same_bytes(
    tmp_path: Path, changes: dict[str, Any], every_step: None
) -> None:
    steps = fit_until(tmp_path / "whole", None, **changes)
    losses = without_seconds(tmp_path / "whole")
    assert [(row.phase, row.step) for row in losses] == [
        ("pretrain" if n <= 10 else "train", n) for n in range(1, 21)
    ]
    for stop_at in (3, 6, 11, 13, 20):
        killed = tmp_path / str(stop_at)
        with pytest.raises(KeyboardInterrupt):
            fit_until(killed, stop_at, **changes)
        assert not (killed / prediction.WEIGHTS).exists()
        assert fit_until(killed, None, seed=9, **changes) == steps[stop_at - 1 :]
        for name in (prediction.WEIGHTS, trainer.TRAINING):
            assert sha256_of(killed / name) == sha256_of(tmp_path / "whole" / name), (stop_at, name)
        assert without_seconds(killed) == losses


def without_seconds(folder: Path) -> list[LossRecord]:
    return [replace(row, seconds=0) for row in read_losses(folder)]


def test_a_checkpoint_of_a_gpu_with_a_gradient_scaler_is_resumed_where_there_is_none(
    tmp_path: Path, every_step: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit_until(tmp_path, 13, **EMA)
    path = tmp_path / "checkpoint_train_0.pt"
    content = torch.load(path, weights_only=True)
    content["parts"]["scaler"] = {"scale": 1024.0}
    torch.save(content, path)
    assert fit_until(tmp_path, None, **EMA) == list(range(3, 11))


def test_a_checkpoint_is_due_every_30_seconds_or_20_times_the_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoint, due = Checkpoint(tmp_path / "checkpoint.pt", {"none": None}), []

    def advance(seconds: float) -> bool:
        clock[0] += seconds
        return checkpoint.due()

    due += [advance(29), advance(1)]
    with mock.patch("models.training.checkpoint.os.replace", lambda *args: advance(3)):
        checkpoint.save(0, 1, torch.zeros(()))
    due += [advance(59), advance(1)]
    assert due == [False, True, False, True]


def test_losses_are_written_every_10_seconds_and_as_the_mean_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a step moves on by 4 seconds: rows after the third step of an epoch, and after its last."""
    clock, now = [0.0], []
    monkeypatch.setattr("models.training.loss_log.time.monotonic", lambda: clock[0])
    losses = []

    def progress(done: int, total: int) -> None:
        clock[0] += 4
        now.append(read_losses(tmp_path)[-1:])

    training = make(tmp_path, progress=progress, epochs=2, schedule="cosine", warmup=0)
    take_step = training.take_step
    training.take_step = lambda *args: losses.append(take_step(*args)) or losses[-1]  # type: ignore[method-assign, func-returns-value]
    training.fit(sample())
    steps = [float(loss) for loss in losses]
    rows = read_losses(tmp_path)
    assert [(row.phase, row.epoch, row.step, row.seconds) for row in rows] == [
        ("train", 1, 3, 12.0), ("train", 1, 5, 20.0), ("train", 2, 8, 32.0), ("train", 2, 10, 40.0),
    ]  # fmt: skip
    means = [np.mean(steps[:3]), np.mean(steps[:5]), np.mean(steps[5:8]), np.mean(steps[5:])]
    assert [row.loss for row in rows] == pytest.approx(means)
    assert history(tmp_path, "train_loss") == [rows[1].loss, rows[3].loss]
    assert history(tmp_path, "learning_rate") == [rows[1].learning_rate, rows[3].learning_rate]
    assert (
        now == [[]] * 3 + [[rows[0]]] * 2 + [[rows[1]]] * 3 + [[rows[2]]] * 2
    )  # as another process reads it meanwhile


def test_tensorboard_shows_the_rows_of_losses_csv_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_step: None
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("LOSS_TRACKER", "tensorboard")
    folder = tmp_path / "models" / "gnn" / "key" / "seed_0" / ".fold_1"
    folder.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        fit_until(folder, 13)
    fit_until(folder, None)
    events = EventAccumulator(str(tmp_path / "trackers" / "gnn" / "key" / "seed_0" / "fold_1")).Reload()
    rows = read_losses(folder)
    for phase in ("pretrain", "train"):
        for name in ("epoch", "loss", "learning_rate", "seconds", "held_out_score"):
            logged = [(event.step, event.value) for event in events.Scalars(f"{phase}/{name}")]
            values = [(row.step, getattr(row, name)) for row in rows if row.phase == phase]
            assert logged == [(step, np.float32(value)) for step, value in values if value is not None]
