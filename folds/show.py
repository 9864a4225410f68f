"""Show whether held-out rows are like test rows: `./run.sh folds [COMPETITION]`.

Sizes and targets of each fold; how near test rows and held-out rows are to training rows; whether a classifier can tell
train from test, and by what; and the kind of folds that fits, with its reason.

Reads: the raw tables, which are prepared and divided first, as in ./run.sh full. No label of a test row.
Writes: folds/shift.json, targets.png, similarity.png and adversarial.png.
"""

from __future__ import annotations

import textwrap
import time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.errors import DataError
from competition.files import derive_seed, read_table, table_digest, write_json
from competition.paths import Paths, shown
from competition.plots import new_figure, save_figure
from competition.tables import TIME, own_rows
from folds import make
from folds.config import FoldsConfig
from folds.groups import why_scaffolds
from folds.shift import FEWEST, SAMPLE, Shift, adversarial_validation
from folds.similarity import QUERIES, Similarity, molecule_similarity, text_similarity
from folds.splitters import divide
from folds.table import read_folds

REFERENCES = 20_000
"""Most training rows among which the nearest is looked for."""
NEAR = 0.02
"""A kind is as good as the best when its distance to the test rows is larger by at most this."""
RANDOM = ("kfold", "stratified")
TOLD_APART = 0.6
"""AUC from which train and test are said to differ."""


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Look at prepared tables and folds.csv, write the pictures and shift.json; returns what to print."""
    whole, test = (read_table(path) for path in (paths.train, paths.test))
    train = own_rows(whole)
    folds = read_folds(paths.folds, list(whole[competition.id]))[: len(train)]  # extra rows stand last
    seed = derive_seed(competition.seed, "shift")
    folder, lines = paths.shift.parent, []
    for picture in folder.glob("*.png"):
        picture.unlink()
    similarities = similarities_of(competition, config, train, test, folds, seed)
    print("... adversarial validation", flush=True)
    shift = adversarial_validation(train, test, competition, seed)
    kind, reason = recommend(competition, config.kind, train, test, similarities, shift)
    found = as_json(paths, config.kind, folds, similarities, shift, {"kind": kind, "reason": reason})
    for similarity in found["similarity"]:
        table = pd.DataFrame({"test rows": similarity["test"], **similarity["held_out"]}).T
        table.index = [
            f"held out, {name}{' (as configured)' * (name == config.kind)}" if name in similarity["held_out"] else name
            for name in table.index
        ]
        table.columns = ["10 %", "median", "90 %", "distance to test rows"][: table.shape[1]]
        text = table.to_string(float_format="{:.3f}".format, na_rep="")
        lines.append(f"similarity to the nearest training row ({similarity['measure']})\n{text}")
    if similarities and max(len(train), len(test)) > QUERIES:
        lines.append(f"(at most {QUERIES} rows of each table, among at most {REFERENCES} training rows)")
    if shift is None:
        lines.append(f"no adversarial validation: train and test must have {FEWEST} distinct inputs each")
    else:
        sampled = f", at most {SAMPLE} rows of each table" if max(len(train), len(test)) > SAMPLE else ""
        lines.append(
            f"adversarial validation: AUC {shift.auc:.3f}, standard deviation over folds "
            f"{shift.standard_deviation:.3f}{sampled} (0.5: train and test cannot be told apart)\n"
            + shift.features.to_string(index=False, float_format="{:.4g}".format)
        )
    draw_targets(train[competition.targets], folds, folder / "targets.png")
    if similarities:
        draw_similarities(similarities, config.kind, folder / "similarity.png")
    if shift is not None:
        draw_shift(shift, folder / "adversarial.png")
    write_json(paths.shift, found)
    lines.append(textwrap.fill(f"recommended: folds.kind {kind}: {reason}", 110))
    pictures = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    lines.append(f"Written: {shown(paths.shift)}, {pictures}; the next ./run.sh full shows them on its page")
    return "\n\n".join(lines)


def similarities_of(
    competition: CompetitionConfig,
    config: FoldsConfig,
    train: pd.DataFrame,
    test: pd.DataFrame,
    folds: NDArray[np.int64],
    seed: int,
) -> list[Similarity]:
    """Of molecules and of text, where there are any, under the folds as they are and under other kinds."""
    if not (competition.smiles or competition.text):
        return []
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(train))[:REFERENCES])
    train, folds = train.iloc[chosen].reset_index(drop=True), folds[chosen]
    test = test.iloc[np.sort(rng.permutation(len(test))[:QUERIES])]
    kinds = [] if config.kind in RANDOM else ["kfold"]
    kinds += [kind for kind in ("scaffold", "cluster") if competition.smiles and kind != config.kind]
    of_kind: dict[str, NDArray[np.int64]] = {config.kind: folds}
    for kind in kinds:
        print(f"... folds of kind {kind}, to compare", flush=True)
        other = config.model_copy(update={"kind": kind, "file": None, "n_folds": int(folds.max()) + 1})
        try:
            of_kind[kind] = divide(
                other, train, competition.id, competition.targets, competition.smiles, competition.group,
                competition.seed,
            ).folds  # fmt: skip
        except DataError as error:
            print(f"kind {kind} is left out: {error}")
    found = []
    if competition.smiles:
        found.append(molecule_similarity(train, test, competition.smiles, of_kind, seed))
    if competition.text:
        found.append(text_similarity(train, test, competition.text, of_kind, seed))
    return found


def recommend(
    competition: CompetitionConfig,
    configured: str,
    train: pd.DataFrame,
    test: pd.DataFrame,
    similarities: list[Similarity],
    shift: Shift | None,
) -> tuple[str, str]:
    """The kind of folds whose held-out rows are most like the test rows, and why in one sentence.

    What the user knows comes first: time, if the test rows are later or that cannot be seen, then groups that test rows
    do not share. Then, of molecules, scaffolds if the test table has new ones, else the simplest kind whose held-out
    rows are as near to their training rows as test rows are. Else folds at random.
    """
    one_target = len(competition.targets) == 1
    at_random = configured if configured in RANDOM else "stratified" if one_target else "kfold"
    if competition.time is not None and competition.time not in competition.numeric:
        return "time", f"rows have a time, {competition.time!r}; if the test rows are later, as is usual"
    if competition.time is not None and (later := (test[competition.time] > train[TIME].max()).mean()) > 0.5:
        return "time", f"{later:.0%} of the test rows are later than every training row"
    if competition.group is not None:
        grouped = "stratified_group" if one_target else "group"
        if competition.group not in test:
            return grouped, f"rows of one {competition.group!r} belong together"
        known = test[competition.group].isin(set(train[competition.group])).mean()
        if known < 0.05:
            return grouped, f"{known:.0%} of the test rows have a {competition.group!r} of the training table"
    if len(competition.smiles) == 1:
        (name,) = competition.smiles
        if why := why_scaffolds(list(train[name]), list(test[name])):
            return "scaffold", why
    auc = "" if shift is None else f"AUC {shift.auc:.2f}"
    differs = ""
    if shift is not None and shift.auc > TOLD_APART:
        differs = f"train and test differ ({auc}), most in {', '.join(shift.features['feature'][:3])}"
    if competition.smiles:
        molecules = similarities[0]
        order = [kind for kind in (*RANDOM, "scaffold", "cluster") if kind in molecules.held_out]
        nearest = min(molecules.distance(kind) for kind in order)
        best = next(kind for kind in order if molecules.distance(kind) <= nearest + NEAR)
        medians = ", ".join(f"{np.median(molecules.held_out[kind]):.2f} with {kind}" for kind in order)
        reason = (
            f"median similarity of a test molecule to the nearest training molecule {np.median(molecules.test):.2f}, "
            f"of a held-out one {medians}"
        )
        return at_random if best in RANDOM else best, f"{reason}; {differs}" if differs else reason
    if differs:
        return at_random, f"{differs}; no kind of folds imitates that, so the leaderboard may disagree"
    return at_random, f"train and test can hardly be told apart ({auc})" if auc else "too few rows to tell"


def as_json(
    paths: Paths,
    configured: str,
    folds: NDArray[np.int64],
    similarities: list[Similarity],
    shift: Shift | None,
    recommended: dict[str, str],
) -> dict[str, Any]:
    """Content of shift.json; `made_from` tells whether it still belongs to the tables and the folds."""

    def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(("q10", "median", "q90"), np.quantile(values, [0.1, 0.5, 0.9]).tolist(), strict=True))

    return {
        "made_from": {path.name: table_digest(path) for path in (paths.train, paths.test, paths.folds)},
        "kind": configured,
        "sizes": np.bincount(folds[folds >= 0]).tolist(),
        "similarity": [
            {
                "measure": each.measure,
                "test": quantiles(each.test),
                "held_out": {k: quantiles(v) | {"distance": each.distance(k)} for k, v in each.held_out.items()},
            }
            for each in similarities
        ],
        "adversarial": shift
        and {
            "auc": shift.auc,
            "standard_deviation": shift.standard_deviation,
            "fold_aucs": shift.aucs,
            "features": shift.features.to_dict("records"),
        },
        "recommended": recommended,
    }


def draw_targets(y: pd.DataFrame, folds: NDArray[np.int64], file: Any) -> None:
    """A box of the labels of each target in each fold; `y` (n_rows, n_targets) has NaN for a missing label."""
    numbers = sorted(set(folds.tolist()))
    figure, axes = new_figure(1, y.shape[1], width=max(4.0, 2.6 * y.shape[1]))
    for axis, name in zip(axes[0], y.columns, strict=True):
        axis.boxplot([y[name][folds == fold].dropna() for fold in numbers], showmeans=True, sym=".")
        axis.set_xticklabels([str(fold) for fold in numbers])
        axis.set(xlabel="fold (-1: trains in every fold)" if numbers[0] < 0 else "fold", title=name)
    save_figure(figure, file)


def draw_similarities(similarities: list[Similarity], configured: str, file: Any) -> None:
    """The share of rows whose nearest training row is at most so similar: test rows, and held-out rows of each kind."""
    figure, axes = new_figure(1, len(similarities), width=6.4 * len(similarities), height=4.2)
    for axis, each in zip(axes[0], similarities, strict=True):
        for kind, values in each.held_out.items():
            now = kind == configured
            label = f"held out, {kind}{' (as configured)' * now}"
            axis.ecdf(values, label=label, linewidth=2.2 if now else 1.3, linestyle="-" if now else "--")
        axis.ecdf(each.test, label="test rows", color="black", linewidth=2.8)
        axis.set(xlabel=f"similarity to the nearest training row\n({each.measure})", ylabel="share of rows below")
        axis.set(xlim=(0, 1), title="folds imitate the competition where their curve meets the test rows'")
        axis.legend(loc="lower right")
    save_figure(figure, file)


def draw_shift(shift: Shift, file: Any) -> None:
    """The features that tell train and test apart."""
    figure, axes = new_figure(width=7)
    gains = shift.features.iloc[::-1]
    axes[0, 0].barh([textwrap.shorten(name, 40) for name in gains["feature"]], 100 * gains["gain"])
    axes[0, 0].set(xlabel="share of the classifier's gain (%)")
    axes[0, 0].set_title(f"train against test: AUC {shift.auc:.3f} ± {shift.standard_deviation:.3f}")
    save_figure(figure, file)


def main() -> None:
    """Command line."""
    args = command.parser(__doc__, "folds", ("seed", "holdout")).parse_args()
    started = time.monotonic()
    competition, config = load_competition(args.competition, args.seed), make.load_folds_config(args.competition)
    paths = Paths.of(args.competition)
    with command.locked(paths):
        print(prepare.run(competition, paths, find_config(args.competition)))
        print(make.run(competition, config, paths))
        print(f"\n{run(competition, config, paths)}\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    command.run(main)
