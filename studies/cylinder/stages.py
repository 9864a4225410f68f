"""Stages of the study: a network on a cylinder's radius and height or on its picture, with dropout in several
places.

A volume is regressed by mean squared error, standardised; its bin is learned by cross-entropy. Each job
measures itself on fresh cylinders in the three ways to use a network with dropout: evaluation mode, one pass
in training mode, the mean over many such passes (MC dropout: Gal and Ghahramani, arXiv 1506.02142).
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

from competition.dataset import Dataset
from competition.files import write_atomically, write_json
from models.stage import Context
from models.training.labels import target_scale
from studies.cylinder.cylinders import EDGES, HEIGHT, draw

Array = NDArray[np.float64]
WEIGHTS = "weights.safetensors"
SIZE = 24
"""Pixels of a picture's side, which is as long as the largest diameter, 1."""
WIDTH = 64
"""Units before the last layer."""
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

    mean: Tensor
    scale: Tensor
    """Of the targets."""

    def __init__(self, layers: list[nn.Module], n_outputs: int, settings: DropoutSettings) -> None:
        super().__init__()
        each = settings.rate if settings.where == "each" else 0.0
        dropped = [part for layer in layers[:-1] for part in (layer, nn.Dropout(each))]
        self.units = nn.Sequential(*dropped, layers[-1])
        self.dropout = nn.Dropout(0.0 if settings.where == "none" else settings.rate)
        self.last = nn.Linear(WIDTH, n_outputs)
        self.register_buffer("mean", torch.zeros(n_outputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Units before the last layer as their own layer gives them, as the last one reads them, and the
        outputs.
        """
        units = self.units(x)
        read = self.dropout(units)
        return units, read, self.last(read)

    def predictions(self, outputs: Tensor) -> Array:
        """Outputs as volumes, or as the probability of each bin."""
        outputs = outputs.double()
        return (outputs.softmax(dim=1) if outputs.shape[1] > 1 else outputs * self.scale + self.mean).numpy()


class Cylinders:
    """What the two stages share; see `models.stage.StageModel` for the contract."""

    Settings = DropoutSettings

    def __init__(self, settings: DropoutSettings, context: Context) -> None:
        self.settings, self.context = settings, context

    def layers(self) -> list[nn.Module]:
        """Return new hidden layers of the network."""
        raise NotImplementedError

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Columns radius and height as the network reads them, n_rows first."""
        raise NotImplementedError

    def network(self) -> Network:
        """Return a new network with random weights."""
        return Network(self.layers(), len(self.context.task.outputs), self.settings)

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Train on all rows, write the weights and the measures."""
        settings, is_volume = self.settings, not self.context.task.classes
        torch.manual_seed(self.context.seed)
        network, loss = self.network(), nn.MSELoss() if is_volume else nn.CrossEntropyLoss()
        if is_volume:
            network.mean, network.scale = map(torch.from_numpy, target_scale(train.y))
        x, y = self.encode(train.inputs), torch.tensor(self.context.task.one_hot(train.y))
        y = ((y - network.mean) / network.scale).float()
        optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
        n_steps = settings.epochs * -(-len(x) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        network.train()
        for epoch in range(settings.epochs):
            for rows in torch.randperm(len(x)).split(settings.batch_size):
                optimizer.zero_grad()
                loss(network(x[rows])[2], y[rows]).backward()
                optimizer.step()
                schedule.step()
            self.context.progress(epoch + 1, settings.epochs)
        write_atomically(folder / WEIGHTS, safetensors.torch.save(network.state_dict()))
        write_json(folder / "measures.json", self._measures(network))

    @torch.inference_mode()
    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Volumes, or the probability of each bin, (n_rows, n_outputs), in evaluation mode."""
        network = self.network()
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        return network.predictions(network.eval()(self.encode(rows.inputs))[2])

    @torch.inference_mode()
    def _measures(self, network: Network) -> dict[str, float]:
        """Measures of the predictions on fresh cylinders in the three modes, and the variance shift."""
        fresh = draw(N_FRESH, FRESH_SEED)
        x, volume = self.encode(fresh), fresh[["volume"]].to_numpy()
        units, _, outputs = network.eval()(x)
        network.train()
        own, read, dropped = zip(*(network(x) for _ in range(self.settings.passes)), strict=True)
        predicted = [network.predictions(values) for values in dropped]
        modes = {
            "training": predicted[0],
            "mc": np.mean(predicted, axis=0),
            "evaluation": network.predictions(outputs),
        }
        results = variance_shift(units, torch.stack(own), torch.stack(read), network.dropout.p)
        for mode, y_pred in modes.items():
            results |= {f"{name}_{mode}": value for name, value in measure(volume, y_pred).items()}
        return results


def measure(volume: Array, y_pred: Array) -> dict[str, float]:
    """Share of the rows in the right bin; of volumes, (n_rows, 1), also RMSE and bias.

    The bias is the mean prediction minus the mean label in standard deviations of the labels, of all rows and
    (`large`) of the quarter of largest volumes.
    """
    bins, has_bins = np.digitize(volume, EDGES), y_pred.shape[1] > 1
    results = y_pred.argmax(axis=1)[:, None] if has_bins else np.digitize(y_pred, EDGES)
    accuracy = {"accuracy": float((results == bins).mean())}
    if has_bins:
        return accuracy
    error, large = y_pred - volume, volume >= np.quantile(volume, 0.75)
    return {
        **accuracy,
        "score": float(np.sqrt(np.mean(error**2))),
        "bias": float(error.mean() / volume.std()),
        "bias_large": float(error[large].mean() / volume.std()),
    }


def unit_ratio(rate: float, mean: Array, variance: Array) -> Array:
    """Variance of a unit in training over that in inference, from its moments in inference.

    Dropout of rate p multiplies a unit x by b / (1-p), where b is 1 with probability 1-p and else 0. The mean
    stays, the variance becomes (Var + mean^2) / (1-p) - mean^2 (Li, Chen, Hu and Yang, CVPR 2019, arXiv
    1801.05134).
    """
    return ((variance + mean**2) / (1 - rate) - mean**2) / variance


def variance_shift(units: Tensor, own: Tensor, read: Tensor, rate: float) -> dict[str, float]:
    """Variance in training mode, over rows and passes, over that in evaluation mode: the median over units
    that vary.

    `units`, (n_rows, n_units), are in evaluation mode; in training mode, (n_passes, n_rows, n_units), `own`
    as their layer gives them and `read` as the last layer reads them, behind its own dropout; `formula`: what
    that one adds to the units' own moments. `mean_ratio_units`, of evaluation over training, is what a ReLU
    makes of the shift.
    """
    vary = (
        units.var(dim=0) > 1e-6 * units.var(dim=0).max()
    )  # a ReLU that never opens has no variance to compare
    still, moved, behind = (
        values[..., vary].double().flatten(0, -2).numpy() for values in (units, own, read)
    )
    mean, variance = still.mean(axis=0), still.var(axis=0)
    results = {
        "variance_ratio_units": moved.var(axis=0) / variance,
        "variance_ratio_inputs": behind.var(axis=0) / variance,
        "variance_ratio_formula": unit_ratio(rate, mean, variance),
        "mean_ratio_units": mean / moved.mean(axis=0),
    }
    return {name: float(np.median(ratio)) for name, ratio in results.items()}


class Mlp(Cylinders):
    """Three hidden layers on radius and height, each moved to [-1, 1]."""

    def layers(self) -> list[nn.Module]:
        """Return hidden layers of 64 units each."""
        return [nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU()) for width in (2, WIDTH, WIDTH)]

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Return scaled radius and height, (n_rows, 2)."""
        return torch.tensor(
            inputs[["radius", "height"]].to_numpy() * [10, 1 / 15] - [4, 4 / 3], dtype=torch.float32
        )


class Vgg(Cylinders):
    """A small VGG on the picture (Simonyan and Zisserman, arXiv 1409.1556): 3 x 3 convolutions, pooling, two
    layers.
    """

    def layers(self) -> list[nn.Module]:
        """8, 16 and 32 channels, 64 units."""
        channels = ((1, 8), (8, 16), (16, 32))
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in channels
        ]
        return [*layers, nn.Sequential(nn.Flatten(), nn.Linear(32 * (SIZE // 8) ** 2, WIDTH), nn.ReLU())]

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Return images of the cylinders, (n_rows, 1, SIZE, SIZE)."""
        return torch.from_numpy(pictures(inputs["radius"].to_numpy(), inputs["height"].to_numpy()))[:, None]


def pictures(radius: Array, height: Array) -> NDArray[np.float32]:
    """Depth pictures from above, (n, SIZE, SIZE): a disc, as bright as the cylinder is high (1 for the
    highest).

    A pixel on the disc's edge has the share of it that the disc covers, to first order in its distance from
    the edge.
    """
    centre = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    inside = radius[:, None, None] - np.hypot(centre[:, None], centre)
    return (np.clip(inside * SIZE + 0.5, 0, 1) * height[:, None, None] / HEIGHT[1]).astype(np.float32)
