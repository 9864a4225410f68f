"""The YAML: what is refused, in which words, and where it is looked for."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from competition.config import find_config, load_competition, validate
from core.errors import ConfigError
from core.files import work_root
from core.paths import CONFIGS, Paths
from core.settings import Overrides
from core.yaml_files import dump_yaml, load_yaml
from submissions.config import Config, load_config
from tests.competition.small import write_small


@pytest.mark.parametrize("name", ["qm9_orbitals", "smoke", "tweet_classes", "tweet_sentiment"])
def test_the_embedded_competitions_load(name: str) -> None:
    assert load_config(name).stages


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (r"competition\.surprise: unknown key; try answers, auxiliary_targets, .*$", {"surprise": 1}),
        (r"stages\.a\.epoch: unknown key; try epochs", {"stages": {"a": {"kind": "gnn", "epoch": 1}}}),
        ("the column 'y' has several roles", {"numeric": ["y"]}),
        ("must have 1 columns, one per target; got 2$", {"submission_columns": ["p", "q"]}),
        ("'id' has several roles.* group is 'y', and must not be", {"group": "y", "numeric": ["id"]}),
        (r"must be one of r2, .* or file\.py:function \(got 'rsme'\)", {"metric": "rsme"}),
        ("greater_is_better must be set", {"metric": "mine.py:score"}),
        ("contradicts the metric rmse", {"greater_is_better": True}),
        ("no column may begin with '__'", {"numeric": ["__x"]}),
        (r"folds\.n_folds: .*valid integer.* \(got 'many'\)", {"folds": {"n_folds": "many"}}),
        ("kind: file and the setting file must be given together", {"folds": {"kind": "file"}}),
        ("kind: file and the setting file must be given together", {"folds": {"file": "mine.csv"}}),
        (
            r"stages\.a: kind must be one of unimol, .*your own; got 'unimoll'$",
            {"stages": {"a": {"kind": "unimoll"}}},
        ),
        (r"stages\.a: kind is missing$", {"stages": {"a": {"epochs": 3}}}),
        (
            r"a\.features\.0: must be 'morgan', .*; or: must be a mapping \(key: value\) \(got 'morgen'\)$",
            {"stages": {"a": {"kind": "lightgbm", "features": ["morgen"]}}},
        ),
        (r"stages\.a: must be a mapping \(key: value\) \(got 3\)$", {"stages": {"a": 3}}),
        (
            r"stages\.a\.seeds: must not have duplicates; got 0",
            {"stages": {"a": {"kind": "gnn", "seeds": [0, 0]}}},
        ),
        (
            r"a: weights unimol_no_h need architecture: molecule",
            {"stages": {"a": {"kind": "unimol", "weights": "unimol_no_h"}}},
        ),
        (
            r"a: weights unimol_small need remove_hydrogens: true",
            {"stages": {"a": {"kind": "unimol", "weights": "unimol_small"}}},
        ),
        (
            r"a: weights unimol_small need layers: 6",
            {
                "stages": {
                    "a": {"kind": "unimol", "weights": "unimol_small", "remove_hydrogens": True, "layers": 4}
                }
            },
        ),
        (r"a: kind must be one of unimol, .*file\.py:Class", {"stages": {"a": {"kind": "mine.py"}}}),
        (r"a: must be file\.py:name", {"stages": {"a": {"kind": "mine.txt:Mine"}}}),
        (r"a: kind: there is no file .*mine\.py", {"stages": {"a": {"kind": "mine.py:Mine"}}}),
    ],
)
def test_a_mistake_is_reported_with_the_path_of_its_key(tmp_path: Path, words: str, settings: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(str(write_small(tmp_path, **settings)))


def test_mistakes_of_all_sections_are_reported_at_once(tmp_path: Path) -> None:
    stages = {"text_model": {"kind": "bert", "epochs": 0}}
    path = write_small(tmp_path, metric="rsme", id=None, folds={"n_folds": 1}, stages=stages)
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("has 4 error(s):")
    starts = [line.split(":")[0].strip() for line in lines[1:]]
    assert sorted(starts) == [
        "competition.id",
        "competition.metric",
        "folds.n_folds",
        "stages.text_model.epochs",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "competition:\n  id: a\n  metric: r2\n  id: b\n",
            "is not valid YAML: key 'id' is repeated.* line 4",
        ),
        ("- a\n- b\n", "needs the sections"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"bad\.yaml {words}"):
        load_yaml(path)
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert load_yaml(path)["b"] == {"x": 1, "y": 3}


def test_numbers_and_booleans_are_those_of_yaml_1_2_in_free_form_parameters_too(tmp_path: Path) -> None:
    path = write_small(tmp_path, stages={"svr": {"kind": "sklearn", "parameters": {"C": "VALUE"}}})
    text = path.read_text()
    numbers = {"1e-3": 0.001, "2E5": 2e5, ".5": 0.5, "1.": 1.0, "010": 10, "-7": -7, "0o10": 8, "0x1F": 31}
    for written, value in {
        **numbers,
        "true": True,
        "on": "on",
        "1_0": "1_0",
        "2024-01-01": "2024-01-01",
    }.items():
        path.write_text(text.replace("VALUE", written))
        parameters = load_config(str(path)).stages["svr"].parameters
        assert repr(parameters["C"]) == repr(value)


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    text = [
        "1e-3",
        "010",
        "08",
        "0o7",
        "0x1F",
        "1_0",
        "on",
        "No",
        "2024-01-01",
        "1:30",
        "~",
        "<<",
        ".5",
        "",
        "1e5x",
    ]
    document = {"values": [*text, 1e-5, 1e16, 10, True, None], "1e-3": "a key", "C": 0.001}
    path = tmp_path / "written.yaml"
    path.write_text(dump_yaml(document))
    assert load_yaml(path) == document
    assert yaml.safe_load(path.read_text()) == document  # by a reader of YAML 1.1


def test_a_name_is_looked_up_next_to_the_code_and_among_the_products_or_the_existing_ones_are_listed() -> (
    None
):
    assert (
        Paths.for_competition("logS.v2").root
        == Paths.for_competition("/x/logS.v2.yaml").root
        != Paths.for_competition("logS.v3").root
    )  # dots are fine
    assert find_config("qm9_orbitals") == CONFIGS / "qm9_orbitals.yaml"
    mine = write_small(work_root() / "configs")
    assert find_config("small") == mine.resolve()
    with pytest.raises(
        ConfigError, match=r"no competition 'nothing'; available: qm9_orbitals, small.*run\.sh new"
    ):
        find_config("nothing")


def test_paths_are_relative_to_the_yaml_and_a_given_seed_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "stage.py").write_text("from models.api import Stage as Own\n")
    path = write_small(
        tmp_path / "deep", metric="mine.py:score", greater_is_better=True, features="../own.py:f",
        extra_train=[{"file": "more.csv"}], answers=str(tmp_path / "answers.csv"),
        folds={"kind": "file", "file": "folds.csv"},
        stages={"own": {"kind": "stage.py:Own"}, "theirs": {"kind": "file", "folder": "oof"}},
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    config = load_config("deep/small.yaml", Overrides({"competition.seed": 7}))
    here, competition = path.parent, config.competition
    assert competition.train == here / "train.csv"
    assert competition.metric == f"{here / 'mine.py'}:score"
    assert competition.features == f"{tmp_path / 'own.py'}:f"
    assert competition.extra_train[0].file == here / "more.csv"
    assert competition.answers == tmp_path / "answers.csv"
    assert config.folds.file == here / "folds.csv"
    assert config.stages["own"].kind == f"{here / 'stage.py'}:Own"
    assert config.stages["theirs"].folder == here / "oof"
    assert competition.seed == 7
    saved = config.model_dump(mode="json")
    assert validate(Config, saved, path) == config  # what a run saves is whole
    with pytest.raises(ValidationError):
        competition.id = "other"


def test_a_copy_and_a_worker_have_the_task_and_the_paths_of_their_settings(tmp_path: Path) -> None:
    competition = load_competition(str(write_small(tmp_path)))
    assert competition.paths == Paths("small")
    other = competition.model_copy(update={"targets": ["z"]})
    assert (competition.task.targets, other.task.targets) == (["y"], ["z"])
    assert pickle.loads(pickle.dumps(other)) == other
    assert pickle.loads(pickle.dumps(other)).paths == competition.paths
