"""The comparison of training and test rows in folds/shift.json, and the kind of folds that fits.

Similarities to the nearest training row, a classifier of training against test rows, and its features. `full` makes
it for its report with few rows, `./run.sh folds` with other kinds of folds, and similarity.png with both.
`submissions.shift` adds the error of rows like test rows. No label of a test row is read.
"""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, TIME, read_prepared, without_extra_rows
from core.errors import DataError
from core.files import derive_seed
from core.paths import display_path
from core.plots import new_figure
from core.types import Integers
from folds.adversarial import MIN_INPUTS, Describe, adversarial_validation
from folds.comparison import MIN_SHIFT_AUC, Comparison, Shift, made_from, read_comparison, write_comparison
from folds.groups import scaffold_shift_reason
from folds.kinds import FOLD_KINDS, FoldsConfig
from folds.make import assign_folds
from folds.similarity import MAX_QUERIES, MAX_TRAIN_ROWS, Similarity, similarities

AT_RANDOM = ("kfold", "stratified")
COMPARED = ("kfold", "scaffold", "cluster")
"""Kinds of folds that are compared with the configured one, if the competition has what they need."""
MAX_EXTRA_DISTANCE = 0.02
"""Wasserstein distance to the test rows by which a simpler kind of folds may be worse than the best one."""
QUICK_ROWS = 500
"""Number of rows of each table whose similarity `./run.sh full` computes."""
DIGITS: dict[str, Any] = {"float_format": "{:.4g}".format}


def compare_tables(
    competition: CompetitionConfig, config: FoldsConfig, describe: Describe, quick: bool = False
) -> tuple[str, Comparison]:
    """Compare the prepared tables and folds, and write the figure and shift.json.

    What an earlier comparison of the same tables has found out about their shift is kept.

    Args:
        describe: maps molecules to their descriptors.
        quick: whether to compute at most QUICK_ROWS similarities, and compare no other kinds of folds.

    Returns:
        Lines to print, and the comparison.
    """
    paths = competition.paths
    train = without_extra_rows(read_prepared(paths.train))
    test = read_prepared(paths.test)
    seed = derive_seed(competition.seed, "shift")
    paths.similarity.unlink(missing_ok=True)  # it may be that of other tables
    compared = compare_fold_kinds(competition, config, train, test, seed, quick)
    if compared:
        plot_similarity(compared, config.kind, paths.similarity)
    known = read_comparison(paths)
    if known is not None:
        shift, error_ratio = known.adversarial_validation, known.error_ratio
    else:
        if not quick:
            print("... adversarial validation", flush=True)
        shift, error_ratio = adversarial_validation(train, test, competition, seed, describe), None
    blocks = [*map(describe_similarity, compared), describe_shift(shift)]
    recommended = None
    if not quick:
        kind, reason = recommend(competition, config.kind, train, test, compared, shift)
        recommended = {"kind": kind, "reason": reason}
        line = f"recommended: folds.kind {kind} (configured: {config.kind}): {reason}"
        blocks.append(textwrap.fill(line, 110))
    comparison = Comparison(
        made_from=made_from(paths),
        wasserstein_distances=[
            {"measure": each.measure, **{kind: each.distance(kind) for kind in each.held_out}}
            for each in compared
        ],
        adversarial_validation=shift,
        recommended=recommended,
        error_ratio=error_ratio,
    )
    write_comparison(paths, comparison)
    blocks.append(f"Written: {display_path(paths.shift.parent)}; the next ./run.sh full shows it on its page")
    return "\n\n".join(blocks), comparison


def describe_similarity(similarity: Similarity) -> str:
    """Return quantiles of the similarities, and the distance of each kind of folds to the test rows."""
    quantiles = {"test rows": np.quantile(similarity.test, [0.1, 0.5, 0.9])}
    for kind, values in similarity.held_out.items():
        quantiles[f"held out, {kind}"] = np.quantile(values, [0.1, 0.5, 0.9])
    table = pd.DataFrame(quantiles, index=["10 %", "median", "90 %"]).T
    table["Wasserstein distance to test rows"] = [0.0, *map(similarity.distance, similarity.held_out)]
    return f"similarity to the nearest training row ({similarity.measure})\n{table.to_string(**DIGITS)}"


def describe_shift(shift: Shift | None) -> str:
    """Return the result of adversarial validation as text."""
    if shift is None:
        return f"adversarial validation: train and test must have {MIN_INPUTS} distinct inputs each"
    features = pd.DataFrame(shift.features, columns=["feature", "gain", "mean_in_train", "mean_in_test"])
    auc = f"AUC {shift.auc:.3f} ± {shift.standard_error:.3f}"
    title = f"adversarial validation: {auc} (0.5: indistinguishable)"
    return f"{title}\n{features.to_string(index=False, **DIGITS)}"


def compare_fold_kinds(
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    seed: int,
    quick: bool,
) -> list[Similarity]:
    """Return similarities of molecules and of texts, for the configured folds and, unless `quick`, other kinds.

    Args:
        train: prepared training rows with their configured folds.
    """
    if not (competition.smiles or competition.text):
        return []
    n_folds = int(train[FOLD].max()) + 1
    train = _sampled(train, QUICK_ROWS if quick else MAX_TRAIN_ROWS, seed)
    folds: dict[str, Integers] = {config.kind: train[FOLD].to_numpy(dtype=np.int64)}
    for name in () if quick else COMPARED:
        needed = FOLD_KINDS[name].needs
        is_similar = name in AT_RANDOM and config.kind in AT_RANDOM
        if name == config.kind or is_similar or (needed and not getattr(competition, needed)):
            continue
        print(f"... folds of kind {name}, to compare", flush=True)
        other = config.model_copy(update={"kind": name, "file": None, "n_folds": n_folds})
        try:
            folds[name] = assign_folds(other, train, competition, competition.seed)[0]
        except DataError as error:
            print(f"kind {name} is left out: {error}")
    queries = _sampled(test, QUICK_ROWS if quick else MAX_QUERIES, seed)
    return similarities(train, queries, competition, folds)


def _sampled(table: pd.DataFrame, n_rows: int, seed: int) -> pd.DataFrame:
    """Return at most `n_rows` rows, numbered anew."""
    return table.sample(min(n_rows, len(table)), random_state=seed).reset_index(drop=True)


def recommend(
    competition: CompetitionConfig, configured: str, train: pd.DataFrame, test: pd.DataFrame,
    compared: list[Similarity], shift: Shift | None,
) -> tuple[str, str]:  # fmt: skip
    """Return the kind of folds with held-out rows most similar to the test rows, and the reason.

    What the user has configured comes first: time, if the test rows are later or that is unknown, then groups
    that test rows do not share. For molecules, scaffolds follow if the test table has new ones, then the
    simplest kind with held-out rows as similar to their training rows as test rows are. The default is at
    random.
    """
    time_column = competition.time
    group = competition.group
    stratify = len(competition.targets) == 1 or bool(competition.classes)
    at_random = "stratified" if stratify else "kfold"
    if configured in AT_RANDOM:
        at_random = configured
    if time_column and time_column not in competition.numeric:
        return "time", f"rows have a time, {time_column!r}; if the test rows are later, as is usual"
    if time_column and (test[time_column] > train[TIME].max()).mean() > 0.5:
        return "time", "most test rows are later than every training row"
    if group and (group not in test or test[group].isin(train[group]).mean() < 0.05):
        reason = f"rows of one {group!r} belong together, and few test rows share one with a training row"
        return "stratified_group" if stratify else "group", reason
    if len(competition.smiles) == 1:
        (name,) = competition.smiles
        reason = scaffold_shift_reason(list(train[name]), list(test[name]))
        if reason:
            return "scaffold", reason
    evidence = _shift_sentence(shift)
    if not competition.smiles:
        return at_random, f"{evidence}; no other kind of folds imitates the test rows better"
    distances = {kind: compared[0].distance(kind) for kind in FOLD_KINDS if kind in compared[0].held_out}
    kinds = [kind for kind in distances if kind in (*AT_RANDOM, *COMPARED)]
    smallest = min(distances[kind] for kind in kinds)
    best = next(kind for kind in kinds if distances[kind] <= smallest + MAX_EXTRA_DISTANCE)
    reason = (
        f"the test molecules are as far from the training molecules as those held out by {best} "
        f"(Wasserstein distance {distances[best]:.2f}); {evidence}"
    )
    return at_random if best in AT_RANDOM else best, reason


def _shift_sentence(shift: Shift | None) -> str:
    if shift is None:
        return "there are too few rows, or no features, to distinguish train and test"
    if shift.auc > MIN_SHIFT_AUC:
        return f"train and test differ (AUC {shift.auc:.2f}), most in {shift.first_features(3)}"
    return f"train and test can hardly be distinguished (AUC {shift.auc:.2f})"


def plot_similarity(compared: list[Similarity], configured: str, file: Path) -> None:
    """Plot the distribution of the similarity to the nearest training row, of test rows and held-out rows."""
    figure, axes = new_figure(1, len(compared), width=5 * len(compared), height=4.2)
    for axis, similarity in zip(axes[0], compared, strict=True):
        for kind, values in similarity.held_out.items():
            is_configured = kind == configured
            label = f"held out, {kind} (as configured)" if is_configured else f"held out, {kind}"
            axis.ecdf(values, label=label, linestyle="-" if is_configured else "--")
        axis.ecdf(similarity.test, label="test rows", color="black", linewidth=2.8)
        axis.set(xlabel=f"similarity to the nearest training row\n({similarity.measure})")
        axis.set(ylabel="share of rows below")
        axis.set(xlim=(0, 1))
    labels = axes[0][0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper left", ncols=2, frameon=False)
    figure.savefig(file, dpi=110)
