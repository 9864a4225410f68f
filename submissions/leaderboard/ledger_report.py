"""Every submission of a competition, and what its scores can say: `./run.sh ledger [COMPETITION]`.

--public and --private add a score by hand, where `./run.sh submit` did not wait for it or the platform is
another one.

What chance alone does to scores is drawn: parts of the sizes of the public and the private table from the
training rows with their out-of-fold predictions, group by group, the same draws for all files, so that their
differences are paired. What is lost or won between public and private scores is mostly the draw of the rows
(Roelofs et al., NeurIPS 2019), and a gain within its noise is not evidence (Blum and Hardt, "The Ladder",
ICML 2015).

Reads: ledger.csv, and of the runs behind it the out-of-fold predictions. Writes: where asked, rows of
ledger.csv.
"""

import math
import textwrap
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pandas as pd

from competition import cli
from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import derive_seed, read_table
from competition.metrics import Metric
from competition.paths import Paths
from competition.task import build_metric, build_task
from submissions.compare import PairedScorer, read_labels
from submissions.formatting import format_number
from submissions.leaderboard.ledger import BY_HAND, Submission, find_submission, out_of_fold, read, write

CV, PUBLIC, PRIVATE = BOARDS = "cross_fitted_score", "public", "private"
FEWEST = 3  # files with two scores, from which a rank correlation is given


def add_scores(ledger: Path, given: dict[str, float], name: str | None = None) -> Submission:
    """Write scores that a person has read, `public`, `private` or both; returns the submission as it was.

    Args:
        name: the submission; None for the latest one that has not failed and has none of these scores yet.
    """
    if not all(map(math.isfinite, given.values())):
        raise ConfigError("--public and --private take a finite number.")
    known = read(ledger)
    without = [
        one for one in known if one.status != "failed" and all(getattr(one, board) is None for board in given)
    ]
    if name is None and not without:
        raise ConfigError(
            "There is no submission without this score; name the one to correct with --submission."
        )
    one = find_submission(name, known) if name else without[-1]
    write(ledger, one.but(status="scored", **given))
    return one


def distinct(known: list[Submission]) -> list[Submission]:
    """One submission per file that reached the platform: the last with a score, else the last."""
    sent = [
        one for one in known if one.status == "scored" or (one.status == "submitted" and one.ref != BY_HAND)
    ]
    sent.sort(key=lambda one: one.status == "scored")
    return list({one.file_digest or one.submission: one for one in sent}.values())


def page(competition: str, public_share: float) -> str:
    """The table and what was found, for a terminal."""
    settings, paths = load_competition(competition), Paths.for_competition(competition)
    metric, known = build_metric(settings), read(paths.ledger)
    if not known:
        return (
            f"No submissions of {paths.name} yet: ./run.sh submit {paths.name} makes one and writes it down."
        )
    files, oof = distinct(known), dict[str, pd.DataFrame]()
    for one in files:
        with suppress(DataError):  # a file of no run, or of one that was deleted
            oof[one.submission] = out_of_fold(paths, one, build_task(settings))
    oof = {name: table for name, table in oof.items() if len(table)}
    scores = pd.DataFrame([one.model_dump() for one in files], columns=["submission", *BOARDS]).set_index(
        "submission"
    )
    scores = scores.astype(float)
    said = rank_correlations(scores)
    labels = read_labels(competition) if oof else None
    n_rows = len(labels.ids_of_all(list(oof.values()))) if labels else 0
    if labels is None or n_rows < 2:
        why = (
            "The runs behind these files are not here"
            if files
            else "None of these files has a score yet (--public)"
        )
        said.append(f"{why}, so nothing is said of chance. Select by CV.")
    else:
        n_test = len(read_table(paths.test))
        n_public = round(n_test * public_share)
        public, private = draw(oof, labels, (n_public, n_test - n_public))
        deviations = [format_number(part.std().median()) for part in (public, private)]
        said += [
            f"The standard deviation of a score is {deviations[0]} on {n_public} public rows and "
            f"{deviations[1]} on "
            f"{n_test - n_public} private rows, drawn from {n_rows} out-of-fold rows by group "
            f"(--public-share).",
            *leaderboard_gap(scores[PUBLIC], public, metric),
            f"The draws are optimistic where train and test differ, of which ./run.sh folds {paths.name} "
            f"says more.",
            pick_final_two(private, metric),
        ]
    wrapped = [textwrap.fill(line, 110, initial_indent="- ", subsequent_indent="  ") for line in said]
    label = f"{metric.name}, {'greater' if metric.greater_is_better else 'lower'} is better"
    return "\n\n".join([f"# Submissions of {paths.name}: {label}", _table(known), "\n".join(wrapped)])


def rank_correlations(scores: pd.DataFrame) -> list[str]:
    """How CV and the leaderboard rank the files, a sentence for each two scores that enough of them have."""
    said = []
    for one, other in combinations(BOARDS, 2):
        both = scores[[one, other]].dropna()
        if len(both) >= FEWEST:
            rho = both[one].corr(both[other], "spearman")
            said.append(f"Spearman of {one} and {other}: {rho:.2f}, n = {len(both)}.")
    return said or [f"A rank correlation of CV and the leaderboard needs {FEWEST} files with both scores."]


def draw(oof: dict[str, pd.DataFrame], labels: PairedScorer, sizes: tuple[int, int]) -> list[pd.DataFrame]:
    """Scores of all files on drawn public and on drawn private parts of these sizes, (n_draws, n_files) each."""
    return [labels.drawn_scores(oof, derive_seed(labels.seed, f"part {i}"), n) for i, n in enumerate(sizes)]


def leaderboard_gap(board: pd.Series, public: pd.DataFrame, metric: Metric) -> list[str]:
    """The lead of the best file on the public board, held against what the draw of the rows does to it."""
    known = board.filter(public.columns).dropna().to_dict()
    if len(known) < 2:
        return []
    first, second, *_ = sorted(map(str, known), key=known.__getitem__, reverse=metric.greater_is_better)
    gain, deviation = abs(known[first] - known[second]), (public[first] - public[second]).std()
    return [
        f"On the board {first} leads {second} by {format_number(gain)}, with a paired standard deviation of "
        f"{format_number(deviation)}. A gain on the board below one paired standard deviation is not "
        f"evidence."
    ]


def pick_final_two(private: pd.DataFrame, metric: Metric) -> str:
    """Which two files to select: those whose better one has the best private score to expect; or the one
    there is.
    """
    means = {str(name): f"{format_number(private[name].mean())} of {name}" for name in private}
    if len(means) == 1:
        return (
            f"Select {next(iter(means))}; the mean score on the drawn private rows is {means.popitem()[1]}."
        )
    better = max if metric.greater_is_better else min
    expected = {
        pair: private[list(pair)].agg(better.__name__, axis=1).mean() for pair in combinations(means, 2)
    }
    a, b = better(expected, key=expected.__getitem__)
    return (
        f"Select {a} and {b}: the better of their scores on the drawn private rows is "
        f"{format_number(expected[a, b])} "
        f"on average ({means[a]} and {means[b]} alone, correlation {private[a].corr(private[b]):.3f})."
    )


def _table(known: list[Submission]) -> str:
    """A row per submission; columns in which nothing stands are left out."""
    rows = pd.DataFrame([one.model_dump() for one in known])
    rows["message"] = rows["message"].where(~rows["message"].str.startswith("run "), "").str.slice(stop=60)
    rows = rows[["submission", "time", "run", "chosen", "cv_score", *BOARDS, "status", "message"]].astype(
        object
    )
    rows = rows.replace("", None).dropna(axis=1, how="all")
    return str(rows.fillna("-").to_string(index=False, float_format=format_number, justify="left"))


def main() -> None:
    """Command line."""
    options = cli.parser(__doc__, "ledger", ())
    options.add_argument(
        "--public", type=float, metavar="SCORE", help="a score on the public leaderboard to add"
    )
    options.add_argument(
        "--private", type=float, metavar="SCORE", help="a score on the private leaderboard to add"
    )
    options.add_argument(
        "--submission", metavar="ID", help="of which --public and --private are (default: the latest)"
    )
    options.add_argument(
        "--public-share",
        type=float,
        default=0.3,
        help="of the test rows, behind public scores (default: %(default)s)",
    )
    args = options.parse_args()
    load_competition(args.competition)  # a misspelt name gets no ledger
    paths = Paths.for_competition(args.competition)
    given = {
        board: score for board, score in ((PUBLIC, args.public), (PRIVATE, args.private)) if score is not None
    }
    if not 0 < args.public_share < 1:
        raise ConfigError(f"--public-share must be between 0 and 1; found {args.public_share}.")
    if args.submission and not given:
        raise ConfigError("--submission needs the score to add, --public or --private.")
    if given:
        with cli.locked(paths, paths.submit_lock):
            one = add_scores(paths.ledger, given, args.submission)
        print(f"Added to {one.submission} of {one.time}: {one.message}\n")
    print(page(args.competition, args.public_share))


if __name__ == "__main__":
    cli.run(main)
