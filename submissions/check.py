"""Check everything before any work: `./run.sh check [COMPETITION]`.

Reads: the whole YAML, the raw tables, the weights that stages start from, the reports of finished jobs. Never the
answers. Writes: nothing but user-defined features into the cache.
"""

import ast
import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, GROUP, without_extra_rows
from competition.metrics import Metric, get_metric, take_rows
from competition.prepare import Prepared, describe, prepare
from competition.task import Task, build_metric, build_task, raw_rows_for
from core import cli
from core.errors import ConfigError, DataError
from core.files import as_json, read_json
from core.paths import Paths
from core.types import Array, Integers, ProblemType
from core.user_code import PACKAGES, load_user_code, user_code, user_code_errors, user_code_files
from folds.class_shares import missing_class_warnings
from folds.make import make_folds
from models import api
from models.base_config import CustomConfig, EncoderFeature, FileConfig
from models.bert_config import BertConfig
from models.estimators import DOWNLOAD_WARNINGS, build_estimator, require_weights, splits_rows
from models.feature_config import GpConfig, LightgbmConfig, SklearnConfig
from models.inputs.base_models import require_base_model
from models.inputs.frozen_encoders import text_encoders
from models.inputs.text_template import count_cut_texts, read_template
from models.inputs.weights import (
    WEIGHT_SETS,
    digest_of_weights,
    reads_molecules,
    require_matching_weights,
    weights_of_stage,
)
from models.jobs.cluster import require_cluster
from models.jobs.plan import code_files, describe_retraining, make_plan
from models.neural_config import MoleculeStage, NeuralConfig
from models.registry import task_for_stage
from models.stage import molecule_columns, require_inputs
from models.stages.custom import load_custom
from models.stages.file import FOLD_MARKS, check_predictions
from models.training.hardware import cards_in_new_process, cpu_has_bf16, require_precision, why_no_gpu
from models.training.labels import labelled_rows, require_auxiliary, require_log1p
from submissions.blend.candidates import fit_candidate, mean
from submissions.blend.data import BlendData
from submissions.blend.selection import Fitted
from submissions.blend.serialization import from_json, to_json
from submissions.config import Config, load_config

N_TRIED = 100
"""Made-up rows on which functions of the user's are tried."""
MIN_ROWS_OF_CLASS = 15
"""Rows of a class below which one of a thousand draws with repetition may have none: exp(-15) is 3e-7."""
MAX_SECONDS_WITHOUT_GPU = 3600.0
"""Budget up to which a GPU that torch does not see is only reported."""
MANY_GP_ROWS = 6000
"""Training rows above which a fold of a Gaussian process takes more than one or two minutes on a core."""
MUST_RETURN = "return a dataclass of numbers, texts and arrays, which is written as JSON and read again"


def check_all(config: Config, here: bool = True) -> str:
    """Check a configuration with tables and folds that are made for this check only; see `check`."""
    tables = make_folds(config.competition, config.folds, prepare(config.competition))
    return check(config, tables, here)


def check(config: Config, prepared: Prepared, here: bool = True) -> str:
    """Check a configuration with its tables, folds and weights; return lines about them.

    Errors of the tables are reported first; errors of all stages are reported together.

    Args:
        here: whether this machine trains, so that it must support the precision of the stages.
    """
    competition = config.competition
    train_rows = without_extra_rows(prepared.train)
    folds = prepared.train[FOLD].to_numpy(dtype=np.int64)
    n_folds = int(folds.max()) + 1
    groups = train_rows[GROUP].to_numpy(dtype=np.int64)
    train_folds = folds[: len(train_rows)]  # rows of extra_train are the last
    y = train_rows[competition.targets].to_numpy()
    metric, task = build_metric(competition), build_task(competition)
    raw_rows = raw_rows_for(metric, competition.train, competition.id, list(train_rows[competition.id]))
    _check_metric(metric, task, y, train_folds, raw_rows)
    _try_user_blending(config, metric, task, y)
    rare = missing_class_warnings(
        prepared.train[competition.targets], task.classes, folds, config.folds.is_ordered_in_time
    )
    if any(not isinstance(stage, FileConfig | CustomConfig) for stage in config.stages.values()):
        for fold in range(n_folds):
            is_train_row = folds < fold if config.folds.is_ordered_in_time else folds != fold
            labelled_rows(
                prepared.train.loc[is_train_row, competition.targets].to_numpy(), competition.targets
            )
    lines = [describe(prepared.report), *rare]
    errors = []
    for name, stage in config.stages.items():
        try:
            description = _check_stage(stage, competition, prepared, train_folds, here)
        except (ConfigError, DataError) as error:  # one line per error
            errors += [f"stages.{name}: {line}" for line in str(error).splitlines()]
            continue
        n_jobs = len(stage.seeds) * (n_folds + (stage.final_fit != "folds"))
        lines.append(f"stage {name}: {description}; {n_jobs} jobs")
        lines += _split_warning(name, stage, task, groups, config.folds.is_ordered_in_time)
    if errors:
        raise ConfigError("\n".join(errors))
    return "\n".join(lines)


def require_visible_gpu(config: Config, budget: float | None) -> None:
    """Raise a ConfigError if torch sees no GPU on a machine that has the driver of one, and stages rely on it.

    They do if their `gpu` is set, or if the budget (seconds) is so long that a night on the cores would be lost.
    """
    is_long = budget is not None and budget > MAX_SECONDS_WITHOUT_GPU
    relying = [
        name
        for name, stage in config.stages.items()
        if stage.gpu_share and (is_long or "gpu" in stage.model_fields_set)
    ]
    reason = why_no_gpu() if relying else ""
    if reason:
        options = " ".join(f"--set stages.{name}.gpu=false" for name in relying)
        raise ConfigError(
            f"this machine has an NVIDIA driver, but {reason}. Install a torch that fits the driver (drivers before "
            f"580 need the build for CUDA 12.6), or train on the cores: {options}"
        )


def _check_stage(
    stage: Any, competition: CompetitionConfig, prepared: Prepared, folds: Integers, here: bool
) -> str:
    """Check one stage; return its description."""
    if here and isinstance(stage, NeuralConfig) and stage.precision in ("bf16", "fp16"):
        cards = cards_in_new_process()[0] if stage.gpu_share else []
        has_bf16 = all(card.has_bf16 for card in cards) if cards else cpu_has_bf16()
        require_precision(stage.precision, bool(cards), has_bf16)
    if here and isinstance(stage, LightgbmConfig) and stage.gpu_share:
        from models.stages.lightgbm import require_opencl

        require_opencl()
    require_inputs(stage, competition)
    require_matching_weights(stage)
    problem_type = task_for_stage(stage, build_task(competition)).problem_type
    _check_columns(stage, competition, prepared)
    _check_labels(stage, competition, prepared, problem_type)
    for setting, code_ref in user_code(stage.model_dump(), stage.kind):
        load_user_code(setting, code_ref, "what it names")
    if isinstance(stage, CustomConfig):
        load_custom(stage)
    code_files(stage)
    description = _describe_stage(stage, competition, problem_type)
    for text_stage in [stage, *text_encoders(stage)]:
        if isinstance(text_stage, BertConfig | EncoderFeature):
            tables = (prepared.train, prepared.test)
            n_cut = sum(count_cut_texts(text_stage, competition, table) for table in tables)
            if n_cut:
                description += (
                    f"; {n_cut} texts have more than {text_stage.max_length} tokens and will be cut"
                )
    n_labelled = int(prepared.train[competition.targets].notna().any(axis=1).sum())
    if isinstance(stage, GpConfig) and n_labelled > MANY_GP_ROWS:
        description += (
            f"; the time of an exact Gaussian process grows with the cube of the rows, and {n_labelled:,} "
            f"rows take from minutes to hours a fold (docs/benchmarks.md has times)"
        )
    if isinstance(stage, FileConfig):
        mark = check_predictions(stage, competition, prepared, folds)
        if mark:
            description += f"; {mark}: {FOLD_MARKS[mark]}"
    return description


def _check_columns(stage: Any, competition: CompetitionConfig, prepared: Prepared) -> None:
    """Check that the competition has the columns that a stage reads."""
    if isinstance(stage, MoleculeStage):
        molecule_columns(stage.columns, competition.smiles, stage.kind)
    for encoder in stage.encoders:
        if reads_molecules(encoder.weights):
            molecule_columns(encoder.columns, competition.smiles, stage.kind)
        else:
            read_template(encoder, competition)
    for text_stage in [stage, *text_encoders(stage)]:
        if isinstance(text_stage, BertConfig | EncoderFeature):
            require_base_model(text_stage)
    if isinstance(stage, BertConfig):
        template = read_template(stage, competition)
        in_order = stage.enumerate_smiles == "order"
        if in_order and not any("." in text for text in template.texts(prepared.train, " ")):
            raise ConfigError(
                "enumerate_smiles: order needs cells or sides of a reaction with several molecules, and no "
                "text has them. Set true, for other SMILES of each molecule, or remove it."
            )


def _check_labels(
    stage: Any, competition: CompetitionConfig, prepared: Prepared, problem_type: ProblemType
) -> None:
    """Check that a stage can learn the labels with their weights."""
    if isinstance(stage, NeuralConfig) and stage.auxiliary_weight > 0:
        auxiliary = competition.auxiliary_targets
        require_auxiliary(prepared.train[auxiliary].to_numpy(), auxiliary, problem_type)
    if stage.target_transform == "log1p":
        require_log1p(without_extra_rows(prepared.train)[competition.targets].to_numpy())
    if isinstance(stage, SklearnConfig):
        uses_extra_rows = stage.extra_rows != "ignore"
        has_weights = (
            bool(competition.weight)
            or (uses_extra_rows and any(table.weight != 1 for table in competition.extra_train))
            or bool(stage.pseudo_labels)
            or stage.class_weights == "balanced"
        )
        if has_weights:
            require_weights(stage.estimator_name(problem_type))


def _describe_stage(stage: Any, competition: CompetitionConfig, problem_type: ProblemType) -> str:
    """Return kind and weights of a stage, with warnings."""
    description = str(stage.kind)
    for weights in weights_of_stage(stage):
        digest_of_weights(weights)
        description += f" from {weights}"
        labels = WEIGHT_SETS[weights].labels if weights in WEIGHT_SETS else ""
        if labels:
            description += f" ({labels}: check that they are not this competition's)"
    if isinstance(stage, SklearnConfig):
        warning = DOWNLOAD_WARNINGS.get(stage.estimator_name(problem_type).partition(".")[0])
        if warning:
            description += f"; {warning}"
    metric = get_metric(competition.metric)
    if stage.reweights_classes and metric and metric.row_losses:
        description += f"; class weights distort the probabilities that {metric.name} scores"
    return description


def _split_warning(name: str, stage: Any, task: Task, groups: Integers, in_time: bool) -> list[str]:
    """Return a warning if an estimator splits training rows by itself, against the groups or the time."""
    n_tied = int((np.bincount(groups)[groups] > 1).sum())
    if not isinstance(stage, SklearnConfig) or not (n_tied or in_time):
        return []
    learns = task_for_stage(stage, task).problem_type
    estimator = stage.estimator_name(learns)
    if not splits_rows(build_estimator(estimator, stage.parameters, 0, learns != "regression"), len(groups)):
        return []
    reason = "cannot hold out the latest" if in_time else f"cannot keep the groups of {n_tied} rows together"
    return [
        f"stage {name}: {estimator} holds out some training rows by itself and {reason}, so it may overfit"
    ]


def _try_user_blending(config: Config, metric: Metric, task: Task, labels: Array) -> None:
    """Fit, save and apply the user's candidates and post-processing on a few made-up rows."""
    rng = np.random.default_rng(0)
    y = np.column_stack([rng.choice(column[np.isfinite(column)], N_TRIED) for column in labels.T])
    y[0, np.isnan(labels).any(axis=0)] = np.nan
    preds = np.stack([_predictions_near(y, task, rng) for _ in config.stages], axis=1)
    data = BlendData(preds, y, np.arange(N_TRIED) % 5, metric, task)
    for _, code_ref in user_code(config.blends):
        fitted = fit_candidate(code_ref, data, data.all_folds)
        with user_code_errors(code_ref, MUST_RETURN):
            from_json(json.loads(as_json(to_json(fitted))), code_ref).predict(preds)
    Fitted(mean(data, data.all_folds), postprocess=config.submissions.postprocess or "").outputs(preds)


def _predictions_near(y: Array, task: Task, rng: np.random.Generator) -> Array:
    """Return predictions near labels: 80 % the label, 10 % that of another row, 10 % the mean of all rows."""
    truth = task.one_hot(y)
    truth = np.where(np.isnan(truth), np.nanmean(truth, axis=0), truth)
    return 0.8 * truth + 0.1 * truth[rng.permutation(len(truth))] + 0.1 * truth.mean(axis=0)


def _check_metric(
    metric: Metric, task: Task, y: Array, folds: Integers, raw_rows: pd.DataFrame | None
) -> None:
    """Raise a ConfigError if the metric has no finite value for predictions near the labels.

    It is tried wherever a run uses it: on all rows, on the rows of each fold, and on bootstrap resamples, in
    which a rare class may be missing.
    """
    rng = np.random.default_rng(0)
    y_pred = _predictions_near(y, task, rng)
    scored = task.default_labels(y_pred) if task.scores_labels else y_pred
    subsets = {"all rows that are scored": np.flatnonzero(folds >= 0)}
    for fold in range(int(folds.max()) + 1):
        subsets[f"the rows of fold {fold}"] = np.flatnonzero(folds == fold)
    subsets["rows drawn with repetition"] = rng.integers(len(y), size=len(y))
    for (t, name), (c, label) in product(enumerate(task.targets), enumerate(task.classes)):
        if 0 < (y[:, t] == c).sum() < MIN_ROWS_OF_CLASS:
            subsets[f"rows drawn without {name}={label}"] = np.flatnonzero(y[:, t] != c)
    for i, (subset, rows) in enumerate(subsets.items()):
        score = metric(y[rows], scored[rows], take_rows(raw_rows, rows))
        labels = pd.DataFrame(y[rows], columns=task.targets)
        constant = list(labels.columns[labels.nunique() < 2])
        if np.isfinite(score) or (constant and i):  # R2 and correlations may be undefined in a fold
            continue
        advice = "Correct the function (NaN in y_true is a missing label)"
        if constant:
            advice = f"There {', '.join(constant)} has only one label; remove it from competition.targets"
        raise ConfigError(
            f"the metric {metric.name} is {score} for predictions near the labels on {subset} ({len(rows)}), "
            f"and must be a finite number. {advice}, or choose another competition.metric."
        )


def import_notes(config: Config) -> set[str]:
    """Return a note for each name of `models.api` that user code imports from the module that defines it."""
    notes = set[str]()
    for file in user_code_files(config.model_dump()):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module != api.__name__:
                names = {alias.name for alias in node.names} & set(api.__all__)
                if names and str(node.module).partition(".")[0] in PACKAGES:
                    notes.add(
                        f"{file.name} imports {', '.join(sorted(names))} from {node.module}, which may change; "
                        f"import from {api.__name__}"
                    )
    return notes


def main() -> None:
    """Parse the command line and run the command."""
    args = cli.parser(__doc__).parse_args()
    if args.executor == "ray":
        require_cluster(args.ray_address)
    config = load_config(args.competition, args.overrides)
    paths = Paths.for_competition(args.competition)
    tables = make_folds(config.competition, config.folds, prepare(config.competition), paths)
    lines = check(config, tables, here=args.executor == "local")
    for note in sorted(import_notes(config)):
        print(f"note: {note}")
    print(f"{paths.name}: checked\n{lines}")
    if paths.train.exists() and read_json(paths.prepare_report) == tables.report:  # jobs may be finished
        plan = make_plan(config.competition, dict(config.stages), paths, args.reuse)
        for line in describe_retraining(plan):
            print(line)


if __name__ == "__main__":
    cli.run(main)
