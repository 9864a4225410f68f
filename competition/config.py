"""The base of every settings model, its validation, and the `competition:` section."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from competition.classes import class_name, class_names
from competition.errors import ConfigError
from competition.files import read_text_table
from competition.metrics import ALIASES, METRICS, get_metric, top_k_of
from competition.overrides import NO_OVERRIDES, Overrides
from competition.paths import Paths, config_folders
from competition.types import ProblemType
from competition.yaml_files import load_yaml


class StrictModel(BaseModel):
    """Settings are read-only, and an unknown key is a mistake, not an extra."""

    model_config = {"extra": "forbid", "frozen": True, "allow_inf_nan": False}


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


N_CLASSES: dict[ProblemType, tuple[str, range]] = {
    "regression": ("no", range(1)), "binary": ("two", range(2, 3)), "multilabel": ("two", range(2, 3)),
    "multiclass": ("two or more", range(2, sys.maxsize)), "ordinal": ("two or more", range(2, sys.maxsize)),
}  # fmt: skip
UserPath = Annotated[Path, AfterValidator(_beside_yaml)]
"""A file or folder that a YAML names, relative to the YAML. `validate` makes it absolute; nothing else does.
"""
UserCodeRef = Annotated[str, AfterValidator(_named_in_file)]
"""`file.py:name`, the user's own function or class, relative to the YAML (`competition.user_code` loads it).
"""
UniqueList = AfterValidator(_each_once)
"""Of a list whose entries must differ."""
ClassName = Annotated[str, BeforeValidator(lambda label: class_name(str(label)))]
"""A label as `competition.classes` tells it from others; a YAML may have numbers and booleans."""


class ExtraTrain(StrictModel):
    """A table of more training rows."""

    file: UserPath
    """CSV with the competition's input columns and some or all of its targets; it needs no ids. With the
    columns of `group` and `time` its rows leave the folds that hold out their group, or earlier rows.
    """
    columns: dict[str, str] = {}
    """Our name of a column: its name in this file, where they differ."""
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Weight of its rows in training."""
    check_units: bool = True
    """Whether to stop where its labels are on another scale than the competition's."""


def _known_metric(metric: str, info: ValidationInfo) -> str:
    metric = ALIASES.get(metric, metric)
    if get_metric(metric):
        return metric
    if ":" not in metric:
        raise ValueError(
            f"must be one of {', '.join(METRICS)}, map_at_3 (or another number), or file.py:function"
        )
    return _named_in_file(metric, info)


class CompetitionConfig(StrictModel):
    """The `competition:` section."""

    train: UserPath
    """Training table: id, inputs, targets."""
    test: UserPath
    """Test table: id, inputs."""
    sample_submission: UserPath
    """Decides ids, order and columns of the submission."""
    answers: UserPath | None = None
    """Labels of the test rows, where they are known; read by the final scoring alone."""
    kaggle: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Slug of the competition on Kaggle, as in its address; `submit` and `kernel` need it."""
    holdout_of: str | None = None
    """Written by `--holdout`: the competition whose training rows are the test rows; their score is
    holdout_score.
    """
    id: str = Field(min_length=1)
    """Column that names a row."""
    targets: list[str] = Field(min_length=1)
    """Columns to predict, in the order of the sample's columns."""
    problem_type: ProblemType = "regression"
    """What a target is: a number; one of two classes (binary); of several (multiclass); several targets of
    two classes each, some missing (multilabel); one of few ordered grades (ordinal).
    """
    classes: Annotated[list[ClassName], UniqueList] = []
    """Labels of all targets: the negative one first, grades from the lowest. Unset: those of the training
    table, sorted.
    """
    submission_columns: list[str] | None = None
    """Names of the targets in the sample, where they differ from the training table's; or of one column per
    class, in the order of `classes`.
    """
    smiles: list[str] = []
    """Input columns with molecules."""
    text: list[str] = []
    """Input columns with text."""
    numeric: list[str] = []
    """Input columns with numbers; an empty cell is a missing value."""
    categorical: list[str] = []
    """Input columns with categories; an empty cell is a category of its own."""
    features: UserCodeRef | None = None
    """A function of numbers of your own: it takes the input columns as a table and returns one with a row of
    numbers for each row, which depends on that row alone. Stages read them as they read `numeric`."""
    weight: str | None = None
    """Training column with the weight of each row in training; scores know no weights."""
    auxiliary_targets: list[str] = []
    """Training columns that neural stages learn beside the targets and that are not submitted."""
    extra_train: list[ExtraTrain] = []
    """More rows to train on in every fold; never scored, and left out where a test row has the same input, or
    where the held-out fold has the same input, group, scaffold or cluster, or is earlier in time.
    """
    group: str | None = None
    """Training column whose equal values must share a fold (with `folds.kind: group`)."""
    time: str | None = None
    """Training column with a number or an ISO 8601 date of each row (with `folds.kind: time`); it may be an
    input.
    """
    fold_column: str | None = None
    """Training column with a fold of your own for each row (with `folds.kind: column`): 0 to n-1, or -1 for a
    row that trains in every fold.
    """
    metric: Annotated[str, AfterValidator(_known_metric)]
    """Name of a metric (`competition/metrics.py`), or a function of your own, file.py:function. It decides
    whether numbers, probabilities or labels are submitted.
    """
    greater_is_better: bool | None = None
    """Direction of a metric of your own; the named metrics know theirs."""
    needs: Literal["probabilities", "classes"] | None = None
    """What a metric of your own scores, where the targets are classes; these come as their numbers in
    `classes`.
    """
    empty_smiles: str | None = None
    """SMILES that an empty cell of a molecule column is read as, where empty means none, as of an additive:
    "[Ar]" is
    an atom that few molecules have. null: an empty cell cannot be parsed.
    """
    unparsable: Literal["error", "drop"] = "error"
    """What to do with rows whose molecule RDKit cannot parse or whose text is empty: stop, or leave them
    out of training and give test rows the mean of the training labels (counted in the report)."""
    seed: int = 0
    """The one seed from which all others are derived."""

    @property
    def scores_labels(self) -> bool:
        """Whether the metric scores labels of classes, for which thresholds are tuned."""
        ours = get_metric(self.metric)
        return ours.kind == "decisions" if ours else self.needs == "classes"

    @property
    def inputs(self) -> list[str]:
        """All input columns, molecules first; there may be none where every stage is of kind file."""
        return [*self.smiles, *self.text, *self.numeric, *self.categorical]

    @property
    def columns_in_sample(self) -> list[str]:
        """Columns of the sample beside the id: one per target, in their order, or one per class of a single
        target.
        """
        return self.submission_columns or self.targets

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if mistakes := [
            *self._mistakes_in_columns(),
            *self._mistakes_in_classes(),
            *self._mistakes_in_metric(),
        ]:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes_in_columns(self) -> Iterator[str]:
        labels = [*self.targets, *self.auxiliary_targets]
        roles = [self.id, *labels, *self.inputs, *filter(None, (self.weight, self.fold_column))]
        for name in dict.fromkeys(roles):
            if roles.count(name) > 1:
                yield f"the column {name!r} has several roles; give it one"
        for name in {name: None for extra in self.extra_train for name in extra.columns}:
            if name not in [*self.inputs, *labels, self.group, self.time]:
                yield (
                    f"extra_train.columns names {name!r}, which is neither an input nor a target, group "
                    f"or time"
                )
        if any(name.startswith(("__", "feature ")) for name in roles) or {"id", "fold"} & {*self.targets}:
            yield (
                "no column may begin with '__' or 'feature ', and no target may be called id or fold: "
                "such are ours"
            )
        if self.group in (self.id, *labels, *self.numeric):
            yield f"group is {self.group!r}, and must not be the id, a target or a numeric column"

    def _mistakes_in_classes(self) -> Iterator[str]:
        kind, (needed, allowed) = f"problem_type {self.problem_type}", N_CLASSES[self.problem_type]
        n_targets, n_classes, n_in_sample = len(self.targets), len(self.classes), len(self.columns_in_sample)
        if n_targets > 1 and self.problem_type not in ("regression", "multilabel"):
            yield (
                f"{kind} has one target, and targets names {n_targets}; several of two classes are multilabel"
            )
        if n_classes not in allowed:
            found = (
                f"{n_classes} ({', '.join(self.classes[:5])}{', ...' * (n_classes > 5)})"
                if n_classes
                else "none"
            )
            yield (
                f"{kind} takes {needed} classes, and classes, or where it is unset the training labels, "
                f"are {found}"
            )
        per_class = n_classes if n_targets == 1 else 0
        if n_in_sample not in (n_targets, per_class):
            either = f", or {per_class}, one per class" * bool(per_class)
            yield (
                f"submission_columns names {n_in_sample} columns, and must name {n_targets}, one per "
                f"target{either}"
            )
        if top_k_of(self.metric) and (of_words := [name for name in self.classes if len(name.split()) > 1]):
            yield (
                f"{self.metric} is submitted as classes between spaces, and the class {of_words[0]!r} "
                f"has one in it"
            )

    def _mistakes_in_metric(self) -> Iterator[str]:
        ours = get_metric(self.metric, self.problem_type)
        asks_for_all = (
            self.problem_type == "multiclass" and not self.scores_labels and not top_k_of(self.metric)
        )
        if ours and self.problem_type not in ours.types:
            yield (
                f"the metric {self.metric} scores problem_type {', '.join(ours.types)}, and this is "
                f"{self.problem_type}; change one of the two"
            )
        elif asks_for_all and len(self.columns_in_sample) == len(self.targets):
            yield (
                f"the metric {self.metric} scores the probability of each class, so the sample needs a "
                f"column for "
                "each; name these columns, in the order of the classes, in submission_columns"
            )
        if (self.needs is None) != (ours is not None or self.problem_type == "regression"):
            yield "needs must be set for a metric of your own on classes, and not otherwise"
        if self.needs == "probabilities" and self.problem_type == "ordinal":
            yield "needs must be classes for problem_type ordinal, whose predictions are no probabilities"
        if ours is None and self.greater_is_better is None:
            yield "greater_is_better must be set for a metric of your own"
        if ours and self.greater_is_better not in (None, ours.greater_is_better):
            yield f"greater_is_better contradicts the metric {self.metric}; remove it"


def find_config(name: str) -> Path:
    """The YAML file of a competition: a path that ends in .yaml, or a name in one of `config_folders()`."""
    for folder in config_folders():
        path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
        if path.is_file():
            return path.resolve()
    known = sorted({file.stem for folder in config_folders() for file in folder.glob("*.yaml")})
    raise ConfigError(
        f"there is no competition {name!r}, only {', '.join(known)} or the path of a YAML file; make one "
        f"from its CSV "
        f"files with ./run.sh new NAME --train F --test F --sample F, or from Kaggle with --kaggle SLUG."
    )


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: Any, path: Path, section: str = "") -> Model:
    """`values` as a settings model, with the paths in it relative to the folder of the file `path`."""
    try:
        return model.model_validate(values, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        said: dict[
            tuple[str, str], list[str]
        ] = {}  # of a setting that may be one or another thing, all at once
        for item in error.errors():
            where = ".".join(filter(None, [section, *_keys(values, item["loc"])])) or "the file"
            found, message = f" (found {item['input']!r})", item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = "this key is not known"
            if item["type"] in ("missing", "extra_forbidden") or isinstance(item["input"], dict | BaseModel):
                found = ""
            said.setdefault((where, found), []).append(message)
        lines = [f"  {where}: {'; or: '.join(messages)}{found}" for (where, found), messages in said.items()]
        raise ConfigError("\n".join([f"{path} has {len(lines)} mistake(s):", *lines])) from None


def _keys(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """pydantic's location without what it adds where a setting has several possible classes: their kind or
    type.
    """
    keys = []
    for part in location:
        if isinstance(values, dict) and (part in values or part != values.get("kind")):
            keys.append(str(part))
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            keys.append(str(part))
            values = values[part]
    return keys


def read_yaml(name: str, overrides: Overrides = NO_OVERRIDES) -> tuple[Path, dict[str, Any]]:
    """Return the file of a competition's YAML and its sections, with the overrides of the command line.

    `classes` are those of the training table if the YAML leaves them out.
    """
    path = find_config(name)
    document = {
        section: values for section, values in load_yaml(path).items() if values is not None
    }  # all commented
    overrides.apply(document, path)
    if isinstance(section := document.get("competition"), dict):
        train, targets = section.get("train"), section.get("targets")
        unset = section.get("problem_type", "regression") != "regression" and not section.get("classes")
        if (
            unset and isinstance(train, str) and isinstance(targets, list)
        ):  # else `validate` says what is wrong
            table = read_text_table((path.parent / train).resolve())
            section["classes"] = class_names(table[[name for name in targets if name in table]])
    return path, document


def load_competition(name: str, overrides: Overrides = NO_OVERRIDES) -> CompetitionConfig:
    """Return the `competition:` section of a YAML; see `read_yaml`."""
    path, document = read_yaml(name, overrides)
    return validate(CompetitionConfig, document.get("competition", {}), path, "competition")


def require_owned_outputs(paths: Paths, yaml_file: Path) -> None:
    """Check that the products of a name were made from this YAML, or one that lies among them, and no other
    file.
    """
    if paths.owner.exists():
        owner = Path(paths.owner.read_text(encoding="utf-8").strip())
        others = [file for file in (owner, yaml_file.resolve()) if paths.root.resolve() not in file.parents]
        if len(set(others)) == 2 and owner.is_file():
            raise ConfigError(
                f"{paths.root} was made from {owner}, and this is {yaml_file.resolve()}. Rename one of "
                f"the two, or set "
                "WORK_DIR."
            )
