"""Studies: their cells and versions, what is wrong before any work, paired gains, and a run that goes on."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.config import load_competition
from competition.metrics import METRICS
from core.errors import ConfigError, DataError
from core.files import PROJECT
from core.paths import CONFIGS
from models.jobs.job import read_predictions
from pipeline import commands
from studies.run import STUDIES, cells_of, corrected_interval, load_study, run_study
from tests.competition.small import write_small
from tests.models.jobs.common import InlineExecutor

SMOKE = str(CONFIGS / "smoke.yaml")
MEAN = """
import numpy as np
from models.api import Stage, read_json, write_json

class Mean(Stage):
    moved: float

    def fit(self, train, folder, context):
        if self.moved == 9:
            raise ValueError("as the test asks")
        noise = np.random.default_rng(context.seed).normal(scale=0.01)
        write_json(folder / "mean.json", (train.y.mean(axis=0) + self.moved + noise).tolist())
        write_json(folder / "measures.json", {"rows": len(train)})

    def predict(self, rows, folder, context):
        return np.tile(read_json(folder / "mean.json"), (len(rows), 1))
"""
STUDY = f"""
claim: A mean that is moved is worse.
data:
  smoke: {{base: {SMOKE}, rows: 60, folds: {{kind: kfold}}}}
stages:
  level: {{settings: {{kind: mean.py:Mean, moved: 0}}, variants: {{by_1: {{moved: 1}}}}}}
seeds: [0, 1]
extra_metrics: [rows]
"""
TREES = """
claim: Bigger trees are better.
data:
  smoke: {base: smoke}
  orbitals: {base: qm9_orbitals}
stages:
  trees:
    settings: {kind: lightgbm, max_trees: 20}
    variants:
      few: {parameters: {num_leaves: 4}, max_trees: 5}
  graph:
    data: [orbitals]
    settings: {kind: gnn, head: {kind: multi_sample, samples: 3}}
    variants:
      masks_8: {head: {samples: 8}}
      plain: {head: null}
quick:
  data: {smoke: {rows: 50}, orbitals: null}
  stages: {trees: {settings: {max_trees: 3}}, graph: null}
"""


def written(folder, text=STUDY, **changes):
    """A study with some changes of its sections."""
    folder.mkdir(exist_ok=True)
    (folder / "mean.py").write_text(MEAN)
    file = folder / "moved.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(text), **changes}, sort_keys=False))
    return file


def blocks(study, data):
    return {cell.name: cell.block for cell in cells_of(study, data)}


def test_the_baseline_of_a_stage_comes_first_and_a_variant_changes_or_removes_its_settings(
    tmp_path,
):
    file = written(tmp_path, TREES)
    study, quick = load_study(file), load_study(file, quick=True)
    assert list(blocks(study, "smoke")) == ["trees", "trees__few"]
    trees, few, graph, masks, plain = blocks(study, "orbitals").values()
    assert few == {**trees, "max_trees": 5, "parameters": {"num_leaves": 4}}
    assert masks == {**graph, "head": {"kind": "multi_sample", "samples": 8}}
    assert plain == {"kind": "gnn", "seeds": [0]}
    assert (list(quick.data), quick.data["smoke"].rows) == (["smoke"], 50)
    assert blocks(quick, "smoke")["trees"]["max_trees"] == 3


def test_what_is_wrong_is_reported_before_any_training(tmp_path):
    file = written(tmp_path, TREES.replace("[orbitals]", "[tweets]"))
    with pytest.raises(ConfigError, match="graph.data must name some of smoke, orbitals; got 'tweets'"):
        load_study(file)


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_both_versions_of_every_study_has_cells_and_a_page(file):
    for study in (load_study(file), load_study(file, quick=True)):
        assert sum(len([*cells_of(study, data)]) for data in study.data) > 1
    docs = PROJECT / "docs"
    assert f"(studies/{file.stem}.md)" in (docs / "evidence.md").read_text()
    assert (docs / "studies" / f"{file.stem}.md").exists()
    pages = "".join(page.read_text() for page in (docs / "studies").glob("*.md"))
    assert all(f"studies/results/{csv.name}" in pages for csv in (STUDIES / "results").glob("*.csv"))


def test_the_interval_of_five_differences_by_hand():
    # mean 3, variance 2.5, (1/5 + 1/4) * 2.5 = 1.125, root 1.060660; t(4) at 97.5 % is 2.776445
    mean, low, high = corrected_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1 / 4)
    assert (mean, high - 3, 3 - low) == pytest.approx(
        (3.0, 2.776445 * 1.060660, 2.776445 * 1.060660), rel=1e-6
    )
    assert np.isnan(corrected_interval(np.array([0.5]), 1 / 4)[1:]).all()


def test_a_study_measures_every_cell_pairs_the_gains_and_goes_on_where_it_stopped(tmp_path):
    file, work = written(tmp_path), tmp_path / "work"
    output, status = run_study(file, options=["--workers", "1"])
    assert status == 0
    results = pd.read_csv(work / "study_moved" / "results.csv")
    columns = ["data", "metric", "stage", "variant", "seed", "fold", "score", "seconds", "rows"]
    assert list(results.columns) == columns
    assert len(results.drop_duplicates(["variant", "seed", "fold"])) == len(results) == 2 * 2 * 3
    config = load_competition(str(work / "configs" / "study_moved_smoke.yaml"))
    raw, folds = pd.read_csv(config.train), pd.read_csv(work / "study_moved_smoke" / "folds" / "folds.csv")
    (job,) = (work / "study_moved_smoke" / "models" / "level__by_1").glob("*/seed_1/fold_2")
    y_true = raw[raw["id"].isin(folds[folds.fold == 2]["id"])]
    y_pred = read_predictions(next(job.glob("oof.*")), list(y_true["id"]), config.targets)
    row = results[(results.variant == "by_1") & (results.seed == 1) & (results.fold == 2)].iloc[0]
    assert row.score == pytest.approx(METRICS[config.metric](y_true[config.targets].to_numpy(), y_pred))
    assert row.rows == 60 - len(y_true)
    by_place = results.pivot_table("score", ["seed", "fold"], "variant")
    differences = (by_place["by_1"] - by_place["baseline"]).to_numpy()  # R2: greater is better
    interval = [f"{end:.4g}" for end in corrected_interval(differences, 1 / 2)]  # three folds
    line = next(line for line in output.splitlines() if line.startswith("| by_1 "))
    assert interval == [cell.strip() for cell in line.split("|")][5:8]

    before = {path: path.stat().st_mtime_ns for path in work.rglob("models/**/report.json")}
    run_study(written(tmp_path, seeds=[0, 1, 2]), options=["--workers", "1"])
    after = {path: path.stat().st_mtime_ns for path in work.rglob("models/**/report.json")}
    assert len(after) == 18
    assert before.items() <= after.items()


def test_a_variant_that_always_fails_costs_only_its_row(tmp_path, monkeypatch):
    """Training is in this process. A mean that is moved by 9 is an error."""
    monkeypatch.setattr("models.jobs.cluster.LocalExecutor", InlineExecutor)

    def train(call, check):
        return SimpleNamespace(returncode=commands.main(call[3:]))

    monkeypatch.setattr("studies.run.subprocess.run", train)
    variants = {"by_1": {"moved": 1}, "fails": {"moved": 9}}
    stages = {"level": {"settings": {"kind": "mean.py:Mean", "moved": 0}, "variants": variants}}
    file = written(tmp_path, stages=stages, seeds=[0])
    text, status = run_study(file)
    results = pd.read_csv(tmp_path / "work" / "study_moved" / "results.csv")
    assert results["variant"].tolist() == ["baseline"] * 3 + ["by_1"] * 3
    assert status == 3
    assert "WARNING: 3 jobs of level__fails are missing" in text
    only_fails = {"level": {"settings": {"kind": "mean.py:Mean", "moved": 9}}}
    assert run_study(written(tmp_path, stages=only_fails, seeds=[0]))[1] == 3


def test_data_that_may_not_be_embedded_is_read_from_the_folder_that_is_named_or_left_out(tmp_path, capsys):
    write_small(tmp_path / "private").rename(tmp_path / "base.yaml")
    file = written(tmp_path, data={"mine": {"base": "base.yaml", "folder": "private"}}, seeds=[0], folds=[1])
    with pytest.raises(DataError, match="needs the tables of at least one of its data"):
        run_study(file)
    assert "mine is left out" in capsys.readouterr().out
    run_study(file, folder=tmp_path, options=["--workers", "1"])
    assert pd.read_csv(tmp_path / "work" / "study_moved" / "results.csv")["fold"].tolist() == [1, 1]


NEAREST = """
import numpy as np
from models.api import Stage

class Nearest(Stage):
    blur: float

    def fit(self, train, folder, context):
        pass

    def predict(self, rows, folder, context):  # the number is the first input, cut at 2 and 4
        n = len(context.task.classes)
        classes = np.digitize(rows.inputs["x"], [2, 4])
        return (1 - self.blur) * np.eye(n)[classes] + self.blur / n if n else rows.inputs[["x"]]
"""


def test_numbers_cut_into_classes_have_the_rows_and_folds_of_the_numbers_and_are_scored_on_their_scale(
    tmp_path,
):
    x = np.random.default_rng(0).uniform(0, 6, 60).round(3)
    lines = [f"r{i},{number},{number}" for i, number in enumerate(x)]
    tables = ["id,x,y", *lines], ["id,x", "t,1"], ["id,y", "t,0"]
    small = write_small(tmp_path, *tables, smiles=None, numeric=["x"])
    (tmp_path / "nearest.py").write_text(NEAREST)
    data = {"numbers": {"base": small.name, "rows": 45}}
    data["classes"] = {**data["numbers"], "bin_edges": [2, 4]}
    stages = {"nearest": {"settings": {"kind": "nearest.py:Nearest", "blur": 0.3}}}
    metrics = ["spearman", "log_loss", "tempered_log_loss", "accuracy"]
    file = written(tmp_path, data=data, stages=stages, seeds=[0], extra_metrics=metrics)
    run_study(file, options=["--workers", "1"])
    folds = [(tmp_path / f"work/study_moved_{name}/folds/folds.csv").read_bytes() for name in data]
    assert folds[0] == folds[1]
    results = pd.read_csv(tmp_path / "work" / "study_moved" / "results.csv")
    means = results.groupby("data").mean(numeric_only=True)
    of_numbers, of_classes = means.loc["numbers"], means.loc["classes"]
    assert (of_numbers.score, of_numbers.spearman) == (0, 1)
    assert of_numbers[metrics[1:]].isna().all()
    assert (of_classes.score, of_classes.accuracy) == (1, 1)  # macro F1
    assert of_classes.log_loss == pytest.approx(-np.log(0.8))
    assert of_classes.tempered_log_loss < 1e-3  # all are right, so a low temperature mends it
    assert 0.9 < of_classes.spearman < 1  # three values of the expected class, against the numbers themselves


def test_the_command_refuses_an_unknown_study_with_status_2():
    call = [sys.executable, "-m", "studies.run", "no_such_study"]
    done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bert_dropout" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [file.stem for file in sorted(STUDIES.glob("*.yaml"))])
def test_the_quick_version_of_every_study_runs(name, tmp_path):
    folder = os.environ.get("STUDY_DATA")
    try:
        run_study(STUDIES / f"{name}.yaml", True, Path(folder) if folder else None)
    except DataError as error:
        if "at least one of its data" not in str(error):
            raise
        pytest.skip(str(error))
    assert (tmp_path / "work" / f"study_{name}_quick" / "table.md").is_file()
