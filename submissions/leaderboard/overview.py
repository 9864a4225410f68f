"""Every submission of a competition, and what its scores can say: `./run.sh ledger [COMPETITION]`.

--public and --private add a score by hand, where `./run.sh submit` did not wait for it or the platform is another one.
--select notes which submissions you selected on the platform.

Reads: ledger.csv, and of the runs behind it the out-of-fold predictions. Writes: report/ledger.png and, where asked,
rows of ledger.csv.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from competition import command
from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_json, read_table
from competition.metrics import Metric, load_metric
from competition.paths import Paths, shown
from competition.plots import new_figure, save_figure
from submissions.compare import read_labels
from submissions.config import load_config
from submissions.leaderboard.draws import Draws, best_pair, draw, usual_spearman
from submissions.leaderboard.ledger import BY_HAND, Submission, named, read, write
from submissions.leaderboard.origin import out_of_fold, products
from submissions.run import CHOICE
from submissions.words import number, table

PICTURE = "ledger.png"
CV, PUBLIC, PRIVATE = BOARDS = "cross_fitted_score", "public", "private"
FEWEST = 3
"""Files with two scores, from which a rank correlation is given."""
TOLD_APART = 0.6
"""AUC from which train and test are said to differ."""


def add_scores(ledger: Path, given: dict[str, float], name: str | None = None) -> Submission:
    """Write scores that a person has read, `public`, `private` or both; returns the submission as it was.

    Args:
        name: the submission; None for the latest one that has not failed and has none of these scores yet.

    Raises:
        ConfigError: if there is no such submission.
    """
    known = read(ledger)
    without = [one for one in known if one.status != "failed" and all(getattr(one, board) is None for board in given)]
    if name is None and not without:
        raise ConfigError("There is no submission without this score; name the one to correct with --submission.")
    one = without[-1] if name is None else named(name, known)
    write(ledger, replace(one, status="scored", **given))  # type: ignore[arg-type]
    return one


def select(ledger: Path, names: list[str]) -> None:
    """Note the submissions that were selected on the platform; they replace those noted before."""
    known = read(ledger)
    chosen = [named(name, known) for name in names]
    for one in known:
        write(ledger, replace(one, selected="yes" if one in chosen else ""))


def distinct(known: list[Submission]) -> list[Submission]:
    """One submission per file that reached the platform: the last with a score, else the last."""
    sent = [one for one in known if one.status == "scored" or (one.status == "submitted" and one.ref != BY_HAND)]
    sent.sort(key=lambda one: one.status == "scored")
    return list({one.file_digest or one.submission: one for one in sent}.values())


def page(competition: str, public_share: float) -> str:
    """The table and what was found, for a terminal; draws the plot where a submission has both scores."""
    config, paths = load_config(competition), Paths.of(competition)
    metric = load_metric(config.competition.metric, config.competition.greater_is_better)
    known = read(paths.ledger)
    if not known:
        return f"No submissions of {paths.name} yet: ./run.sh submit {paths.name} makes one and writes it down."
    files, made_by, oof = distinct(known), products(paths), {}
    for one in files:
        try:
            product = made_by.get(one.file_digest, (paths.run(one.run), CHOICE))
            oof[one.submission] = out_of_fold(*product, config.competition.targets)
        except DataError:  # a file of no run, or of one that was deleted
            continue
    scores = pd.DataFrame([asdict(one) for one in files], columns=["submission", *BOARDS]).set_index("submission")
    scores, draws = scores.astype(float), None
    chosen: list[str] = []
    if oof:
        n_test = len(read_table(paths.test))
        n_public = round(n_test * public_share)
        draws = draw(oof, read_labels(config, paths), (n_public, n_test - n_public))
    said = rank_correlations(scores, draws)
    if draws is None:
        said.append("The runs behind these files are not here, so nothing is said of chance. Select by CV.")
    else:
        chosen, why = to_select(draws, metric)
        said += [*noise(scores, draws, metric), *_shift(paths), why]
    wrapped = [textwrap.fill(line, 110, initial_indent="- ", subsequent_indent="  ") for line in said]
    label = f"{metric.name}, {'greater' if metric.greater_is_better else 'less'} is better"
    parts = [f"# Submissions of {paths.name}: {label}", _table(known), "\n".join(wrapped)]
    if scores[[CV, PUBLIC]].notna().all(axis=1).any():
        plot(scores, draws, chosen, label, paths.report / PICTURE)
        parts.append(f"Plot: {shown(paths.report / PICTURE)}")
    return "\n\n".join(parts)


def rank_correlations(scores: pd.DataFrame, draws: Draws | None) -> list[str]:
    """How CV and the leaderboard rank the files, a sentence for each two scores that enough of them have."""
    said = []
    for one, other in ((CV, PUBLIC), (CV, PRIVATE), (PUBLIC, PRIVATE)):
        both = scores[[one, other]].dropna()
        if len(both) >= FEWEST:
            rho, usual = both[one].corr(both[other], "spearman"), ""
            if draws is not None and one == CV and set(both.index) <= set(draws.public):
                low, high = usual_spearman(draws.public if other == PUBLIC else draws.private, both[CV])
                usual = f"; {low:.2f} to {high:.2f} in nine of ten draws of the rows"
            said.append(f"Spearman of {one} and {other}: {rho:.2f}, n = {len(both)}{usual}.")
    return said or [f"A rank correlation of CV and the leaderboard needs {FEWEST} files with both scores."]


def noise(scores: pd.DataFrame, draws: Draws, metric: Metric) -> list[str]:
    """How far the draw of the rows alone moves scores, and the lead on the public board held against it."""
    public, private = (number(part.std().median()) for part in (draws.public, draws.private))
    said = [
        f"The standard deviation of a score is {public} on {draws.sizes[0]} public rows and {private} on "
        f"{draws.sizes[1]} private rows, drawn from {draws.n_rows} out-of-fold rows by group (--public-share)."
    ]
    board = scores[PUBLIC].filter(draws.public.columns).dropna().sort_values(ascending=not metric.greater_is_better)
    if len(board) > 1:
        first, second = board.index[:2]
        gain, deviation = abs(board[first] - board[second]), (draws.public[first] - draws.public[second]).std()
        said.append(
            f"On the board {first} leads {second} by {number(gain)}, with a paired standard deviation of "
            f"{number(deviation)}. A gain on the board below one paired standard deviation is not evidence."
        )
    return said


def to_select(draws: Draws, metric: Metric) -> tuple[list[str], str]:
    """The two submissions to select, or the one that there is, and why."""
    chosen, expected = best_pair(draws.private, metric.greater_is_better)
    means = " and ".join(f"{number(draws.private[name].mean())} of {name}" for name in chosen)
    if len(chosen) == 1:
        return chosen, f"Select {chosen[0]}; the private score to expect is {means}."
    rho = draws.private[chosen[0]].corr(draws.private[chosen[1]])
    return chosen, (
        f"Select {' and '.join(chosen)}: the better of their private scores is expected to be {number(expected)} "
        f"({means} alone, correlation {rho:.3f})."
    )


def _shift(paths: Paths) -> list[str]:
    if not paths.shift.exists():
        return [f"The draws are optimistic where train and test differ; ./run.sh folds {paths.name} tells if they do."]
    auc = (read_json(paths.shift, "adversarial")["adversarial"] or {"auc": 0.5})["auc"]
    differ = f"The draws are optimistic: train and test differ (AUC {auc:.2f} in ./run.sh folds {paths.name})."
    return [differ] if auc > TOLD_APART else []


def _table(known: list[Submission]) -> str:
    """A row per submission; columns in which nothing stands are left out."""
    rows = [
        {
            "id": one.submission,
            "time": one.time[5:16].replace("T", " "),
            "run": one.run[:8],
            "chosen": one.chosen,
            **{name: number(getattr(one, name)) for name in ("cv_score", *BOARDS)},
            "status": "selected" if one.selected else one.status,
            "message": "" if one.message.startswith("run ") else textwrap.shorten(one.message, 60),
        }
        for one in known
    ]
    shown_columns = [name for name in rows[0] if any(row[name].strip("-") for row in rows)]
    return table(shown_columns, [[row[name] for name in shown_columns] for row in rows])


def plot(scores: pd.DataFrame, draws: Draws | None, chosen: list[str], label: str, file: Path) -> None:
    """The public score against CV with the noise of the public part, and private scores where they are known."""
    figure, axes = new_figure(width=6.0, height=4.5)
    axis, both = axes[0, 0], scores.dropna(subset=[CV, PUBLIC])
    low, high = both.min().min(), both.max().max()
    axis.plot([low, high], [low, high], color="grey", linestyle=":", label="leaderboard = CV")
    errors = None if draws is None else draws.public.std().reindex(both.index)
    axis.errorbar(both[CV], both[PUBLIC], errors, fmt="o", ecolor="#9db7d5", label="public, with the noise of its rows")
    if both[PRIVATE].notna().any():
        axis.plot(both[CV], both[PRIVATE], "s", color="#c2410c", fillstyle="none", label="private")
    ring = both[both.index.isin(chosen)]
    axis.scatter(ring[CV], ring[PUBLIC], s=150, facecolor="none", edgecolor="black", label="to select")
    for name, row in both.iterrows():
        axis.annotate(name, (row[CV], row[PUBLIC]), (7, 3), textcoords="offset points")
    axis.set(xlabel=f"{CV} ({label})", ylabel="leaderboard")
    axis.legend()
    save_figure(figure, file)


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, "ledger", ())
    options.add_argument("--public", type=float, metavar="SCORE", help="a score on the public leaderboard to add")
    options.add_argument("--private", type=float, metavar="SCORE", help="a score on the private leaderboard to add")
    options.add_argument("--submission", metavar="ID", help="of which --public and --private are (default: the latest)")
    options.add_argument("--select", nargs="+", metavar="ID", help="what you selected on the platform, to mark it here")
    options.add_argument(
        "--public-share", type=float, default=0.3, help="of the test rows, behind public scores (default: %(default)s)"
    )
    args = options.parse_args()
    load_competition(args.competition)  # a misspelt name gets no ledger
    ledger = Paths.of(args.competition).ledger
    given = {board: getattr(args, board) for board in (PUBLIC, PRIVATE) if getattr(args, board) is not None}
    if not 0 < args.public_share < 1:
        raise ConfigError(f"--public-share must be between 0 and 1; found {args.public_share}.")
    if args.submission and not given:
        raise ConfigError("--submission needs the score to add, --public or --private.")
    if given:
        one = add_scores(ledger, given, args.submission)
        print(f"Added to {one.submission} of {one.time}: {one.message}\n")
    if args.select:
        select(ledger, args.select)
        print("Noted here; select them on the platform's page, too, since this does not.\n")
    print(page(args.competition, args.public_share))


if __name__ == "__main__":
    command.run(main)
