"""README and docs are true: their files exist, verbs are those of run.sh, YAML loads, own stages and recipes run."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import TypeAdapter

from competition.config import load_competition
from competition.dataset import Dataset
from competition.metrics import METRICS, load_user_metric
from competition.prepare import prepare
from competition.task import Task
from core.errors import ConfigError
from core.files import PROJECT
from core.user_code import load_user_code
from folds.kinds import FoldsConfig
from folds.make import assign_folds
from models.context import Context
from models.registry import KINDS, Stages
from models.training.losses import load_loss
from models.training.schedules import SCHEDULES, with_warmup
from pipeline import commands
from submissions.blend.settings import SubmissionsConfig
from submissions.config import Config, load_config
from tests.conftest import mixed_tables, write_competition
from tests.folds.made import competition

README = (PROJECT / "README.md").read_text()
RECIPES = "docs/recipes.md"


def blocks(language, page="README.md"):
    return re.findall(rf"```{language}\n(.*?)```", (PROJECT / page).read_text(), flags=re.DOTALL)


def block(language, word, page="README.md"):
    """Return the first block of a page in a language that contains a word."""
    return next(text for text in blocks(language, page) if word in text)


def test_every_verb_that_is_named_is_one_of_run_sh():
    cases = re.findall(r"^  ([a-z |]+)\)", (PROJECT / "run.sh").read_text(), flags=re.MULTILINE)
    verbs = {"help", *re.findall("[a-z]+", " ".join(cases))}
    assert set(re.findall(r"\./run\.sh ([a-z]+)", README)) == verbs


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{file.name}" for file in sorted((PROJECT / "docs").glob("*.md")))]
)
def test_every_file_that_is_named_exists(page):
    text = (PROJECT / page).read_text()
    packages = "core|competition|folds|models|submissions|pipeline|studies|benchmarks|tests|docs"
    code_spans = re.findall(rf"`((?:{packages})/[\w./]+\.(?:py|yaml|md))`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert code_spans or links
    files = [PROJECT / name for name in code_spans] + [(PROJECT / page).parent / link for link in links]
    assert [file for file in files if not file.exists()] == []


def test_the_first_yaml_loads_as_it_stands():
    config = Config.model_validate(yaml.safe_load(blocks("yaml")[0]))
    assert len(config.stages) >= 3


@pytest.mark.parametrize(
    ("page", "at_least"), [("docs/stages.md", 20), ("docs/folds.md", 0), ("docs/ensembling.md", 0)]
)
def test_every_block_of_a_page_is_valid(page, at_least):
    n_stages = 0
    for text in "\n\n".join(blocks("yaml", page)).split("\n\n"):
        block = yaml.safe_load(text)
        settings = {"targets": ["logS"], "smiles": ["s"], "metric": "rae", **block.pop("competition", {})}
        competition(**settings)
        FoldsConfig.model_validate(block.get("folds", {}))
        SubmissionsConfig.model_validate(block.get("submissions", {}))
        stages = block.get("stages", block) if at_least else {}
        n_stages += len(stages)
        assert not stages or TypeAdapter(Stages).validate_python(stages)
    assert n_stages >= at_least


def test_the_metric_of_the_page_on_folds_is_the_distance_to_the_interval_over_that_of_the_labels_to_their_mean(
    tmp_path,
):
    (tmp_path / "metrics.py").write_text(block("python", "st_rae", "docs/folds.md"))
    rows = pd.DataFrame(
        {"pEC50_lower": [-1, np.nan, 3, 1, 1], "pEC50_upper": [1, np.nan, 6, 2, np.nan]}, [7, 7, 1, 0, 2]
    )
    y = np.array([[0.0], [2.0], [4.0], [np.nan], [np.nan]])
    st_rae = load_user_metric(f"{tmp_path}/metrics.py:st_rae", False, None)
    # Distances 1, 1 and 0; the labels 0, 2 and 4 have distances 2, 0 and 2 to their mean.
    assert st_rae(y, np.array([[2.0], [3.0], [5.0], [7.0], [7.0]]), rows) == pytest.approx((1 + 1 + 0) / 4)
    assert st_rae(y, np.array([[-3.0], [2.0], [2.5], [0.0], [0.0]]), rows) == pytest.approx((2 + 0.5) / 4)


def test_the_recipe_for_wrong_labels_drops_those_far_from_a_line_of_predictions(tmp_path):
    predicted = np.arange(20.0)
    value = 55 - 20 * predicted + np.tile([3.0, -3.0], 10)  # three robust deviations are about 13
    value[[4, 11]] += [50, -50]
    source = pd.DataFrame({"id": [f"a{i}" for i in range(20)], "Solubility": value})
    source.to_csv(tmp_path / "more.csv", index=False)
    source[["id"]].assign(logS=predicted)[::-1].to_csv(tmp_path / "predicted.csv", index=False)
    code = block("python", "cleaned", "docs/stages.md")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    cleaned = pd.read_csv(tmp_path / "cleaned.csv")
    pd.testing.assert_frame_equal(cleaned, source.drop([4, 11]).reset_index(drop=True))


def test_the_focal_loss_of_the_page_on_stages_counts_likely_labels_less(tmp_path):
    (tmp_path / "focal.py").write_text(block("python", "focal", "docs/stages.md"))
    loss = load_loss(f"{tmp_path}/focal.py:focal", "binary")
    y = torch.tensor([[1.0], [0.0], [0.0]])
    outputs = torch.tensor(
        [[0.0], [0.0], [np.log(0.1 / 0.9)]]
    )  # the labels have the probabilities .5, .5 and .9
    expected = [0.25 * np.log(2), 0.25 * np.log(2), 0.01 * -np.log(0.9)]
    torch.testing.assert_close(loss.errors(outputs, y)[:, 0], torch.tensor(expected).float())


def test_the_readme_lists_all_metrics_and_the_page_on_stages_all_kinds_and_schedules():
    for name in METRICS:
        assert f"`{name}`" in README, name
    stages = (PROJECT / "docs/stages.md").read_text()
    for name in [*KINDS, *SCHEDULES]:
        assert f"`{name}`" in stages, name


def test_own_stages_and_features_of_readme_and_recipes_are_short_and_checked_trained_and_blended(
    tmp_path, jobs_in_process
):
    for name, code, n_lines in (
        ("knn.py", block("python", "class Knn", RECIPES), 25),
        ("others.py", block("python", "class Others", RECIPES), 40),
        ("assay.py", block("python", "def make", RECIPES), 40),
    ):
        assert len([line for line in code.splitlines() if line.strip()]) <= n_lines
        (tmp_path / name).write_text(code)
    assay = pd.DataFrame({"SMILES": ["C" * n + "O" for n in range(9, 30)], "logS": -np.arange(9.0, 30.0)})
    assay.to_csv(tmp_path / "solubility.csv", index=False)
    yaml_blocks = block("yaml", "knn.py:Knn", RECIPES), block("yaml", "others.py:Others", RECIPES)
    knn, others = (yaml.safe_load(text)["stages"] for text in yaml_blocks)
    trees = {"kind": "lightgbm", "features": ["maccs"], "max_trees": 20}
    settings = yaml.safe_load(block("yaml", "assay.py:make", RECIPES))["competition"]
    stages = {**knn, "trees": trees, **others}
    path = write_competition(tmp_path, *mixed_tables(), stages=stages, competition=settings)
    features = prepare(load_competition(str(path))).test["feature predicted logS"]
    assert features.between(-30, -8).all()
    for step in ("check", "full"):
        assert not commands.main([step, str(path)])
    (run,) = (tmp_path / "work").glob("mixed/submissions/*/run.json")
    assert list(json.loads(run.read_text())["stages"]) == ["knn", "others", "trees"]
    path.write_text(path.read_text().replace("n_neighbors: 3", "neighbors: 3"))
    with pytest.raises(ConfigError, match="knn.neighbors: unknown key; try n_neighbors"):
        load_config(str(path))


def test_the_recipe_of_folds_divides_by_the_size_of_molecules_and_that_of_a_schedule_has_three_rates(
    tmp_path,
):
    (tmp_path / "mine.py").write_text(block("python", "def by_size", RECIPES))
    settings = yaml.safe_load(block("yaml", "mine.py:by_size", RECIPES))
    config = load_config(str(write_competition(tmp_path, *mixed_tables(), **settings)))
    rows = prepare(config.competition).train
    folds, groups = assign_folds(config.folds, rows, config.competition, 0)
    sizes = rows.groupby(groups)["SMILES"].transform(lambda smiles: len(smiles.iloc[0]))
    assert pd.Series(folds).groupby(sizes).nunique().max() == 1
    assert np.unique(folds).tolist() == [0, 1, 2, 3, 4]
    rate = with_warmup(config.stages["gnn"], 300)
    assert [rate(step) for step in (30, 119, 120, 210, 299)] == pytest.approx([1, 1, 0.3, 0.09, 0.09])


def test_predictions_of_other_targets_come_from_trees_that_did_not_see_the_row(tmp_path):
    """Each tree predicts 1 for the rows that it was fitted on, and 0 for others."""
    (tmp_path / "others.py").write_text(block("python", "class Others", RECIPES))
    others = load_user_code("stages.others", f"{tmp_path / 'others.py'}:Others", "a stage")
    fitted = []

    def fit(x, y, seed):
        fitted.append(x)
        return SimpleNamespace(
            predict=lambda rows: (rows[:, None] == x).all(axis=2).any(axis=1), save_model=lambda file: None
        )

    others.fit.__globals__["fitted"] = fit
    smiles = ["C" * n + end for n in range(1, 7) for end in "ON"]
    train = Dataset(list("abcdefghijkl"), pd.DataFrame({"SMILES": smiles}), np.arange(1.0, 25).reshape(12, 2))
    context = Context(["SMILES"], [], [], [], Task(["a", "b"]), 0, tmp_path, fold_ids=np.arange(12) % 3)
    others(kind="others.py:Others").fit(train, tmp_path, context)
    for features in fitted[-2:]:  # of the second tree of each target
        assert features.shape == (12, 1025)
        assert not features[:, 1024].any()
