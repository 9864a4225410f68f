"""Stages of the study: a network on a cylinder's radius and height or on its picture, with dropout in several places.

One target is regressed by mean squared error, standardised; several are bins, by cross-entropy. Each job measures
itself on fresh cylinders, whose labels need no table, in the three ways to use a network with dropout: evaluation mode,
one pass in training mode, the mean over many such passes (MC dropout: Gal and Ghahramani, arXiv 1506.02142).
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor, nn

from competition.files import read_json, write_atomically, write_json
from competition.tables import Rows
from models.stage import Context
from models.training.labels import target_scale
from studies.cylinder.make import HEIGHT, draw, one_hot
from studies.cylinder.metric import accuracy
from studies.cylinder.variance_shift import unit_ratio

WEIGHTS, SCALE, MEASURES = "weights.safetensors", "scale.json", "measures.json"
SIZE = 24
"""Pixels of a picture's side, which is as long as the largest diameter, 1."""
N_FRESH, FRESH_SEED = 1000, 1


class DropoutSettings(BaseModel, extra="forbid"):
    """What a block may set."""

    where: Literal["none", "each", "last"]
    """Dropout nowhere, on the units of every hidden layer, or only on those before the last layer."""
    rate: float = Field(ge=0, lt=1)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """Of Adam; it falls to 0 along a cosine."""
    batch_size: int = Field(default=50, ge=1)
    passes: int = Field(default=30, ge=2)
    """Passes in training mode for the MC mean and the variances."""


class Network(nn.Module):
    """Hidden layers with dropout on the units of each, or on the last one's only, and a linear layer."""

    def __init__(self, layers: list[nn.Module], width: int, n_outputs: int, settings: DropoutSettings) -> None:
        super().__init__()
        each = settings.rate if settings.where == "each" else 0.0
        dropped = [part for layer in layers[:-1] for part in (layer, nn.Dropout(each))]
        self.units = nn.Sequential(*dropped, layers[-1])
        self.dropout = nn.Dropout(0.0 if settings.where == "none" else settings.rate)
        self.last = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n_rows, n_outputs)."""
        return self.steps(x)[2]

    def steps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Units before the last layer as their own layer gives them, as the last one reads them, and the outputs."""
        units = self.units(x)
        read = self.dropout(units)
        return units, read, self.last(read)


class Cylinders:
    """What the two stages share; see `models.stage.FittedStage` for the contract."""

    Settings = DropoutSettings

    def __init__(self, settings: DropoutSettings, context: Context) -> None:
        self.settings, self.context = settings, context
        self.classifies = len(context.task.outputs) > 1

    def network(self) -> Network:
        """A new network."""
        raise NotImplementedError

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Columns radius and height as the network reads them, n_rows first."""
        raise NotImplementedError

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Train on all rows, write the weights and the measures."""
        assert train.y is not None
        torch.manual_seed(self.context.seed)
        mean, scale = target_scale(train.y)
        mean, scale = (0 * mean, 0 * scale + 1) if self.classifies else (mean, scale)
        write_json(folder / SCALE, {"mean": mean.tolist(), "scale": scale.tolist()})
        network = self.network()
        y = torch.from_numpy((train.y - mean) / scale).float()
        train_loss = self._train(network, self.encode(train.inputs), y)
        write_atomically(folder / WEIGHTS, safetensors.torch.save(network.state_dict()))
        write_json(folder / MEASURES, {"train_loss": train_loss, **self._measures(network, folder)})

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Volumes, or the probability of each bin, (n_rows, n_targets), in evaluation mode."""
        network = self.network()
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        with torch.inference_mode():
            return self._in_units(network.eval()(self.encode(rows.inputs)), folder)

    def _train(self, network: Network, x: Tensor, y: Tensor) -> float:
        """Train in place; the mean loss of the last epoch."""
        settings, losses = self.settings, [0.0]
        loss = nn.CrossEntropyLoss() if self.classifies else nn.MSELoss()
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
        n_steps = settings.epochs * -(-len(x) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        network.train()
        for epoch in range(settings.epochs):
            losses = []
            for rows in torch.randperm(len(x)).split(settings.batch_size):
                optimizer.zero_grad()
                value = loss(network(x[rows]), y[rows])
                value.backward()
                optimizer.step()
                schedule.step()
                losses.append(value.item() * len(rows))
            self.context.progress(epoch + 1, settings.epochs)
        return sum(losses) / len(x)

    def _in_units(self, outputs: Tensor, folder: Path) -> NDArray[np.float64]:
        """Outputs of the network as volumes or as probabilities."""
        if self.classifies:
            return outputs.double().softmax(dim=1).numpy()
        scale = read_json(folder / SCALE)
        return outputs.double().numpy() * np.array(scale["scale"]) + np.array(scale["mean"])

    @torch.inference_mode()
    def _measures(self, network: Network, folder: Path) -> dict[str, float]:
        """Scores on fresh cylinders in the three modes, biases and variances.

        Bias: mean prediction minus mean label, in standard deviations of the labels; `large` is the quarter of largest
        volumes. A variance ratio is that of a unit in training mode (rows and masks) over that in evaluation mode
        (rows), the median over the units before the last layer: `units` as the hidden layer gives them, `inputs` as
        the last layer reads them, behind its own dropout; `formula` is what that one adds to the units' own moments.
        `mean_ratio_units` is that of their means, evaluation over training: what a ReLU makes of the shift before it.
        """
        fresh = draw(N_FRESH, FRESH_SEED)
        x, volume = self.encode(fresh), fresh[["volume"]].to_numpy()
        units, _, outputs = network.eval().steps(x)
        passes, shift = [], VarianceShift(units, network.dropout.p)
        network.train()
        for _ in range(self.settings.passes):
            own, read, dropped = network.steps(x)
            shift.add(own, read)
            passes.append(self._in_units(dropped, folder))
        modes = {"training": passes[0], "mc": np.mean(passes, axis=0)}
        modes["evaluation"] = self._in_units(outputs, folder)
        measures = {}
        for mode, y_pred in modes.items():
            of_mode = bin_measures(volume, y_pred) if self.classifies else volume_measures(volume, y_pred)
            measures.update({f"{name}_{mode}": value for name, value in of_mode.items()})
        return {**measures, **shift.ratios()}


def volume_measures(volume: NDArray[np.float64], y_pred: NDArray[np.float64]) -> dict[str, float]:
    """RMSE; share of predictions in the right bin; bias in standard deviations of the labels, of all rows and of the
    quarter of largest volumes; (n_rows, 1) each.
    """
    error = y_pred - volume
    large = volume >= np.quantile(volume, 0.75)
    return {
        "score": float(np.sqrt(np.mean(error**2))),
        "accuracy": accuracy(one_hot(volume[:, 0]), one_hot(y_pred[:, 0])),
        "bias": float(error.mean() / volume.std()),
        "bias_large": float(error[large].mean() / volume.std()),
    }


def bin_measures(volume: NDArray[np.float64], probability: NDArray[np.float64]) -> dict[str, float]:
    """Share of rows in the right bin, and mean negative log-likelihood, of volumes (n_rows, 1)."""
    bins = one_hot(volume[:, 0])
    return {
        "accuracy": accuracy(bins, probability),
        "log_loss": float(-np.log(np.maximum((bins * probability).sum(axis=1), 1e-12)).mean()),
    }


class VarianceShift:
    """Variances of units in training mode, over rows and passes, against those in evaluation mode, over rows."""

    def __init__(self, units: Tensor, rate: float) -> None:
        """`units`: (n_rows, n_units) in evaluation mode; `rate`: of the dropout behind them."""
        self.mean, self.variance = units.double().mean(dim=0), units.double().var(dim=0, correction=0)
        self.rate, self.passes = rate, 0
        self.moments = torch.zeros(4, units.shape[1], dtype=torch.float64)

    def add(self, units: Tensor, read: Tensor) -> None:
        """One pass: the units and what is read of them, (n_rows, n_units) each."""
        self.passes += 1
        self.moments += torch.stack([values.double().mean(dim=0) for values in (units, units**2, read, read**2)])

    def ratios(self) -> dict[str, float]:
        """Medians over the units that vary; a ReLU that never opens has no variance to compare."""
        vary = self.variance > 1e-6 * self.variance.max()
        mean, variance, moments = self.mean[vary], self.variance[vary], self.moments[:, vary] / self.passes
        found = {
            "units": ((moments[1] - moments[0] ** 2) / variance).numpy(),
            "inputs": ((moments[3] - moments[2] ** 2) / variance).numpy(),
            "formula": unit_ratio(self.rate, mean.numpy(), variance.numpy()),
        }
        ratios = {f"variance_ratio_{name}": float(np.median(ratio)) for name, ratio in found.items()}
        return {**ratios, "mean_ratio_units": float((mean / moments[0]).median())}


class Mlp(Cylinders):
    """Three hidden layers on radius and height, each moved to [-1, 1]."""

    def network(self) -> Network:
        """64 units a layer."""
        widths = [2, 64, 64, 64]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        return Network(list(layers), 64, len(self.context.task.outputs), self.settings)

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """(n_rows, 2)."""
        return torch.tensor(inputs[["radius", "height"]].to_numpy() * [10, 1 / 15] - [4, 4 / 3], dtype=torch.float32)


class Vgg(Cylinders):
    """A small VGG on the picture (Simonyan and Zisserman, arXiv 1409.1556): 3 x 3 convolutions, pooling, two layers."""

    def network(self) -> Network:
        """8, 16 and 32 channels, 64 units."""
        layers: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in ((1, 8), (8, 16), (16, 32))
        ]
        layers.append(nn.Sequential(nn.Flatten(), nn.Linear(32 * (SIZE // 8) ** 2, 64), nn.ReLU()))
        return Network(layers, 64, len(self.context.task.outputs), self.settings)

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """(n_rows, 1, SIZE, SIZE)."""
        return torch.from_numpy(pictures(inputs["radius"].to_numpy(), inputs["height"].to_numpy()))[:, None]


def pictures(radius: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.float32]:
    """Depth pictures from above, (n, SIZE, SIZE): a disc, as bright as the cylinder is high (1 for the highest).

    A pixel on the disc's edge has the share of it that the disc covers, to first order in its distance from the edge.
    """
    centre = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    inside = radius[:, None, None] - np.hypot(centre[:, None], centre)
    covered = np.clip(inside * SIZE + 0.5, 0, 1)
    return (covered * height[:, None, None] / HEIGHT[1]).astype(np.float32)
