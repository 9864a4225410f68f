"""A kind of stages to copy and change (CONTRIBUTING.md): it predicts the labels of similar molecules, averaged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pydantic import PositiveFloat
from rdkit.Chem import MolFromSmiles

from competition.dataset import Dataset
from core.files import read_json, write_json
from core.types import Array
from models.context import CheckTables, Context, molecule_columns
from models.inputs.fingerprints import morgan
from models.job_folder import TRAINING
from models.stage import Stage


class Nearest(Stage):
    """Mean of the labels of all training molecules, of which similar ones count most."""

    packages = ("rdkit",)  # another version of it trains the stage again
    sharpness: PositiveFloat = 20.0
    """How much more the labels of similar molecules count."""

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check that there are molecules as well; see `Stage.check`."""
        yield from super().check(tables)
        molecule_columns([], tables.context.smiles, self.kind)

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Write molecules, labels and weights."""
        y = context.task.one_hot(train.y)  # (n_rows, n_outputs), NaN for a missing label
        row_weights = np.ones(len(train)) if train.weights is None else train.weights
        weights = np.where(np.isnan(y), 0.0, row_weights[:, None])
        smiles = list(train.inputs[context.smiles[0]])
        write_json(
            folder / TRAINING, {"smiles": smiles, "y": np.nan_to_num(y).tolist(), "weights": weights.tolist()}
        )

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return weighted means of labels, (n_rows, n_outputs)."""
        train = read_json(folder / TRAINING)
        weights = np.array(train["weights"])
        similarity = fingerprints(rows.inputs[context.smiles[0]]) @ fingerprints(train["smiles"]).T
        kernel = np.exp(self.sharpness * similarity)
        y_pred: Array = kernel @ (weights * train["y"]) / (kernel @ weights)
        return y_pred


def fingerprints(smiles: Iterable[str]) -> Array:
    """Return Morgan counts of molecules, (n_molecules, 1024), with the length 1."""
    counts = np.array([morgan(MolFromSmiles(text), 1024) for text in smiles], dtype=np.float64)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)
