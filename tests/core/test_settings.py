"""The YAML and the settings of the command line: what is refused, in which words, and what replaces what."""

import pickle
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from competition.config import load_competition, validate
from core.errors import ConfigError
from core.files import work_root
from core.overrides import Overrides, parse_setting
from core.paths import CONFIGS, Paths, find_config
from core.yaml_files import dump_yaml, load_yaml
from pipeline.commands import parse
from submissions.config import Config, load_config
from tests.competition.small import write_small

NETS = "stages: {small: {kind: lightgbm}, net: {kind: gnn, epochs: 5}, large: {kind: lightgbm}}"


def written(folder, settings=NETS):
    """A YAML in which some settings of the section `competition`, or another section, are replaced."""
    return str(write_small(folder, **yaml.safe_load(settings)))


@pytest.mark.parametrize("path", [*CONFIGS.glob("*.yaml")], ids=lambda path: path.stem)
def test_the_embedded_competitions_load(path):
    assert load_config(str(path)).stages


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("surprise: 1", r"competition\.surprise: unknown key; try answers, auxiliary_targets, .*$"),
        ("stages: {a: {kind: gnn, epoch: 1}}", r"stages\.a\.epoch: unknown key; try epochs"),
        ("numeric: [y]", "the column 'y' has several roles"),
        ("submission_columns: [p, q]", "must have 1 columns, one per target; got 2$"),
        ("{group: y, numeric: [id]}", "'id' has several roles.* group: 'y' must be neither"),
        ("metric: rsme", r"must be one of r2, .* or file\.py:function \(got 'rsme'\)"),
        ("metric: mine.py:score", "greater_is_better must be set"),
        ("greater_is_better: true", "contradicts the metric rmse"),
        ("numeric: [__x]", "rename '__x': no column may begin with '__'"),
        ("standardise: tautomer", r"standardise.*'none', 'cleanup' or 'parent'"),
        ("{smiles: , text: [SMILES], standardise: parent}", "standardise: parent needs molecule columns"),
        ("folds: {n_folds: many}", r"folds\.n_folds: .*valid integer.* \(got 'many'\)"),
        ("folds: {kind: file}", "kind: file and the setting file must be given together"),
        ("folds: {file: mine.csv}", "kind: file and the setting file must be given together"),
        ("stages: {a: {kind: unimoll}}", r"stages\.a: kind must be one of .*unimol, .*defined stage; got 'unimoll'$"),
        ("stages: {a: {epochs: 3}}", r"stages\.a: kind is missing$"),
        (
            "stages: {a: {kind: lightgbm, features: [morgen]}}",
            r"a\.features\.0: must be one of morgan, .*; or: must be a mapping \(key: value\) \(got 'morgen'\)$",
        ),
        ("stages: {a: 3}", r"stages\.a: must be a mapping \(key: value\) \(got 3\)$"),
        ("stages: {a: {kind: gnn, seeds: [0, 0]}}", r"stages\.a\.seeds: must not have duplicates; got 0"),
        ("stages: {a: {kind: unimol, weights: unimol_no_h}}", "weights unimol_no_h need architecture: molecule"),
        ("stages: {a: {kind: unimol, weights: unimol_small}}", "unimol_small need remove_hydrogens: true"),
        (
            "stages: {a: {kind: unimol, weights: unimol_small, remove_hydrogens: true, layers: 4}}",
            "unimol_small need layers: 6",
        ),
        ("stages: {a: {kind: gp, gpu: true}}", "a: gpu: no effect on the kind gp; remove it"),
        ("stages: {a: {kind: bert, weights: rxnfp, layers: 2}}", "a: layers: no effect with weights rxnfp"),
        ("stages: {a: {kind: unimol, architecture: molecule, width: 64}}", "a: width: no effect with architecture"),
        ("stages: {a: {kind: mine.py}}", r"a: kind must be one of .*unimol, .*file\.py:Class"),
        ("stages: {a: {kind: 'mine.txt:Mine'}}", r"a: must be file\.py:name"),
        ("stages: {a: {kind: 'mine.py:Mine'}}", r"a: kind: there is no file .*mine\.py"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_the_path_of_its_key(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path, settings))


def test_mistakes_of_all_sections_are_reported_at_once(tmp_path):
    sections = "{metric: rsme, id: , folds: {n_folds: 1}, stages: {text_model: {kind: bert, epochs: 0}}}"
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, sections))
    first, *lines = str(error.value).splitlines()
    assert first.endswith("has 4 error(s):")
    keys = sorted(line.split(":")[0].strip() for line in lines)
    assert keys == ["competition.id", "competition.metric", "folds.n_folds", "stages.text_model.epochs"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "competition:\n  id: a\n  metric: r2\n  id: b\n",
            "is not valid YAML: key 'id' is repeated.* line 4",
        ),
        ("- a\n- b\n", "needs the sections"),
        ("competition: {id: {{ id }}}\n", "is not valid YAML: .*unhashable key"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"bad\.yaml {words}"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001), ("2E5", 2e5), (".5", 0.5), ("1.", 1.0), ("010", 10), ("-7", -7), ("0o10", 8), ("0x1F", 31),
        ("true", True), ("on", "on"), ("1_0", "1_0"), ("2024-01-01", "2024-01-01"), ("null", None), ("[0, 1]", [0, 1]),
        ("mine.py:a=b", "mine.py:a=b"),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2_in_free_form_parameters_and_on_the_command_line(
    tmp_path, text, expected
):
    path = Path(written(tmp_path, "stages: {svr: {kind: sklearn, parameters: {C: VALUE}}}"))
    path.write_text(path.read_text().replace("VALUE", text))
    assert repr(load_config(str(path)).stages["svr"].parameters["C"]) == repr(expected)
    assert repr(parse_setting(f"stages.svr.C={text}")) == repr(("stages.svr.C", expected))


def test_what_is_written_is_read_back_the_same(tmp_path):
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
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert load_yaml(path)["b"] == {"x": 1, "y": 3}


def test_a_name_is_looked_up_next_to_the_code_and_among_the_products_or_the_existing_ones_are_listed():
    versions = ("logS.v2", "/x/logS.v2.yaml", "logS.v3")  # dots are fine
    first, same, other = (Paths.for_competition(name).root for name in versions)
    assert first == same != other
    assert find_config("qm9_orbitals") == CONFIGS / "qm9_orbitals.yaml"
    mine = write_small(work_root() / "configs")
    assert find_config("small") == mine.resolve()
    listed = r"no competition 'nothing'; available: .*qm9_orbitals, .*small.*run\.sh new"
    with pytest.raises(ConfigError, match=listed):
        find_config("nothing")


def test_paths_are_relative_to_the_yaml_and_what_a_run_saves_is_whole(tmp_path, monkeypatch):
    here = tmp_path / "deep"
    settings = f"""
        {{metric: 'mine.py:score', greater_is_better: true, features: '../own.py:f', answers: {tmp_path}/answers.csv,
        extra_train: [{{file: more.csv}}], folds: {{kind: file, file: folds.csv}},
        stages: {{own: {{kind: 'stage.py:Own'}}, theirs: {{kind: file, folder: oof}}}}}}
    """
    path = written(here, settings)
    (here / "stage.py").write_text("from tests.models.jobs.user_stages import Memoriser as Own\n")
    monkeypatch.chdir(tmp_path)
    config = load_config("deep/small.yaml")
    competition = config.competition
    assert (competition.train, competition.extra_train[0].file) == (here / "train.csv", here / "more.csv")
    assert competition.metric == f"{here / 'mine.py'}:score"
    assert competition.features == f"{tmp_path / 'own.py'}:f"
    assert competition.answers == tmp_path / "answers.csv"
    assert config.folds.file == here / "folds.csv"
    assert config.stages["own"].kind == f"{here / 'stage.py'}:Own"
    assert config.stages["theirs"].folder == here / "oof"
    assert validate(Config, config.model_dump(mode="json"), Path(path)) == config
    with pytest.raises(ValidationError):
        competition.id = "other"


def test_a_copy_and_a_worker_have_the_task_and_the_paths_of_their_settings(tmp_path):
    competition = load_competition(written(tmp_path))
    other = competition.model_copy(update={"targets": ["z"]})
    assert (competition.task.targets, other.task.targets) == (["y"], ["z"])
    assert pickle.loads(pickle.dumps(other)).paths == competition.paths == Paths("small")


def test_settings_and_stages_of_the_command_line_replace_those_of_the_yaml(tmp_path):
    path = written(tmp_path)
    line = [path, "--set", "stages.net.epochs=7", "--set", "folds.n_folds=3", "--set", "competition.seed=9"]
    options = parse(["full", *line, "--stages", "large,net"])
    config = load_config(path, options.overrides)
    assert list(config.stages) == ["large", "net"]  # in the order of the option
    assert (config.stages["net"].epochs, config.folds.n_folds, config.competition.seed) == (7, 3, 9)
    described = "stages.net.epochs=7, folds.n_folds=3, competition.seed=9, stages large, net"
    assert str(options.overrides) == described
    added = Overrides(
        {"budget": "5m", "stages.svr": {"kind": "sklearn", "estimator": "sklearn.svm.SVR"}}, ("svr",)
    )
    config = load_config(path, added)
    assert (config.stages["svr"].estimator, config.budget) == ("sklearn.svm.SVR", "5m")
    alone = Overrides({"stages.svr": {"kind": "sklearn"}})
    assert list(load_config(path, alone).stages)[-1] == "svr"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stages.nett.epochs", 3, "--set stages.nett.epochs: .* no stage 'nett'; it has small, net"),
        ("stages.net.epoch", 3, r"--set stages\.net\.epoch: unknown key; try epochs"),
        (
            "stages.net.epochs", "many",
            r"^the command line has 1 error\(s\):\n  --set stages\.net\.epochs: .*valid integer.*'many'",
        ),
        ("stagse.net", 3, r"^\S*small.yaml with stagse.net=3 has 1 error\(s\):\n  stagse: unknown key; try stages"),
        ("competition.id.name", 3, "competition.id of .* is 'id' and has no settings below it"),
        ("budget", "soon", "budget: a time is a number above 0"),
    ],
)  # fmt: skip
def test_mistakes_of_the_command_line_are_reported_before_training(tmp_path, key, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path), Overrides({key: value}))


def test_an_unknown_stage_and_a_table_that_holdout_makes_cannot_be_chosen(tmp_path):
    with pytest.raises(ConfigError, match="--stages: .* no stage 'other'"):
        load_config(written(tmp_path), Overrides(stages=("other",)))
    with pytest.raises(ConfigError, match="--holdout makes its own tables, so competition.train"):
        parse(["full", "toy", "--holdout", "0.2", "--set", "competition.train=other.csv"])


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (
            "kind: lightgbm, features: [{encoder: minilm, layers: 2}]",
            "features.0.layers: must be a valid list (got 2)",
        ),
        ("kind: gp, kernels: [{encoder: minimol, pca: 0}]", "kernels.0.pca: must be greater than 0"),
        (
            "kind: lightgbm, features: [{encodr: minilm, encoder: minilm}]",
            "features.0.encodr: unknown key; try columns",
        ),
    ],
)
def test_a_mistake_in_a_mapping_that_may_also_be_a_name_is_one_line_in_words_of_the_yaml(
    tmp_path, stage, line
):
    path = Path(written(tmp_path, f"stages: {{s: {{{stage}}}}}"))
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    (found,) = str(error.value).splitlines()[1:]
    assert found.startswith(f"  stages.s.{line}")
