"""The base of every settings model, the YAML reader, and the `competition:` section."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from competition.errors import ConfigError
from competition.metrics import METRICS
from competition.paths import Paths, config_folders


class StrictModel(BaseModel):
    """Settings are read-only, and an unknown key is a mistake, not an extra."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _beside_yaml(file: Path, info: ValidationInfo) -> Path:
    return (info.context["folder"] / file).resolve() if info.context else file


def _named_in_file(named: str, info: ValidationInfo) -> str:
    file, _, name = named.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError("must be file.py:name")
    return f"{_beside_yaml(Path(file), info)}:{name}"


def _each_once(values: list[Any]) -> list[Any]:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"must name each once; {twice[0]} stands there again")
    return values


GivenPath = Annotated[Path, AfterValidator(_beside_yaml)]
"""A file or folder that a YAML names, relative to the YAML. `validate` makes it absolute; nothing else does."""
UserCode = Annotated[str, AfterValidator(_named_in_file)]
"""`file.py:name`, the user's own function or class, relative to the YAML (`competition.user_code` loads it)."""
EachOnce = AfterValidator(_each_once)
"""Of a list whose entries must differ."""


GONE = dict.fromkeys(
    ("reinitialise_layers", "token_order", "atom_features", "freeze", "average_epochs"),
    "this key is gone, as no measurement spoke for it; leave it out",
)
"""Keys of earlier versions, and what to do instead."""


class ExtraTrain(StrictModel):
    """A table of more training rows."""

    file: GivenPath
    """CSV with the competition's input columns and some or all of its targets; it needs no ids."""
    columns: dict[str, str] = {}
    """Our name of a column: its name in this file, where they differ."""
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Weight of its rows in training."""
    check_units: bool = True
    """Whether to stop where its labels are on another scale than the competition's."""


def _known_metric(metric: str, info: ValidationInfo) -> str:
    if metric in METRICS:
        return metric
    if ":" not in metric:
        raise ValueError(f"must be one of {', '.join(METRICS)}, or file.py:function")
    return _named_in_file(metric, info)


class CompetitionConfig(StrictModel):
    """The `competition:` section."""

    train: GivenPath
    """Training table: id, inputs, targets."""
    test: GivenPath
    """Test table: id, inputs."""
    sample_submission: GivenPath
    """Decides ids, order and columns of the submission."""
    answers: GivenPath | None = None
    """Labels of the test rows, where they are known; read by the final scoring alone."""
    kaggle: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Slug of the competition on Kaggle, as in its address; `submit` and `kernel` need it."""
    holdout_of: str | None = None
    """Written by `--holdout`: the competition whose training rows are the test rows; their score is holdout_score."""
    id: str = Field(min_length=1)
    """Column that names a row."""
    targets: list[str] = Field(min_length=1)
    """Columns to predict, in the order of the sample's columns."""
    submission_columns: list[str] | None = None
    """Names of the targets in the sample, where they differ from the training table's."""
    smiles: list[str] = []
    """Input columns with molecules."""
    text: list[str] = []
    """Input columns with text."""
    numeric: list[str] = []
    """Input columns with numbers; an empty cell is a missing value."""
    categorical: list[str] = []
    """Input columns with categories; an empty cell is a category of its own."""
    features: UserCode | None = None
    """A function of numbers of your own: it takes the input columns as a table and returns one with a row of
    numbers for each row, which depends on that row alone. Stages read them as they read `numeric`."""
    weight: str | None = None
    """Training column with the weight of each row in training; scores know no weights."""
    auxiliary_targets: list[str] = []
    """Training columns that neural stages learn beside the targets and that are not submitted."""
    extra_train: list[ExtraTrain] = []
    """More rows to train on in every fold; never scored, and left out where a test row or the held-out fold has the
    same input."""
    group: str | None = None
    """Training column whose equal values must share a fold (with `folds.kind: group`)."""
    time: str | None = None
    """Training column with a number or an ISO 8601 date of each row (with `folds.kind: time`); it may be an input."""
    fold_column: str | None = None
    """Training column with a fold of your own for each row (with `folds.kind: column`): 0 to n-1, or -1 for a row that
    trains in every fold."""
    metric: Annotated[str, AfterValidator(_known_metric)]
    """Name of a metric (`competition/metrics.py`), or a function of your own, file.py:function."""
    greater_is_better: bool | None = None
    """Direction of a metric of your own; the named metrics know theirs."""
    empty_smiles: str | None = None
    """SMILES that an empty cell of a molecule column is read as, where empty means none, as of an additive: "[Ar]" is
    an atom that few molecules have. null: an empty cell cannot be parsed."""
    unparsable: Literal["error", "drop"] = "error"
    """What to do with rows whose molecule RDKit cannot parse or whose text is empty: stop, or leave them
    out of training and give test rows the mean of the training labels (counted in the report)."""
    seed: int = 0
    """The one seed from which all others are derived."""

    @property
    def inputs(self) -> list[str]:
        """All input columns, molecules first; there may be none where every stage is of kind file."""
        return [*self.smiles, *self.text, *self.numeric, *self.categorical]

    @property
    def columns_in_sample(self) -> list[str]:
        """Target columns as the sample names them, in the order of `targets`."""
        return self.submission_columns or self.targets

    @model_validator(mode="after")
    def _consistent(self) -> CompetitionConfig:
        labels = [*self.targets, *self.auxiliary_targets]
        roles = [self.id, *labels, *self.inputs, *filter(None, (self.weight, self.fold_column))]
        ours = METRICS.get(self.metric)
        wrong = {f"the column {name!r} has several roles; give it one": roles.count(name) > 1 for name in roles}
        wrong |= {
            f"extra_train.columns names {name!r}, which is neither an input nor a target": True
            for extra in self.extra_train
            for name in extra.columns
            if name not in self.inputs + labels
        }
        wrong |= {
            "no column may begin with '__' or 'feature ', and no target may be called id or fold: such names are ours":
                any(name.startswith(("__", "feature ")) for name in roles) or bool({"id", "fold"} & {*self.targets}),
            "submission_columns must name one column per target": len(self.columns_in_sample) != len(self.targets),
            f"group is {self.group!r}, and must not be the id, a target or a numeric column":
                self.group in (self.id, *labels, *self.numeric),
            "greater_is_better must be set for a metric of your own": ours is None and self.greater_is_better is None,
            f"greater_is_better contradicts the metric {self.metric}; remove it":
                ours is not None and self.greater_is_better not in (None, ours.greater_is_better),
        }  # fmt: skip
        if mistakes := [message for message, is_wrong in wrong.items() if is_wrong]:
            raise ValueError("; ".join(mistakes))
        return self


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a doubled key is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def find_config(name: str) -> Path:
    """The YAML file of a competition: a path that ends in .yaml, or a name in one of `config_folders()`."""
    for folder in config_folders():
        path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
        if path.is_file():
            return path.resolve()
    known = sorted({file.stem for folder in config_folders() for file in folder.glob("*.yaml")})
    meant = "".join(f" Did you mean {other}?" for other in get_close_matches(name, known, 1))
    raise ConfigError(
        f"there is no competition {name!r}, only {', '.join(known)} or the path of a YAML file; make one from its CSV "
        f"files with ./run.sh new NAME --train F --test F --sample F, or from Kaggle with --kaggle SLUG.{meant}"
    )


def load_yaml(path: Path) -> dict[str, Any]:
    """The YAML document as a dictionary."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} needs the sections competition, folds, stages and submissions; it has none.")
    return document


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Any, path: Path, section: str = "") -> Model:
    """`values` as a settings model, with the paths in it relative to the folder of the file `path`."""
    try:
        return model.model_validate(values, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        said: dict[tuple[str, str], list[str]] = {}  # of a setting that may be one or another thing, all at once
        for item in error.errors():
            where = ".".join(filter(None, [section, *_keys(values, item["loc"])])) or "the file"
            found, message = f" (found {item['input']!r})", item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = GONE.get(str(item["loc"][-1]), "this key is not known")
            if item["type"] in ("missing", "extra_forbidden") or isinstance(item["input"], dict | BaseModel):
                found = ""
            said.setdefault((where, found), []).append(message)
        lines = [f"  {where}: {'; or: '.join(messages)}{found}" for (where, found), messages in said.items()]
        raise ConfigError("\n".join([f"{path} has {len(lines)} mistake(s):", *lines])) from None


def _keys(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """pydantic's location without what it adds where a setting has several possible classes: their kind or type."""
    keys = []
    for part in location:
        is_kind = isinstance(values, dict) and part not in values and part == values.get("kind")
        if is_kind or (isinstance(part, str) and values is not None and not isinstance(values, dict)):
            continue
        keys.append(str(part))
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part]
    return keys


def read_yaml(name: str, seed: int | None = None) -> tuple[Path, dict[str, Any]]:
    """Where the YAML of a competition is, and its sections; `seed` replaces that of the file where it is given."""
    path = find_config(name)
    document = {section: values for section, values in load_yaml(path).items() if values is not None}  # all commented
    if seed is not None and isinstance(section := document.get("competition"), dict):
        section["seed"] = seed
    return path, document


def load_competition(name: str, seed: int | None = None) -> CompetitionConfig:
    """The `competition:` section of a YAML, as `read_yaml` finds it."""
    path, document = read_yaml(name, seed)
    return validate(CompetitionConfig, document.get("competition", {}), path, "competition")


def require_own_products(paths: Paths, yaml_file: Path) -> None:
    """Check that the products of a name were made from this YAML, and not from another file of that name."""
    if paths.name in ("cache", "configs"):
        raise ConfigError(f"no competition can be named {paths.name}, which is a folder in {paths.root.parent}.")
    if paths.owner.exists():
        owner = Path(paths.owner.read_text(encoding="utf-8").strip())
        if owner != yaml_file.resolve() and owner.is_file():
            raise ConfigError(
                f"{paths.root} was made from {owner}, and this is {yaml_file.resolve()}. Rename one of the two, or set "
                "WORK_DIR."
            )
