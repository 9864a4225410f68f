"""Show whether held-out rows are like test rows: `./run.sh folds [COMPETITION]`.

Sizes and targets of each fold; how near test rows and held-out rows are to training rows; whether a classifier can tell
train from test, and by what; and the scheme that fits, with its reason.

Reads: the raw tables, which are prepared and divided first, as in ./run.sh full. No label of a test row.
Writes: folds/shift.json, targets.png, similarity.png and adversarial.png.
"""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.errors import DataError
from competition.files import derive_seed, read_table, sha256_of, write_json
from competition.paths import Paths, shown
from competition.tables import TIME, own_rows, text_columns
from folds import make
from folds.config import FoldsConfig
from folds.shift import FEWEST, SAMPLE, Shift, adversarial_validation
from folds.similarity import QUERIES, Similarity, molecule_similarity, text_similarity
from folds.splitters import divide
from folds.table import read_folds
from folds.units import why_scaffolds

REFERENCES = 20_000
"""Most training rows among which the nearest is looked for."""
NEAR = 0.02
"""A scheme is as good as the best when its distance to the test rows is larger by at most this."""
RANDOM = ("kfold", "stratified")
TOLD_APART = 0.6
"""AUC from which train and test are said to differ."""


@dataclass(frozen=True)
class Recommended:
    """A kind of folds, and why in one sentence."""

    kind: str
    reason: str


def run(competition: CompetitionConfig, config: FoldsConfig, paths: Paths) -> str:
    """Look at prepared tables and folds.csv, write the pictures and shift.json; returns what to print."""
    whole = read_table(paths.train, text_columns(competition))
    train, test = own_rows(whole), read_table(paths.test, text_columns(competition))
    folds = read_folds(paths.folds, list(whole[competition.id]))[: len(train)]  # extra rows stand last
    seed = derive_seed(competition.seed, "shift")
    folder, lines = paths.shift.parent, []

    from folds.pictures import draw_shift, draw_similarity, draw_targets  # matplotlib takes a second

    draw_targets(train[competition.targets], folds, folder / "targets.png")
    similarities = similarities_of(competition, config, train, test, folds, seed)
    (folder / "similarity.png").unlink(missing_ok=True)
    if similarities:
        draw_similarity(similarities, config.kind, folder / "similarity.png")
        lines += [_similarity_table(similarity, config.kind) for similarity in similarities]
        if len(train) > QUERIES or len(test) > QUERIES:
            lines.append(f"(at most {QUERIES} rows of each table, among at most {REFERENCES} training rows)")
    said("adversarial validation")
    shift = adversarial_validation(train, test, competition, seed)
    (folder / "adversarial.png").unlink(missing_ok=True)
    if shift is None:
        lines.append(f"no adversarial validation: train and test must have {FEWEST} distinct inputs each")
    else:
        draw_shift(shift, folder / "adversarial.png")
        lines.append(_shift_table(shift, len(train), len(test)))
    recommended = recommend(competition, config.kind, train, test, similarities, shift)
    lines.append(textwrap.fill(f"recommended: folds.kind {recommended.kind}: {recommended.reason}", 110))
    write_json(paths.shift, as_json(config.kind, folds, paths, similarities, shift, recommended))
    pictures = sorted(path.name for path in folder.glob("*.png"))
    lines.append(f"Written: {shown(paths.shift)}, {', '.join(pictures)}; the next ./run.sh full shows them on its page")
    return "\n\n".join(lines)


def said(what: str) -> None:
    """A line of progress."""
    print(f"... {what}", flush=True)


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
        said(f"folds of kind {kind}, to compare")
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
        said("nearest molecules")
        found.append(molecule_similarity(train, test, competition.smiles, of_kind, seed))
    if competition.text:
        said("nearest texts")
        found.append(text_similarity(train, test, competition.text, of_kind, seed))
    return found


def recommend(
    competition: CompetitionConfig,
    configured: str,
    train: pd.DataFrame,
    test: pd.DataFrame,
    similarities: list[Similarity],
    shift: Shift | None,
) -> Recommended:
    """The kind of folds whose held-out rows are most like the test rows.

    What the user knows comes first: time, if the test rows are later or that cannot be seen, then groups that test rows
    do not share. Then, of molecules, scaffolds if the test table has new ones, else the simplest kind whose held-out
    rows are as near to their training rows as test rows are. Else folds at random.
    """
    if competition.time is not None:
        if competition.time not in competition.numeric:
            return Recommended(
                "time", f"rows have a time, {competition.time!r}; if the test rows are later, as is usual"
            )
        later = float((test[competition.time] > train[TIME].max()).mean())
        if later > 0.5:
            return Recommended("time", f"{later:.0%} of the test rows are later than every training row")
    if competition.group is not None:
        grouped = "stratified_group" if len(competition.targets) == 1 else "group"
        if competition.group not in test:
            return Recommended(grouped, f"rows of one {competition.group!r} belong together")
        known = float(test[competition.group].isin(set(train[competition.group])).mean())
        if known < 0.05:
            return Recommended(
                grouped, f"{known:.0%} of the test rows have a {competition.group!r} of the training table"
            )
    at_random = configured if configured in RANDOM else "stratified" if len(competition.targets) == 1 else "kfold"
    if len(competition.smiles) == 1:
        (name,) = competition.smiles
        why = why_scaffolds(list(train[name]), list(test[name]))
        if why:
            return Recommended("scaffold", why)
    auc = "" if shift is None else f"AUC {shift.auc:.2f}"
    differs = ""
    if shift is not None and shift.auc > TOLD_APART:
        differs = f"train and test differ ({auc}), most in {', '.join(shift.features['feature'][:3])}"
    if competition.smiles:
        molecules = similarities[0]
        distance = {kind: molecules.distance(kind) for kind in molecules.held_out}
        order = [kind for kind in (*RANDOM, "scaffold", "cluster") if kind in distance]
        best = next(kind for kind in order if distance[kind] <= min(distance[k] for k in order) + NEAR)
        median = ", ".join(f"{np.median(molecules.held_out[kind]):.2f} with {kind}" for kind in order)
        reason = (
            f"median similarity of a test molecule to the nearest training molecule {np.median(molecules.test):.2f}, "
            f"of a held-out one {median}"
        )
        return Recommended(at_random if best in RANDOM else best, f"{reason}; {differs}" if differs else reason)
    if differs:
        return Recommended(at_random, f"{differs}; no kind of folds imitates that, so the leaderboard may disagree")
    return Recommended(at_random, f"train and test can hardly be told apart ({auc})" if auc else "too few rows to tell")


def as_json(
    configured: str,
    folds: NDArray[np.int64],
    paths: Paths,
    similarities: list[Similarity],
    shift: Shift | None,
    recommended: Recommended,
) -> dict[str, Any]:
    """Content of shift.json; `made_from` tells whether it still belongs to the tables and the folds."""
    return {
        "made_from": {path.name: sha256_of(path) for path in (paths.train, paths.test, paths.folds)},
        "kind": configured,
        "sizes": np.bincount(folds[folds >= 0]).tolist(),
        "similarity": [
            {
                "measure": similarity.measure,
                "test": _quantiles(similarity.test),
                "held_out": {
                    kind: {**_quantiles(values), "distance": similarity.distance(kind)}
                    for kind, values in similarity.held_out.items()
                },
            }
            for similarity in similarities
        ],
        "adversarial": None
        if shift is None
        else {
            "auc": shift.auc,
            "standard_deviation": shift.spread,
            "fold_aucs": shift.aucs,
            "n_train": len(shift.train),
            "n_test": len(shift.test),
            "features": shift.features.to_dict("records"),
        },
        "recommended": {"kind": recommended.kind, "reason": recommended.reason},
    }


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in (("q10", 0.1), ("median", 0.5), ("q90", 0.9))}


def _similarity_table(similarity: Similarity, configured: str) -> str:
    lines = [
        f"similarity to the nearest training row ({similarity.measure})",
        f"{'':44}  10 %  median  90 %  distance to test rows",
    ]
    for name, values in {"test rows": similarity.test, **similarity.held_out}.items():
        kind = name in similarity.held_out
        label = f"held out, {name}{' (as configured)' if name == configured else ''}" if kind else name
        q = _quantiles(values)
        away = f"  {similarity.distance(name):.3f}" if kind else ""
        lines.append(f"{label:44}  {q['q10']:.2f}  {q['median']:6.2f}  {q['q90']:.2f}{away}")
    return "\n".join(lines)


def _shift_table(shift: Shift, n_train: int, n_test: int) -> str:
    sampled = f", {len(shift.train)} and {len(shift.test)} rows" if max(n_train, n_test) > SAMPLE else ""
    lines = [
        f"adversarial validation: AUC {shift.auc:.3f}, standard deviation over folds {shift.spread:.3f}{sampled} "
        "(0.5: train and test cannot be told apart)",
        f"{'feature':32}  share of gain  mean in train  mean in test",
    ]
    for row in shift.features.itertuples():
        lines.append(f"{row.feature:32}  {row.gain:13.1%}  {row.mean_in_train:13.4g}  {row.mean_in_test:12.4g}")
    return "\n".join(lines)


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
