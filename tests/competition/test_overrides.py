"""Settings that the command line replaces."""

from pathlib import Path

import pytest
import yaml

from core.errors import ConfigError
from core.settings import NO_OVERRIDES, Overrides, parse_setting
from pipeline.commands import parse
from submissions.config import load_config
from tests.competition.small import write_small

STAGES = {"small": {"kind": "lightgbm"}, "net": {"kind": "gnn", "epochs": 5}, "large": {"kind": "lightgbm"}}


def written(folder: Path) -> str:
    path = write_small(folder)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "stages": STAGES}, sort_keys=False))
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages.gnn.epochs=100", ("stages.gnn.epochs", 100)),
        ("stages.gnn.seeds=[0, 1]", ("stages.gnn.seeds", [0, 1])),
        ("stages.gnn.learning_rate=1e-3", ("stages.gnn.learning_rate", 0.001)),
        ("submissions.default=null", ("submissions.default", None)),
        ("competition.features=mine.py:a=b", ("competition.features", "mine.py:a=b")),
        ("budget=3m", ("budget", "3m")),
    ],
)
def test_a_value_is_read_as_in_the_yaml(text: str, expected: object) -> None:
    assert parse_setting(text) == expected


def test_settings_and_stages_of_the_command_line_replace_those_of_the_yaml(tmp_path: Path) -> None:
    path = written(tmp_path)
    line = [path, "--set", "stages.net.epochs=7", "--set", "folds.n_folds=3", "--seed", "9"]
    options = parse(["full", *line, "--stages", "large,net"])
    config = load_config(path, options.overrides)
    assert list(config.stages) == ["net", "large"]  # in the order of the YAML
    assert (config.stages["net"].epochs, config.folds.n_folds, config.competition.seed) == (7, 3, 9)
    assert str(options.overrides) == (
        "stages.net.epochs=7, folds.n_folds=3, competition.seed=9, stages large, net"
    )
    assert load_config(path, parse(["full", path]).overrides) == load_config(path)


def test_a_stage_can_be_added(tmp_path: Path) -> None:
    added = Overrides({"stages.svr": {"kind": "sklearn", "estimator": "sklearn.svm.SVR"}}, ("svr",))
    assert load_config(written(tmp_path), added).stages["svr"].estimator == "sklearn.svm.SVR"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides({"stages.nett.epochs": 3}), "--set stages.nett.epochs: .* no stage 'nett'; it has small, net"),
        (Overrides({"stages.net.epoch": 3}), r"--set stages\.net\.epoch: unknown key; try epochs"),
        (Overrides({"stages.net.epochs": "many"}), r"--set stages\.net\.epochs: .*valid integer.*'many'"),
        (Overrides({"stagse.net": 3}), r"with stagse.net=3 has .*\n  stagse: unknown key; try stages"),
        (Overrides({"competition.id.name": 3}), "competition.id of .* is 'id' and has no settings below it"),
        (Overrides(stages=("other",)), "--stages: .* no stage 'other'"),
    ],
)  # fmt: skip
def test_mistakes_in_overrides_are_reported_before_training(
    tmp_path: Path, overrides: Overrides, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path), overrides)


def test_a_mistake_is_blamed_on_the_yaml_or_on_the_command_line_whichever_has_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    invalid = Overrides({"stages.net.epochs": "many", "folds.n_folds": 3})
    with pytest.raises(
        ConfigError, match=r"^the command line has 1 error\(s\):\n  --set stages\.net\.epochs: "
    ):
        load_config(path, invalid)
    Path(path).write_text(Path(path).read_text().replace("metric: ", "metric: not_"))
    with pytest.raises(ConfigError) as error:
        load_config(path, invalid)
    first, *lines = str(error.value).splitlines()
    assert first == f"{path} with stages.net.epochs=many, folds.n_folds=3 has 2 error(s):"
    assert [line.partition(":")[0] for line in lines] == ["  competition.metric", "  --set stages.net.epochs"]
    with pytest.raises(ConfigError, match=rf"^{path} has 1 error"):
        load_config(path)


def test_tables_of_a_holdout_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="--holdout makes its own tables, so competition.train"):
        parse(["full", "toy", "--holdout", "0.2", "--set", "competition.train=other.csv"])


def test_a_budget_of_the_yaml_is_a_time_and_not_part_of_its_settings(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_config(path, NO_OVERRIDES).budget is None
    assert load_config(path, Overrides({"budget": "5m"})).budget == "5m"
    with pytest.raises(ConfigError, match="budget: a time is a number above 0"):
        load_config(path, Overrides({"budget": "soon"}))
