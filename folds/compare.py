"""The comparison of training and test rows in folds/shift.json, and the kind of folds that fits.

Similarities to the nearest training row, a classifier of training against test rows, and its features. `full`
makes it for its report with few rows, `./run.sh folds` with other kinds of folds, and similarity.png with
both. `submissions.shift` adds the error of rows like test rows. No label of a test row is read.
"""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, read_prepared, without_extra_rows
from core.errors import DataError, join_first
from core.files import derive_seed
from core.paths import display_path
from core.plots import new_figure
from core.text import format_with_error
from core.types import Integers
from folds.adversarial import MIN_INPUTS, ComputeDescriptors, adversarial_validation
from folds.comparison import Comparison, Shift, made_from, read_comparison, write_comparison
from folds.kinds import FOLD_KINDS, FoldsConfig
from folds.make import assign_folds
from folds.recommended import can_stratify, recommend, units_of_competition
from folds.similarity import MAX_QUERIES, MAX_TRAIN_ROWS, Similarity, similarities
from folds.units import MIN_AT_RANDOM, UnitShare, UnitTable

AT_RANDOM = ("kfold", "stratified")
COMPARED = ("kfold", "scaffold", "cluster")
"""Kinds of folds that are compared with the configured one, if the competition has what they need."""
QUICK_ROWS = 500
"""Number of rows of each table that `./run.sh full` computes similarities of."""
DIGITS: dict[str, Any] = {"float_format": "{:.4g}".format}


def compare_tables(
    competition: CompetitionConfig,
    config: FoldsConfig,
    compute_descriptors: ComputeDescriptors,
    quick: bool = False,
) -> tuple[str, Comparison]:
    """Compare the prepared tables and folds, and write the figure and shift.json.

    The shift and the error ratio of a previous comparison of the same tables are reused.

    Args:
        compute_descriptors: maps molecules to their descriptors.
        quick: whether to compute at most QUICK_ROWS similarities, and compare no other kinds of folds.

    Returns:
        Lines to print, and the comparison.
    """
    paths = competition.paths
    train = without_extra_rows(read_prepared(paths.train))
    test = read_prepared(paths.test)
    seed = derive_seed(competition.seed, "shift")
    paths.similarity.unlink(missing_ok=True)  # it may show other tables
    compared = compare_fold_kinds(competition, config, train, test, seed, quick)
    if compared:
        plot_similarity(compared, config.title, paths.similarity)
    previous = read_comparison(paths)
    if previous is not None:
        shift = previous.adversarial_validation
        error_ratio = previous.error_ratio
    else:
        if not quick:
            print("... adversarial validation", flush=True)
        shift = adversarial_validation(train, test, competition, seed, compute_descriptors)
        error_ratio = None
    blocks = [*map(describe_similarity, compared), describe_shift(shift)]
    recommended = None
    if not quick:
        units, raw_train = units_of_competition(competition)
        recommended = recommend_folds(competition, units, raw_train, config.title)
        recommended["reason"] += f"; {describe_evidence(shift)}"
        line = f"recommended: {recommended['setting']} (configured: {config.title}): {recommended['reason']}"
        blocks += [describe_units(units), textwrap.fill(line, 110)]
    comparison = Comparison(
        made_from=made_from(paths),
        wasserstein_distances=list(map(_distances_to_test, compared)),
        adversarial_validation=shift,
        recommended=recommended,
        error_ratio=error_ratio,
    )
    write_comparison(paths, comparison)
    blocks.append(f"Written: {display_path(paths.shift.parent)}; the next ./run.sh full shows it on its page")
    return "\n\n".join(blocks), comparison


def _distances_to_test(similarity: Similarity) -> dict[str, Any]:
    """Return the measure, and kind of folds -> Wasserstein distance of its held-out rows to the test rows."""
    distances = {kind: similarity.distance(kind) for kind in similarity.held_out}
    return {"measure": similarity.measure, **distances}


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
    """Return similarities of molecules and of texts, for the configured folds and other kinds.

    Args:
        train: prepared training rows with their configured folds.
        quick: whether to compare no other kinds, and fewer rows.
    """
    if not (competition.smiles or competition.text):
        return []
    n_folds = int(train[FOLD].max()) + 1
    train = _sampled(train, QUICK_ROWS if quick else MAX_TRAIN_ROWS, seed)
    folds: dict[str, Integers] = {config.title: train[FOLD].to_numpy(dtype=np.int64)}
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


def recommend_folds(
    competition: CompetitionConfig, units: UnitTable, train: pd.DataFrame, configured: str
) -> dict[str, str]:
    """Return the kind of folds, with the settings it needs, and the reason.

    What the test table does not have, such as its groups, cannot be compared, so the configured folds stay.

    Args:
        train: raw training table.
    """
    needed = {
        **dict.fromkeys(competition.group_columns, "group"),
        **dict.fromkeys(filter(None, [competition.time]), "time"),
    }
    unknown = [name for name, what in needed.items() if name not in units.cells and what in configured]
    if unknown:
        reason = (
            f"it is unknown whether test rows share {join_first(unknown)}, which the test table does not have"
        )
        return {"kind": configured, "setting": f"folds.kind {configured}", "reason": reason}
    best = recommend(units, train, competition.columns, can_stratify(competition))
    is_at_random = best.kind in AT_RANDOM and configured in AT_RANDOM
    kind, setting = (configured, f"folds.kind {configured}") if is_at_random else (best.kind, best.setting)
    reason = "; ".join([*filter(None, [best.reason]), *best.warnings]) or "no unit is shared by enough rows"
    return {"kind": kind, "setting": setting, "reason": reason}


def describe_units(units: UnitTable) -> str:
    """Return the table of the units that a random split would share, as text; the least shared first."""
    shares = [share for share in units.shares if share.at_random >= MIN_AT_RANDOM or share in units.chosen]
    if units.is_guess:
        return "units: there is no test table that could have been divided by one"
    if not shares:
        return "units: a random split would leave too few test rows that share one with a training row"
    rows = [
        [str(share.unit), share.n_values, share.observed, round(share.at_random), _verdict(share, units)]
        for share in sorted(shares, key=lambda share: share.share)
    ]
    table = pd.DataFrame(rows, columns=["unit", "values", "shared", "at random", ""])
    return f"test rows that share a unit with a training row\n{table.to_string(index=False)}"


def _verdict(share: UnitShare, units: UnitTable) -> str:
    if share in units.chosen:
        return "divides the tables"
    if share in units.unknown:
        return "too few values"
    return "explained" if share.is_found else ""


def describe_evidence(shift: Shift | None) -> str:
    """Return whether training and test rows differ, as a part of a sentence."""
    if shift is None:
        return "there are too few rows, or no features, to distinguish train and test"
    if shift.is_clear:
        return f"train and test differ (AUC {shift.auc:.2f}), most in {shift.first_features(3)}"
    auc = format_with_error(shift.auc, shift.standard_error)
    return f"train and test are not clearly different (AUC {auc})"


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
