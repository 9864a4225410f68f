"""The two submissions to select at a competition's end.

One by CV and one by the leaderboard is the usual pair: the final rows are others than the public ones, so CV, which
rests on all training rows, decides; the second stands against CV being wrong. Where the leaderboard contradicts CV the
order is turned round. The standard error of a score is no measure of a lead, since all submissions are scored on the
same rows (`./run.sh compare` has the paired error), so it never overrules the better score; it says which submissions
are close enough in CV for the most different of them to be the better second choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.errors import DataError
from competition.files import read_table, sha256_of
from submissions.blend import number
from submissions.leaderboard.ledger import Submission
from submissions.leaderboard.scatter import spearman
from submissions.leaderboard.trust import Trust, distinct

CV = "cross_fitted_score"
CLOSE = 3
"""So many of the next best are looked at for a different one; a poor file is different, too."""

Alike = Callable[[Submission, Submission], float | None]


@dataclass(frozen=True)
class Pick:
    """A submission to select."""

    submission: Submission
    reason: str


def choose(submissions: Sequence[Submission], trust: Trust, greater_is_better: bool, alike: Alike) -> list[Pick]:
    """Two picks, fewer where there are fewer files that reached the platform or were scored.

    A file that is far worse on the leaderboard than its CV score says is not picked by CV. Of equal scores the one that
    is better by the other score goes first, then the earlier one, which has the simpler recipe as a rule.

    Args:
        submissions: all of a competition, in order of time.
        trust: what `judge` found about them.
        greater_is_better: of the metric.
        alike: correlation of the predictions of two submissions, None where it is not known.
    """
    files = distinct(submissions)
    worse = {name for name, outlier in trust.outliers.items() if outlier.better_by < 0}
    sound = [one for one in files if one.submission not in worse]
    ranked = {
        CV: _ranked(sound, (CV, trust.board), greater_is_better),
        trust.board: _ranked(files, (trust.board, CV), greater_is_better),
    }
    order = [trust.board, CV] if trust.verdict == "disagree" else [CV, trust.board]
    order = [score for score in order if ranked[score]]
    best = [Pick(ranked[score][0], _best(score, ranked[score], trust)) for score in order]
    if len({pick.submission.submission for pick in best}) == 2 or not best:
        return best
    why = f"{best[0].submission.submission} is the best by both scores; " if len(best) == 2 else ""
    return [best[0], *_other(ranked[order[0]], why, greater_is_better, alike)]


def correlation_of_files(folder: Path, id_column: str) -> Alike:
    """How alike the files of two submissions are: the mean over targets of Pearson's correlation, joined on id.

    None where a file is gone or was changed since it was submitted.

    Args:
        folder: that relative names of files start from.
        id_column: of the files.
    """

    def alike(one: Submission, other: Submission) -> float | None:
        files = [folder / each.file for each in (one, other)]
        for each, file in zip((one, other), files, strict=True):
            if not each.file or not file.is_file() or sha256_of(file) != each.file_digest:
                return None
        try:
            a, b = (read_table(file, [id_column]).set_index(id_column) for file in files)
            with np.errstate(invalid="ignore", divide="ignore"):
                value = float(a.corrwith(b.reindex(a.index)).mean())
        except (DataError, KeyError):  # not of this competition's form
            return None
        return value if np.isfinite(value) else None

    return alike


def _ranked(files: Sequence[Submission], scores: tuple[str, str], greater_is_better: bool) -> list[Submission]:
    """Those that have the first score, the best first; then by the second one, then by time."""

    def rank(one: Submission) -> tuple[float, float]:
        values = (getattr(one, score) for score in scores)
        first, second = (-np.inf if v is None else v if greater_is_better else -v for v in values)
        return -first, -second

    return sorted((one for one in files if getattr(one, scores[0]) is not None), key=rank)


def _best(score: str, ranked: list[Submission], trust: Trust) -> str:
    """Why the first of `ranked` is picked."""
    best, value = ranked[0], getattr(ranked[0], score)
    said = f"best by {CV if score == CV else f'the {score} leaderboard'}, {number(value)}"
    if trust.verdict == "disagree":
        said += ", in case CV is right after all" if score == CV else ", since CV is not to be trusted here"
    elif score != CV:
        said += ", in case CV is wrong"
    elif len(ranked) > 1 and best.standard_error:
        lead = abs(value - getattr(ranked[1], score))
        if lead < best.standard_error:
            said += (
                f", {number(lead)} ahead of {ranked[1].submission}, within the standard error of a score "
                f"({number(best.standard_error)}); ./run.sh compare has that of the difference"
            )
    if best.submission in trust.outliers:
        said += ". It is an outlier: find out why first"
    return f"{said}."


def _other(ranked: list[Submission], why: str, greater_is_better: bool, alike: Alike) -> list[Pick]:
    """The second pick where one file is the best by both scores, or there is one score: a different one close to it."""
    best, *rest = ranked
    if not rest:
        return []
    close = [one for one in rest if _close(one, best, greater_is_better)][:CLOSE]
    if len(close) < 2:
        return [Pick(rest[0], f"{why}this is the next ({_kind(rest[0], best, alike(rest[0], best))}).")]
    known = [alike(one, best) for one in close]
    if None not in known:
        place = int(np.argmin(known))  # type: ignore[arg-type]
    else:
        place = min(range(len(close)), key=lambda i: (close[i].run == best.run, close[i].chosen == best.chosen))
    of = f"of the next {len(close)}, all within a standard error of it in CV, this is the most different"
    return [Pick(close[place], f"{why}{of} ({_kind(close[place], best, known[place])}).")]


def _close(one: Submission, best: Submission, greater_is_better: bool) -> bool:
    if one.cross_fitted_score is None or best.cross_fitted_score is None or not best.standard_error:
        return False
    worse_by = (best.cross_fitted_score - one.cross_fitted_score) * (1 if greater_is_better else -1)
    return worse_by <= best.standard_error


def _kind(one: Submission, other: Submission, alike: float | None) -> str:
    if alike is not None:
        return f"correlation {alike:.4f}"
    if one.run != other.run:
        return "another run"
    return "another candidate of the same run" if one.chosen != other.chosen else "the same run"


def looking_back(
    submissions: Sequence[Submission], picks: Sequence[Pick], trust: Trust, greater_is_better: bool
) -> list[str]:
    """Sentences once private scores are known: what ranked them better, and what the picks came to."""
    if trust.board == "private":
        return []
    files = [one for one in distinct(submissions) if one.private is not None]
    said = []
    for score, name in ((CV, "CV"), ("public", "the public leaderboard")):
        both = [one for one in files if getattr(one, score) is not None]
        x, y = (np.array([getattr(one, column) for one in both], float) for column in (score, "private"))
        if (found := spearman(x, y)) is not None:
            said.append(f"Private scores as ranked by {name}: Spearman {found} over {len(both)} submissions.")
    if files:
        best = _ranked(files, ("private", CV), greater_is_better)[0]
        theirs = ", ".join(f"{p.submission.submission} {number(p.submission.private)}" for p in picks)
        said.append(f"The best private score is {number(best.private)}, of {best.submission}; to select was {theirs}.")
    return said
