"""The training loop on a network of a few dozen weights."""

import math
import queue
import random
import weakref
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import sha256_of
from models import job_folder
from models.context import HeldOut
from models.job_folder import read_notes
from models.stages.gnn import Gnn
from models.training import network as network_module
from models.training import neural, trainer
from models.training.batches import Batches, EncodedDataset, in_advance
from models.training.loss_log import read_losses, tracker_arguments
from models.training.losses import LabelBatch
from models.training.network import Network, as_predictions, make_accelerator, predict_network
from models.training.neural_stage import NeuralStage
from models.training.schedules import with_warmup
from tests.models import made

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.stack([1000 + 50 * X[:, 0], -3 + 0.01 * np.sin(X[:, 1]) + 0.01 * X[:, 2]], axis=1).astype(np.float64)
"""Two smooth functions of the points, in units far from 1."""
INPUTS = Batches(list(X), np.arange(40) % 7, lambda items: {"x": torch.from_numpy(np.stack(items))})


class Backbone(nn.Module):
    """One hidden layer and a norm. It keeps a tensor of its last prediction, as encoders with rotary positions do."""

    width = 24

    def __init__(self, dropout=0.0):
        super().__init__()
        self.hidden = nn.Linear(3, 24)
        self.norm = nn.LayerNorm(24)
        self.dropout = nn.Dropout(dropout)
        self.angles = torch.ones(24)

    def forward(self, x):
        if not self.training:
            self.angles = torch.ones(24)
        return self.dropout(self.norm(torch.tanh(self.hidden(x)))) * self.angles


class Bare(NeuralStage):
    """Settings for a network that the trainer is given."""

    def backbone(self, folder, context): ...

    def encode(self, rows, folder, context, augmentation, seed): ...


def network(seed=0, rate=0.0, dropout=0.0):
    set_seed(seed)
    return Network(Backbone(dropout), 2, [rate])


def settings(**changes):
    small = {"kind": "test", "epochs": 30, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0}
    return Bare.model_validate({**small, **changes})


def sample(y=Y, weights=1.0, inputs=INPUTS):
    return EncodedDataset(lambda number: inputs, y, weights * np.ones_like(y), np.zeros_like(y))


def mean_error(y_pred):
    """Draw from all global generators, as a user's metric may, and return the error of the first 12 rows."""
    random.random()
    np.random.random()
    torch.rand(1)
    return float(np.abs(y_pred - Y[:12]).mean())


HELD_OUT = HeldOut(Dataset([], pd.DataFrame(), None), mean_error)
"""The first 12 rows, which `make` encodes."""
REGRESSION = Task(["y", "z"])


def make(folder, net=None, **changes):
    folder.mkdir(exist_ok=True)
    of_context = {name: changes.pop(name) for name in ("task", "held_out", "progress") if name in changes}
    context = made.context(folder, **{"task": REGRESSION, "seed": 0, **of_context})
    held_out = INPUTS.take(np.arange(12))
    return trainer.Trainer(net or network(), settings(**changes), folder, context, lambda number: held_out)


def fit(folder, net=None, **changes):
    of = changes.pop("of", sample())
    training = make(folder, net, **changes)
    training.fit(of)
    return training.network


def predict(net, folder, **changes):
    return predict_network(net, lambda number: INPUTS, settings(**changes), folder, REGRESSION)


def make_plan(lengths, seed=1, epoch=0, device="cpu", **changes):
    inputs = Batches(list(lengths), lengths, lambda items: {})
    return inputs.step_plan(settings(**{"batch_size": 16, **changes}), seed, epoch, device)


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 3}, {"device": "cuda"}])
def test_an_epoch_has_each_row_once_in_steps_that_are_a_function_of_seed_and_epoch(
    changes,
):
    steps = make_plan(np.arange(1003) % 50, **changes)
    assert sorted(np.concatenate([rows for step in steps for rows in step])) == list(range(1003))
    assert max(sum(map(len, step)) for step in steps) == 16 * changes.get("gradient_accumulation_steps", 1)

    def sets(seed, epoch):
        plan = make_plan(np.arange(300) % 50, seed, epoch, **changes)
        return {frozenset(np.concatenate(step).tolist()) for step in plan}

    assert sets(1, 0) == sets(1, 0)
    assert not sets(1, 0) & (sets(1, 1) | sets(2, 0))  # other company, not only another order


@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta is loaded by a thread, as a GPU is
def test_an_epoch_goes_on_from_any_step(device):
    labels = LabelBatch(torch.from_numpy(Y), torch.ones(Y.shape), torch.zeros(Y.shape))

    def shares(first):
        steps = INPUTS.steps(labels, settings(batch_size=16), 1, 0, torch.device(device), first)
        return [[batch.share for batch in step] for step in steps]

    assert shares(0) == [[0.5, 0.5], [0.5, 0.5], [1.0]]
    assert shares(2) == [[1.0]]


def test_on_a_gpu_the_next_result_is_computed_while_the_current_one_is_used():
    called = queue.Queue()

    def double(n):
        called.put(n)
        return 2 * n

    results = in_advance(double, [1, 2, 3], torch.device("meta"))
    assert next(results) == 2
    assert [called.get(timeout=10) for _ in range(2)] == [1, 2]
    assert list(results) == [4, 6]
    on_cores = in_advance(double, [1, 2, 3], torch.device("cpu"))
    assert next(on_cores) == 2 and [called.get() for _ in range(2)] == [3, 1] and called.empty()


def test_a_step_is_drawn_whatever_the_length_and_its_micro_batches_pad_little():
    lengths = np.random.default_rng(0).integers(5, 100, 2000)
    steps = make_plan(lengths, batch_size=32)
    means = [lengths[np.concatenate(step)].mean() for step in steps[:-1]]
    expected = lengths.std() / np.sqrt(32)  # of rows drawn at random; by length it is far more
    assert np.std(means) < 1.3 * expected
    assert sum(len(rows) * lengths[rows].max() for step in steps for rows in step) < 1.3 * lengths.sum()


def test_labels_are_standardised_and_have_their_weights_and_none_where_missing(tmp_path):
    y = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 9.0]])
    labels = make(tmp_path).prepare(sample(y, np.array([1.0, 0.5])))
    assert labels.y.tolist() == [[-1, -1], [1, 0], [0, 1]]
    assert labels.weights.tolist() == [[1, 0.5], [1, 0], [0, 0.5]]


def test_probabilities_are_averaged_and_not_logits_and_a_class_without_rows_has_none():
    """Odds 1 and 3 of the classes 0 and 2."""
    task = Task(["y"], problem_type="multiclass", classes=["a", "b", "c"])
    training = {"mean": [0, 0, 0], "scale": [1, 1, 1], "classes": [[0, 2]]}
    passes = [torch.tensor([[0.0, 5.0, logit]]) for logit in (0.0, np.log(3))]
    y_pred = as_predictions(passes, training, task)
    assert y_pred[0].tolist() == pytest.approx([(1 / 2 + 1 / 4) / 2, 0, (1 / 2 + 3 / 4) / 2])


@pytest.mark.parametrize("backbone_dropout", [0.0, 0.1])
def test_batch_norm_in_a_backbone_is_named(tmp_path, backbone_dropout):
    net = network()
    net.backbone.norm = nn.BatchNorm1d(24)
    with pytest.raises(
        ConfigError, match=r"^norm: batch norm depends on the other rows of a batch; use LayerN"
    ):
        fit(tmp_path, net, backbone_dropout=backbone_dropout)


def test_the_gradient_of_a_step_is_clipped(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CLIP_NORM", 0.0)
    torch.testing.assert_close(fit(tmp_path, epochs=1).state_dict(), network().state_dict())


def test_a_loss_that_is_not_finite_is_a_data_error_with_advice(tmp_path):
    with pytest.raises(DataError, match="lower the stage's learning_rate"):
        fit(tmp_path, learning_rate=1e30, schedule="constant", warmup=0)
    assert not (tmp_path / job_folder.WEIGHTS).exists()


def test_the_rates_in_losses_csv_follow_the_schedule(tmp_path):
    fit(tmp_path, epochs=4, schedule="cosine", warmup=0.25, learning_rate=1e-3)
    rate = with_warmup(settings(schedule="cosine", warmup=0.25), 20)  # 40 rows, batches of 8, 4 epochs
    expected = [1e-3 * rate(5 * n) for n in (1, 2, 3, 4)]
    assert [row.learning_rate for row in read_losses(tmp_path)] == pytest.approx(expected)
    fit(tmp_path / "decay", epochs=4, schedule="cosine", warmup=0.25, learning_rate=1e-3, layer_decay=0.5)
    assert [row.learning_rate for row in read_losses(tmp_path / "decay")] == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "scored"), [(4, [1, 2, 3, 4]), (25, [*range(1, 26, 2)])])
def test_of_many_epochs_about_ten_are_scored_the_last_one_included(tmp_path, epochs, scored):
    fit(tmp_path, held_out=HELD_OUT, epochs=epochs)
    assert [row.epoch for row in read_losses(tmp_path) if row.held_out_score is not None] == scored


def test_the_last_score_is_that_of_the_saved_weights(tmp_path):
    net = fit(tmp_path, held_out=HELD_OUT, epochs=3)
    assert read_losses(tmp_path)[-1].held_out_score == mean_error(predict(net, tmp_path)[:12])


@pytest.mark.parametrize("score", [lambda y_pred: float("nan"), lambda y_pred: 1 / 0])
def test_a_metric_that_cannot_score_the_fold_leaves_the_cell_empty(tmp_path, score):
    fit(tmp_path, held_out=replace(HELD_OUT, score=score), epochs=1)
    assert read_losses(tmp_path)[0].held_out_score is None


def test_weights_of_bf16_and_predictions_on_a_cpu_are_of_full_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(network_module, "cpu_has_bf16", lambda: True)  # a processor without it emulates it
    net = fit(tmp_path, precision="bf16", epochs=1)
    weights = load_file(tmp_path / job_folder.WEIGHTS).values()
    assert {tensor.dtype for tensor in weights} == {torch.float32}
    assert make_accelerator("bf16").mixed_precision == "bf16"
    np.testing.assert_array_equal(predict(net, tmp_path, precision="bf16"), predict(net, tmp_path))
    assert make_accelerator("float32").mixed_precision == "no"


@pytest.mark.parametrize(("named", "on_card"), [("auto", "float32"), ("bf16", "auto"), ("fp16", "fp16")])
def test_predictions_on_a_card_are_of_full_precision_unless_one_is_reported(
    named, on_card, tmp_path, monkeypatch
):
    net = fit(tmp_path, epochs=1)
    makes = mock.Mock(return_value=make_accelerator("float32"))
    monkeypatch.setattr(network_module, "make_accelerator", makes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    predict(net, tmp_path, precision=named)
    makes.assert_called_once_with(on_card)


def test_several_small_batches_in_a_step_train_as_one_large_batch_however_many_labels_each_has(
    tmp_path,
):
    y, rows = Y[:32].copy(), INPUTS.take(np.arange(32))
    y[:20, 0] = np.nan
    of, states = sample(y, inputs=replace(rows, lengths=np.zeros(32, dtype=np.int64))), []
    for n in (1, 4):
        sizes = {"batch_size": 32 // n, "gradient_accumulation_steps": n}
        states.append(fit(tmp_path / str(n), of=of, epochs=3, **sizes).state_dict())
    torch.testing.assert_close(*states, atol=1e-5, rtol=0)


class PassPlusOne(nn.Module):
    """A head that adds 1 to the second pass."""

    def forward(self, features):
        return torch.cat([features[:2], features[2:] + 1])


@pytest.mark.parametrize(("backbone_dropout", "n_passes"), [(0.0, 1), (0.1, 2)])
def test_the_r_drop_loss_is_that_of_both_passes_and_their_difference(backbone_dropout, n_passes, tmp_path):
    """Where the backbone drops it runs twice per row. Squares 1, 4 and 4, 9: means 2.5 and 6.5."""
    net = network()
    net.head = PassPlusOne()
    net.features = lambda batch: batch["x"]  # type: ignore[method-assign, assignment]
    training = make(tmp_path, net, r_drop=3.0, pooler_dropout=0.1, backbone_dropout=backbone_dropout)
    inputs = Batches([1.0, 2.0], np.ones(2, int), lambda items: {"x": torch.tensor(items)[:, None]})
    labels = LabelBatch(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1))
    ((batch,),) = inputs.steps(labels, training.settings, 0, 0, torch.device("cpu"))
    assert len(batch.inputs["x"]) == 2 * n_passes
    loss = training.training_loss(batch.inputs, batch.labels)
    assert loss.item() == pytest.approx((2.5 + 6.5) / 2 + 3.0 * 1)


def test_a_network_is_better_than_a_constant_by_its_targets_and_not_by_auxiliary_ones(tmp_path):
    trained = make(tmp_path, epochs=100)
    assert trained.fit(sample())
    labels = trained.prepare(sample())
    with torch.no_grad():  # now the first target is worse than its mean, and the second has hardly an error
        trained.network.head.linear.weight[0] = 0
        trained.network.head.linear.bias[0] = 0.5
    assert trained.beats_constant(sample(), labels)
    trained.context = replace(trained.context, task=Task(["y"]))
    assert not trained.beats_constant(sample(), labels)


@pytest.mark.parametrize(
    ("task", "y"),
    [
        (
            Task(["y", "z"], problem_type="multilabel", classes=["no", "yes"]),
            np.stack([X[:, 0] > 1, X[:, 1] > 1], axis=1),
        ),
        (Task(["y"], problem_type="multiclass", classes=["a", "b"]), X[:, :1] > 1),
    ],
)
def test_a_classifier_that_predicts_about_the_shares_of_the_classes_is_no_better_than_a_constant(
    tmp_path, task, y
):
    trained = make(tmp_path, epochs=60, task=task)
    rows = sample(y.astype(np.float64))
    assert trained.fit(rows)
    labels = trained.prepare(rows)
    with torch.no_grad():
        trained.network.head.linear.weight[:] = 0
        share = y.mean(axis=0) + 0.1
        logits = np.log(share / (1 - share))
        trained.network.head.linear.bias[:] = torch.tensor(logits if len(logits) == 2 else [0.0, *logits])
    assert not trained.beats_constant(rows, labels)


def fit_stage(monkeypatch, folder, outcomes):
    """Fit a stage of which each fit returns an outcome, or runs out of memory where it is None; return the seeds,
    first weights and sizes of the fits. Nothing of a network is left when the next is made.
    """
    fit, networks, seen = trainer.Trainer.fit, [], []

    def with_outcome(self, *samples):
        assert all(network() is None for network in networks)
        networks.append(weakref.ref(self.network))
        weights = float(self.network.head.linear.weight.detach().sum())
        sizes = (self.settings.batch_size, self.settings.gradient_accumulation_steps)
        seen.append((self.context.seed, weights, sizes))
        outcome = outcomes[len(seen) - 1]
        if outcome is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        fit(self, *samples)
        return outcome

    monkeypatch.setattr(trainer.Trainer, "fit", with_outcome)
    stage = Gnn(kind="gnn", epochs=1, batch_size=8, width=8, hidden_width=8)
    made.fitted(stage, made.context(folder, smiles=["s"]), made.rows([0.0, 1.0], s=["CC", "CCO"]), folder)
    assert [network() for network in networks] == [None] * len(outcomes)
    return list(zip(*seen, strict=True))


def test_a_fold_no_better_than_a_constant_is_trained_once_more_with_another_seed_and_reported(
    tmp_path, monkeypatch
):
    seeds, weights, _ = fit_stage(monkeypatch, tmp_path, [False, False])
    assert (len(set(seeds)), len(set(weights))) == (2, 2)
    (note,) = read_notes(tmp_path)
    assert "trained with another, which is not better either" in note


def test_halved_batches_have_as_many_rows_per_step_until_one_row_is_too_large():
    full = RuntimeError("CUDA error: out of memory")
    odd = neural.halve_batch_size(settings(batch_size=50), full)
    assert odd.batch_size * odd.gradient_accumulation_steps == 50
    with pytest.raises(DataError, match="too small for a single row"):
        neural.halve_batch_size(settings(batch_size=1), full)


def test_where_memory_runs_out_batches_are_halved_and_reported(tmp_path, monkeypatch):
    *_, sizes = fit_stage(monkeypatch, tmp_path, [None, None, True])
    assert sizes == ((8, 1), (4, 2), (2, 4))
    assert read_notes(tmp_path) == [
        "the memory is too small for batches of 8 rows: a step has 4 batches of 2."
    ]


@pytest.fixture
def every_step(monkeypatch):
    """A checkpoint after each step, and a row of losses.csv."""
    monkeypatch.setattr(trainer.Checkpoint, "due", lambda self: True)
    monkeypatch.setattr("models.training.loss_log.SECONDS_BETWEEN_ROWS", 0.0)


COSINE = {"schedule": "cosine"}
ACCUMULATED = {"gradient_accumulation_steps": 2, "batch_size": 4}


def fit_until(folder, stop_at, seed=0, **changes):
    """Train for 20 steps in four epochs; raise in step `stop_at`, before its checkpoint."""
    seen: list[int] = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == stop_at:
            raise KeyboardInterrupt

    changes = {"epochs": 4, "pooler_dropout": 0.3, "held_out": HELD_OUT, "progress": progress, **changes}
    make(folder, network(seed, rate=0.3), **changes).fit(sample())
    return seen


@pytest.mark.parametrize("changes", [COSINE, ACCUMULATED])
def test_a_job_that_was_killed_inside_an_epoch_goes_on_to_the_same_bytes(tmp_path, changes, every_step):
    def written(folder):
        files = [sha256_of(folder / name) for name in (job_folder.WEIGHTS, job_folder.TRAINING)]
        return files + [replace(row, seconds=0) for row in read_losses(folder)]

    steps = fit_until(tmp_path / "whole", None, **changes)
    assert [row.step for row in read_losses(tmp_path / "whole")] == [*range(1, 21)]
    for stop_at in (3, 6, 11, 13, 20):
        killed = tmp_path / str(stop_at)
        with pytest.raises(KeyboardInterrupt):
            fit_until(killed, stop_at, **changes)
        assert not (killed / job_folder.WEIGHTS).exists()
        assert fit_until(killed, None, seed=9, **changes) == steps[stop_at - 1 :]
        assert written(killed) == written(tmp_path / "whole"), stop_at


def test_a_loss_that_is_not_finite_when_a_checkpoint_is_due_leaves_the_one_before(tmp_path, monkeypatch):
    """At this rate the weights are finite after the first step, and no loss is after that."""
    monkeypatch.setattr(trainer.Checkpoint, "due", lambda self: True)
    with pytest.raises(DataError, match="lower the stage's learning_rate"):
        fit(tmp_path, learning_rate=1e30, schedule="constant", warmup=0)
    content = torch.load(tmp_path / "checkpoint_0.pt", weights_only=True)
    assert content["position"][:2] == (0, 1)
    assert all(tensor.isfinite().all() for tensor in content["parts"]["network"].values())


def test_a_job_with_a_damaged_checkpoint_starts_again(tmp_path, every_step, capsys):
    """Of a file in which one byte is wrong, torch reads wrong numbers without an error."""
    ways = {
        "cut": lambda content: content[: len(content) // 2],
        "zeros": lambda content: bytes(len(content)),
        "one byte": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    }
    steps = fit_until(tmp_path / "whole", None, **COSINE)
    for way, damaged in ways.items():
        killed = tmp_path / way
        with pytest.raises(KeyboardInterrupt):
            fit_until(killed, 13, **COSINE)
        path = killed / "checkpoint_0.pt"
        path.write_bytes(damaged(path.read_bytes()))
        assert fit_until(killed, None, **COSINE) == steps, way
        assert f"{path} is damaged; it is deleted, and the job starts again" in capsys.readouterr().out


def test_a_step_that_overflows_in_fp16_is_left_out_and_many_of_them_end_the_job(
    tmp_path, every_step, monkeypatch
):
    """With the scaler that a card without bf16 has."""
    whole = trainer.Trainer.training_loss

    def train(folder, n_overflows):
        training, factors = make(folder), iter([float("inf")] * n_overflows)
        training.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        monkeypatch.setattr(
            trainer.Trainer, "training_loss", lambda self, *batch: whole(self, *batch) * next(factors, 1.0)
        )
        training.fit(sample())
        return training.network

    assert np.isfinite(predict(train(tmp_path / "two", 2), tmp_path / "two")).all()
    assert all(math.isfinite(row.loss) for row in read_losses(tmp_path / "two"))
    with pytest.raises(DataError, match="overflows in fp16; set precision: float32"):
        train(tmp_path / "all", 1000)


def test_a_checkpoint_that_cannot_be_written_leaves_no_part_of_it(tmp_path):
    checkpoint = trainer.Checkpoint(tmp_path / "checkpoint.pt", {})
    with mock.patch("models.training.trainer.sync", side_effect=OSError), pytest.raises(OSError):
        checkpoint.save(0, 1, torch.zeros(()))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_the_error_of_a_checkpoint_that_torch_cannot_write(tmp_path):
    """The part that was written leaves no room for another file."""
    checkpoint = trainer.Checkpoint(tmp_path / "checkpoint.pt", {})

    def write_part(state, path):
        path.touch()
        raise RuntimeError("unexpected pos 64 vs 0")

    with (
        mock.patch("torch.save", write_part),
        mock.patch.object(Path, "write_bytes", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OSError, match="No space left"),
    ):
        checkpoint.save(0, 1, torch.zeros(()))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_a_gpu_with_a_gradient_scaler_is_resumed_where_there_is_none(tmp_path, every_step):
    with pytest.raises(KeyboardInterrupt):
        fit_until(tmp_path, 13, **COSINE)
    path = tmp_path / "checkpoint_0.pt"
    content = torch.load(path, weights_only=True)
    content["parts"]["scaler"] = {"scale": 1024.0}
    torch.save(content, path)
    assert fit_until(tmp_path, None, **COSINE) == list(range(13, 21))


def test_a_checkpoint_is_due_every_30_seconds_or_20_times_the_last_write(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoint = trainer.Checkpoint(tmp_path / "checkpoint.pt", {})

    def advance(seconds):
        clock[0] += seconds
        return checkpoint.due()

    assert [advance(29), advance(1)] == [False, True]
    with mock.patch("models.training.trainer.os.replace", lambda *args: advance(3)):
        checkpoint.save(0, 1, torch.zeros(()))
    assert [advance(59), advance(1)] == [False, True]


def test_losses_are_written_every_10_seconds_and_as_the_mean_of_each_epoch(tmp_path, monkeypatch):
    """A clock that a step moves on by 4 seconds, and hardly any learning: rows after steps 3 and 5 of 5."""
    clock = [0.0]
    monkeypatch.setattr("models.training.loss_log.time.monotonic", lambda: clock[-1])
    advance = {"progress": lambda *_: clock.append(clock[-1] + 4)}
    training = make(tmp_path, epochs=1, learning_rate=1e-9, **advance)
    labels = training.prepare(sample())
    training.fit(sample())
    rows = read_losses(tmp_path)
    assert [(row.epoch, row.step, row.seconds) for row in rows] == [(1, 3, 12.0), (1, 5, 20.0)]
    mean_loss = training.loss.mean_error(training.network({"x": torch.from_numpy(X)}), labels)
    assert rows[1].loss == pytest.approx(mean_loss.item(), rel=1e-5)


def test_tensorboard_shows_the_rows_of_losses_csv_also_after_a_kill(tmp_path, monkeypatch, every_step):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("LOSS_TRACKER", "tensorboard")
    folder = tmp_path / "models/gnn/key/seed_0/.fold_1"
    folder.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        fit_until(folder, 13)
    fit_until(folder, None)
    events = EventAccumulator(str(tmp_path / "trackers/gnn/key/seed_0/fold_1")).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert logged == [(row.step, np.float32(row.loss)) for row in read_losses(folder)]


def test_a_fold_that_is_no_job_is_not_tracked(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_TRACKER", "tensorboard")
    for folder in (Path("/tmp/fold"), tmp_path):
        assert tracker_arguments(folder) == {}


def test_a_warm_up_that_is_cut_to_half_of_the_steps_is_a_note(tmp_path):
    fit(tmp_path / "short", warmup=100, epochs=3)
    (note,) = read_notes(tmp_path / "short")
    assert note.startswith("the warm-up of 100 steps is cut to half of the ")
    fit(tmp_path / "long", warmup=4, epochs=3)
    assert read_notes(tmp_path / "long") == []
