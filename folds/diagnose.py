"""Held-out rows compared with test rows, and the kind of folds that fits, as `./run.sh folds` prints them.

Similarities to the nearest training row, a classifier of training against test rows, and its features. Written
are folds/shift.json and similarity.png. No label of a test row is read.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, TIME, without_extra_rows
from core.errors import DataError
from core.files import derive_seed, read_json, read_table, table_digest, write_json
from core.paths import Paths, display_path
from core.plots import new_figure
from core.types import Integers
from folds.adversarial import MAX_ROWS, MIN_INPUTS, Shift, adversarial_validation
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
"""Number of rows of each table in the comparison of `./run.sh full`."""
DIGITS: dict[str, Any] = {"float_format": "{:.4g}".format}
MIN_SHIFT_AUC = 0.6
"""AUC from which train and test are reported as different."""


def run(competition: CompetitionConfig, config: FoldsConfig, quick: bool = False) -> str:
    """Compare the prepared tables and folds.csv, write the figure and shift.json; return lines to print.

    Args:
        quick: whether to use at most QUICK_ROWS of each table, no other kinds of folds and no classifier.
    """
    paths = competition.paths
    train = without_extra_rows(read_table(paths.train))
    test = read_table(paths.test)
    seed = derive_seed(competition.seed, "shift")
    figure = paths.similarity
    figure.unlink(missing_ok=True)  # it may be that of other tables
    if quick:
        train, test = (_sampled(table, QUICK_ROWS, seed) for table in (train, test))
    compared = compare_fold_kinds(competition, config, train, test, seed, () if quick else COMPARED)
    blocks = [describe_similarity(similarity) for similarity in compared]
    if compared:
        plot_similarity(compared, config.kind, figure)
    content: dict[str, Any] = {"made_from": made_from(paths), "recommended": None}
    content["wasserstein_distances"] = [
        {"measure": each.measure, **{kind: each.distance(kind) for kind in each.held_out}}
        for each in compared
    ]
    if not quick:
        print("... adversarial validation", flush=True)
        shift = adversarial_validation(_sampled(train, MAX_ROWS, seed), test, competition, seed)
        blocks.append(describe_shift(shift))
        if shift is not None:
            auc = {"auc": shift.auc, "standard_error": shift.standard_error, "features": shift.features}
            content["adversarial_validation"] = auc
        kind, reason = recommend(competition, config.kind, train, test, compared, shift)
        content["recommended"] = {"kind": kind, "reason": reason}
        line = f"recommended: folds.kind {kind} (configured: {config.kind}): {reason}"
        blocks.append(textwrap.fill(line, 110))
    write_json(paths.shift, content)
    blocks.append(f"Written: {display_path(paths.shift.parent)}; the next ./run.sh full shows it on its page")
    return "\n\n".join(blocks)


def _sampled(table: pd.DataFrame, n_rows: int, seed: int) -> pd.DataFrame:
    """Return at most `n_rows` rows, numbered anew."""
    return table.sample(min(n_rows, len(table)), random_state=seed).reset_index(drop=True)


def update(competition: CompetitionConfig, config: FoldsConfig) -> None:
    """Make a quick comparison for the report, unless there is one of these tables and folds.

    An error is printed, since it must not end a run.
    """
    paths = competition.paths
    if paths.shift.exists() and read_json(paths.shift, "made_from")["made_from"] == made_from(paths):
        return
    try:
        run(competition, config, quick=True)
    except Exception as error:
        print(f"test and training rows were not compared ({type(error).__name__}: {error})", flush=True)


def made_from(paths: Paths) -> dict[str, str]:
    """Return the digests of the tables and folds that a comparison is of."""
    return {path.name: table_digest(path) for path in (paths.train, paths.test, paths.folds)}


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
    auc = f"AUC {shift.auc:.3f} ± {shift.standard_error:.3f}"
    title = f"adversarial validation: {auc} (0.5: indistinguishable)"
    return f"{title}\n{pd.DataFrame(shift.features).to_string(index=False, **DIGITS)}"


def compare_fold_kinds(
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    seed: int,
    other_kinds: Sequence[str],
) -> list[Similarity]:
    """Return similarities of molecules and of texts, for the configured folds and other kinds.

    Args:
        train: prepared training rows with their configured folds.
    """
    if not (competition.smiles or competition.text):
        return []
    n_folds = int(train[FOLD].max()) + 1
    train = _sampled(train, MAX_TRAIN_ROWS, seed)
    folds: dict[str, Integers] = {config.kind: train[FOLD].to_numpy(dtype=np.int64)}
    for name in other_kinds:
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
    queries = test.sample(min(MAX_QUERIES, len(test)), random_state=seed)
    return similarities(train, queries, competition, folds)


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
        names = ", ".join(feature["feature"] for feature in shift.features[:3])
        return f"train and test differ (AUC {shift.auc:.2f}), most in {names}"
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
