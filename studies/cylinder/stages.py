"""Stages of the study: a network on radius and height of a cylinder, or on its picture, with dropout.

Standardised volumes are learned by mean squared error, their bins by cross-entropy. Each job measures its
network on new cylinders in the three modes of a network with dropout: evaluation mode, one pass in training
mode, and the mean over many such passes (MC dropout: Gal and Ghahramani, arXiv 1506.02142).
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from competition.dataset import Dataset
from core.files import write_atomically, write_json
from core.types import Array
from models.context import Context
from models.stage import Stage
from models.targets import target_scale

RADIUS = (0.3, 0.5)
HEIGHT = (5.0, 35.0)
"""Ranges of the posted claim (`SOURCE.md`)."""
EDGES = [4.1, 5.9, 7.6, 9.4, 11.3, 13.8, 17.3]
"""Volumes between neighbouring bins, as in the study: about an eighth of the cylinders is in each."""
WEIGHTS = "weights.safetensors"
SIZE = 24
"""Pixels per side of a picture. A side is as long as the largest diameter, 1."""
WIDTH = 64
"""Units before the last layer."""
N_FRESH = 1000
"""Number of new cylinders."""
FRESH_SEED = 1


def draw(n: int, seed: int) -> pd.DataFrame:
    """Return random cylinders, (n, 3), with the columns radius, height and volume."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"radius": random.uniform(*RADIUS, n).round(4), "height": random.uniform(*HEIGHT, n).round(3)}
    )
    return table.assign(volume=np.pi * table.radius**2 * table.height)


class Network(nn.Module):
    """Hidden layers, with dropout after each or only after the last one, and a linear layer.

    Attributes:
        mean: (n_outputs,), mean of the labels.
        scale: (n_outputs,), standard deviation of the labels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, layers: list[nn.Module], n_outputs: int, where: str, rate: float) -> None:
        super().__init__()
        inner_rate = rate if where == "each" else 0.0
        inner_layers: list[nn.Module] = []
        for layer in layers[:-1]:
            inner_layers += [layer, nn.Dropout(inner_rate)]
        self.units = nn.Sequential(*inner_layers, layers[-1])
        self.dropout = nn.Dropout(0.0 if where == "none" else rate)
        self.last = nn.Linear(WIDTH, n_outputs)
        self.register_buffer("mean", torch.zeros(n_outputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last hidden units before dropout, after dropout, and the outputs."""
        units = self.units(x)
        dropped = self.dropout(units)
        return units, dropped, self.last(dropped)

    def predictions(self, outputs: Tensor) -> Array:
        """Return outputs as volumes, or as the probability of each bin."""
        outputs = outputs.double()
        return (outputs.softmax(dim=1) if outputs.shape[1] > 1 else outputs * self.scale + self.mean).numpy()


class Cylinders(Stage):
    """Base class of both stages; `models.stage.Stage` documents `fit` and `predict`."""

    depends_on_seed = True
    where: Literal["none", "each", "last"]
    """Dropout nowhere, on the units of every hidden layer, or only on those before the last layer."""
    rate: float = Field(ge=0, lt=1)
    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """Learning rate of Adam; it falls to 0 along a cosine."""
    batch_size: int = Field(default=50, ge=1)
    passes: int = Field(default=30, ge=2)
    """Number of passes in training mode for the MC mean and the variances."""

    def layers(self) -> list[nn.Module]:
        """Return new hidden layers of the network."""
        raise NotImplementedError

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Return the inputs of the network for the columns radius and height, (n_rows, ...)."""
        raise NotImplementedError

    def network(self, context: Context) -> Network:
        """Return a new network with random weights."""
        return Network(self.layers(), len(context.task.outputs), self.where, self.rate)

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Train on all rows, and write the weights and measures.json."""
        is_volume = not context.task.classes
        torch.manual_seed(context.seed)
        network = self.network(context)
        loss = nn.MSELoss() if is_volume else nn.CrossEntropyLoss()
        if is_volume:
            network.mean, network.scale = map(torch.from_numpy, target_scale(train.y))
        x = self.encode(train.inputs)
        y = torch.tensor(context.task.one_hot(train.y))
        y = ((y - network.mean) / network.scale).float()
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        n_steps = self.epochs * -(-len(x) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        network.train()
        for epoch in range(self.epochs):
            for rows in torch.randperm(len(x)).split(self.batch_size):
                optimizer.zero_grad()
                loss(network(x[rows])[2], y[rows]).backward()
                optimizer.step()
                schedule.step()
            context.progress(epoch + 1, self.epochs)
        write_atomically(folder / WEIGHTS, safetensors.torch.save(network.state_dict()))
        write_json(folder / "measures.json", self._measures(network))

    @torch.inference_mode()
    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return volumes, or the probability of each bin, (n_rows, n_outputs), in evaluation mode."""
        network = self.network(context)
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        return network.predictions(network.eval()(self.encode(rows.inputs))[2])

    @torch.inference_mode()
    def _measures(self, network: Network) -> dict[str, float]:
        """Return measures of predictions for new cylinders in the three modes, and the variance shift."""
        fresh = draw(N_FRESH, FRESH_SEED)
        x = self.encode(fresh)
        volume = fresh[["volume"]].to_numpy()
        units, _, outputs = network.eval()(x)
        network.train()
        passes = [network(x) for _ in range(self.passes)]
        before, after, outputs_in_training = (torch.stack(tensors) for tensors in zip(*passes, strict=True))
        y_passes = [network.predictions(values) for values in outputs_in_training]
        modes = {
            "training": y_passes[0],
            "mc": np.mean(y_passes, axis=0),
            "evaluation": network.predictions(outputs),
        }
        results = variance_shift(units, before, after, network.dropout.p)
        for mode, y_pred in modes.items():
            results |= {f"{name}_{mode}": value for name, value in measure(volume, y_pred).items()}
        return results


def measure(volume: Array, y_pred: Array) -> dict[str, float]:
    """Return the share of rows in the right bin, and for predicted volumes also RMSE and bias.

    The bias is the mean prediction minus the mean label in standard deviations of the labels, for all rows
    and (`bias_large`) for the quarter with the largest volumes.

    Args:
        volume: (n_rows, 1).
        y_pred: volumes (n_rows, 1), or the probability of each bin (n_rows, n_bins).
    """
    bins = np.digitize(volume, EDGES)
    has_bins = y_pred.shape[1] > 1
    predicted_bins = y_pred.argmax(axis=1)[:, None] if has_bins else np.digitize(y_pred, EDGES)
    accuracy = {"accuracy": float((predicted_bins == bins).mean())}
    if has_bins:
        return accuracy
    error = y_pred - volume
    large = volume >= np.quantile(volume, 0.75)
    return {
        **accuracy,
        "score": float(np.sqrt(np.mean(error**2))),
        "bias": float(error.mean() / volume.std()),
        "bias_large": float(error[large].mean() / volume.std()),
    }


def unit_ratio(rate: float, mean: Array, variance: Array) -> Array:
    """Return the ratio of the variances of a unit in training and inference, from its moments in inference.

    Dropout of rate p multiplies a unit x by b / (1-p), where b is 1 with probability 1-p and else 0. The mean
    does not change, the variance becomes (Var + mean^2) / (1-p) - mean^2.

    Source: Li, Chen, Hu and Yang, CVPR 2019, arXiv 1801.05134.
    """
    return ((variance + mean**2) / (1 - rate) - mean**2) / variance


def variance_shift(units: Tensor, before: Tensor, after: Tensor, rate: float) -> dict[str, float]:
    """Return ratios of variances in training mode and in evaluation mode, each the median over the units.

    - variance_ratio_units: units before dropout.
    - variance_ratio_inputs: units after dropout, the inputs of the last layer.
    - variance_ratio_formula: expected from the dropout of the last layer alone.
    - mean_ratio_units: means in evaluation mode over means in training mode, since a ReLU moves the mean.

    Args:
        units: (n_rows, n_units) in evaluation mode.
        before: (n_passes, n_rows, n_units) in training mode, before dropout.
        after: (n_passes, n_rows, n_units) in training mode, after dropout.
        rate: dropout rate before the last layer.
    """
    varies = units.var(dim=0) > 1e-6 * units.var(dim=0).max()  # a ReLU may be 0 for all rows

    def flat(values: Tensor) -> Array:
        return values[..., varies].double().flatten(0, -2).numpy()

    evaluated = flat(units)
    trained = flat(before)
    mean = evaluated.mean(axis=0)
    variance = evaluated.var(axis=0)
    results = {
        "variance_ratio_units": trained.var(axis=0) / variance,
        "variance_ratio_inputs": flat(after).var(axis=0) / variance,
        "variance_ratio_formula": unit_ratio(rate, mean, variance),
        "mean_ratio_units": mean / trained.mean(axis=0),
    }
    return {name: float(np.median(ratio)) for name, ratio in results.items()}


class Mlp(Cylinders):
    """Three hidden layers on radius and height, scaled to [-1, 1]."""

    def layers(self) -> list[nn.Module]:
        """Return hidden layers of 64 units each."""
        return [nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU()) for width in (2, WIDTH, WIDTH)]

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Return scaled radius and height, (n_rows, 2)."""
        return torch.tensor(
            inputs[["radius", "height"]].to_numpy() * [10, 1 / 15] - [4, 4 / 3], dtype=torch.float32
        )


class Vgg(Cylinders):
    """A small VGG on the picture: 3 x 3 convolutions, pooling, two linear layers.

    Source: Simonyan and Zisserman, arXiv 1409.1556.
    """

    def layers(self) -> list[nn.Module]:
        """Return layers of 8, 16 and 32 channels, and one of 64 units."""
        channels = ((1, 8), (8, 16), (16, 32))
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in channels
        ]
        return [*layers, nn.Sequential(nn.Flatten(), nn.Linear(32 * (SIZE // 8) ** 2, WIDTH), nn.ReLU())]

    def encode(self, inputs: pd.DataFrame) -> Tensor:
        """Return images of the cylinders, (n_rows, 1, SIZE, SIZE)."""
        return torch.from_numpy(pictures(inputs["radius"].to_numpy(), inputs["height"].to_numpy()))[:, None]


def pictures(radius: Array, height: Array) -> NDArray[np.float32]:
    """Return depth pictures from above, (n, SIZE, SIZE): a disc with the height as its brightness.

    The brightness is 1 for the largest height. A pixel on the edge has the share that the disc covers, to
    first order in its distance from the edge.
    """
    centre = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    inside = radius[:, None, None] - np.hypot(centre[:, None], centre)
    return (np.clip(inside * SIZE + 0.5, 0, 1) * height[:, None, None] / HEIGHT[1]).astype(np.float32)
