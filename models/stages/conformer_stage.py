"""What both Uni-Mol stages share: settings of conformers, which are augmentations, and initial weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator
from rdkit import Chem

from competition.dataset import Dataset
from core.errors import join_first
from core.modules import load
from models.context import Context, molecule_columns
from models.inputs.cache import Cache, distinct_values
from models.inputs.conformers import MAX_ATOMS, conformer_cache, is_flat, select
from models.inputs.weights import find_weights, published_settings
from models.job_folder import write_notes
from models.training.batches import Batches
from models.training.neural_stage import MoleculeStage

if TYPE_CHECKING:
    from torch import nn


COMMON = "models.networks.unimol_common"


class ConformerStage(MoleculeStage):
    """A stage with a backbone that reads 3-D conformers; the conformers of a molecule are its augmentations.

    A kind implements `backbone`, `reader` and `collate`.
    """

    ignored_checkpoint_prefixes: ClassVar[tuple[str, ...]]
    """Prefixes of checkpoint keys that are not loaded: heads of a pre-training or fine-tuning."""
    pads: ClassVar[bool]
    """Whether the backbone computes padding."""

    packages = ("torch", "unimol_tools", "rdkit")
    conformers: PositiveInt = 1
    """Conformers per molecule. Each epoch of training reads the next one; a prediction is the mean
    over all."""
    fragments: Literal["all", "largest"] = "all"
    """For salts and mixtures: read all fragments, which may overlap, or the one with the most heavy atoms."""
    epochs: PositiveInt = 15
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat
    """Peak learning rate of the schedule. Unset: 1e-3 from scratch, 5e-4 with weights of the architecture compact,
    1e-4 with published weights."""

    @model_validator(mode="before")
    @classmethod
    def _fill_learning_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill the learning rate, so that the saved settings contain its value."""
        if values.get("learning_rate") is not None:
            return values
        rate = 1e-3
        if values.get("weights"):
            architecture = values.get("architecture", cls.model_fields["architecture"].default)
            rate = 5e-4 if architecture == "compact" else 1e-4
        return {**values, "learning_rate": rate}

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        for name, value in published_settings(self.weights or "", self.kind).items():
            if getattr(self, name) != value:
                raise ValueError(f"weights {self.weights} need {name}: {str(value).lower()}")
        return self

    def cache(self, root: Path) -> Cache:
        """Return the cache of conformers in the folder of all caches."""
        settings = self.model_dump(include={"conformers", "fragments"})
        return conformer_cache(root, **settings)

    def caches(self, context: Context, tables: Sequence[Dataset]) -> list[tuple[Cache, list[str]]]:
        """Return the cache of conformers; see `Stage.caches`."""
        molecules = distinct_values(self.columns or context.smiles, tables)
        return [(self.cache(context.cache), molecules)]

    @property
    def n_augmentations(self) -> tuple[int, int]:
        """Number of conformers in training, and in prediction."""
        return self.conformers, self.conformers

    def reader(self, folder: Path) -> Callable[[str, NDArray[np.float32]], dict[str, NDArray[Any]]]:
        """Return a function that makes the input of the backbone from a SMILES and a conformer (n_atoms, 4).

        The input has an array `tokens`; rows are batched by its length.
        """
        raise NotImplementedError

    def collate(self, items: list[dict[str, NDArray[Any]]]) -> dict[str, Any]:
        """Return the arguments of the backbone for the inputs of some molecules."""
        raise NotImplementedError

    def initial_backbone(self, train: Dataset, folder: Path, context: Context) -> "nn.Module":
        """Return the backbone with the configured weights, or random ones; note flat molecules and unknown elements."""
        backbone = self.backbone(folder, context)
        if self.weights:
            load(COMMON).load_checkpoint(
                backbone, find_weights(self.weights), self.ignored_checkpoint_prefixes
            )
        columns = molecule_columns(self.columns, context.smiles, self.kind)
        smiles = sorted(set(train.inputs[columns].to_numpy().ravel()))
        conformers = self.cache(context.cache).load(smiles)
        flat = [text for text, conformer in zip(smiles, conformers, strict=True) if is_flat(conformer)]
        if flat:
            note = (
                f"{len(flat)} of {len(smiles)} training molecules have flat coordinates, "
                f"since RDKit finds no others or they have {MAX_ATOMS} or more atoms "
                f"({MAX_ATOMS} are read): {join_first(flat, '{:.60}'.format)}"
            )
            write_notes(folder, [note])
        elements = [elements_of(conformer) for conformer in conformers]
        unknown = self.unknown_elements(set().union(*elements), folder)
        if unknown:
            n_molecules = sum(not unknown.isdisjoint(each) for each in elements)
            note = (
                f"{n_molecules} of {len(smiles)} training molecules have elements that are one and the same token, "
                f"since the vocabulary lacks them: {', '.join(sorted(unknown))}"
            )
            write_notes(folder, [note])
        return backbone

    def unknown_elements(self, symbols: set[str], folder: Path) -> set[str]:
        """Return those of some elements that the network does not distinguish, by their symbols."""
        return set()

    def encode_molecules(
        self, smiles: list[str], folder: Path, context: Context, augmentation: int
    ) -> Batches:
        """Return one conformer of each molecule, the one of the augmentation."""

        make_input = self.reader(folder)
        distinct = dict(zip(smiles, self.cache(context.cache).load(smiles), strict=True))
        inputs = {
            text: make_input(text, select(conformers, augmentation)) for text, conformers in distinct.items()
        }
        items = [inputs[text] for text in smiles]
        lengths = np.array([len(item["tokens"]) for item in items])
        return Batches(items, lengths, self.collate, self.pads)


def elements_of(conformers: NDArray[np.float32]) -> set[str]:
    """Return the symbols of the atoms of conformers, (n_atoms, 1 + 3 * n_conformers), without '*'."""
    table = Chem.GetPeriodicTable()
    return {table.GetElementSymbol(int(number)) for number in np.unique(conformers[:, 0]) if number}
