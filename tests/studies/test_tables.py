"""Tables of the study of cylinders, from its committed results and from a few made up."""

from __future__ import annotations

import pandas as pd
import pytest

from studies.cylinder import tables


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return pd.read_csv(tables.RESULTS, keep_default_na=False, na_values=[""])


def test_the_cost_of_dropout_is_paired_by_seed() -> None:
    cells = [(data, "mlp", where, rate) for data in ("volume", "bins") for where, rate in (("none", 0), ("each", 0.5))]
    jobs = pd.DataFrame([(*cell, seed, 0) for cell in cells for seed in (0, 1)], columns=[*tables.CELL, "seed", "fold"])
    (row,) = tables.of_tasks(jobs.assign(accuracy_evaluation=[0.9, 0.8, 0.5, 0.6, 0.9, 0.8, 0.8, 0.7])).to_dict(
        "records"
    )
    assert row["volume"].startswith("-30.00 (")  # 0.9 to 0.5, 0.8 to 0.6
    assert row["bins"].startswith("-10.00 (")  # 0.9 to 0.8, 0.8 to 0.7
    assert row["difference"].startswith("-20.00 (")


def test_modes_are_compared_within_a_job_and_bins_have_no_rmse(results: pd.DataFrame) -> None:
    assert set(tables.of_modes(results, "score").index.get_level_values("data")) == {"volume"}
    found = tables.of_modes(results, "accuracy").loc[("bins", "vgg", "each", 0.3)]
    assert found["evaluation_minus_mc"].startswith("-0.12 (")


def test_behind_the_last_dropout_alone_the_networks_have_the_formulas_ratio(results: pd.DataFrame) -> None:
    last = tables.in_networks(results[results["where"] == "last"])
    assert last["variance_ratio_units"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert last["variance_ratio_inputs"].to_numpy() == pytest.approx(
        last["variance_ratio_formula"].to_numpy(), rel=0.01
    )
