"""The comparison of two checkouts in benchmarks/budget.py."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.budget import SECONDS, finished_by_both, verdicts


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.98, 0.99, 1.0], "passed"),
        ([0.99, 1.03], "passed"),  # worse by half a standard error
        ([1.009, 1.01, 1.011], "missed"),  # worse by more than its standard error
        ([0.9, 1.2], "missed"),  # within its standard error, and worse by more than 2 %
    ],
)
def test_a_change_passes_up_to_one_standard_error_and_two_per_cent(ratios, verdict):
    on_answers, cross_fitted = verdicts(
        pd.DataFrame({"set": range(len(ratios)), "ratio": ratios, "cross_fitted": 1.0})
    )
    assert on_answers.startswith("ratio") and on_answers.endswith(verdict)
    assert f"1.0000 +- 0.0000 over {len(ratios)} sets" in cross_fitted and cross_fitted.endswith("passed")


def test_runs_without_cross_fitted_predictions_are_judged_by_the_answers():
    (line,) = verdicts(pd.DataFrame({"set": ["a", "b"], "ratio": [0.98, 0.99], "cross_fitted": np.nan}))
    assert line.startswith("ratio")


def test_a_set_that_only_one_checkout_has_finished_is_not_compared(tmp_path):
    folders = {side: tmp_path / side for side in ("before", "after")}
    for run in ("before/esol_5m_0", "after/esol_5m_0", "before/bace_5m_0"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / SECONDS).write_text("300")
    (tmp_path / "after" / "bace_5m_0").mkdir()  # of an interrupted run
    assert finished_by_both(folders) == ["esol_5m_0"]
