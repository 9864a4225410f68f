"""Tables of the study of cylinders, from its committed results and from a few made up."""

from __future__ import annotations

import pandas as pd
import pytest

from studies.cylinder import tables


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return pd.read_csv(tables.RESULTS, keep_default_na=False, na_values=[""])


def made_up(**columns: list[float]) -> pd.DataFrame:
    cells = [(data, "mlp", where, rate) for data in tables.DATA for where, rate in (("none", 0), ("each", 0.5))]
    rows = [(*cell, seed, 0) for cell in cells for seed in (0, 1)]
    return pd.DataFrame(rows, columns=[*tables.CELL, "seed", "fold"]).assign(**columns)


def test_the_committed_results_have_10_jobs_in_each_of_28_cells(results: pd.DataFrame) -> None:
    jobs = results.groupby(tables.CELL).size()
    assert len(jobs) == 28
    assert (jobs == 10).all()


def test_the_cost_of_dropout_is_paired_by_seed(results: pd.DataFrame) -> None:
    of_volume, of_bins = [0.9, 0.8, 0.5, 0.6], [0.9, 0.8, 0.8, 0.7]
    (row,) = tables.of_tasks(made_up(accuracy_evaluation=[*of_volume, *of_bins])).to_dict("records")
    assert row["volume"].startswith("-30.0 (")  # 0.9 to 0.5, 0.8 to 0.6
    assert row["bins"].startswith("-10.0 (")  # 0.9 to 0.8, 0.8 to 0.7
    assert row["difference"].startswith("-20.0 (")
    assert len(tables.of_tasks(results)) == 12


def test_modes_are_compared_within_a_job_and_bins_have_no_rmse() -> None:
    scores = [float("nan")] * 8
    jobs = made_up(accuracy_evaluation=[0.5] * 8, accuracy_mc=[0.6, 0.8] * 4, accuracy_training=[0.4] * 8)
    found = tables.of_modes(jobs.assign(score_evaluation=scores, score_mc=scores, score_training=scores))
    assert found["measure"].tolist() == ["accuracy", "accuracy"]
    assert found["difference"].tolist() == pytest.approx([-0.2, -0.2])


def test_behind_the_last_dropout_alone_the_networks_have_the_formulas_ratio(results: pd.DataFrame) -> None:
    last = tables.in_networks(results[results["where"] == "last"])
    assert last["variance_ratio_units"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert last["variance_ratio_inputs"].to_numpy() == pytest.approx(
        last["variance_ratio_formula"].to_numpy(), rel=0.01
    )
