"""Train, score and predict from Python, with DataFrames.

`fit` does what `./run.sh new` and `./run.sh full` do, and `FittedRun.predict` what `./run.sh predict` does,
by the same functions. All commands work on what `fit` writes, and `load` on what the commands write.

    from pipeline.api import fit

    run = fit(train, targets="logS", metric="rmse", name="solubility")
    run.scores()
    run.predict(new_molecules)
"""

import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pandas as pd

from competition.cells import MAX_EXACT, as_written
from competition.prepare import require_owned_outputs
from competition.task import Task
from core import cli
from core.errors import ConfigError, DataError, NothingToSubmit
from core.files import plain, write_table
from core.overrides import Overrides
from core.paths import Paths, generated_yaml
from core.user_tables import read_text_table
from models.stages.file import OOF, TEST
from pipeline import commands
from pipeline.json_output import SCORES, stage_records
from pipeline.new.column_roles import Role
from pipeline.new.new import target_file
from submissions.config import Config
from submissions.predict import predict_with
from submissions.run import Run, latest_run, table_digests

OPTIONS = {"id", "group", "metric", "greater_is_better", "problem_type", "time"}
"""Settings by which `new` guesses the others."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedRun(Run):
    """A finished run, with DataFrames.

    `choice.expected` has the score to expect and its interval, `chosen` is the candidate that is submitted,
    `submission` the file to submit, `left_out` what is not in it, and `paths.report` the folder of the
    report.

    Attributes:
        index: of the training table, by id; None for the numbers of its rows.
        labels: labels of the training table, by how they are written.
    """

    index: dict[str, Any] | None
    labels: dict[str, Any]

    def __repr__(self) -> str:
        expected = self.choice.expected
        score = f"expect {self.metric.name} {expected.text}" if expected.score is not None else "not scored"
        return f"<run {self.name} of {self.paths.name}: {score}, {self.chosen} of {', '.join(self.config.stages)}>"

    def oof(self) -> pd.DataFrame:
        """Return the table of `Run.oof` with the index of the table that `fit` got, so that both can be assigned.

        The index of a run of `load` is the number of the row in the training table, from 0.
        """
        table = super().oof()
        competition = self.config.competition
        index = self.index
        if index is None:
            index = {key: row for row, key in enumerate(read_text_table(competition.train)[competition.id])}
        if not {*table["id"]} <= index.keys():
            raise DataError(f"the training table of {self.paths.name} has changed since the run {self.name}.")
        return table.set_axis(pd.Index([index[key] for key in table["id"]]))

    def parsed(self, cells: pd.Series) -> pd.Series:
        """Return cells as labels of the training table, or else as numbers."""
        labels: dict[str, Any] = {"": np.nan}
        for names in (self.task.written_classes, self.task.classes):
            labels |= dict(zip(names, as_written(pd.Series(names, dtype=str)), strict=True))
        labels |= self.labels
        are_labels = bool(self.task.classes) and cells.isin(labels.keys()).all()
        return cells.map(labels) if are_labels else super().parsed(cells)

    def scores(self) -> pd.DataFrame:
        """Return a row for each stage and each candidate of the blend, the best first.

        Columns are `kind` (stage, candidate or submission), and the keys of `pipeline.json_output.stage_records`,
        such as score, score_standard_error, weights.TARGET, target_scores.TARGET, fold_scores.TARGET (a list).

        Raises:
            DataError: a later run has other tables or folds.
        """
        if table_digests(self.paths) != self.manifest.tables:
            raise DataError(
                f"tables or folds of {self.paths.name} have changed since the run {self.name}: use the result of the "
                "last fit, or load."
            )
        rows = [{"name": name, "kind": "stage", **record} for name, record in stage_records(self).items()]
        for name, candidate in self.candidates.items():
            kind = "submission" if name == self.chosen else "candidate"
            rows.append({"name": name, "kind": kind, **candidate.model_dump(include=SCORES)})
        table = pd.json_normalize(rows).set_index("name")
        return table.sort_values("score", ascending=not self.metric.greater_is_better)

    def predict(self, table: pd.DataFrame, workers: int | None = None) -> pd.DataFrame:
        """Return predictions of new rows, with the index of `table`.

        Args:
            table: the input columns, in any order. Messages name a row by its id or, without a column of ids, by
                the index.
            workers: number of cores to use; None for all.

        Returns:
            The columns of the submission: numbers, probabilities or labels, as the metric needs. Rows that cannot be
            read have the mean, or the most frequent, label, with a WARNING.

        Raises:
            DataError: if input columns are missing, or no row can be read.
        """
        competition = self.config.competition
        _require_table("table", table)
        if competition.id not in table and not table.index.is_unique:
            return self.predict(table.reset_index(drop=True), workers).set_index(table.index)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "table.csv"
            write_table(file, _with_ids(table, competition.id))
            written = predict_with(self, file, workers)
        predictions = read_text_table(written)[competition.columns_in_sample].apply(self.parsed)
        return predictions.set_index(table.index)


def load(name: str) -> FittedRun:
    """Return the latest run of a competition, given its name or its YAML; a DataError if it has no run.

    Only `oof` and `scores` read its training table.
    """
    return _fitted(latest_run(name), None, {})


def _fitted(run: Run, index: dict[str, Any] | None, labels: dict[str, Any]) -> FittedRun:
    attributes = {each.name: getattr(run, each.name) for each in fields(run)}
    return FittedRun(**attributes, index=index, labels=labels)


def fit(
    train: pd.DataFrame,
    test: pd.DataFrame | None = None,
    sample: pd.DataFrame | None = None,
    *,
    targets: str | Sequence[str] = (),
    name: str = "from_python",
    preset: str | None = None,
    external: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]] | None = None,
    workers: int | None = None,
    **settings: Any,
) -> FittedRun:
    """Write the tables and a YAML, train, blend and report; return the run.

    The YAML is configs/NAME.yaml in the work folder, written anew by each call, and the outputs are in its
    folder NAME. Finished jobs are kept.

    Args:
        train: inputs and targets. Without `sample`, ids are its column `id` or, without one, its index;
            the other tables are read in the same way.
        test: inputs of the rows to submit; None to predict the training rows.
        sample: sample submission, which sets the columns to predict; None if `targets` does.
        targets: columns to predict.
        preset: stages to train, as in `./run.sh new` (default: quick; none with `stages` or
            `external`).
        external: name -> out-of-fold and test predictions of a stage that another program trained, as tables
            with ids and targets, or a column `target=class` for each class. Without `test`, the second is of the
            training rows, too. If all of the first have a column `fold`, the run gets these folds.
        workers: number of cores to use; None for all.
        settings: settings of the YAML (docs/settings.md), instead of guesses: keys of `competition`, such as
            `metric` and `smiles`; `folds`, `stages` and `submissions`, each a mapping; `budget` (None for
            no limit; without it that of the preset). Paths in them are absolute.

    Raises:
        UserError: if tables or settings are invalid, or no stage could be trained.
    """
    settings = {key: value for key, value in settings.items() if value is not None or key == "budget"}
    if settings.get("budget") == "none":
        settings["budget"] = None
    given = {"train": train, "test": test, "sample": sample}
    tables = {key: table for key, table in given.items() if table is not None}
    id_column = settings.get("id", None if sample is not None else "id")
    _check_arguments(tables, external or {}, settings, id_column)
    yaml_file = generated_yaml(name)
    paths = Paths(name)
    target_file(name, force=True)  # which refuses names that are none
    require_owned_outputs(paths, yaml_file)
    with cli.training(paths):  # until the run is read: another call with this name replaces all of it
        shutil.rmtree(paths.raw, ignore_errors=True)
        files = _write_tables(paths.raw, tables, external or {}, id_column)
        commands.new(_options_of_new(yaml_file, preset, targets, files, settings))
        options = commands.parse(["full", str(yaml_file)])
        options.workers = workers
        commands.full(options)
        run = latest_run(str(yaml_file))
        if run.manifest.tables != table_digests(run.paths):  # of an earlier call, which is complete
            raise NothingToSubmit(
                f"The run {run.name} in {run.paths.root} has other tables. Give fit a larger budget, or another name."
            )
        written = read_text_table(paths.raw / "train.csv")
    index = dict(zip(written[run.config.competition.id], train.index, strict=True))
    return _fitted(run, index, _labels_by_cell(run.config.competition.task, written, train))


def _write_tables(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    external: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    id_column: str | None,
) -> dict[str, Path]:
    """Write tables and external predictions; return the option of `new` -> its file, or folder."""
    files = {}
    for key, table in tables.items():
        files[key] = folder / f"{key}.csv"
        write_table(files[key], _with_ids(table, id_column))
    for stage, predictions in external.items():
        files["oof"] = folder / "external"
        for file, table in zip((OOF, TEST), predictions, strict=True):
            write_table(files["oof"] / stage / file, _with_ids(table, id_column))
    return files


def _options_of_new(
    yaml_file: Path,
    preset: str | None,
    targets: str | Sequence[str],
    files: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> Namespace:
    """Return the options of `./run.sh new`; settings that are none of them are set in the YAML."""
    options = commands.parse(["new", str(yaml_file), "--force"])
    vars(options).update(files, preset=preset, target=_listed(targets))
    others = dict(settings)
    for key in OPTIONS & settings.keys():
        is_column = key != "group" or isinstance(settings[key], str)
        if is_column:  # groups of several columns, or of what is computed of one, are no option
            setattr(options, key, others.pop(key))
    others |= {role: _listed(others[role]) for role in get_args(Role) if role in others}
    options.overrides = Overrides(_by_path(plain(others)))
    return options


def _labels_by_cell(task: Task, written: pd.DataFrame, train: pd.DataFrame) -> dict[str, Any]:
    """Return the labels of classes in a table by the cells that were written of them; empty without classes."""
    given = train.rename(columns=str)
    labels: dict[str, Any] = {}
    for target in task.targets if task.classes else []:
        labels |= dict(zip(written[target], given[target], strict=True))
    return labels


def _check_arguments(
    tables: Mapping[str, pd.DataFrame],
    external: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    settings: Mapping[str, Any],
    id_column: str | None,
) -> None:
    """Raise a ConfigError if an argument of `fit` has another type than it must have, or two contradict each other."""
    for key, table in tables.items():
        _require_table(key, table)
        if id_column is not None and id_column not in table and not table.index.is_unique:
            raise ConfigError(
                f"{key} has no column {id_column!r}, and its index has duplicates: use reset_index(drop=True), or give "
                "the name of the column of ids by id."
            )
    stages = settings.get("stages", {})
    for stage in [*external, *stages]:
        if "/" in stage or (stage in stages and "." in stage):
            raise ConfigError(f"{stage!r} cannot be the name of a stage; use letters, digits and _.")
        if stage in external and stage in stages:
            raise ConfigError(f"{stage!r} is in external and in stages; rename one of them.")
    for stage, predictions in external.items():
        if isinstance(predictions, pd.DataFrame) or len(predictions) != 2:
            raise ConfigError(
                f"external[{stage!r}] must be two DataFrames: out-of-fold and test predictions."
            )
        for table in predictions:
            _require_table(f"external[{stage!r}]", table)
            if id_column in tables["train"] and id_column not in table:
                raise ConfigError(f"external[{stage!r}] has no column {id_column!r}, as train has.")
    _require_no_functions(settings)
    if external and "folds" in settings and all("fold" in oof for oof, _ in external.values()):
        raise ConfigError(
            "The column fold of the external predictions sets the folds: leave out folds, or the column."
        )


def _require_table(name: str, table: object) -> None:
    """Raise a ConfigError if an argument is no DataFrame."""
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(f"{name} must be a DataFrame; got {type(table).__name__}.")


def _require_no_functions(settings: Mapping[str, Any], path: str = "") -> None:
    """Raise a ConfigError if a setting is a function or a class: a worker loads it from its file."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            _require_no_functions(value, f"{path}{key}.")
        elif callable(value):
            name = getattr(value, "__name__", "name")
            raise ConfigError(
                f"{path}{key} is a function; write it into a file, and give '/folder/mine.py:{name}'."
            )


def _listed(value: Any) -> list[str]:
    """Return the names of one column or of several."""
    names = [value] if np.isscalar(value) else value
    return [str(name) for name in names]


def _with_ids(table: pd.DataFrame, id_column: str | None) -> pd.DataFrame:
    """Return a table with its index as ids, if a column of ids is expected and missing."""
    table = _with_whole_numbers(table.rename(columns=str))
    if id_column is None or id_column in table:
        return table
    return table.assign(**{id_column: table.index})


def _with_whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with whole numbers of float columns as integers.

    A missing cell makes floats of a column, and as categories 1.0 and 1 are different.
    """
    columns = {}
    for name in table.columns[table.dtypes.map(pd.api.types.is_float_dtype)]:
        numbers = table[name].to_numpy(np.float64, na_value=np.nan)
        is_whole = np.isfinite(numbers) & (np.abs(numbers) <= MAX_EXACT) & (numbers == np.rint(numbers))
        if is_whole.any():
            columns[name] = table[name].astype(object)
            columns[name][is_whole] = numbers[is_whole].astype(np.int64)
    return table.assign(**columns)


def _by_path(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted path in the YAML -> value; what a section does not mention stays as `new` guesses it."""
    values = {}
    for key, value in settings.items():
        if key not in Config.model_fields:
            values[f"competition.{key}"] = value
        elif isinstance(value, dict):
            values |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            values[key] = value
    return values
