"""`./run.sh new`: the YAML loads, says why, and holds what fits to the data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.prepare import prepare
from core import files as core_files
from core import paths
from core.errors import ConfigError, DataError, SubmissionError
from core.files import write_table
from folds.make import assign_folds
from pipeline import commands
from pipeline.new.new import target_file
from submissions.config import load_config
from tests.submissions.made_up import make, smiles, write, write_labels, write_tables

NUMBER = [k / 7 for k in range(80)]


def test_a_named_metric_is_no_guess_and_a_user_defined_one_needs_its_direction(tmp_path: Path) -> None:
    files = write(tmp_path, n=NUMBER)
    assert make(tmp_path, files, "--metric", "mae").competition.metric == "mae"
    user_file = tmp_path / "mine.py"
    user_file.write_text("def score(y_true, y_pred):\n    return 1.0\n")
    config = make(tmp_path, files, "--metric", f"{user_file}:score", "--no-greater-is-better").competition
    assert (config.metric, config.greater_is_better) == (f"{user_file}:score", False)
    for metric, words in (
        ("acuracy", "must be one of r2"),
        (f"{user_file}:score", "greater_is_better must be set"),
    ):
        with pytest.raises(ConfigError, match=words):
            make(tmp_path, files, "--metric", metric)


ODD = [
    "yes", "null", "1", "a: b", "#c", "é ü", "- x", "[y]", "{z}", "line\nend", "'q'", '"d"', "true", "~", "x, y", "*a",
    "%", "a\u2028b",
]  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> list[str]:
    """Odd column names everywhere, ids like 007 in no order, a group, a row counter, a constant, damaged
    numbers.
    """
    rng = np.random.default_rng(0)
    n = 80
    table = pd.DataFrame({"": range(n), "ID : №": [f"{i:03d}" for i in rng.permutation(n)]})
    for k, name in enumerate(ODD):
        table[name] = rng.choice(["C", "N", "CO"], n) if k % 2 else rng.normal(size=n).round(3)
    table["on: mol"] = smiles(n)
    table["same"], table["price"] = "x", [f"{i},5" for i in range(n)]
    targets = ["no", "score: [a], {b}"]
    train = table[:60].assign(
        cluster=[f"g{i % 7}" for i in range(60)], **{name: rng.normal(size=60) for name in targets}
    )
    test = table[60:].assign(late=1).sample(frac=1, random_state=0)
    sample = test[["ID : №"]].assign(**{"off": 0.0, "0": 0.0}).sample(frac=1, random_state=1)
    return write_tables(tmp_path, train, test, sample)


@pytest.mark.parametrize("options", [["--group", "cluster"], ["--preset", "gpu"]])
def test_odd_names_read_back_and_what_was_detected_guessed_and_left_out_is_printed(
    tmp_path: Path, odd: list[str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(tmp_path, odd, *options)
    competition, text, out = config.competition, (tmp_path / "mine.yaml").read_text(), capsys.readouterr().out
    assert (competition.id, competition.targets) == ("ID : №", ["no", "score: [a], {b}"])
    assert competition.submission_columns == ["off", "0"]
    assert (competition.numeric, competition.categorical, competition.smiles) == (
        ODD[::2],
        ODD[1::2],
        ["on: mol"],
    )
    assert r'"line\nend"' in text  # on one line, which every YAML reader takes
    assert competition.group == ("cluster" if "--group" in options else None)
    assert assign_folds(config.folds, prepare(competition).train, competition, 0)[0].shape == (60,)
    for words in (
        "GUESS, by order: in the sample off is no, 0 is score: [a], {b}",
        "left out: (no name): has no name",
        "left out: same: the same in every training row",
        "left out: late: only in test",
        "left out: price: WARNING: 80 of 80 cells are not numbers ('0,5', a decimal comma)",
        "left out: cluster: "
        + ("makes the folds" if competition.group else "only in train; if rows of one cluster"),
        "60 training rows, 20 test rows",
        f"./run.sh full {tmp_path / 'mine.yaml'}",
    ):
        assert words in out, words


@pytest.mark.parametrize(("preset", "warns"), [("gpu", True), ("cpu", False)])
def test_the_preset_for_gpus_says_that_it_was_never_run_on_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str, warns: bool
) -> None:
    config = make(tmp_path, write(tmp_path, s=smiles(80)), "--preset", preset)
    assert ("never run on a GPU" in capsys.readouterr().out) == warns
    assert config.stages["gnn"].gpu == (0.25 if preset == "gpu" else 1.0)


def test_the_yaml_holds_only_what_differs_and_its_lines_are_short(tmp_path: Path) -> None:
    files = write(tmp_path, 600, 20, s=smiles(620))
    make(tmp_path, files, "--answers", files[1])
    text = (tmp_path / "mine.yaml").read_text()
    document = yaml.safe_load(text)
    assert (document["stages"]["gnn"], document["folds"]) == ({"kind": "gnn"}, {"kind": "stratified"})
    assert document["competition"]["answers"] == "train.csv" and "submissions" not in document
    assert max(map(len, text.splitlines())) <= 120


def test_rows_that_cannot_be_read_are_dropped_and_reported_and_the_yaml_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = smiles(80)
    values[3], values[70] = "c1cc", ""
    files = write(tmp_path, s=values)
    assert make(tmp_path, files).competition.unparsable == "drop"
    text, captured = (tmp_path / "mine.yaml").read_text(), capsys.readouterr()
    assert "1 of train: row 5 (id " in text and "1 of test: row " in text
    assert "1 unreadable training rows are left out: 'm" in captured.out
    assert captured.err == ""
    assert make(tmp_path, write(tmp_path, s=smiles(80))).competition.unparsable == "error"


def test_what_prepare_finds_or_refuses_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, n_targets=2, n=NUMBER)
    train = pd.read_csv(tmp_path / "train.csv")
    train.loc[:4, "y1"] = np.nan
    write_table(tmp_path / "train.csv", train)
    make(tmp_path, files)
    assert "missing labels: y1 5" in capsys.readouterr().out
    write_table(Path(files[-1]), pd.read_csv(files[-1], dtype=str).iloc[1:])
    with pytest.raises(
        SubmissionError, match="Correct the data before ./run.sh full: .*sample.csv has other ids"
    ):
        commands.main(["new", str(tmp_path / "mine.yaml"), *files, "--force"])


def test_classes_are_written_out_with_what_their_folds_and_metric_need(tmp_path: Path) -> None:
    rare = [("sick" if i % 50 == 0 else "well") for i in range(300)]
    inputs = {"n": [k / 7 for k in range(320)], "k": ["p", "q"] * 160}
    files = write_labels(
        tmp_path, {"state": rare, "clinic": [f"c{i % 12}" for i in range(300)]}, {"state": 0}, **inputs
    )
    config = make(tmp_path, files, "--group", "clinic")
    competition = config.competition
    assert (competition.problem_type, competition.classes) == ("binary", ["well", "sick"])
    assert (competition.metric, config.folds.kind, config.folds.n_folds) == (
        "roc_auc",
        "stratified_group",
        10,
    )
    text = (tmp_path / "mine.yaml").read_text()
    assert "problem_type: binary  # GUESS: sick or well" in text
    assert "classes: [well, sick]  # GUESS: sick is the positive class, by its name" in text


def test_empty_cells_of_several_molecule_columns_are_counted_and_stood_for(tmp_path: Path) -> None:
    solvents = ["" if i % 4 == 0 else s for i, s in enumerate(smiles(80))]
    config = make(tmp_path, write(tmp_path, s=smiles(80), solvent_smiles=solvents))
    assert "distinct values; 20 cells are empty" in (tmp_path / "mine.yaml").read_text()
    assert (config.competition.empty_smiles, config.competition.unparsable) == ("[Ar]", "error")
    config = make(tmp_path, write(tmp_path, s=smiles(80), solvent_smiles=smiles(80)))
    assert config.competition.empty_smiles is None


def test_a_yaml_is_only_replaced_with_force_and_by_tables_that_can_be_read(tmp_path: Path) -> None:
    files, path = write(tmp_path, n=NUMBER), tmp_path / "mine.yaml"
    path.write_text("precious: true\n")
    with pytest.raises(ConfigError, match="--force"):
        commands.main(["new", str(path), *files])
    with pytest.raises(DataError, match="--answers: file .* does not exist"):
        make(tmp_path, files, "--answers", str(tmp_path / "absent.csv"))
    table = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text(table.replace(",", ";"))
    with pytest.raises(DataError, match="semicolons"):
        commands.main(["new", str(path), *files, "--force"])
    assert path.read_text() == "precious: true\n"
    (tmp_path / "train.csv").write_text(table)
    commands.main(["new", str(path), *files, "--force"])
    assert "competition" in yaml.safe_load(path.read_text())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the folder of the code, so that tests leave the real one alone."""
    folder = tmp_path / "project"
    (folder / "competition" / "configs").mkdir(parents=True)
    monkeypatch.setattr(core_files, "PROJECT", folder)
    monkeypatch.setattr(paths, "CONFIGS", folder / "competition" / "configs")
    return folder


def test_a_name_goes_next_to_the_code(tmp_path: Path, project: Path) -> None:
    files, elsewhere = (
        write(path, n=NUMBER) for path in (project / "competition" / "data" / "mine", tmp_path / "far")
    )
    commands.main(["new", "mine", *files])
    commands.main(["new", "other", *elsewhere])
    path = project / "competition" / "configs" / "mine.yaml"
    assert yaml.safe_load(path.read_text())["competition"]["train"] == "../data/mine/train.csv"
    assert load_config("mine").competition.train == Path(files[1])
    assert yaml.safe_load(path.with_name("other.yaml").read_text())["competition"]["train"] == elsewhere[1]


@pytest.mark.parametrize("name", ["a/b", "", "..", "with blank", "cache", "n" * 300])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="NAME takes up to 100 letters"):
        target_file(name, force=False)


def test_extra_tables_are_matched_by_column_and_calibrated_if_they_share_inputs(tmp_path: Path) -> None:
    files = write(tmp_path, mol=smiles(80))
    train = pd.read_csv(tmp_path / "train.csv")
    target = train.columns[-1]
    assert target != "mol"
    other = pd.DataFrame({"structure": [f"[13CH3]{text}" for text in train["mol"][:20]], "value": range(20)})
    shared = pd.DataFrame({"structure": train["mol"], "value": 3 * train[target] + 1})
    write_table(tmp_path / "other.csv", other)
    write_table(tmp_path / "shared.csv", shared)
    # The labels of the competition may be censored, and the option may be repeated.
    write_table(tmp_path / "train.csv", train.assign(**{target: ["<-5", *train[target][1:]]}))
    extra = ["--extra", str(tmp_path / "shared.csv"), "--extra", str(tmp_path / "other.csv")]
    with pytest.raises(DataError, match="other units"):  # nothing is shared, and the numbers are far off
        make(tmp_path, files, *extra)
    found = load_config(str(next(tmp_path.glob("*.yaml")))).competition.extra_train
    columns = {"mol": "structure", target: "value"}
    assert [table.columns for table in found] == [columns, columns]
    assert [table.calibrate for table in found] == ["affine", "none"]


def test_an_extra_table_without_a_column_like_an_input_or_with_several_targets_is_refused(
    tmp_path: Path,
) -> None:
    files = write(tmp_path, mol=smiles(80))
    for table, message in (
        (
            pd.DataFrame({"value": [1.0, 2.0]}),
            "has no column 'mol', the competition's input, and no column like it",
        ),
        (
            pd.DataFrame({"mol": ["CC", "CO"], "a": [1.0, 2.5], "b": [1.0, 2.0]}),
            "the competition's target, and several columns that may be it .'a', 'b'.. Rename its column",
        ),
    ):
        write_table(tmp_path / "more.csv", table)
        with pytest.raises(DataError, match=message):
            make(tmp_path, files, "--extra", str(tmp_path / "more.csv"))
