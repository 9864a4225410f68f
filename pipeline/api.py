"""Train, score and predict from Python, with DataFrames.

`fit` does what `./run.sh new` and `./run.sh full` do, and `FittedRun.predict` what `./run.sh predict` does,
by the same functions. All commands work on what `fit` writes, and `load` on what the commands write.

    from pipeline.api import fit

    run = fit(train, targets="logS", metric="rmse", name="solubility")
    run.scores()
    run.predict(new_molecules)
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from competition.cells import as_written
from competition.prepare import require_owned_outputs
from core import cli
from core.files import plain, read_text_table, write_table
from core.overrides import Overrides
from core.paths import Paths, generated_yaml
from models.stages.file import OOF, TEST
from pipeline import commands
from pipeline.new.new import target_file
from pipeline.summary import SCORES, stage_records
from submissions.config import Config
from submissions.predict import predict_with
from submissions.run import Run, latest_run

OPTIONS = {
    "id", "group", "metric", "greater_is_better", "problem_type", "time", "smiles", "text", "numeric",
    "categorical",
}  # fmt: skip
"""Settings by which `new` guesses the others."""


class FittedRun(Run):
    """A finished run, with DataFrames.

    `choice.expected` has the score to expect and its interval, `chosen` is the candidate that is submitted,
    `submission` the file to submit, `left_out` what is not in it, and `paths.report` the folder of the
    report.
    """

    def scores(self) -> pd.DataFrame:
        """Return a row for each stage and each candidate of the blend, the best first.

        Columns are `kind` (stage, candidate or submission), and the keys of `pipeline.summary.stage_records`,
        such as score, score_standard_error, weights.TARGET, target_scores.TARGET, fold_scores.TARGET (a list).
        """
        rows = [{"name": name, "kind": "stage", **record} for name, record in stage_records(self).items()]
        for name, candidate in self.candidates.items():
            kind = "submission" if name == self.chosen else "candidate"
            rows.append({"name": name, "kind": kind, **candidate.model_dump(include=SCORES)})
        table = pd.json_normalize(rows).set_index("name")
        return table.sort_values("score", ascending=not self.metric.greater_is_better)

    def predict(self, table: pd.DataFrame, workers: int | None = None) -> pd.DataFrame:
        """Return predictions of new rows, with the index of `table`.

        Args:
            table: the input columns, in any order. Ids are its column of ids or, without one, its index.
            workers: number of cores to use; None for all.

        Returns:
            The columns of the submission: numbers, probabilities or labels, as the metric needs.

        Raises:
            DataError: if input columns are missing, or cells cannot be read.
        """
        competition = self.config.competition
        with TemporaryDirectory() as folder, cli.locked(self.paths):
            file = Path(folder) / "table.csv"
            categories = [name for name in competition.categorical if name in table]
            # A missing number makes a column of whole numbers 1.0, 2.0, which are other categories.
            table = table.assign(**table[categories].convert_dtypes())
            write_table(file, _with_ids(table, competition.id))
            written = predict_with(self, file, workers)
        predictions = read_text_table(written)[competition.columns_in_sample].apply(as_written)
        return predictions.set_index(table.index)


def load(name: str) -> FittedRun:
    """Return the latest run of a competition, given its name or its YAML; a DataError if it has no run."""
    return FittedRun(**vars(latest_run(name)))


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
            with ids and targets. If all of the first have a column `fold`, the run gets these folds.
        workers: number of cores to use; None for all.
        settings: settings of the YAML (docs/settings.md), instead of guesses: keys of `competition`, such as
            `metric` and `smiles`; `folds`, `stages` and `submissions`, each a mapping; `budget`. Paths in
            them are absolute.

    Raises:
        UserError: if tables or settings are invalid, or no stage could be trained.
    """
    yaml_file = generated_yaml(name)
    paths = Paths(name)
    target_file(name, force=True)  # which refuses names that are none
    require_owned_outputs(paths, yaml_file)
    cli.require_no_training(paths)
    shutil.rmtree(paths.raw, ignore_errors=True)
    options = commands.parse(["new", str(yaml_file), "--force"])
    options.preset = preset
    options.target = _listed(targets)
    id_column = settings.get("id", None if sample is not None else "id")
    for key, table in {"train": train, "test": test, "sample": sample}.items():
        if table is not None:
            setattr(options, key, paths.raw / f"{key}.csv")
            write_table(paths.raw / f"{key}.csv", _with_ids(table, id_column))
    for stage, tables in (external or {}).items():
        options.oof = paths.raw / "external"
        for file, table in zip((OOF, TEST), tables, strict=True):
            write_table(options.oof / stage / file, _with_ids(table, id_column))
    for key in OPTIONS & settings.keys():
        is_column = key != "group" or isinstance(settings[key], str)
        if is_column:  # groups of several columns, or of what is computed of one, are no option
            value = settings.pop(key)
            setattr(options, key, _listed(value) if isinstance(getattr(options, key), list) else value)
    options.overrides = Overrides(_by_path(plain(settings)))
    commands.new(options)
    options = commands.parse(["full", str(yaml_file)])
    options.workers = workers
    commands.full(options)
    return load(str(yaml_file))


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [*value]


def _with_ids(table: pd.DataFrame, id_column: str | None) -> pd.DataFrame:
    """Return a table with its index as ids, if a column of ids is expected and missing."""
    table = table.rename(columns=str)
    if id_column is None or id_column in table:
        return table
    return table.assign(**{id_column: table.index})


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
