"""What the leaderboard says about CV, by hand-computed numbers, for both directions of metrics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from submissions.leaderboard.choose import Pick, choose, looking_back
from submissions.leaderboard.ledger import BY_HAND, Submission
from submissions.leaderboard.scatter import Interval, fit, outliers, spearman
from submissions.leaderboard.trust import Trust, distinct, judge


def one(name: str, cv: float | None = None, public: float | None = None, **more: object) -> Submission:
    """A submission; its name is its place in time."""
    status = "submitted" if public is None else "scored"
    fields = {"file_digest": f"file {name}", "cross_fitted_score": cv, "public": public, **more}
    return Submission(f"2026-11-20T{name}", str(fields.pop("event", status)), name, **fields)  # type: ignore[arg-type]


def many(cv: list[float], public: list[float], **more: object) -> list[Submission]:
    return [one(f"s{i:02d}", *pair, **more) for i, pair in enumerate(zip(cv, public, strict=True))]


def nobody(a: Submission, b: Submission) -> float | None:
    return None


def picked(known: list[Submission], greater: bool, alike: object = nobody) -> list[str]:
    return [pick.submission.submission for pick in picks_of(known, greater, alike)]


def picks_of(known: list[Submission], greater: bool, alike: object = nobody) -> list[Pick]:
    return choose(known, judge(known, greater), greater, alike)  # type: ignore[arg-type]


def flipped(known: list[Submission]) -> list[Submission]:
    """The same submissions in a metric of the other direction."""
    return [
        one(s.submission, s.cross_fitted_score and -s.cross_fitted_score, s.public and -s.public,
            standard_error=s.standard_error, run=s.run, chosen=s.chosen, file_digest=s.file_digest)
        for s in known
    ]  # fmt: skip


CV = [0.60, 0.62, 0.64, 0.66, 0.68, 0.70, 0.72, 0.74]
NOISE = [0.001, -0.002, 0.0015, 0.0, -0.001, 0.002, -0.0015, 0.0005]
BOARD = [0.9 * x + 0.02 + e for x, e in zip(CV, NOISE, strict=True)]


def test_spearman_and_its_interval_by_hand() -> None:
    x, y = np.arange(8.0), np.array([1, 0, 2, 3, 4, 5, 7, 6.0])  # d = 1, 1, 1, 1: 1 - 6 * 4 / (8 * 63)
    found = spearman(x, y)
    assert found is not None
    assert found.value == pytest.approx(1 - 24 / 504)
    reach = 1.959964 * np.sqrt((1 + found.value**2 / 2) / 5)
    assert found.low == pytest.approx(np.tanh(np.arctanh(found.value) - reach), abs=1e-6)
    assert found.high == pytest.approx(np.tanh(np.arctanh(found.value) + reach), abs=1e-6)


def test_a_perfect_order_of_five_is_not_certain() -> None:
    found = spearman(np.arange(5.0), np.arange(5.0))
    assert found is not None
    assert (found.value, found.high) == (pytest.approx(1), pytest.approx(1))
    assert str(Interval(-0.001, -0.5, 0.004)) == "0.00 [-0.50, 0.00]"
    assert 0.1 < found.low < 0.3
    assert spearman(np.arange(3.0), np.arange(3.0)) is None
    assert spearman(np.arange(6.0), np.ones(6)) is None


def test_the_line_and_its_band_are_those_of_least_squares() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0, 3.0])
    line = fit(x, y)
    assert line is not None
    assert line.slope.value == pytest.approx(0.8)  # sums of products 4, of squares 5
    assert line.intercept == pytest.approx(0.3)
    assert line.spread == pytest.approx(np.sqrt(1.8 / 2))
    reach = stats.t.ppf(0.975, 2) * np.sqrt(0.9 / 5)
    assert (line.slope.low, line.slope.high) == (pytest.approx(0.8 - reach), pytest.approx(0.8 + reach))
    at = np.array([1.5, 3.5])
    expected = stats.t.ppf(0.975, 2) * np.sqrt(0.9 * (1 + 1 / 4 + np.array([0, 4]) / 5))
    assert line.band(at) == pytest.approx(expected)
    assert fit(x[:2], y[:2]) is None
    assert fit(np.ones(4), y) is None


@pytest.mark.parametrize("greater", [True, False])
def test_scores_that_agree_are_said_to_agree(greater: bool) -> None:
    known = many(CV, BOARD) if greater else flipped(many(CV, BOARD))
    trust = judge(known, greater, "esol")
    assert trust.verdict == "agree"
    said = "CV and leaderboard agree: Spearman 1.00 [0.90, 1.00] over 8 submissions. Choose by CV."
    assert trust.sentences[0] == said
    assert trust.line is not None
    assert trust.line.slope.value == pytest.approx(0.9, abs=0.02)
    assert "the leaderboard is worse than CV by 0.0469 on average" in trust.sentences[-1]
    assert trust.outliers == {}


@pytest.mark.parametrize("greater", [True, False])
def test_scores_that_do_not_agree_send_to_the_folds(greater: bool) -> None:
    board = BOARD[::-1]
    known = many(CV, board) if greater else flipped(many(CV, board))
    trust = judge(known, greater, "esol")
    assert trust.verdict == "disagree"
    assert "do not agree: Spearman -1.00" in trust.sentences[0]
    assert trust.sentences[0].endswith("Look at the folds: ./run.sh folds esol")
    assert "gains nothing on the leaderboard" in trust.sentences[1]


def test_no_order_at_all_in_a_few_submissions_is_too_little_to_say_no() -> None:
    trust = judge(many(CV[:6], [0.5, 0.7, 0.6, 0.65, 0.55, 0.58]), True)
    assert trust.verdict == "unknown"
    assert trust.sentences[0].startswith("Cannot tell yet whether CV can be trusted: Spearman ")


@pytest.mark.parametrize(("n", "line"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_of_few_submissions_nothing_is_claimed(n: int, line: bool) -> None:
    trust = judge(many(CV[:n], BOARD[:n]), True)
    assert trust.verdict == "unknown"
    assert trust.agreement is None
    assert (trust.line is not None) == line
    assert trust.sentences[0].startswith(f"Too few to tell whether CV can be trusted: {n or 'no'} file")
    assert len(trust.scored) == n


def test_a_first_score_far_from_cv_is_noticed() -> None:
    near = judge([one("a", 0.70, 0.66, standard_error=0.02)], True).sentences
    assert near[1] == (
        "Gap: the leaderboard is worse than CV by 0.04, 2.0 standard errors of a CV score: "
        "the draw of the rows alone can do that."
    )
    far = judge([one("a", 0.70, 0.90, standard_error=0.02)], False).sentences
    assert "worse than CV by 0.2, 10.0 standard errors" in far[1]
    assert far[1].endswith("the test rows are harder or other.")
    assert judge([one("a", 0.70, 0.66)], False).sentences[1] == "Gap: the leaderboard is better than CV by 0.04."


def test_equals_cannot_show_agreement_and_a_weaker_one_is_proposed() -> None:
    cv = [0.700, 0.701, 0.702, 0.703, 0.704]
    said = judge(many(cv, [0.70, 0.68, 0.71, 0.69, 0.70], standard_error=0.01), True).sentences
    assert "less than the standard error of one, 0.010000: equals cannot show agreement." in said[1]
    assert "equals cannot" not in " ".join(judge(many(CV, BOARD[::-1], standard_error=0.01), True).sentences)


def test_all_the_same_score_says_nothing() -> None:
    assert judge(many([0.7] * 6, BOARD[:6]), True).sentences[0] == (
        "Nothing to tell CV by: all 6 submissions have the same score."
    )
    assert judge(many(CV, [0.7] * 8), True).verdict == "unknown"


def test_ties_on_a_rounded_leaderboard_share_a_rank() -> None:
    found = spearman(np.array(CV[:5]), np.array([0.6, 0.6, 0.7, 0.7, 0.8]))
    assert found is not None
    assert found.value == pytest.approx(np.corrcoef([1, 2, 3, 4, 5], [1.5, 1.5, 3.5, 3.5, 5])[0, 1])


@pytest.mark.parametrize(("off", "meaning"), [(0.06, "a lucky public split"), (-0.06, "the file may not be what CV")])
@pytest.mark.parametrize("greater", [True, False])
def test_an_outlier_is_named_with_what_it_may_mean(off: float, meaning: str, greater: bool) -> None:
    board = [y + (off if i == 3 else 0) for i, y in enumerate(BOARD)]
    known = many(CV, board, standard_error=0.02)
    trust = judge(known if greater else flipped(known), greater)
    assert list(trust.outliers) == ["s03"]
    assert trust.outliers["s03"].better_by == pytest.approx(off, abs=0.003)
    assert f"standard errors of CV) {'better' if off > 0 else 'worse'} than the line of " in trust.outliers["s03"].words
    assert meaning in trust.outliers["s03"].words
    assert trust.line is not None
    assert trust.line.n == 7  # the line is that of the others
    assert trust.line.slope.value == pytest.approx(0.9, abs=0.02)
    assert "Without the outlier: Spearman 1.00" in trust.sentences[1]


def test_two_outliers_do_not_hide_each_other() -> None:
    board = np.array(BOARD)
    board[[2, 5]] -= 0.06
    assert sorted(outliers(np.array(CV), board, None)) == [2, 5]


def test_clean_scores_seldom_have_an_outlier() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        cv = rng.normal(size=8)
        found += bool(outliers(cv, cv + 0.5 * rng.normal(size=8), None))
    assert found <= 15


def test_a_perfect_line_has_no_outlier_from_rounding() -> None:
    cv = np.array(CV)
    assert outliers(cv, 0.9 * cv + 0.1, None) == {}
    board = 0.9 * cv + 0.1
    board[4] += 0.01
    assert list(outliers(cv, board, None)) == [4]


def test_three_submissions_are_held_against_the_standard_error() -> None:
    cv, board = np.array([0.70, 0.71, 0.72]), np.array([0.69, 0.70, 0.50])
    assert outliers(cv, board, None) == {}
    assert outliers(cv, board, 0.1) == {}
    ((place, (off, by)),) = outliers(cv, board, 0.05).items()
    assert (place, by) == (2, "the median gap, by more than 3 standard errors")
    assert off == pytest.approx(-0.21)


def test_later_submissions_that_fall_behind_the_line_are_noticed() -> None:
    cv = [0.60, 0.70, 0.61, 0.71, 0.62, 0.72, 0.60, 0.70]
    known = many(cv, [x - 0.002 * i for i, x in enumerate(cv)])
    said = " ".join(judge(known, True).sentences)
    assert "CV runs ahead of the leaderboard from one submission to the next" in said
    assert "the folds are being fitted" in said
    assert "The leaderboard runs ahead of CV" in " ".join(judge(known, False).sentences)  # of a loss: less and less
    assert "runs ahead" not in " ".join(judge(many(CV, BOARD), True).sentences)


def test_a_real_competition_is_not_oversold() -> None:
    """Nine single models of CommonLit's second place, CV and private RMSE (write-up 258328): they agree, loosely."""
    cv = [0.485, 0.483, 0.481, 0.476, 0.483, 0.475, 0.486, 0.498, 0.489]
    private = [0.476, 0.463, 0.460, 0.469, 0.470, 0.464, 0.467, 0.478, 0.479]
    trust = judge(many(cv, private), False)
    assert trust.agreement is not None
    assert trust.agreement.value == pytest.approx(0.686, abs=1e-3)
    assert trust.agreement.low < 0.1
    assert trust.line is not None
    assert trust.line.slope.low < 0.5 < 1 < trust.line.slope.high


def test_copies_of_a_file_count_once_and_failed_ones_not_at_all() -> None:
    known = [
        one("a", 0.6, None, file_digest="same"),
        one("b", 0.6, 0.55, file_digest="same"),
        one("c", 0.6, 0.55, file_digest="same"),
        one("d", 0.9, None, event="failed"),
        one("e", 0.9, None, event="submitting"),
        one("f", 0.7, None, file_digest=""),
        one("g", 0.7, None, file_digest=""),
        one("h", 0.7, None, ref=BY_HAND),
        one("i", 0.7, 0.6, ref=BY_HAND),
    ]
    assert [s.submission for s in distinct(known)] == ["b", "f", "g", "i"]


def test_a_submission_without_one_of_the_scores_is_not_held_against_the_other() -> None:
    known = [*many(CV, BOARD), one("t1", None, 0.9), one("t2", 0.9, None), one("t3", 0.8, 0.2, event="failed")]
    assert [s.submission for s in judge(known, True).scored] == [f"s{i:02d}" for i in range(8)]


def test_private_scores_stand_in_where_there_are_no_public_ones() -> None:
    known = [one(f"s{i}", cv, None, private=y, event="scored") for i, (cv, y) in enumerate(zip(CV, BOARD, strict=True))]
    trust = judge(known, True)
    assert (trust.board, trust.verdict, len(trust.scored)) == ("private", "agree", 8)


# ---- which two to select ----


@pytest.mark.parametrize("greater", [True, False])
def test_one_is_picked_by_cv_and_one_by_the_leaderboard(greater: bool) -> None:
    known = [one("a", 0.70, 0.69), one("b", 0.74, 0.70), one("c", 0.72, 0.71), one("d", 0.65, 0.65)]
    known = known if greater else flipped(known)
    first, second = picks_of(known, greater)
    assert (first.submission.submission, second.submission.submission) == ("b", "c")
    assert first.reason.startswith("best by cross_fitted_score, ")
    assert second.reason.startswith("best by the public leaderboard, ")
    assert second.reason.endswith(", in case CV is wrong.")


def test_a_lead_below_the_standard_error_is_said_but_stands() -> None:
    first, _ = picks_of([one("a", 0.72, 0.70), one("b", 0.74, 0.71, standard_error=0.05)], True)
    assert first.submission.submission == "b"
    assert first.reason == (
        "best by cross_fitted_score, 0.74000, 0.020000 ahead of a, within the standard error of a score (0.050000); "
        "./run.sh compare has that of the difference."
    )


@pytest.mark.parametrize("greater", [True, False])
def test_equal_scores_go_to_the_better_other_score_and_then_to_the_earlier(greater: bool) -> None:
    known = [one("a", 0.7, 0.60), one("b", 0.7, 0.65), one("c", 0.7, 0.65), one("d", 0.6, 0.65)]
    assert picked(known if greater else flipped(known), greater)[0] == "b"


def test_where_cv_cannot_be_trusted_the_leaderboard_goes_first() -> None:
    first, second = picks_of(many(CV, BOARD[::-1]), True)
    assert (first.submission.submission, second.submission.submission) == ("s00", "s07")
    assert first.reason == "best by the public leaderboard, 0.68650, since CV is not to be trusted here."
    assert second.reason == "best by cross_fitted_score, 0.74000, in case CV is right after all."


def test_the_best_by_both_is_joined_by_the_most_different_of_those_close_to_it() -> None:
    scores = {"a": 0.5, "b": 0.71, "c": 0.72, "d": 0.73, "e": 0.74, "f": 0.75}
    known = [one(name, score, score, standard_error=0.05) for name, score in scores.items()]
    alike = {"e": 0.999, "d": 0.98, "c": 0.99, "b": 0.2, "a": 0.1}
    first, second = picks_of(known, True, lambda s, best: alike[s.submission])
    assert first.submission.submission == "f"
    assert second.submission.submission == "d"  # a is not close, b not among the next three
    assert second.reason == (
        "f is the best by both scores; of the next 3, all within a standard error of it in CV, "
        "this is the most different (correlation 0.9800)."
    )


def test_without_the_files_another_run_is_more_different_than_another_candidate() -> None:
    def made(chosen: list[tuple[str, str]]) -> list[Submission]:
        scores = [0.75, 0.74, 0.73]
        return [
            one(f"s{i}", score, score, standard_error=0.05, run=run, chosen=candidate)
            for i, (score, (run, candidate)) in enumerate(zip(scores, chosen, strict=True))
        ]

    _, second = picks_of(made([("r1", "mean"), ("r1", "ridge"), ("r2", "mean")]), True)
    assert (second.submission.submission, "(another run)" in second.reason) == ("s2", True)
    _, second = picks_of(made([("r1", "mean"), ("r1", "mean"), ("r1", "ridge")]), True)
    assert (second.submission.submission, "another candidate of the same run" in second.reason) == ("s2", True)


def test_nobody_close_means_the_next_one() -> None:
    known = [one("a", 0.75, 0.75, standard_error=0.001), one("b", 0.6, 0.6), one("c", 0.7, 0.7)]
    _, second = picks_of(known, True)
    assert second.submission.submission == "c"
    assert second.reason == "a is the best by both scores; this is the next (the same run)."


def test_a_file_that_the_leaderboard_calls_broken_is_not_picked_by_cv() -> None:
    broken = [y - (0.2 if i == 7 else 0) for i, y in enumerate(BOARD)]
    assert list(judge(many(CV, broken), True).outliers) == ["s07"]
    assert picked(many(CV, broken), True)[0] == "s06"
    lucky = [y + (0.2 if i == 2 else 0) for i, y in enumerate(BOARD)]
    first, second = picks_of(many(CV, lucky), True)
    assert (first.submission.submission, second.submission.submission) == ("s07", "s02")
    assert second.reason.endswith("in case CV is wrong. It is an outlier: find out why first.")


def test_a_single_file_or_none_makes_fewer_picks() -> None:
    assert picked([], True) == []
    assert picked([one("a", None, None)], True) == []
    assert picked([one("a", 0.7, None)], True) == ["a"]
    assert picked([one("a", 0.7, 0.6), one("b", 0.7, 0.6, file_digest="file a")], True) == ["a"]
    assert picked([one("a", 0.7, None, event="failed"), one("b", None, 0.6)], True) == ["b"]


def test_unscored_files_are_picked_by_cv_alone() -> None:
    first, second = picks_of([one("a", 0.7), one("b", 0.8), one("c", 0.6)], True)
    assert (first.submission.submission, second.submission.submission) == ("b", "a")
    assert second.reason == "this is the next (the same run)."


def test_private_scores_show_what_ranked_them_better() -> None:
    private = [0.9 * x for x in CV]
    known = [one(f"s{i}", cv, y, private=z) for i, (cv, y, z) in enumerate(zip(CV, BOARD[::-1], private, strict=True))]
    trust: Trust = judge(known, True)
    said = looking_back(known, choose(known, trust, True, nobody), trust, True)
    assert said[0].startswith("Private scores as ranked by CV: Spearman 1.00 [")
    assert said[1].startswith("Private scores as ranked by the public leaderboard: Spearman -1.00 [")
    assert said[2] == "The best private score is 0.66600, of s7; to select was s0 0.54000, s7 0.66600."
    assert looking_back(many(CV, BOARD), [], judge(many(CV, BOARD), True), True) == []
