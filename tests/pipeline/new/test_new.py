"""`./run.sh new`: the YAML loads, says why, and holds what fits to the data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.prepare import prepare
from core import files as core_files
from core import paths
from core.errors import ConfigError, DataError, UserError
from core.files import write_table
from folds.make import assign_folds
from pipeline import commands
from pipeline.check import check_all
from pipeline.new.new import target_file
from submissions.config import load_config
from tests.submissions.made_up import make, notes, smiles, write, write_labels, write_tables

NUMBER = [k / 7 for k in range(80)]
METRIC = "def score(y_true, y_pred):\n    return 1.0\n"
SOLVENTS = ["" if i % 4 == 0 else s for i, s in enumerate(smiles(80)[::-1])]
DAMAGED = [*smiles(3), "c1cc", *smiles(66), "", *smiles(9)]


@pytest.mark.parametrize(
    ("inputs", "options", "lines"),
    [
        ({"n": NUMBER}, "--metric mae", ["metric: mae  # set with --metric", "numeric: [n]"]),
        (
            {"n": NUMBER}, "--metric mine.py:score --no-greater-is-better",
            ["metric: 'mine.py:score'  # set with", "greater_is_better: false"],
        ),
        ({"s": smiles(80)}, "--preset cpu", ["budget: 1h", "gnn: {kind: gnn, epochs: 50}"]),
        (
            {"s": smiles(80)}, "--preset gpu",
            ["gnn: {kind: gnn, epochs: 50, gpu: 0.25}", "Warning: this preset was never run on a GPU"],
        ),
        (
            {"s": DAMAGED}, "--preset cpu",
            ["unparsable: drop", "1 of train: row 5 (id ", "1 of test: row ", "WARNING: 1 of 60 training rows"],
        ),
        (
            {"s": smiles(80), "solvent_smiles": SOLVENTS}, "--preset cpu",
            ["distinct values; 20 cells are empty", "empty_smiles: '[Ar]'"],
        ),
        (
            {"note_1": notes(80), "note_2": notes(80)[::-1]}, "--preset quick",
            ["pairs: [[note_1, note_2]]  # note_1 and note_2: GUESS: named", "lightgbm_pairs:", "svr_pairs:"],
        ),
    ],
)  # fmt: skip
def test_what_is_found_and_why_is_written_and_the_yaml_loads(
    tmp_path, monkeypatch, capsys,
    inputs, options, lines,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METRIC)
    config = make(tmp_path, write(tmp_path, **inputs), *options.split()).competition
    printed = capsys.readouterr()
    assert [line for line in lines if line not in printed.out] == []
    assert printed.err == ""
    assert (config.unparsable == "drop") == ("unparsable: drop" in lines)
    assert (config.empty_smiles == "[Ar]") == ("empty_smiles: '[Ar]'" in lines)


ODD = [
    "yes", "null", "1", "a: b", "#c", "é ü", "- x", "[y]", "{z}", "line\nend", "'q'", '"d"', "true", "~", "x, y", "*a",
    "%", "a\u2028b",
]  # fmt: skip


def test_odd_names_read_back_and_what_was_detected_guessed_and_left_out_is_printed(tmp_path, capsys):
    """Odd column names, ids like 007 in no order, a group, a row counter, a constant, damaged numbers."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"": range(80), "ID : №": [f"{i:03d}" for i in rng.permutation(80)]})
    for k, name in enumerate(ODD):
        table[name] = rng.choice(["C", "N", "CO"], 80) if k % 2 else rng.normal(size=80)
    table = table.assign(
        **{
            "on: mol": smiles(80),
            "same": "x",
            "old": ["1"] * 30 + ["2"] * 30 + [""] * 20,
            "price": [f"{i},5" for i in range(80)],
        }
    )
    targets = {"no": NUMBER[:60], "score: [a], {b}": NUMBER[20:]}
    train = table[:60].assign(cluster=[f"g{i % 7}" for i in range(60)], **targets)
    sample = table[60:][["ID : №"]].assign(**{"off": 0.0, "0": 0.0})
    files = write_tables(tmp_path, train, table[60:].assign(late=1), sample)
    config = make(tmp_path, files, "--group", "cluster")
    competition, out = config.competition, capsys.readouterr().out
    assert (competition.id, competition.targets) == ("ID : №", [*targets])
    assert (competition.submission_columns, competition.group) == (["off", "0"], "cluster")
    assert (competition.numeric, competition.categorical) == (ODD[::2], ODD[1::2])
    assert competition.smiles == ["on: mol"]
    assert (
        r'"line\nend"' in (tmp_path / "mine.yaml").read_text()
    )  # on one line, which every YAML reader takes
    assert len(assign_folds(config.folds, prepare(competition).train, competition, 0)[0]) == 60
    for line in (
        "GUESS, by order: in the sample off is no, 0 is score: [a], {b}",
        "left out: (no name): has no name",
        "left out: same: the same in every training row",
        "left out: old: empty in all test rows",
        "left out: late: only in test",
        "left out: price: WARNING: 80 of 80 cells are not numbers ('0,5')",
        "left out: cluster: makes the folds",
        "60 training rows, 20 test rows",
    ):
        assert line in out, line


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize("is_in_test", [True, False])
def test_the_index_that_pandas_writes_is_neither_an_input_nor_a_target(tmp_path, name, is_in_test):
    """Its numbers have gaps, where rows were dropped."""
    table = pd.DataFrame({"id": [f"r{k}" for k in range(80)], "x": NUMBER, name: np.arange(80) * 3})
    train, test = (
        table[:60].assign(y=NUMBER[20:]),
        table[60:] if is_in_test else table[60:].drop(columns=name),
    )
    config = make(tmp_path, write_tables(tmp_path, train, test, test[["id"]].assign(prediction="")))
    assert (config.competition.inputs, config.competition.targets) == (["x"], ["y"])


def test_the_class_that_the_column_of_the_sample_names_is_the_positive_one(tmp_path):
    labels = {"author": [("ai" if i % 3 == 0 else "human") for i in range(90)]}
    config = make(tmp_path, write_labels(tmp_path, labels, {"human": 0.0}))
    assert config.competition.classes == ["ai", "human"]
    text = (tmp_path / "mine.yaml").read_text()
    assert "GUESS: human is the positive class, since the sample has 'human'" in text


def test_a_few_names_among_numbers_are_classes_if_the_user_says_so(tmp_path):
    labels = {"children": [("3+" if i % 10 == 0 else str(i % 3)) for i in range(90)]}
    files = write_labels(tmp_path, labels, {"children": 0})
    with pytest.raises(DataError, match="Rewrite them like"):
        make(tmp_path, files)
    config = make(tmp_path, files, "--problem-type", "multiclass")
    assert config.competition.classes == ["0", "1", "2", "3+"]


def test_codes_whose_test_values_are_new_are_no_input_and_make_the_folds(tmp_path, capsys):
    """Rows of 30 plates of which the test table has six others, and of three dyes in both tables."""
    plates = [f"P{k // 4:03d}" for k in range(144)]
    table = pd.DataFrame(
        {"id": [f"r{k}" for k in range(144)], "plate": plates, "x": np.arange(144) * 0.37 % 1}
    )
    table["dye"] = [("red", "blue", "green")[k % 3] for k in range(144)]
    train = table[:120].assign(y=np.arange(120) * 0.73 % 1)
    config = make(tmp_path, write_tables(tmp_path, train, table[120:], table[120:][["id"]].assign(y=0.0)))
    assert config.competition.inputs == ["x", "dye"]
    assert (config.competition.group, config.folds.kind) == ("plate", "stratified_group")
    out = capsys.readouterr().out
    assert "left out: plate: 24 of 24 test values are new, so that it only names a group" in out
    assert "0 test rows share 'plate' with a training row" in out and "no training row has" not in out


def test_a_category_in_other_letters_in_the_test_table_is_kept_and_said(tmp_path, capsys):
    """DMSO in the training table is dmso in the test table: its values are not new, but written in another way."""
    table = pd.DataFrame({"id": [f"r{k}" for k in range(144)], "x": np.arange(144) * 0.37 % 1})
    table["solvent"] = [("DMSO", "THF", "DMF", "MeCN")[k % 4] for k in range(144)]
    train = table[:120].assign(y=np.arange(120) * 0.73 % 1)
    test = table[120:].assign(solvent=table["solvent"][120:].str.lower())
    config = make(tmp_path, write_tables(tmp_path, train, test, test[["id"]].assign(y=0.0)))
    assert config.competition.categorical == ["solvent"]
    warning = "WARNING: category solvent: 24 test cells differ from those of training rows only in case"
    assert warning in capsys.readouterr().out


def test_codes_without_which_equal_inputs_would_connect_most_rows_stay_an_input(tmp_path, capsys):
    """Every plate has the same six doses, so that without the plate all rows of a dose have equal inputs."""
    table = pd.DataFrame(
        {"id": [f"r{k}" for k in range(144)], "plate": [f"P{k // 6:03d}" for k in range(144)]}
    )
    table["dose"] = np.arange(144) % 6 + 0.5
    train = table[:120].assign(y=np.arange(120) * 0.73 % 1)
    config = make(tmp_path, write_tables(tmp_path, train, table[120:], table[120:][["id"]].assign(y=0.0)))
    assert config.competition.categorical == ["plate"] and config.competition.group == "plate"
    out = " ".join(capsys.readouterr().out.replace("#", " ").split())
    assert "24 of 24 test values are new, but without it equal inputs would connect most rows" in out
    assert "WARNING: category plate: 24 of 24 test rows have a value that no training row has" in out
    check_all(config)


def test_the_yaml_holds_only_what_differs_and_its_lines_are_short(tmp_path):
    files = write(tmp_path, 600, 20, s=smiles(620))
    make(tmp_path, files, "--answers", files[1])
    text = (tmp_path / "mine.yaml").read_text()
    document = yaml.safe_load(text)
    assert (document["stages"]["gnn"], document["folds"]) == ({"kind": "gnn"}, {"kind": "stratified"})
    assert document["competition"]["answers"] == "train.csv" and "submissions" not in document
    assert max(map(len, text.splitlines())) <= 120


def test_classes_are_written_out_with_what_their_folds_and_metric_need(tmp_path):
    labels = {
        "state": [("sick" if i % 50 == 0 else "well") for i in range(300)],
        "clinic": [f"c{i % 12}" for i in range(300)],
    }
    config = make(tmp_path, write_labels(tmp_path, labels, {"state": 0}), "--group", "clinic")
    assert (config.folds.kind, config.folds.n_folds) == ("stratified_group", 10)
    text = (tmp_path / "mine.yaml").read_text()
    assert "problem_type: binary  # GUESS: sick or well" in text
    assert "classes: [well, sick]  # GUESS: sick is the positive class, by its name" in text
    assert "metric: roc_auc" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "acuracy"], "must be one of r2"),
        (["--metric", "mine.py:score"], "greater_is_better must be set"),
        (["--answers", "absent.csv"], "--answers: file absent.csv does not exist"),
        (["--test", "semicolons.csv"], "semicolons"),
        (["--numeric", "n", "--categorical", "n"], "--numeric and --categorical both name 'n'"),
        (["--text", "id"], "'id' is the id or a target"),
        (["--smiles", "n"], "no cell of 'n' in .*train.csv is a molecule"),
        (["--numeric", "absent"], "--numeric: 'absent' is not in both .*train.csv and"),
        (
            ["--train", "same.csv"],
            "no column is an input to learn from .*'n': the same in every .*--text COL",
        ),
        (["--sample", "short.csv"], "Correct the data before ./run.sh full: .*short.csv has other ids"),
    ],
)
def test_what_cannot_be_written_or_prepared_is_refused_in_words(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    files = write(tmp_path, n=NUMBER)
    for name, content in {
        "mine.py": METRIC,
        "semicolons.csv": "id;n\n1;2\n",
        "same.csv": "id,n,y0\na,1,2.5\nb,1,3\nc,1,4.5\n",
        "short.csv": "\n".join((tmp_path / "sample.csv").read_text().splitlines()[:-1]),
    }.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        make(tmp_path, files, *options)
    assert (
        "--metric" not in options or not (tmp_path / "mine.yaml").exists()
    )  # nor has to be forced next time


def test_a_yaml_is_only_replaced_with_force(tmp_path):
    files, path = write(tmp_path, n=NUMBER), tmp_path / "mine.yaml"
    path.write_text("precious: true\n")
    with pytest.raises(ConfigError, match="--force"):
        commands.main(["new", str(path), *files])
    assert path.read_text() == "precious: true\n"
    commands.main(["new", str(path), *files, "--force"])
    assert "competition" in yaml.safe_load(path.read_text())


def test_a_name_goes_next_to_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(core_files, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(paths, "CONFIGS", tmp_path / "project" / "configs")
    for folder, train in (
        ("project/data", "../data/train.csv"),
        ("far", str(tmp_path / "far" / "train.csv")),
    ):
        files = write(tmp_path / folder, n=NUMBER)
        commands.main(["new", "mine", *files, "--force"])
        text = (paths.CONFIGS / "mine.yaml").read_text()
        assert yaml.safe_load(text)["competition"]["train"] == train
        assert load_config("mine").competition.train == Path(files[1])


@pytest.mark.parametrize("name", ["a/b", "", "..", "with blank", "cache", "n" * 300])
def test_a_name_that_is_no_plain_word_is_refused(name):
    with pytest.raises(ConfigError, match="NAME takes up to 100 letters"):
        target_file(name, force=False)


@pytest.mark.parametrize(
    ("option", "names"), [("--preset", "quick, cpu, gpu"), ("--folds", "kfold, .*scaffold")]
)
def test_an_unknown_preset_or_kind_of_folds_is_refused_with_the_names(option, names):
    with pytest.raises(ConfigError, match=rf"{option} takes one of {names}.*; got 'other'"):
        commands.main(["new", "mine", option, "other"])


def test_censored_labels_are_bounds_for_networks(tmp_path):
    files = write(tmp_path, s=smiles(80))
    make(tmp_path, files)
    assert "censored" not in (tmp_path / "mine.yaml").read_text()
    train = pd.read_csv(tmp_path / "train.csv")
    write_table(tmp_path / "train.csv", train.assign(y0=["<-5", ">9", *train["y0"][2:]]))
    make(tmp_path, files, "--force")
    assert "censored: bound  # GUESS: 2 censored labels such as >100" in (tmp_path / "mine.yaml").read_text()


def test_a_training_table_and_its_targets_are_enough_and_settings_replace_guesses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"id": range(60), "note": notes(60), "y": [k % 3 for k in range(60)]})
    write_table(tmp_path / "train.csv", table)
    options = [
        "new",
        str(tmp_path / "alone.yaml"),
        "--train",
        "train.csv",
        "--target",
        "y",
        "--metric",
        "log_loss",
    ]
    commands.main([*options, "--set", "folds.n_folds=4", "--set", "stages.s={kind: sklearn}"])
    config = load_config(str(tmp_path / "alone.yaml"))
    assert not config.competition.has_test_table
    assert config.competition.submission_columns in (None, ["0", "1", "2"])
    assert (config.folds.n_folds, [*config.stages], config.budget) == (4, ["s"], None)
    prepared = prepare(config.competition)
    assert list(prepared.test["id"]) == list(prepared.train["id"])
    assert list(prepared.sample) == ["id", "0", "1", "2"]
    assert not any("WARNING" in line for line in prepared.report["said"])
    with pytest.raises(ConfigError, match="--train and --target"):
        commands.main(["new", str(tmp_path / "other.yaml"), "--train", "train.csv"])
    with pytest.raises(DataError, match="must be different files"):
        commands.main([*options, "--test", "train.csv", "--force"])
