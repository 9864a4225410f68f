"""Can the cross-validation score be trusted: what the leaderboard says about it, and how sure that is.

All submissions are scored on the same rows, so their scores share most of their noise and even few can show whether
CV ranks them as the leaderboard does. Nothing here is said of fewer than `TO_DRAW` (a line) or `TO_TRUST` (agreement,
outliers) different files.

Why it is asked: in OpenADMET's challenges CV did not track the blind set (reports collected in
sukenoko-0407/WAKUADMET); in CommonLit the gain of one trick was .01 to .02 in CV and little or nothing on the
leaderboard (write-ups 258554, 260325); in MoA the third of the public leaderboard ended as 118th and concluded that he
should have trusted CV (quoted in jpison/moa_kaggle2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from competition.metrics import Array
from submissions.blend import number
from submissions.leaderboard.ledger import BY_HAND, Submission
from submissions.leaderboard.scatter import FAR, TO_TRUST, Interval, Line, fit, outliers, spearman

GOOD = 0.5
"""A rank correlation below this is no help in choosing."""

Verdict = Literal["agree", "disagree", "unknown"]
Board = Literal["public", "private"]


@dataclass(frozen=True)
class Outlier:
    """How much better than the others say (below 0: worse) a leaderboard score is, and what that may mean."""

    better_by: float
    words: str


@dataclass(frozen=True)
class Trust:
    """What the scored submissions say about CV.

    scored: different files with both scores, in order of time.
    board: of which leaderboard the scores are.
    agreement: Spearman's correlation of both scores; None where there are too few.
    line: of the leaderboard on CV, without outliers.
    outliers: by id of the submission.
    sentences: all of it in words.
    """

    scored: list[Submission]
    board: Board
    verdict: Verdict
    agreement: Interval | None
    line: Line | None
    outliers: dict[str, Outlier]
    sentences: list[str]


def judge(submissions: Sequence[Submission], greater_is_better: bool, name: str = "NAME") -> Trust:
    """Hold the cross-fitted scores of submissions against the leaderboard.

    Args:
        submissions: all of a competition, in order of time; failed ones and copies of a file are left out here.
        greater_is_better: of the metric.
        name: of the competition, for the commands that the sentences name.
    """
    files = distinct(submissions)
    board: Board = "public" if any(one.public is not None for one in files) else "private"
    scored = [one for one in files if one.cross_fitted_score is not None and getattr(one, board) is not None]
    cv = np.array([one.cross_fitted_score for one in scored], float)
    leaderboard = np.array([getattr(one, board) for one in scored], float)
    errors = np.array([np.nan if one.standard_error is None else one.standard_error for one in scored], float)
    error = float(np.median(errors[errors > 0])) if (errors > 0).any() else None
    sign = 1 if greater_is_better else -1

    odd = outliers(cv, leaderboard, error)
    kept = ~np.isin(np.arange(len(scored)), list(odd))
    line = fit(cv[kept], leaderboard[kept])
    agreement = spearman(cv, leaderboard) if len(scored) >= TO_TRUST else None
    verdict = _verdict(agreement)
    said = [_agreement(verdict, agreement, len(scored), name)]
    if odd and (without := spearman(cv[kept], leaderboard[kept])):
        said.append(f"Without {_outliers(len(odd))}: Spearman {without} over {int(kept.sum())}.")
    if len(scored) > 1 and verdict != "agree" and error and np.ptp(cv) < error:
        said.append(
            f"Their CV scores differ by {number(float(np.ptp(cv)))} only, less than the standard error of one, "
            f"{number(error)}: equals cannot show agreement. A clearly weaker submission, such as one stage, would."
        )
    if line is not None:
        said.append(_slope(line))
    if len(scored):
        said.append(_gap(sign * (leaderboard - cv)[kept], error))
    if line is not None:
        said += _drift(sign * (leaderboard - line.at(cv))[kept])
    return Trust(
        scored,
        board,
        verdict,
        agreement,
        line,
        {scored[i].submission: _outlier(sign * off, by, error) for i, (off, by) in odd.items()},
        said,
    )


def distinct(submissions: Sequence[Submission]) -> list[Submission]:
    """One submission per file: one with a score before one without, then one that was sent before one of `--dry-run`,
    then the first.

    Left out: failed ones, those whose end is not known, and files of `--dry-run` that nobody has a score of.
    """
    found: dict[str, Submission] = {}
    for one in submissions:
        if one.status not in ("submitted", "scored") or (one.ref == BY_HAND and not _has_score(one)):
            continue
        key = one.file_digest or one.submission
        if key not in found or _known_by(one) > _known_by(found[key]):
            found[key] = one
    return sorted(found.values(), key=lambda one: one.time)


def _known_by(one: Submission) -> tuple[bool, bool]:
    return _has_score(one), one.ref != BY_HAND


def _has_score(one: Submission) -> bool:
    return one.public is not None or one.private is not None


def _verdict(agreement: Interval | None) -> Verdict:
    if agreement is None:
        return "unknown"
    if agreement.low > 0 and agreement.value >= GOOD:
        return "agree"
    return "disagree" if agreement.high < GOOD else "unknown"


def _agreement(verdict: Verdict, agreement: Interval | None, n: int, name: str) -> str:
    over = f"Spearman {agreement} over {n} submissions"
    if n < TO_TRUST:
        have = f"{n or 'no'} file{'' if n == 1 else 's'} with both scores"
        return f"Too few to tell whether CV can be trusted: {have}, {TO_TRUST} are needed. Until then choose by CV."
    if agreement is None:
        return f"Nothing to tell CV by: all {n} submissions have the same score."
    if verdict == "agree":
        return f"CV and leaderboard agree: {over}. Choose by CV."
    if verdict == "disagree":
        return f"CV and leaderboard do not agree: {over}. Look at the folds: ./run.sh folds {name}"
    return f"Cannot tell yet whether CV can be trusted: {over}. Choose by CV until then."


def _outliers(n: int) -> str:
    return "the outlier" if n == 1 else f"the {n} outliers"


def _slope(line: Line) -> str:
    if line.slope.value <= 0:
        return f"Slope {line.slope}: what gains in CV gains nothing on the leaderboard, by {line.n} submissions."
    said = f"Slope {line.slope}: the leaderboard shows {line.slope.value:.2f} times what is gained in CV"
    if line.n < TO_TRUST:
        return f"{said}, by {line.n} submissions, which is little to go by."
    if line.slope.high < GOOD:
        return f"{said}, so most of it is lost: choices are fitted to the folds, or the test rows are other ones."
    return f"{said}."


def _gap(gaps: Array, error: float | None) -> str:
    mean = float(gaps.mean())
    said = f"Gap: the leaderboard is {'better' if mean > 0 else 'worse'} than CV by {abs(mean):.3g}"
    if len(gaps) > 1:
        said += f" on average (from {gaps.min():+.3g} to {gaps.max():+.3g})"
    if error is None:
        return f"{said}."
    said += f", {abs(mean) / error:.1f} standard errors of a CV score"
    if abs(mean) <= FAR * error:
        return f"{said}: the draw of the rows alone can do that."
    return f"{said}: more than the draw of the rows; the test rows are {'easier' if mean > 0 else 'harder'} or other."


def _drift(residuals: Array) -> list[str]:
    """A sentence where later submissions are ever better, or worse, than the line expects."""
    trend = spearman(np.arange(len(residuals), dtype=float), residuals) if len(residuals) >= TO_TRUST else None
    if trend is None or trend.low <= 0 <= trend.high:
        return []
    ahead = trend.low > 0
    what = "The leaderboard runs ahead of CV" if ahead else "CV runs ahead of the leaderboard"
    fitted = "the leaderboard is being fitted" if ahead else "the folds are being fitted"
    return [f"{what} from one submission to the next (Spearman {trend}): {fitted}, or later ones are of another kind."]


def _outlier(better_by: float, by: str, error: float | None) -> Outlier:
    size = f"{abs(better_by):.3g}" + (f" ({abs(better_by) / error:.1f} standard errors of CV)" if error else "")
    if better_by > 0:
        meaning = "a lucky public split, a leak, or something tuned on the leaderboard"
    else:
        meaning = "the file may not be what CV scored (other rows, order or post-processing), or its CV is too good"
    return Outlier(better_by, f"{size} {'better' if better_by > 0 else 'worse'} than {by}: {meaning}.")
