"""Show whether held-out rows are like test rows: `./run.sh folds [COMPETITION]`.

How near test rows and held-out rows are to training rows; whether a classifier can tell train from test, and
by what; and the kind of folds that fits, with its reason.

Reads: the raw tables, which are prepared and divided first, as in ./run.sh full. No label of a test row.
Writes: folds/shift.json and similarity.png.
"""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition import cli, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.dataset import TIME, without_extra_rows
from competition.errors import DataError
from competition.files import derive_seed, read_table, table_digest, write_json
from competition.paths import Paths, display_path
from competition.plots import new_figure
from folds import make
from folds.adversarial import MIN_INPUTS, adversarial_validation
from folds.config import FoldsConfig
from folds.fold_files import read_folds
from folds.groups import scaffold_shift_reason
from folds.similarity import QUERIES, Similarity, similarities
from folds.splitters import assign_folds

REFERENCES = 20_000
"""Most training rows among which the nearest is looked for."""
NEAR = 0.02
"""A kind is as good as the best when its distance to the test rows is larger by at most this."""
DIGITS: dict[str, Any] = {"float_format": "{:.4g}".format}
RANDOM = ("kfold", "stratified")
TOLD_APART = 0.6
"""AUC from which train and test are said to differ."""


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Look at prepared tables and folds.csv, write the picture and shift.json; returns what to print."""
    whole, test = (read_table(path) for path in (paths.train, paths.test))
    train = without_extra_rows(whole)
    folds = read_folds(paths.folds, list(whole[competition.id]))[: len(train)]  # extra rows stand last
    seed, picture = derive_seed(competition.seed, "shift"), paths.shift.with_name("similarity.png")
    picture.unlink(missing_ok=True)  # of other tables
    lines, compared = [], compare_fold_kinds(competition, config, train.assign(fold=folds), test, seed)
    for each in compared:
        rows = {
            "test rows": each.test,
            **{f"held out, {name}": values for name, values in each.held_out.items()},
        }
        table = pd.DataFrame({name: np.quantile(values, [0.1, 0.5, 0.9]) for name, values in rows.items()}).T
        table.columns = ["10 %", "median", "90 %"]
        table["Wasserstein distance to test rows"] = [0.0, *map(each.distance, each.held_out)]
        lines.append(f"similarity to the nearest training row ({each.measure})\n{table.to_string(**DIGITS)}")
    if compared:
        plot_similarity(compared, config.kind, picture)
    print("... adversarial validation", flush=True)
    shift = adversarial_validation(train, test, competition, seed)
    if shift is None:
        lines.append(f"adversarial validation: train and test must have {MIN_INPUTS} distinct inputs each")
    else:
        auc = f"AUC {shift['auc']:.3f} ± {shift['standard_deviation']:.3f}"
        said = (
            f"adversarial validation: {auc} (standard deviation over folds; 0.5: they cannot be told apart)"
        )
        lines.append(f"{said}\n{pd.DataFrame(shift['features']).to_string(index=False, **DIGITS)}")
    kind, reason = recommend(competition, config.kind, train, test, compared, shift)
    made_from = {path.name: table_digest(path) for path in (paths.train, paths.test, paths.folds)}
    recommended = {"kind": kind, "reason": reason}
    write_json(paths.shift, {"made_from": made_from, "adversarial": shift, "recommended": recommended})
    lines.append(textwrap.fill(f"recommended: folds.kind {kind} (configured: {config.kind}): {reason}", 110))
    lines.append(f"Written: {display_path(paths.shift.parent)}; the next ./run.sh full shows it on its page")
    return "\n\n".join(lines)


def compare_fold_kinds(
    competition: CompetitionConfig, config: FoldsConfig, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> list[Similarity]:
    """Similarities of molecules and of text, where there are any, under the column `fold` and folds of other
    kinds.
    """
    if not (competition.smiles or competition.text):
        return []
    n_folds = int(train["fold"].max()) + 1
    train = train.sample(min(REFERENCES, len(train)), random_state=seed).reset_index(drop=True)
    of_kind: dict[str, Any] = {config.kind: train.pop("fold").to_numpy()}
    for kind in ("kfold", "scaffold", "cluster") if competition.smiles else ("kfold",):
        if kind == config.kind or {kind, config.kind} == {*RANDOM}:
            continue
        print(f"... folds of kind {kind}, to compare", flush=True)
        other = config.model_copy(update={"kind": kind, "file": None, "n_folds": n_folds})
        try:
            of_kind[kind] = assign_folds(other, train, competition, competition.seed)[0]
        except DataError as error:
            print(f"kind {kind} is left out: {error}")
    asked = test.sample(min(QUERIES, len(test)), random_state=seed)
    return similarities(train, asked, competition, of_kind)


def recommend(
    competition: CompetitionConfig, configured: str, train: pd.DataFrame, test: pd.DataFrame,
    compared: list[Similarity], shift: dict[str, Any] | None,
) -> tuple[str, str]:  # fmt: skip
    """The kind of folds whose held-out rows are most like the test rows, and why in one sentence.

    What the user knows comes first: time, if the test rows are later or that cannot be seen, then groups that
    test rows do not share. Then, of molecules, scaffolds if the test table has new ones, else the simplest
    kind whose held-out rows are as near to their training rows as test rows are. Else folds at random.
    """
    time_column, group = competition.time, competition.group
    stratify = len(competition.targets) == 1 or bool(competition.classes)
    at_random = configured if configured in RANDOM else "stratified" if stratify else "kfold"
    if time_column and time_column not in competition.numeric:
        return "time", f"rows have a time, {time_column!r}; if the test rows are later, as is usual"
    if time_column and (test[time_column] > train[TIME].max()).mean() > 0.5:
        return "time", "most test rows are later than every training row"
    if group and (group not in test or test[group].isin(train[group]).mean() < 0.05):
        kind = "stratified_group" if stratify else "group"
        return (
            kind,
            f"rows of one {group!r} belong together, and test rows hardly share one with a training row",
        )
    if len(competition.smiles) == 1:
        (name,) = competition.smiles
        if why := scaffold_shift_reason(list(train[name]), list(test[name])):
            return "scaffold", why
    if shift is None:
        why = "there are too few rows, or no features, to tell train and test apart"
    elif shift["auc"] > TOLD_APART:
        telling = ", ".join(feature["feature"] for feature in shift["features"][:3])
        why = f"train and test differ (AUC {shift['auc']:.2f}), most in {telling}"
    else:
        why = f"train and test can hardly be told apart (AUC {shift['auc']:.2f})"
    if not competition.smiles:
        return at_random, f"{why}; no kind of folds can be seen to imitate the test rows better"
    molecules = compared[0]
    order = [kind for kind in (*RANDOM, "scaffold", "cluster") if kind in molecules.held_out]
    nearest = min(map(molecules.distance, order))
    best = next(kind for kind in order if molecules.distance(kind) <= nearest + NEAR)
    said = f"the test molecules are as far from the training molecules as those held out by {best}"
    return (
        at_random if best in RANDOM else best,
        f"{said} (Wasserstein distance {molecules.distance(best):.2f}); {why}",
    )


def plot_similarity(compared: list[Similarity], configured: str, file: Path) -> None:
    """The share of rows whose nearest training row is at most so similar: test rows, and held-out rows of
    each kind.
    """
    figure, axes = new_figure(1, len(compared), width=6.4 * len(compared), height=4.2)
    for axis, each in zip(axes[0], compared, strict=True):
        for kind, values in each.held_out.items():
            label, line = (f"{kind} (as configured)", "-") if kind == configured else (kind, "--")
            axis.ecdf(values, label=f"held out, {label}", linestyle=line)
        axis.ecdf(each.test, label="test rows", color="black", linewidth=2.8)
        axis.set(
            xlabel=f"similarity to the nearest training row\n({each.measure})", ylabel="share of rows below"
        )
        axis.set(xlim=(0, 1), title="folds imitate the competition where their curve meets the test rows'")
        axis.legend(loc="lower right")
    figure.savefig(file, dpi=150)


def main() -> None:
    """Command line."""
    args = cli.parser(__doc__, "folds", ("seed", "holdout")).parse_args()
    competition, config = (
        load_competition(args.competition, args.overrides),
        make.load_folds_config(args.competition, args.overrides),
    )
    paths = Paths.for_competition(args.competition)
    with cli.locked(paths):
        print(prepare.run(competition, paths, find_config(args.competition)))
        print(make.run(competition, config, paths))
        print(f"\n{run(competition, config, paths)}")


if __name__ == "__main__":
    cli.run(main)
