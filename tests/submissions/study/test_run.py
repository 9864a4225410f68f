"""A study end to end on real molecules: measured, killed and resumed, skipped in part, and refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_json, sha256_of
from competition.metrics import load_metric
from competition.paths import CONFIGS, PROJECT
from submissions.study import results
from submissions.study.config import STUDIES
from submissions.study.run import claims, run_study

SMOKE = str(CONFIGS / "smoke.yaml")
MEAN = '''
import time

import numpy as np

from competition.files import read_json, write_json


class Mean:
    """The mean of the labels, moved by a setting and a little chance."""

    def __init__(self, settings, context):
        self.settings, self.context = settings, context

    def fit(self, train, valid, folder):
        time.sleep(self.settings.get("seconds", 0))
        noise = np.random.default_rng(self.context.seed).normal(scale=0.01)
        write_json(folder / "mean.json", (train.y.mean(axis=0) + self.settings["moved"] + noise).tolist())
        write_json(folder / "measures.json", {"share": 0.5, "rows": len(train)})

    def predict(self, rows, folder):
        return np.tile(read_json(folder / "mean.json"), (len(rows), 1))
'''
STUDY: dict[str, Any] = {
    "claim": "A mean that is moved is worse.",
    "published": [{"what": "<b>the mean</b>", "value": "0", "source": "arithmetic"}],
    "data": {"smoke": {"base": SMOKE, "rows": 60, "folds": {"kind": "kfold"}}},
    "stages": {"mean": {"kind": "custom", "code": "mean.py:Mean", "settings": {"moved": 0}}},
    "axes": {"moved": {"key": "settings.moved", "values": [0, 1]}},
    "baseline": {"moved": 0},
    "seeds": [0, 1],
    "measures": ["rows"],
}


def study(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mean.py").write_text(MEAN)
    file = folder / "moved.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return file


def table(work: Path, name: str = "study_moved") -> pd.DataFrame:
    return pd.read_csv(work / name / "results.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Products of STUDY, and what was printed."""
    folder = tmp_path_factory.mktemp("study")
    environment = pytest.MonkeyPatch()
    environment.setenv("WORK_DIR", str(folder / "work"))
    said = run_study(study(folder), n_workers=2)
    environment.undo()
    return folder / "work", said


def test_there_is_a_row_for_each_cell_seed_and_fold_with_the_score_of_the_held_out_rows(
    finished: tuple[Path, str],
) -> None:
    work, _ = finished
    found = table(work)
    assert list(found.columns[:8]) == ["data", "metric", "stage", "moved", "seed", "fold", "score", "seconds"]
    assert len(found) == 2 * 2 * 3
    assert len(found.drop_duplicates(["moved", "seed", "fold"])) == 12
    prepared = pd.read_parquet(work / "study_moved_smoke" / "prepared" / "train.parquet")
    assert len(prepared) == 60
    folds = pd.read_csv(work / "study_moved_smoke" / "folds" / "folds.csv")
    row = found[(found.moved == 1) & (found.seed == 1) & (found.fold == 2)].iloc[0]
    (job,) = (work / "study_moved_smoke" / "models" / "mean__moved=1").glob("*/seed_1/fold_2")
    y_pred = pd.read_parquet(job / "oof.parquet").set_index("id")
    y_true = prepared[prepared["id"].isin(folds[folds.fold == 2]["id"])].set_index("id").loc[y_pred.index]
    competition = load_competition("smoke")
    metric = load_metric(competition.metric, None)
    targets = competition.targets
    assert row.score == pytest.approx(metric(y_true[targets].to_numpy(), y_pred[targets].to_numpy()))
    assert row.score == pytest.approx(row[[f"score_{name}" for name in targets]].mean())
    assert row.rows == 60 - len(y_pred)
    assert row.seconds == read_json(job / "report.json")["seconds"]


def test_averages_are_scores_of_mean_predictions(finished: tuple[Path, str]) -> None:
    work, _ = finished
    found = pd.read_csv(work / "study_moved" / "averages.csv")
    assert len(found) == 2 * 3 * 2
    jobs = work / "study_moved_smoke" / "models" / "mean__moved=0"
    oof = [pd.read_parquet(file).set_index("id") for file in sorted(jobs.glob("*/seed_*/fold_1/oof.parquet"))]
    truth = pd.read_parquet(work / "study_moved_smoke" / "prepared" / "train.parquet").set_index("id").loc[oof[0].index]
    targets, metric = list(oof[0].columns), load_metric("r2", None)
    own = found[(found.moved == 0) & (found.fold == 1)].set_index("seeds")["score"]
    assert own[1] == pytest.approx(metric(truth[targets].to_numpy(), oof[0].to_numpy()))
    assert own[2] == pytest.approx(metric(truth[targets].to_numpy(), ((oof[0] + oof[1]) / 2).to_numpy()))


def test_the_table_has_the_paired_gain_with_its_interval(finished: tuple[Path, str]) -> None:
    work, said = finished
    by_place = table(work).pivot_table("score", ["seed", "fold"], "moved")
    differences = (by_place[1] - by_place[0]).to_numpy()  # R2: greater is better
    half = 2.570582 * np.sqrt((1 / 6 + 1 / 2) * differences.var(ddof=1))  # t(5); three folds
    line = next(line for line in said.splitlines() if line.startswith("| 1 "))
    assert f"{differences.mean():+.3g} | {differences.mean() - half:+.3g} to {differences.mean() + half:+.3g}" in line
    assert re.search(r"\| 0 .*\| baseline \|", said)
    assert (work / "study_moved" / "table.md").read_text().strip() in said


def test_the_page_is_one_file_with_claim_published_numbers_table_and_plots(finished: tuple[Path, str]) -> None:
    work, _ = finished
    page = (work / "study_moved" / "index.html").read_text()
    for words in (STUDY["claim"], "&lt;b&gt;the mean&lt;/b&gt;", "./run.sh study", "data:image/svg+xml;base64,"):
        assert words in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert (work / "study_moved" / "gains_smoke_mean.svg").read_text().startswith("<?xml")


def test_killed_and_run_again_it_goes_on_and_finds_the_same(tmp_path: Path, finished: tuple[Path, str]) -> None:
    stages = {"mean": {**STUDY["stages"]["mean"], "settings": {"moved": 0, "seconds": 0.7}}}
    file, work = study(tmp_path / "slow", stages=stages), tmp_path / "work"
    environment = {**os.environ, "WORK_DIR": str(work), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "submissions.study.run", str(file), "--workers", "1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    jobs = work / "study_moved_smoke" / "models"
    while len(list(jobs.rglob("report.json"))) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: (path.stat().st_mtime_ns, sha256_of(path)) for path in jobs.rglob("report.json")}
    assert 3 <= len(before) < 12
    assert not (work / "study_moved" / "results.csv").exists()
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "of 6 jobs are finished" in said
    assert all((path.stat().st_mtime_ns, sha256_of(path)) == facts for path, facts in before.items())
    pd.testing.assert_frame_equal(
        table(work).drop(columns="seconds"), table(finished[0]).drop(columns="seconds"), check_exact=True
    )
    again = {path: path.stat().st_mtime_ns for path in jobs.rglob("report.json")}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in jobs.rglob("report.json")} == again


def test_a_part_without_its_data_is_skipped_with_a_reason(tmp_path: Path) -> None:
    base = {"base": SMOKE, "folder": "private"}
    file = study(tmp_path, data={**STUDY["data"], "private": base}, seeds=[0], folds=[0, 2])
    work = tmp_path / "work"
    said = run_study(file, n_workers=1)
    assert (
        "private is skipped: its tables may not be embedded; name the folder that holds private/ with --data." in said
    )
    assert set(table(work)["data"]) == {"smoke"}
    assert set(table(work)["fold"]) == {0, 2}
    with pytest.raises(DataError, match="at least one of its data; private: .*private has no train.csv"):
        run_study(study(tmp_path, data={"private": base}), folder=tmp_path)


def test_data_that_may_not_be_embedded_is_read_from_the_folder_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    for name in ("train", "test", "sample_submission"):
        content = (PROJECT / "competition" / "data" / "smoke" / f"{name}.csv").read_bytes()
        (tmp_path / "private" / f"{name}.csv").write_bytes(content)
    (tmp_path / "base.yaml").write_text(
        Path(SMOKE).read_text().replace("../data/smoke/", "").replace("  answers: answers.csv\n", "")
    )
    data = {"private": {"base": "base.yaml", "folder": "private", "rows": 30}}
    run_study(study(tmp_path, data=data, seeds=[0, 1], folds=[1]), folder=tmp_path, n_workers=1)
    assert len(table(tmp_path / "work")) == 4


def test_a_fold_that_is_not_there_and_measures_that_are_no_numbers_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folds: must be from 0 to 2 on smoke; found .0, 3."):
        run_study(study(tmp_path, folds=[0, 3]))
    file = study(tmp_path, seeds=[0], folds=[0, 1])
    (tmp_path / "mean.py").write_text(MEAN.replace('"rows": len(train)', '"rows": "many"'))
    with pytest.raises(DataError, match="measures.json must map names to numbers"):
        run_study(file, n_workers=1)
    file = study(tmp_path / "other", seeds=[0], folds=[0, 1])
    file.with_name("mean.py").write_text(MEAN.replace('"share"', '"moved"'))
    with pytest.raises(DataError, match="no measure as another column of results.csv; it has moved"):
        run_study(file, n_workers=1)


def test_within_a_budget_it_measures_what_fits_and_a_later_run_goes_on(tmp_path: Path) -> None:
    stages = {"mean": {**STUDY["stages"]["mean"], "settings": {"moved": 0, "seconds": 1.5}}}
    file = study(tmp_path, stages=stages, seeds=[0])
    said = run_study(file, n_workers=1, budget=7)
    n_jobs = len(list((tmp_path / "work" / "study_moved_smoke").rglob("report.json"))) - 2  # of tables and folds
    assert n_jobs < 6
    assert "within the budget" in said if not n_jobs else len(table(tmp_path / "work")) == n_jobs
    assert "| baseline |" in run_study(file, n_workers=2)
    assert len(table(tmp_path / "work")) == 6


def test_what_the_study_says_is_equal_is_compared(tmp_path: Path) -> None:
    file = study(tmp_path, equal=[[{"moved": 0}, {"moved": 1}]], seeds=[0], folds=[0, 1])
    assert "Check on smoke: predictions of mean__moved=0, mean__moved=1 differ by at most" in run_study(
        file, n_workers=1
    )


def test_the_command_lists_the_studies_and_refuses_with_status_2(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "submissions.study.run", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    listed = claims()
    assert all(f"{file.stem}: " in listed for file in STUDIES.glob("*.yaml"))
    unknown = run("no_such_study")
    assert unknown.returncode == 2 and "bert_dropout" in unknown.stderr
    bad = run(str(study(tmp_path, axes={"moved": {"key": "setings.moved", "values": [0, 1]}})))
    assert bad.returncode == 2 and bad.stderr.startswith("ConfigError: axes.moved")
    assert not (tmp_path / "work" / "study_moved_smoke").exists()


def test_names_of_files_are_those_of_the_modules_that_write_them() -> None:
    from models.training import monitor, trainer

    assert (results.MEASURES, results.TRAINING) == (monitor.MEASURES, trainer.TRAINING)
    assert tuple(monitor.MODES) == results.MODES


def test_every_study_and_every_kept_table_is_on_the_page_of_evidence() -> None:
    page = (PROJECT / "docs" / "evidence.md").read_text()
    assert all(f"## {file.stem}\n" in page for file in STUDIES.glob("*.yaml"))
    assert all(f"studies/results/{file.name}" in page for file in (STUDIES / "results").glob("*.csv"))


QUICK = [file.stem for file in sorted(STUDIES.glob("*.yaml"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_the_quick_version_of_every_study_runs(name: str, tmp_path: Path) -> None:
    named = os.environ.get("STUDY_DATA")
    try:
        said = run_study(STUDIES / f"{name}.yaml", "quick", Path(named) if named else None)
    except DataError as error:
        if "may not be embedded" not in str(error):
            raise
        pytest.skip(str(error))
    assert "| baseline |" in said
    assert (tmp_path / "work" / f"study_{name}_quick" / "index.html").is_file()
