"""The YAML: what is refused, in which words, and where it is looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from competition.config import CompetitionConfig, find_config, load_competition, load_yaml
from competition.errors import ConfigError
from competition.paths import CONFIGS, work_root
from submissions.config import Config, load_config
from tests.competition.small import write_small


def changed(path: Path, section: str, **settings: Any) -> str:
    """The YAML with other settings in one section, as the name that commands take."""
    document = yaml.safe_load(path.read_text())
    document.setdefault(section, {}).update(settings)
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_in_the_project_loads(path: Path) -> None:
    assert load_config(path.stem).stages


def test_an_unknown_key_is_named_with_its_path(tmp_path: Path) -> None:
    name = changed(write_small(tmp_path), "competition", surprise_extra_field=1)
    with pytest.raises(ConfigError, match=r"competition\.surprise_extra_field: this key is not known"):
        load_config(name)


def test_a_wrong_type_is_named_with_what_was_found(tmp_path: Path) -> None:
    name = changed(write_small(tmp_path), "folds", n_folds="many")
    with pytest.raises(ConfigError, match=r"folds\.n_folds: .*valid integer.* \(found 'many'\)"):
        load_config(name)


def test_three_mistakes_in_three_sections_are_reported_at_once_with_the_keys_as_they_stand_in_the_file(
    tmp_path: Path,
) -> None:
    path = write_small(tmp_path, metric="accuracy")
    changed(path, "folds", n_folds=1)
    name = changed(path, "stages", text_model={"kind": "bert", "epochs": 0})
    with pytest.raises(ConfigError) as error:
        load_config(name)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("has 3 mistake(s):")
    starts = [line.split(":")[0].strip() for line in lines[1:]]
    assert sorted(starts) == ["competition.metric", "folds.n_folds", "stages.text_model.epochs"]


def test_mistakes_inside_a_choice_of_classes_and_a_list_have_the_path_of_the_file(tmp_path: Path) -> None:
    stage = {"kind": "gnn", "seeds": [0, "x"], "head": {"kind": "multi_sample", "samples": 0}}
    with pytest.raises(ConfigError) as error:
        load_config(changed(write_small(tmp_path), "stages", graph=stage))
    assert "  stages.graph.seeds.1: " in str(error.value)
    assert "  stages.graph.head.samples: " in str(error.value)


def test_an_unknown_kind_of_stage_lists_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.a: .*'unimoll'.*'unimol'"):
        load_config(changed(write_small(tmp_path), "stages", a={"kind": "unimoll"}))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"competition\.id: Field required"):
        load_competition(str(write_small(tmp_path, id=None)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"numeric": ["y"]}, "each column must have one role, but 'y' has several"),
        ({"submission_columns": ["p", "q"]}, "one column per target"),
        ({"submission_columns": ["id"]}, "submission_columns must not name the id"),
        ({"group": "y"}, "group must not be the id, a target or a numeric column"),
        ({"group": "id"}, "group must not be the id, a target or a numeric column"),
        ({"metric": "accuracy"}, r"must be one of r2, .*, or file\.py:function \(found 'accuracy'\)"),
        ({"metric": "mine.py:score"}, "greater_is_better must be set"),
        ({"metric": "rmse", "greater_is_better": True}, "contradicts the metric rmse"),
        ({"unparsable": "ignore"}, "'error' or 'drop'"),
        ({"targets": []}, "competition.targets: "),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_competition(str(write_small(tmp_path, **settings)))


def test_two_mistakes_of_one_rule_are_both_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_competition(str(write_small(tmp_path, group="y", submission_columns=["p", "q"])))
    assert "group must not be" in str(error.value)
    assert "one column per target" in str(error.value)


def test_yaml_words_that_are_no_text_are_refused_as_column_names(tmp_path: Path) -> None:
    path = write_small(tmp_path)
    path.write_text(path.read_text().replace("id: id", "id: yes"))
    with pytest.raises(ConfigError, match=r"competition\.id: .*string.* \(found True\)"):
        load_competition(str(path))


def test_a_doubled_key_is_refused_and_its_line_named(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("competition:\n  id: a\n  metric: r2\n  id: b\n")
    with pytest.raises(ConfigError, match="key 'id' stands twice.* line 2"):
        load_yaml(path)


def test_yaml_anchors_can_be_merged(tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert load_yaml(path)["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("content", ["a: [1", "- a\n- b\n", "", "!!python/object/apply:os.getcwd []\n"])
def test_what_is_no_plain_yaml_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml must"):
        load_yaml(path)


def test_an_unknown_competition_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'nothing' must be a YAML file or one of .*qm9_orbitals.*run\.sh new"):
        find_config("nothing")
    with pytest.raises(ConfigError, match=r"Did you mean qm9_orbitals\?$"):
        find_config("qm9_orbital")


def test_a_name_is_found_beside_the_code_and_among_the_products(tmp_path: Path) -> None:
    assert find_config("qm9_orbitals") == CONFIGS / "qm9_orbitals.yaml"
    mine = write_small(work_root() / "configs")
    assert find_config("small") == mine.resolve()


def test_paths_are_relative_to_the_yaml_and_a_given_seed_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path / "deep", metric="mine.py:score", greater_is_better=True)
    monkeypatch.chdir(tmp_path)
    config = load_competition("deep/small.yaml", seed=7)
    assert config.train == path.parent / "train.csv"
    assert config.metric == f"{path.parent / 'mine.py'}:score"
    assert config.seed == 7


def test_settings_are_read_only_and_the_resolved_dump_loads_to_the_same(tmp_path: Path) -> None:
    config = load_config(str(write_small(tmp_path)))
    with pytest.raises(ValidationError):
        config.competition.id = "other"
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_inputs_are_in_the_order_of_their_roles() -> None:
    config = CompetitionConfig.model_validate(
        {
            "train": "a", "test": "b", "sample_submission": "c", "id": "id", "targets": ["y"], "metric": "r2",
            "categorical": ["k"], "numeric": ["n"], "text": ["t"], "smiles": ["s1", "s2"],
        }
    )  # fmt: skip
    assert config.inputs == ["s1", "s2", "t", "n", "k"]
