"""Training and blends follow the metric, and a run that is not better than a constant says so."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from pipeline.full import full
from submissions.blend.correction import best_constant
from submissions.run import latest_run
from tests.conftest import leave_figures_blank, run_jobs_in_process, write_competition
from tests.pipeline.made import checked, options

pytestmark = pytest.mark.usefixtures("jobs_in_process")


def table_of(share_of_signal, n=240):
    """Labels above 0 over four powers of ten, of which the columns know a share."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, n))
    log = 1.5 * (np.sqrt(share_of_signal) * x + np.sqrt(1 - share_of_signal) * noise)
    return pd.DataFrame(
        {"id": [f"r{i}" for i in range(n)], "x": x, "z": rng.normal(size=n), "y": np.exp(log)}
    )


def written(folder, metric, share_of_signal=0.8, table=None, **stage):
    table = table_of(share_of_signal) if table is None else table
    roles = {"targets": ["y"], "smiles": [], "text": [], "numeric": ["x", "z"], "categorical": []}
    line = {"kind": "sklearn", "estimator": "sklearn.linear_model.Ridge", **stage}
    return write_competition(
        folder,
        table[:200],
        table[200:].drop(columns="y"),
        stages={"line": line},
        competition={**roles, "metric": metric},
        submissions={"trials": 4, "stack": False},
    )


def finished(folder, monkeypatch, metric, **settings):
    monkeypatch.setenv("WORK_DIR", str(folder / "work"))
    path = written(folder, metric, **settings)
    assert full(options(path)) == 0
    return latest_run(str(path))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run of a metric, which is made once, and what else a test reads of it."""

    @cache
    def made(metric):
        with pytest.MonkeyPatch.context() as patch:
            leave_figures_blank(patch)
            run_jobs_in_process(patch)
            run = finished(tmp_path_factory.mktemp(metric), patch, metric)
            return run, best_constant(run.columns)[1]

    return made


@pytest.mark.parametrize("metric", ["mape", "median_ae", "rmsle"])
def test_skewed_labels_are_predicted_better_than_by_a_constant(metric, run_of):
    run, of_constant = run_of(metric)
    expected = run.choice.expected
    assert expected.score < 0.8 * of_constant
    assert not any("best constant" in warning for warning in expected.warnings)
    assert np.isfinite(run.choice.stages["line"].score)


@pytest.mark.parametrize("metric", ["mape", "rmsle"])
def test_the_transform_that_the_metric_sets_is_better_than_none(metric, run_of, tmp_path, monkeypatch):
    raw = finished(tmp_path, monkeypatch, metric, target_transform="none")
    assert run_of(metric)[0].choice.expected.score < 0.9 * raw.choice.expected.score


@pytest.mark.parametrize("metric", ["spearman", "kendall"])
def test_the_order_of_skewed_labels_is_learned_whatever_their_scale(metric, tmp_path, monkeypatch):
    """The mean of the labels of neighbors follows the largest ones, if these are not transformed."""
    neighbors = {"estimator": "sklearn.neighbors.KNeighborsRegressor", "parameters": {"n_neighbors": 20}}
    rng = np.random.default_rng(1)
    columns = pd.DataFrame(rng.normal(size=(240, 2)), columns=["x", "z"]).assign(
        id=[f"r{i}" for i in range(240)]
    )
    order = columns["x"] + columns["z"] + 2 * rng.normal(size=240)
    ranks = {}
    for name, y in {"plain": order, "skewed": np.exp(4 * order)}.items():
        (tmp_path / name).mkdir()
        run = finished(tmp_path / name, monkeypatch, metric, table=columns.assign(y=y), **neighbors)
        ranks[name] = pd.read_csv(run.paths.submission)["y"].rank()
    assert ranks["plain"].corr(ranks["skewed"]) > 0.97


@pytest.mark.draws_figures
@pytest.mark.parametrize("metric", ["rmse", "mape", "rmsle"])
def test_a_run_that_learned_nothing_says_in_the_first_lines_that_a_constant_is_not_worse(
    metric, tmp_path, monkeypatch
):
    run = finished(tmp_path, monkeypatch, metric, share_of_signal=0.0)
    expected = run.choice.expected
    assert not expected.score < best_constant(run.columns)[1]
    (warning,) = [each for each in expected.warnings if "best constant" in each]
    assert warning.startswith(f"WARNING: the cross-fitted {metric} ")
    report = (run.paths.report / "report.md").read_text()
    assert "WARNING" in "\n".join(report.splitlines()[:8])
    assert "best constant" in (run.paths.report / "index.html").read_text()


def test_check_says_which_transform_the_metric_sets_and_a_stage_may_set_another(tmp_path):
    line = "target_transform: log1p for rmsle, unless a stage sets another one"
    path = written(tmp_path, "rmsle")
    assert line in checked(path)
    path.write_text(path.read_text().replace("rmsle", "rmse"))
    assert "target_transform" not in checked(path)


def test_check_counts_labels_that_are_0_for_a_metric_that_divides_by_them(tmp_path):
    path = written(tmp_path, "mape")
    assert "WARNING: mape" not in checked(path)
    table = pd.read_csv(tmp_path / "train.csv")
    table.assign(y=table["y"].where(table.index >= 3, 0.0)).to_csv(tmp_path / "train.csv", index=False)
    assert "WARNING: mape divides by the labels, and 3 of 200 labels of y are 0" in checked(path)
    path.write_text(path.read_text().replace("mape", "mae"))
    assert "divides" not in checked(path)
