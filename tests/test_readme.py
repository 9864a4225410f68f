"""The README is true: its files exist, its verbs are those of run.sh, its YAML loads, its own stage runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import TypeAdapter

from competition.config import CompetitionConfig
from competition.metrics import METRICS, load_user_metric
from core.files import PROJECT
from models.registry import Stages
from models.training.schedules import SCHEDULES
from submissions.config import Config
from tests.conftest import mixed_tables, write_competition
from tests.folds.made import competition

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_verb_that_is_named_is_one_of_run_sh() -> None:
    cases = re.findall(r"^  ([a-z |]+)\)", (PROJECT / "run.sh").read_text(), flags=re.MULTILINE)
    verbs = {"help", *re.findall("[a-z]+", " ".join(cases))}
    commands = set(re.findall(r"\./run\.sh ([a-z]+)", README))
    assert commands
    assert commands <= verbs
    assert verbs <= commands


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{file.name}" for file in sorted((PROJECT / "docs").glob("*.md")))]
)
def test_every_file_that_is_named_exists(page: str) -> None:
    text = (PROJECT / page).read_text()
    packages = "core|competition|folds|models|submissions|pipeline|studies|benchmarks|tests|docs"
    code_spans = re.findall(rf"`((?:{packages})/[\w./]+\.(?:py|yaml|md))`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert code_spans or links
    for file in [
        *(PROJECT / name for name in code_spans),
        *((PROJECT / page).parent / link for link in links),
    ]:
        assert file.exists(), file


def test_the_first_yaml_loads_as_it_stands() -> None:
    config = Config.model_validate(yaml.safe_load(blocks("yaml")[0]))
    assert len(config.stages) >= 3


def test_every_block_of_the_page_on_stages_is_valid() -> None:
    page = (PROJECT / "docs" / "stages.md").read_text()
    parsed = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)]
    stages = [block for block in parsed if "competition" not in block]
    assert sum(len(block) for block in stages) > 20
    for block in stages:
        TypeAdapter(Stages).validate_python(block)
    for block in parsed:
        if "competition" in block:
            competition(**{"targets": ["logS"], "smiles": ["s"], **block["competition"]})


def test_every_block_of_the_page_on_folds_has_settings_that_exist() -> None:
    page = (PROJECT / "docs" / "folds.md").read_text()
    names: set[str] = set()
    for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL):
        for part in block.split("\n\n"):
            settings = yaml.safe_load(part).get("competition", {})
            names |= set(settings)
            required = {"train": "a", "test": "b", "sample_submission": "c", "id": "id", "targets": ["pEC50"]}
            CompetitionConfig.model_validate({**required, "smiles": ["SMILES"], "metric": "rae", **settings})
    assert names >= {"time", "fold_column", "standardise", "censored"}


def test_the_metric_of_the_page_on_folds_is_the_distance_to_the_interval_over_that_of_the_labels_to_their_mean(
    tmp_path: Path,
) -> None:
    page = (PROJECT / "docs" / "folds.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "st_rae" in block)
    (tmp_path / "metrics.py").write_text(code)
    rows = pd.DataFrame(
        {"pEC50_lower": [-1, np.nan, 3, 1, 1], "pEC50_upper": [1, np.nan, 6, 2, np.nan]}, [7, 7, 1, 0, 2]
    )
    y = np.array([[0.0], [2.0], [4.0], [np.nan], [np.nan]])
    st_rae = load_user_metric(f"{tmp_path}/metrics.py:st_rae", False, None)
    # Distances 1, 1 and 0; the labels 0, 2 and 4 have distances 2, 0 and 2 to their mean.
    assert st_rae(y, np.array([[2.0], [3.0], [5.0], [7.0], [7.0]]), rows) == pytest.approx((1 + 1 + 0) / 4)
    assert st_rae(y, np.array([[-3.0], [2.0], [2.5], [0.0], [0.0]]), rows) == pytest.approx((2 + 0.5) / 4)


def test_the_recipe_for_wrong_labels_drops_those_far_from_a_line_of_predictions(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "stages.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "cleaned" in block)
    predicted = np.arange(20.0)
    value = 55 - 20 * predicted + np.tile([3.0, -3.0], 10)  # three robust deviations are about 13
    value[[4, 11]] += [50, -50]
    source = pd.DataFrame({"id": [f"a{i}" for i in range(20)], "value": value})
    source.to_csv(tmp_path / "more.csv", index=False)
    source[["id"]].assign(logS=predicted)[::-1].to_csv(tmp_path / "predicted.csv", index=False)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    cleaned = pd.read_csv(tmp_path / "cleaned.csv")
    pd.testing.assert_frame_equal(cleaned, source.drop([4, 11]).reset_index(drop=True))


def test_all_metrics_and_schedules_are_listed() -> None:
    for name in [*METRICS, *SCHEDULES]:
        assert f"`{name}`" in README, name


def run_command(name: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", name, str(path)], capture_output=True, text=True, check=False
    )


def test_the_custom_stage_is_checked_trained_and_blended(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if "class Knn" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    (tmp_path / "knn.py").write_text(code)
    stages = yaml.safe_load(next(block for block in blocks("yaml") if "knn.py:Knn" in block))["stages"]
    train, test = mixed_tables()
    other = {"kind": "lightgbm", "n_bits": 64, "max_trees": 20}
    path = write_competition(tmp_path, train, test, stages={**stages, "trees": other})
    for step in ("check", "full"):
        done = run_command(step, path)
        assert done.returncode == 0, done.stderr
    run = json.loads(next((tmp_path / "work").glob("mixed/submissions/*/run.json")).read_text())
    assert [stage["name"] for stage in run["stages"]] == ["knn", "trees"]
    path.write_text(path.read_text().replace("n_neighbors: 3", "neighbors: 3"))
    done = run_command("check", path)
    assert done.returncode == 2
    assert "knn.neighbors: unknown key; try n_neighbors" in done.stderr
