"""Check everything before any work: `./run.sh check [COMPETITION]`.

Reads: the whole YAML, the raw tables, the weights that stages start from. Never the answers.
Writes: nothing.
"""

import json
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from competition import cli
from competition.config import CompetitionConfig
from competition.dataset import without_extra_rows
from competition.errors import ConfigError, DataError
from competition.files import as_json
from competition.metrics import Metric, get_metric
from competition.paths import Paths
from competition.prepare import Prepared, describe, prepare
from competition.task import Task, build_metric, build_task
from competition.types import Array, Integers
from competition.user_code import load_user_code, user_code, user_code_errors
from folds.class_shares import missing_class_warnings
from folds.make import Folds, make_folds
from models.base_config import CustomConfig, FileConfig
from models.estimators import DOWNLOAD_WARNINGS, build_estimator, require_weights, splits_rows
from models.feature_config import SklearnConfig
from models.inputs.text_template import read_template
from models.inputs.weights import (
    WEIGHT_SETS,
    digest_of_weights,
    reads_graphs,
    require_matching_weights,
    weights_of_stage,
)
from models.jobs.cluster import require_cluster
from models.jobs.plan import code_digest
from models.neural_config import BertConfig, NeuralConfig
from models.registry import task_for_stage
from models.stage import molecule_columns, require_inputs
from models.stages.custom import load_custom
from models.stages.file import FOLD_MARKS, check_predictions
from models.training.hardware import cards_in_new_process, cpu_has_bf16, require_precision
from models.training.labels import labelled_rows, require_auxiliary, require_log1p
from submissions.blend.candidates import get_candidate
from submissions.blend.postprocess import fit_steps
from submissions.blend.serialization import from_json, to_json
from submissions.blend.weight_problem import BlendData
from submissions.config import Config, load_config

N_TRIED = 100
"""Made-up rows on which functions of the user's are tried."""
FEW = 15
"""Rows of a class below which one of a thousand draws with repetition may have none: exp(-15) is 3e-7."""
KEEPS = "return a dataclass of numbers, texts and arrays, which is written as JSON and read again"


def check_all(config: Config, here: bool = True) -> str:
    """Check a whole configuration with tables and folds that are made for this check; see `check`."""
    prepared = prepare(config.competition)
    folds = make_folds(config.competition, config.folds, prepared.train, prepared.test)
    return check(config, prepared, folds, here)


def check(config: Config, prepared: Prepared, folds: Folds, here: bool = True) -> str:
    """Check a configuration with its tables, folds and weights; returns what was found, in words.

    What is wrong in the tables is named first and alone; what stages cannot do with them, of all stages at
    once.

    Args:
        here: whether this machine trains, and has to have the precision of the stages.
    """
    competition = config.competition
    own = without_extra_rows(prepared.train)
    n_folds = int(folds.folds.max()) + 1
    own_folds = folds.folds[: len(own)]  # rows of extra_train are the last
    y = own[competition.targets].to_numpy()
    metric, task = build_metric(competition), build_task(competition)
    _check_metric(metric, task, y, own_folds)
    _try_users_blending(config, metric, task, y)
    rare = missing_class_warnings(
        prepared.train[competition.targets], task.classes, folds.folds, config.folds.is_ordered_in_time
    )
    if any(not isinstance(stage, FileConfig | CustomConfig) for stage in config.stages.values()):
        for fold in range(n_folds):
            trains = folds.folds < fold if config.folds.is_ordered_in_time else folds.folds != fold
            labelled_rows(prepared.train.loc[trains, competition.targets].to_numpy(), competition.targets)
    lines, mistakes = [describe(prepared.report), *rare], []
    for name, stage in config.stages.items():
        try:
            found = _check_stage(stage, competition, prepared, own_folds, here)
        except (ConfigError, DataError) as error:  # with a line for each mistake
            mistakes += [f"stages.{name}: {line}" for line in str(error).splitlines()]
            continue
        n_jobs = len(stage.seeds) * (n_folds + (stage.final_fit != "folds"))
        lines.append(f"stage {name}: {found}; {n_jobs} jobs")
        lines += _split_warning(name, stage, task, folds.groups, config.folds.is_ordered_in_time)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return "\n".join(lines)


def _check_stage(
    stage: Any, competition: CompetitionConfig, prepared: Prepared, folds: Integers, here: bool
) -> str:
    """What is known of a stage before its first job, in words."""
    if here and isinstance(stage, NeuralConfig) and stage.precision in ("bf16", "fp16"):
        cards = cards_in_new_process() if stage.gpu_share else []
        has_bf16 = all(card.has_bf16 for card in cards) if cards else cpu_has_bf16()
        require_precision(stage.precision, bool(cards), has_bf16)
    require_inputs(stage, competition)
    require_matching_weights(stage)
    learns = task_for_stage(stage, build_task(competition)).problem_type
    if stage.kind in ("gnn", "unimol", "unimol2"):
        molecule_columns(stage.columns, competition.smiles, stage.kind)
    for encoder in stage.encoders:
        if reads_graphs(encoder.weights):
            molecule_columns(encoder.columns, competition.smiles, stage.kind)
        else:
            read_template(encoder, competition)
    if isinstance(stage, BertConfig):
        template, in_order = read_template(stage, competition), stage.enumerate_smiles == "order"
        if in_order and not any("." in text for text in template.texts(prepared.train, " ")):
            raise ConfigError(
                "enumerate_smiles: order needs cells or sides of a reaction with several molecules, and "
                "no text has "
                "them. Set true, for other spellings, or leave it out."
            )
    if isinstance(stage, NeuralConfig) and stage.auxiliary_weight > 0:
        auxiliary = competition.auxiliary_targets
        require_auxiliary(prepared.train[auxiliary].to_numpy(), auxiliary, learns)
    if stage.target_transform == "log1p":
        require_log1p(without_extra_rows(prepared.train)[competition.targets].to_numpy())
    extra = stage.extra_rows != "ignore" and any(table.weight != 1 for table in competition.extra_train)
    balanced = stage.class_weights == "balanced"
    if isinstance(stage, SklearnConfig) and (competition.weight or extra or stage.pseudo_labels or balanced):
        require_weights(stage.estimator_name(learns))
    for setting, named in user_code(stage.model_dump(), stage.kind):
        load_user_code(setting, named, "what it names")
    if isinstance(stage, CustomConfig):
        load_custom(stage)
    code_digest(stage)
    said = stage.kind
    for weights in weights_of_stage(stage):
        digest_of_weights(weights)
        said += f" from {weights}"
        if weights in WEIGHT_SETS and (labels := WEIGHT_SETS[weights].labels):
            said += f" ({labels}: check that they are not this competition's)"
    if isinstance(stage, SklearnConfig) and (
        told := DOWNLOAD_WARNINGS.get(stage.estimator_name(learns).partition(".")[0])
    ):
        said += f"; {told}"
    if stage.reweights_classes and (ours := get_metric(competition.metric)) and ours.row_losses:
        said += f"; it weighs classes, which bends the probabilities that {ours.name} scores"
    mark = check_predictions(stage, competition, prepared, folds) if isinstance(stage, FileConfig) else None
    return said + (f"; {mark}: {FOLD_MARKS[mark]}" if mark else "")


def _split_warning(name: str, stage: Any, task: Task, groups: Integers, in_time: bool) -> list[str]:
    """Say that an estimator holds out training rows by itself where the folds keep groups together or are in
    time.
    """
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


def _try_users_blending(config: Config, metric: Metric, task: Task, y: Array) -> None:
    """Fit, keep and use the user's own candidates and steps on a few made-up rows, by what the run will call."""
    settings, rng = config.submissions, np.random.default_rng(0)
    drawn = np.column_stack([rng.choice(labels[np.isfinite(labels)], N_TRIED) for labels in y.T])
    drawn[0, np.isnan(y).any(axis=0)] = np.nan
    n_columns = sum(
        len(stage.seeds) if settings.seeds == "separate" else 1 for stage in config.stages.values()
    )
    P = np.stack([_near(drawn, task, rng) for _ in range(n_columns)], axis=1)
    m = BlendData(
        P, drawn, np.arange(N_TRIED) % 5, metric, settings.weights, has_probabilities=task.has_probabilities
    )
    for _, named in user_code(config.blends):
        fitted = get_candidate(named).fit(m)
        with user_code_errors(named, KEEPS):
            from_json(json.loads(as_json(to_json(fitted))), named).predict(P)
    for _, named in user_code(config.postprocess):
        for step in fit_steps([named], P[:, 0, 0], drawn[:, 0]).values():
            with user_code_errors(named, KEEPS):
                from_json(json.loads(as_json(to_json(step))), named).predict(P[:, 0, 0])


def _near(y: Array, task: Task, rng: np.random.Generator) -> Array:
    """Predictions near labels: of each row its own truth and, for a fifth, that of another and the mean of
    all.
    """
    truth = task.one_hot(y)
    truth = np.where(np.isnan(truth), np.nanmean(truth, axis=0), truth)
    return 0.8 * truth + 0.1 * truth[rng.permutation(len(truth))] + 0.1 * truth.mean(axis=0)


def _check_metric(metric: Metric, task: Task, y: Array, folds: Integers) -> None:
    """A metric must be a finite number for predictions near the labels, wherever a run takes it: on all rows,
    on those of each fold, and on rows drawn with repetition, among which a rare class may be lacking.
    """
    rng = np.random.default_rng(0)
    near = _near(y, task, rng)
    scored = task.default_labels(near) if task.scores_labels else near
    subsets = {"all rows that are scored": np.flatnonzero(folds >= 0)}
    subsets |= {
        f"the rows of fold {fold}": np.flatnonzero(folds == fold) for fold in range(int(folds.max()) + 1)
    }
    subsets["rows drawn with repetition"] = rng.integers(len(y), size=len(y))
    for (t, name), (c, label) in product(enumerate(task.targets), enumerate(task.classes)):
        if 0 < (y[:, t] == c).sum() < FEW:
            subsets[f"rows drawn without {name}={label}"] = np.flatnonzero(y[:, t] != c)
    for i, (named, rows) in enumerate(subsets.items()):
        score, labels = metric(y[rows], scored[rows]), pd.DataFrame(y[rows], columns=task.targets)
        equal = list(labels.columns[labels.nunique() < 2])
        if np.isfinite(score) or (equal and i):  # within a fold R2 and correlations may have no value to give
            continue
        what_to_do = "Correct the function (NaN in y_true is a missing label)"
        if equal:
            what_to_do = f"There {', '.join(equal)} has one label alone; take it out of competition.targets"
        raise ConfigError(
            f"the metric {metric.name} is {score} for predictions near the labels on {named} "
            f"({len(rows)}), and has "
            f"to be a finite number. {what_to_do}, or choose another competition.metric."
        )


def main() -> None:
    """Command line."""
    args = cli.parser(__doc__).parse_args()
    if args.executor == "ray":
        require_cluster(args.ray_address)
    found = check_all(load_config(args.competition, args.overrides), here=args.executor == "local")
    print(f"{Paths.for_competition(args.competition).name}: checked\n{found}")


if __name__ == "__main__":
    cli.run(main)
