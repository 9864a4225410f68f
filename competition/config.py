"""The `competition:` section of a YAML, and the validation of settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from competition.dataset import TableColumns
from competition.metrics import METRICS, Metric, get_metric, load_user_metric, metric_name, top_k_of
from competition.pairs import Pair, pair_errors
from competition.swap import Swap
from competition.task import N_CLASSES, ClassName, Task, class_names, match_columns
from competition.units import GroupPart, Unit, unit_errors, units_of
from core.errors import ConfigError, Mistake, join_first
from core.overrides import NO_OVERRIDES, Overrides, describe_errors
from core.paths import Paths, find_config
from core.settings import StrictModel, UniqueList, UserCodeRef, UserPath, absolute_code_ref
from core.types import ProblemType, Standardise
from core.user_tables import read_text_table
from core.yaml_files import load_yaml


def _require_metric(metric: str, info: ValidationInfo) -> str:
    name = metric_name(metric)
    if get_metric(name):
        return name
    if ":" not in metric:
        raise ValueError(
            f"must be one of {', '.join(METRICS)}, map_at_3 (or another number), or file.py:function"
        )
    return absolute_code_ref(metric, info)


class ExtraTrain(StrictModel):
    """A table of more training rows."""

    file: UserPath
    """CSV with the competition's input columns and some or all of its targets or `auxiliary_targets`; ids are
    not needed. The columns of `group` and `time`, if it has them, keep related and later rows out of a fold's
    training rows.
    """
    columns: dict[str, str] = {}
    """Column of the competition -> its name in this file, if they differ."""
    weight: float = Field(default=1.0, gt=0, le=1)
    """Weight of its rows in training; that of training rows is 1 on average."""
    check_units: bool = True
    """Whether to raise an error if its labels seem to be in other units than the competition's."""
    test_molecules: Literal["mask", "train"] = "mask"
    """What to do with labels of targets in rows that have the inputs of a test row, which may be the answers.
    mask: read them as missing. train: train on them, if the rules of the competition allow it. Labels of
    `auxiliary_targets` of these rows are always trained on.
    """


class CompetitionConfig(StrictModel):
    """Settings of the `competition:` section."""

    train: UserPath
    """Training table: id, inputs, targets."""
    test: UserPath
    """Test table: id, inputs. Without one, give the training table, whose rows are then predicted."""
    sample_submission: UserPath
    """Sample submission: the submission gets its ids, order and columns."""
    answers: UserPath | None = None
    """Labels of the test rows, if they are known; only the final scoring reads them."""
    kaggle: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Slug of the competition on Kaggle, as in its URL. Without it, `submit` only records the file in the ledger,
    and there is neither `submit --kernel` nor `kernel --training`.
    """
    holdout_of: str | None = None
    """Name of the competition whose training rows this one splits into training and test rows; `--holdout` sets it."""
    id: str = Field(min_length=1)
    """Column of the ids."""
    targets: list[str] = Field(min_length=1)
    """Columns to predict, in the order of the sample's columns."""
    problem_type: ProblemType = "regression"
    """Type of the targets. regression: numbers; binary: one target with two classes; multiclass: one target
    with several classes; multilabel: several targets with two classes each, where labels may be missing;
    ordinal: one target with a few ordered levels.
    """
    classes: Annotated[list[ClassName], UniqueList] = []
    """Class labels: the negative one first, ordinal levels from the lowest. Unset: the labels in the training
    table, sorted. If a submission has other labels, a mapping of each class to its label there: `{calm: 0, rude: 1}`.
    """
    labels_in_sample: Annotated[list[ClassName], UniqueList] = []
    """Labels of a submission, in the order of `classes`; `classes` as a mapping sets them."""
    submission_columns: list[str] | None = None
    """Columns of the sample, if their names are not those of the targets: one per target or, for a single
    target, one per class. Columns that are named after targets or classes, such as prob_high, may be in any
    order; others are in the order of `targets` or `classes`.
    """
    smiles: list[str] = []
    """Input columns with molecules."""
    text: list[str] = []
    """Input columns with text."""
    numeric: list[str] = []
    """Input columns with numbers; an empty cell is a missing value."""
    categorical: list[str] = []
    """Input columns with categories; an empty cell is one more category."""
    pairs: Annotated[list[Pair], UniqueList] = []
    """Text columns that are compared, such as `[[sentence1, sentence2]]`: stages read what they have in common."""
    swap: Swap | None = None
    """Columns that may change places: candidates of which one wins, the options of a question, or several of one role,
    such as two drugs. Stages train on their rows in each order and predict the mean of all.
    """
    features: UserCodeRef | None = None
    """User-defined function that makes a table of numbers from the table of the input columns. Each row of
    the result must depend on the same row of the inputs only, so that it is computed once per distinct row
    and kept. Stages read the numbers like `numeric` columns.
    """
    weight: str | None = None
    """Training column with the weight of each row in training, which is divided by the mean weight; scores
    ignore weights.
    """
    auxiliary_targets: list[str] = []
    """Columns of the training table or of `extra_train` that neural stages learn in addition to the targets
    and that are not submitted. A table may lack some of them."""
    extra_train: list[ExtraTrain] = []
    """More rows to train on in every fold. They are never scored. Each fold leaves out rows that share the input,
    group, scaffold or cluster of a held-out row and, with `folds.kind: time`, rows that are later than the
    fold's other training rows. Rows with labels of `auxiliary_targets` only are for neural stages with an
    `auxiliary_weight`; other stages leave them out.
    """
    group: GroupPart | list[GroupPart] | None = None
    """Training column whose equal values share a fold (with `folds.kind: group`), or what is computed of columns, such
    as `{scaffold: SMILES}` (`GroupKind` in competition/units.py), or several of them: rows that share one are tied.
    """
    time: str | None = None
    """Training column with a number or a date per row (with `folds.kind: time`). It may be an input."""
    fold_column: str | None = None
    """Training column with user-defined folds (with `folds.kind: column`): 0 to n-1, or -1 for a row that
    trains in every fold.
    """
    metric: Annotated[str, AfterValidator(_require_metric)]
    """Name of a metric (README.md lists them), or a user-defined function, file.py:function. It
    determines whether numbers, probabilities or labels are submitted.
    """
    greater_is_better: bool | None = None
    """Direction of a user-defined metric."""
    metric_needs: Literal["probabilities", "classes"] | None = None
    """What a user-defined classification metric scores; labels are passed as their indices in `classes`."""
    empty_smiles: str | None = None
    """SMILES that replaces an empty cell of a molecule column, if empty means no molecule (an additive, say);
    "[Ar]" (argon) is a good choice, since data hardly contain it. null: an empty cell cannot be parsed.
    """
    standardise: Standardise = "none"
    """Standardisation of the molecules of all tables, by RDKit. All stages, and what shares a fold, see the
    same form. none: the canonical SMILES. cleanup: RDKit's Cleanup, which disconnects metals, writes
    functional groups in one way, and moves charges to the strongest acid. parent: after that the largest
    fragment, uncharged (ChargeParent). `check` counts what it changes.
    """
    censored: Literal["mask", "bound"] = "mask"
    """What to do with censored labels of a regression, such as >100 and <=0.1. mask: treat them as missing
    labels. bound: neural stages train on them, and an output has an error only on the wrong side of the
    number. All other stages, and every score, treat them as missing.
    """
    unparsable: Literal["error", "drop"] = "error"
    """What to do with rows that have an unparsable molecule, or only empty texts as inputs. error: stop. drop: do
    not train on them, and predict the mean of the training labels for test rows; the report counts both. New rows
    of `predict` are always treated as with drop.
    """
    seed: int = 0
    """Seed from which all others are derived."""
    _yaml: Path = PrivateAttr(Path())

    def model_post_init(self, context: Any) -> None:
        """Keep the file of the settings, which `validate` gives."""
        if context:
            self._yaml = context["yaml_file"]

    @property
    def yaml_file(self) -> Path:
        """The YAML that the settings are from; the competition has its name."""
        return self._yaml

    @property
    def paths(self) -> Paths:
        """Files of the competition."""
        return Paths(self._yaml.stem)

    @property
    def has_test_table(self) -> bool:
        """Whether there is a test table; else the training rows are predicted, and nothing is learned from that."""
        return self.test != self.train

    @property
    def task(self) -> Task:
        """What is predicted."""
        metric = get_metric(self.metric, self.problem_type)
        n_columns = len(self.columns_in_sample)
        return Task(
            targets=self.targets,
            submission_columns=self.submission_columns and self.columns_in_sample,
            problem_type=self.problem_type,
            classes=self.classes,
            labels_in_sample=self.labels_in_sample,
            scores_labels=self.scores_labels,
            top_k=top_k_of(self.metric) if n_columns == len(self.targets) else None,
            minimizes_absolute_error=metric is not None and metric.minimizes_absolute_error,
            target_transform=metric.target_transform if metric else "none",
        )

    @property
    def scorer(self) -> Metric:
        """The metric: a built-in one, or the user's function, which is loaded."""
        metric = get_metric(self.metric, self.problem_type)
        return metric or load_user_metric(self.metric, bool(self.greater_is_better), self.metric_needs)

    @property
    def fold_scorer(self) -> Metric:
        """The metric of the held-out fold of a job.

        For a metric of labels it is the log loss, since the blend tunes thresholds later.
        """
        uses_log_loss = self.scores_labels and self.task.has_probabilities
        return METRICS["log_loss"] if uses_log_loss else self.scorer

    @property
    def scores_labels(self) -> bool:
        """Whether the metric scores class labels, for which thresholds are tuned."""
        metric = get_metric(self.metric)
        return metric.kind == "labels" if metric else self.metric_needs == "classes"

    @property
    def inputs(self) -> list[str]:
        """All input columns, molecules first; empty if every stage is of kind file."""
        return self.columns.inputs

    @property
    def columns(self) -> TableColumns:
        """Columns of the prepared tables."""
        labels = self.targets, self.auxiliary_targets
        inputs = self.smiles, self.text, self.numeric, self.categorical
        return TableColumns(self.id, *labels, *inputs, pairs=self.pairs, swap=self.swap)

    @property
    def units(self) -> list[Unit]:
        """What rows of a group share."""
        return units_of(self.group)

    @property
    def group_columns(self) -> list[str]:
        """Columns that define the groups."""
        return list(dict.fromkeys(name for unit in self.units for name in unit.columns))

    @property
    def columns_in_sample(self) -> list[str]:
        """Columns of the sample except the id: one per target, or one per class of a single target, in their order."""
        columns = self.submission_columns or self.targets
        column_of = {name: column for column, name in self._matches.items()}
        is_complete = len(column_of) == len(columns) == len(self._names)
        return [column_of[name] for name in self._names] if is_complete else columns

    @property
    def _names(self) -> list[str]:
        """What the columns of the sample are for: classes, if there is one for each, else targets."""
        has_column_per_class = len(self.submission_columns or []) > len(self.targets)
        return self.classes if has_column_per_class else self.targets

    @property
    def _matches(self) -> dict[str, str]:
        return match_columns(tuple(self.submission_columns or self.targets), tuple(self._names))

    def describe_columns(self) -> Iterator[str]:
        """Yield a line that says what each of several columns of the sample is for."""
        if len(self.columns_in_sample) > 1 and self.submission_columns not in (None, self._names):
            pairs = zip(self.columns_in_sample, self._names, strict=True)
            mapping = ", ".join(f"{column} = {name}" for column, name in pairs)
            by_position = "WARNING: columns of the sample are matched by position, since no name matches"
            yield f"{'columns of the sample are matched by name' if self._matches else by_position}: {mapping}"

    @model_validator(mode="before")
    @classmethod
    def _split_classes(cls, values: Any) -> Any:
        classes = values.get("classes") if isinstance(values, dict) else None
        if isinstance(classes, dict):
            return {**values, "classes": list(classes), "labels_in_sample": list(classes.values())}
        return values

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        errors = [*self._column_errors(), *self._class_errors(), *self._metric_errors()]
        if errors:
            raise ValueError("; ".join(errors))
        return self

    def _column_errors(self) -> Iterator[str]:
        labels = self.columns.labels
        columns = [self.id, *labels, *self.inputs, *filter(None, (self.weight, self.fold_column))]
        for name in dict.fromkeys(columns):
            if columns.count(name) > 1:
                yield f"the column {name!r} has several roles; give it one"
        for extra in self.extra_train:
            for name in extra.columns:
                if name not in [*self.inputs, *labels, *self.group_columns, self.time]:
                    yield f"extra_train.columns: {name!r} is neither an input nor a target, group or time"
        yield from pair_errors(self.pairs, self.text)
        if self.swap is not None:
            roles = self.smiles, self.text, self.numeric, self.categorical
            has_auxiliary = bool(self.auxiliary_targets)
            yield from self.swap.errors(roles, self.task, self.features is not None, has_auxiliary)
        if self.censored == "bound" and self.problem_type != "regression":
            yield f"censored: bound is for regression, and problem_type is {self.problem_type}; remove it"
        if self.standardise != "none" and not self.smiles:
            yield f"standardise: {self.standardise} needs molecule columns, and smiles is empty; remove it"
        reserved = [name for name in columns if name.startswith(("__", "feature "))]
        reserved += [name for name in self.targets if name in ("id", "fold")]
        if reserved:
            yield (
                f"rename {join_first(reserved)}: no column may begin with '__' or 'feature ', and no target may be "
                "called id or fold"
            )
        yield from unit_errors(self.units, self.id, labels, self.smiles)

    def _class_errors(self) -> Iterator[str]:
        kind = f"problem_type {self.problem_type}"
        expected, allowed = N_CLASSES[self.problem_type]
        n_targets = len(self.targets)
        n_classes = len(self.classes)
        n_in_sample = len(self.columns_in_sample)
        if n_targets > 1 and self.problem_type not in ("regression", "multilabel"):
            yield f"{kind} has one target, got {n_targets}; several targets of two classes are multilabel"
        if n_classes not in allowed:
            names = [*self.classes[:5], *(["..."] if n_classes > 5 else [])]
            got = f"{n_classes} ({', '.join(names)})" if n_classes else "none"
            yield f"{kind} takes {expected} classes (classes, or if unset the training labels); got {got}"
        per_class = n_classes if n_targets == 1 else 0
        if n_in_sample not in (n_targets, per_class):
            alternative = f", or {per_class}, one per class" if per_class else ""
            yield (
                f"submission_columns must have {n_targets} columns, one per target{alternative}; "
                f"got {n_in_sample}"
            )
        elif self._matches and len({*self._matches.values()}) < n_in_sample and n_in_sample > 1:
            yield (
                f"submission_columns {', '.join(self.columns_in_sample)}: only {', '.join(self._matches)} "
                f"match names of {', '.join(self._names)}, one each. Rename the label columns, or the "
                "labels, of the training table so that all match or none does"
            )
        takes_labels = n_in_sample == n_targets and (self.scores_labels or top_k_of(self.metric))
        if self.labels_in_sample and not takes_labels:
            yield "classes with labels of the sample are for a metric of labels, and one column per target"
        with_space = [name for name in self.classes if len(name.split()) > 1]
        if top_k_of(self.metric) and with_space:
            yield f"{self.metric} is submitted as classes separated by spaces, and {with_space[0]!r} has a space"

    def _metric_errors(self) -> Iterator[str]:
        metric = get_metric(self.metric, self.problem_type)
        scores_probabilities = not self.scores_labels and not top_k_of(self.metric)
        if metric and self.problem_type not in metric.types:
            yield (
                f"the metric {self.metric} scores problem_type {', '.join(metric.types)}, and this is "
                f"{self.problem_type}; change one of the two"
            )
        elif (
            self.problem_type == "multiclass"
            and scores_probabilities
            and len(self.columns_in_sample) == len(self.targets)
        ):
            yield (
                f"the metric {self.metric} scores the probability of each of {len(self.classes)} classes "
                f"({join_first(self.classes)}), so the sample needs a column per class; list these columns, in the "
                "order of the classes, in submission_columns, or correct labels that are missing or have two spellings"
            )
        if (self.metric_needs is None) != (metric is not None or self.problem_type == "regression"):
            yield "metric_needs must be set for a user-defined metric of classification, and not otherwise"
        if self.metric_needs == "probabilities" and self.problem_type == "ordinal":
            yield "metric_needs must be classes for problem_type ordinal, since its predictions are levels"
        if metric is None and self.greater_is_better is None:
            yield "greater_is_better must be set for a user-defined metric"
        if metric and self.greater_is_better not in (None, metric.greater_is_better):
            yield f"greater_is_better contradicts the metric {self.metric}; remove it"


Model = TypeVar("Model", bound=BaseModel)


def validate(
    model: type[Model],
    values: Any,
    path: Path,
    section: str = "",
    overrides: Overrides = NO_OVERRIDES,
    yaml_file: Path | None = None,
) -> Model:
    """Return `values` as a settings model; paths in it are relative to the folder of the file `path`.

    Args:
        section: section of the file that `values` are from, for errors.
        overrides: settings of the command line that are in `values`, for errors.
        yaml_file: YAML of the competition, if it is not `path`.

    Raises:
        ConfigError: with all errors, each with its key.
    """
    keys = values if isinstance(values, dict) else ()
    valid_names = {name: set(model.model_fields) for name in keys}
    context = {"folder": path.parent.resolve(), "valid_names": valid_names, "yaml_file": yaml_file or path}
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        lines, is_from_set = describe_errors(error, values, section, valid_names, overrides)
        source = f"{path} with {overrides}" if overrides.values else str(path)
        if is_from_set:
            source = "the command line"
        keys_and_texts = [line.strip().removeprefix("--set ").split(": ", 1) for line in lines]
        mistakes = [Mistake(text, key, source) for key, text in keys_and_texts]
        raise ConfigError("\n".join([f"{source} has {len(lines)} error(s):", *lines]), mistakes) from None


def read_yaml(name: str, overrides: Overrides = NO_OVERRIDES) -> tuple[Path, dict[str, Any]]:
    """Return the file of a competition's YAML and its sections, with the overrides of the command line.

    If the YAML does not set `classes`, they are read from the training table.
    """
    path = find_config(name)
    # A section is None if all of its lines are comments.
    document = {section: values for section, values in load_yaml(path).items() if values is not None}
    overrides.apply(document, path)
    section = document.get("competition")
    if isinstance(section, dict):
        train = section.get("train")
        targets = section.get("targets")
        is_classification = section.get("problem_type", "regression") != "regression"
        has_no_classes = is_classification and not section.get("classes")
        # `validate` reports other types.
        if has_no_classes and isinstance(train, str) and isinstance(targets, list):
            table = read_text_table((path.parent / train).resolve())
            section["classes"] = class_names(table[[name for name in targets if name in table]])
    return path, document


def load_competition(name: str, overrides: Overrides = NO_OVERRIDES) -> CompetitionConfig:
    """Return the `competition:` section of a YAML; see `read_yaml`."""
    path, document = read_yaml(name, overrides)
    section = document.get("competition", {})
    return validate(CompetitionConfig, section, path, "competition", overrides=overrides)
