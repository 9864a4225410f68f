"""The comparison of two checkouts in benchmarks/budget.py."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.budget import table_of_checkouts


def rows_of(errors_after):
    """Rows of a set for each error after the change; before it, each error is 1."""
    rows = []
    for number, error in enumerate(errors_after):
        common = {
            "set": f"set_{number}",
            "budget": "5m",
            "seed": 0,
            "seconds": 300.0,
            "ratio": np.log(error),
            "ratio_error": 0.01,
            "cross_fitted": 0.0,
            "cross_fitted_error": 0.01,
        }
        rows.append({**common, "checkout": "before", "error": 1.0})
        rows.append({**common, "checkout": "after", "error": error})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("errors_after", "verdict"),
    [
        ([0.98, 0.99, 1.0], "passed"),
        ([0.99, 1.03], "passed"),  # worse by half a standard error
        ([1.009, 1.01, 1.011], "missed"),  # worse by more than its standard error
        ([0.9, 1.2], "missed"),  # within its standard error, and worse by more than 2 %
    ],
)
def test_a_change_passes_up_to_one_standard_error_and_two_per_cent(errors_after, verdict):
    *_, on_answers, cross_fitted = table_of_checkouts(rows_of(errors_after)).splitlines()
    assert on_answers.startswith("ratio") and on_answers.endswith(verdict)
    assert cross_fitted.endswith("passed")


def test_a_set_that_only_one_checkout_has_finished_is_not_compared():
    rows = rows_of([1.0, 1.0, 5.0]).iloc[:-1]
    table = table_of_checkouts(rows)
    assert "set_2" not in table
    assert "1.0000 +- 0.0000 over 2 pairs" in table
