"""Settings of the kinds of stage that are networks: unimol, unimol2, gnn, bert; and of all that read text.

What is measured behind a default stands in the README's table of results; the field's practice
(schedules, rates) is that of the sources named beside it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, model_validator

from competition.config import EachOnce, StrictModel
from models.settings import NeuralStage, Number, Passes, Rate, Schedule, Weight, Width
from models.weight_sets import WEIGHT_SETS


class MoleculeStage(NeuralStage):
    """What neural stages on molecules have."""

    weights: str | None = None
    """Named set or file to start from (gnn: chemeleon, or message passing saved by chemprop); null starts from random
    weights."""
    columns: list[str] = []
    """Molecule columns, each through the same backbone, then together through a hidden layer; empty takes all."""
    schedule: Schedule = "one_cycle"
    weight_decay: Weight = 0.0


class ConformerStage(MoleculeStage):
    """What both Uni-Mol stages have, on 3-D conformers."""

    architecture: str
    layers: Number = 4
    """compact: number of layers."""
    width: Width = 128
    """compact: width of an atom."""
    heads: int
    conformers: Number = 1
    """Conformers of a molecule: an epoch of training takes the next one, a prediction is the mean over all."""
    fragments: Literal["all", "largest"] = "all"
    """Of a salt or a mixture: everything, or the fragment with the most heavy atoms."""
    repeat_units: Literal["keep", "cap", "cyclic_dimer"] = "keep"
    """What becomes of '*', the open ends of a polymer's repeat unit. keep: an atom of unknown kind, which has no MMFF.
    cap: carbon. cyclic_dimer: two units joined head to tail both ways (three, where both ends are at one atom);
    molecules without exactly two single-bonded ends are capped."""
    unembeddable: Literal["flat", "error"] = "flat"
    """What to do with a molecule that RDKit finds no 3-D coordinates for: take 2-D coordinates, as Uni-Mol did, and
    say how many and which; or stop before any job starts."""
    epochs: Number = 15
    batch_size: Number = 16
    learning_rate: Rate = 1e-3

    @model_validator(mode="after")
    def _compact_fits(self) -> ConformerStage:
        if self.architecture == "compact" and self.weights:
            raise ValueError("architecture compact has no published weights; set weights: null")
        if self.architecture == "compact" and self.width % self.heads:
            raise ValueError(f"heads must divide width; found {self.heads} and {self.width}")
        return self

    @property
    def conformer_settings(self) -> dict[str, Any]:
        """The arguments of `models.inputs.conformers.conformer_cache`."""
        names = ("conformers", "fragments", "repeat_units", "unembeddable")
        return {name: getattr(self, name) for name in names}


class UnimolStage(ConformerStage):
    """Uni-Mol (Zhou et al., ICLR 2023): a transformer over the atoms and distances of a 3-D conformer."""

    kind: Literal["unimol"]
    architecture: Literal["compact", "molecule", "oled"] = "compact"
    """molecule, oled: as published. compact: the same parts in the size below."""
    remove_hydrogens: bool = False
    """Whether the model sees heavy atoms only (always with the no_h and OLED weights)."""
    heads: Number = 16
    """compact: attention heads, a divisor of the width."""

    @model_validator(mode="after")
    def _hydrogens_fit(self) -> UnimolStage:
        if self.weights in ("unimol_no_h", "unimol_oled") and not self.remove_hydrogens:
            raise ValueError(f"weights {self.weights} saw no hydrogens; set remove_hydrogens: true")
        return self


class Unimol2Stage(ConformerStage):
    """Uni-Mol2 (Ji et al., NeurIPS 2024): atoms and pairs in two tracks, on graph and conformer; heavy atoms only."""

    kind: Literal["unimol2"]
    architecture: Literal["compact", "84m", "164m", "310m", "570m", "1.1b"] = "compact"
    """84m to 1.1b: as published. compact: the same parts in the size below."""
    heads: Number = 8
    """compact: attention heads, a divisor of the width."""
    pair_width: Width = 64
    """compact: width of a pair."""
    pair_hidden_width: int = Field(default=16, ge=4)
    """compact: width inside the products over pairs."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Unimol2Stage:
        if self.weights and self.weights.startswith("unimol2_") and self.weights != f"unimol2_{self.architecture}":
            raise ValueError(f"weights {self.weights} need architecture: {self.weights.removeprefix('unimol2_')}")
        return self


class GnnStage(MoleculeStage):
    """Message passing over bonds (D-MPNN, Yang et al., JCIM 2019), by chemprop."""

    kind: Literal["gnn"]
    width: Width = 300
    """Width of a bond's message; the weights decide where there are some."""
    depth: Number = 3
    """Rounds of message passing; the weights decide where there are some."""
    aggregation: Annotated[list[Literal["mean", "sum", "norm"]], EachOnce] = Field(
        default=["mean", "norm"], min_length=1
    )
    """How atoms become a molecule: their mean, sum, or sum over 10; several side by side. A mean cannot count."""
    hidden_width: Width = 300
    """Width of the layer between the molecule and the head."""
    epochs: Number = 30
    batch_size: Number = 64
    learning_rate: Rate = 2e-3
    warmup: Weight = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> GnnStage:
        if self.layer_decay < 1 or self.checkpoint_layers:
            raise ValueError("message passing uses one layer again and again; remove layer_decay and checkpoint_layers")
        return self


class TextStage(StrictModel):
    """What stages have that read columns as one text through a Hugging Face encoder."""

    weights: str | None
    columns: list[str] = []
    """Columns joined into one text, in this order; empty takes all text columns, else all molecule columns."""
    template: str | None = None
    """How the columns are joined, each named in braces: "{a}.{b}>>{c}" for a reaction, "{context} [SEP] {text}" with
    the encoder's own separator; null puts "." between molecules and the separator between all others."""
    tokens: Literal["auto", "smiles"] = "auto"
    """auto: the tokenizer of the weights; from scratch, atoms for molecule columns and word pieces for text.
    smiles: atom by atom, with the weights' vocab.txt; text columns then hold SMILES, such as those of reactions."""
    max_length: Width = 256
    """Longest input in tokens, the encoder's own limit aside."""
    too_long: Literal["cut_end", "cut_middle", "error"] = "cut_end"
    """What happens to a longer one, counted in the job's report. cut_middle keeps a quarter of the length at its
    beginning and the rest at its end (Sun et al., How to Fine-Tune BERT for Text Classification?, 2019)."""

    @property
    def reads_atoms(self) -> bool:
        """Whether all columns are SMILES, cut into atoms."""
        return self.tokens == "smiles" or (self.weights in WEIGHT_SETS and WEIGHT_SETS[self.weights].atoms)


class BertStage(TextStage, NeuralStage):
    """Any Hugging Face encoder on text or SMILES, pretrained or from scratch."""

    kind: Literal["bert"]
    weights: str | None = None
    """Named set, folder, or hub name; null trains an encoder of the size below from scratch."""
    pooling: Literal["mean", "cls", "attention"] = "mean"
    """How tokens become one vector."""
    enumerate_smiles: StrictBool | Literal["order"] = False
    """Whether training sees another random spelling of each molecule in every epoch, and the molecules of one cell, or
    of one side of a reaction, in another order; order: that alone."""
    test_forms: Number
    """Spellings whose mean is the prediction, the canonical one and random ones; unset: 5 with enumerate_smiles."""
    layers: Number = 4
    """From scratch: number of layers."""
    width: Width = 128
    """From scratch: width of a token."""
    heads: Number = 4
    """From scratch: attention heads, a divisor of the width."""
    vocabulary: int = Field(default=4000, ge=100)
    """From scratch: most word pieces, learned from the training rows of the fold."""
    pretrain_epochs: Passes = 0
    """Passes of masked-language modelling over the inputs before the training."""
    pretrain_on: Literal["train", "all_inputs"] = "train"
    """all_inputs: also those of the held-out fold and the test table, without labels; every table says so."""
    epochs: Number
    """Unset: 4 with weights, 20 from scratch."""
    learning_rate: Rate
    """Unset: 5e-5 with weights, 1e-3 from scratch."""
    pretrain_learning_rate: Rate
    """Peak of the pre-training; unset: as the default of learning_rate."""
    batch_size: Number = 16
    head_learning_rate: Rate | None = 1e-3
    warmup: Weight = 0.1

    @model_validator(mode="before")
    @classmethod
    def _by_other_settings(cls, values: Any) -> Any:
        """Random weights need many larger steps; the number stands in the saved settings."""
        if not isinstance(values, dict):
            return values
        rate, epochs = (5e-5, 4) if values.get("weights") else (1e-3, 20)
        defaults = {"learning_rate": rate, "pretrain_learning_rate": rate, "epochs": epochs}
        # 600 QM9 molecules, mean R2 of 3 targets: 0.38 without enumeration, 0.38 with 1 form, 0.59 with 5 (one seed).
        defaults["test_forms"] = 5 if values.get("enumerate_smiles") in (True, "order") else 1
        return defaults | {name: value for name, value in values.items() if name not in defaults or value is not None}

    @model_validator(mode="after")
    def _consistent(self) -> BertStage:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width; found {self.heads} and {self.width}")
        if self.test_forms > 1 and not self.enumerate_smiles:
            raise ValueError("test_forms above 1 needs enumerate_smiles, or training would know one spelling")
        if self.pretrain_on == "all_inputs" and not self.pretrain_epochs:
            raise ValueError("pretrain_on all_inputs needs pretrain_epochs above 0")
        return self

    @property
    def sees_test_inputs(self) -> bool:
        """With pretrain_on: all_inputs, too."""
        return super().sees_test_inputs or self.pretrain_on == "all_inputs"
