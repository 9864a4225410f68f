"""User-defined features: when they are computed, read from the work folder, and refused."""

import os
import re
from contextlib import suppress

import pytest

from competition import clean
from competition.config import load_competition
from competition.prepare import prepare
from core.errors import ConfigError
from tests.competition.small import TRAIN, write_small
from tests.conftest import new_process

CODE = """import os
from pathlib import Path
from shift import SHIFT
SCALE = Path(__file__).with_name("scale.txt")
def make(table):
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{len(table)} ")
    return {"n": table["SMILES"].str.len() * float(SCALE.read_text()) + SHIFT}
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A competition of six training rows, one of them twice, and two test rows."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "shift.py").write_text("SHIFT = 0\n")
    (tmp_path / "scale.txt").write_text("2")
    return write_small(tmp_path, [*TRAIN, "g,CCO,1.5"], features="mine.py:make")


def prepared(path):
    return prepare(load_competition(str(path)))


def calls(path):
    """Rows of the calls of the function while the tables are prepared, and the feature of the first row, CCO."""
    file = path.with_name("calls")
    file.write_text("")
    feature = prepared(path).train["feature n"]
    assert feature[6] == feature[0]
    return file.read_text().strip(), feature[0]


ALL = "2 1 1 6 3 1"
"""Calls for two test rows and six training rows. Each table is checked on half of its rows, and on one."""


CHECKED = "2 3"
"""Calls for rows of each table whose features are kept, to see that they are still the same."""


def test_features_are_computed_once_per_distinct_row_and_a_new_row_alone(path):
    assert calls(path) == (ALL, 6)
    assert calls(path) == (CHECKED, 6)
    assert "columns of competition.features: n" in prepared(path).report["said"]
    path.with_name("test.csv").write_text("id,SMILES\nt1,CCCC\nt2,CCBr\nt3,CCCCC\nt4,CCO\n")
    path.with_name("sample.csv").write_text("id,y\nt1,0\nt2,0\nt3,0\nt4,0\n")
    assert calls(path) == ("3 1 1 1 3", 6)


@pytest.mark.parametrize("name", ['"scale.txt"', '"scale" + ".txt"'])
def test_an_edit_of_the_code_of_a_helper_or_of_a_file_that_it_opens_computes_features_again(path, name):
    code = CODE.replace('"scale.txt"', name)
    path.with_name("mine.py").write_text(code)
    assert calls(path)[1] == 6
    for name, text, feature in (
        ("shift.py", "SHIFT = 1\n", 7),
        ("scale.txt", "3", 10),
        ("mine.py", code.replace("+ SHIFT", "- SHIFT"), 8),
    ):
        new_process()
        path.with_name(name).write_text(text)
        assert calls(path) == (ALL, feature)
        assert calls(path) == (CHECKED, feature)


@pytest.mark.parametrize("n_written", [0, 1])
def test_a_kill_while_features_are_written_keeps_no_number_of_before_an_edit(path, monkeypatch, n_written):
    """The edit changes the number of a row that is not among those that are computed again to see it."""
    scale = "np.where(table['SMILES'] == 'CCC', float(SCALE.read_text()), 1)"
    code = CODE.replace("float(SCALE.read_text())", scale)
    path.with_name("mine.py").write_text(f"import numpy as np\n{code}")
    assert prepared(path).train["feature n"][1] == 6
    path.with_name("scale.txt").write_text("5")
    replace, renamed = os.replace, []

    def killed(source, target):
        if len(renamed) == n_written:
            raise KeyboardInterrupt
        renamed.append(target)
        replace(source, target)

    new_process()
    with monkeypatch.context() as changed, suppress(KeyboardInterrupt):
        changed.setattr(os, "replace", killed)
        prepared(path)
    new_process()
    assert prepared(path).train["feature n"][1] == 15


def test_a_file_that_was_opened_and_has_changed_is_named(path, capsys):
    assert prepared(path).report["opened"]["mine.py"].keys() == {"scale.txt"}
    path.with_name("scale.txt").write_text("3")
    new_process()
    prepared(path)
    said = capsys.readouterr().out
    assert said.count("scale.txt: changed, so all features of mine.py:make are computed again\n") == 1


def test_a_file_that_was_opened_for_other_rows_counts(path):
    """Later processes compute a few rows again, and open no file for the others."""
    opens = "    if len(table) == 6:\n        Path(SCALE).with_name('of' + '_six').read_text()\n    return {"
    path.with_name("of_six").write_text("1")
    path.with_name("mine.py").write_text(CODE.replace("    return {", opens))
    assert calls(path) == (ALL, 6)
    for text, expected in (("1", CHECKED), ("2", ALL)):
        new_process()
        path.with_name("of_six").write_text(text)
        assert calls(path)[0] == expected


def test_other_numbers_than_those_kept_make_all_features_new_whatever_changed_them(path, capsys):
    """The file is in another folder, so that its content is not known to have changed."""
    scale = path.parent.parent / f"{path.parent.name}_scale"
    scale.write_text("2")
    path.with_name("mine.py").write_text(
        CODE.replace('Path(__file__).with_name("scale.txt")', f"Path({str(scale)!r})")
    )
    assert calls(path)[1] == 6
    scale.write_text("5")
    assert calls(path)[1] == 15
    assert "WARNING: mine.py:make returns other numbers than in an earlier command" in capsys.readouterr().out
    assert calls(path) == (CHECKED, 15)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("table['SMILES'].str.len().rank().to_frame()", "different numbers when other rows are missing"),
        ("table['absent']", "must return a table of numbers .*KeyError"),
        ("{'n': [None] * len(table)}", "returned only missing values"),
        ("{'n': [float('inf')] * len(table)}", "returned . infinite values, in n"),
    ],
)
def test_a_function_that_cannot_be_trusted_is_refused(path, result, words):
    path.with_name("mine.py").write_text(f"def make(table):\n    return {result}\n")
    with pytest.raises(ConfigError, match=words):
        prepared(path)


def test_counts_that_only_later_rows_have_are_refused(path, monkeypatch):
    monkeypatch.setattr(clean, "FIRST_ROWS", 2)
    path.with_name("mine.py").write_text(
        "def make(table):\n    return {'n': [float(len(table) > 3)] * len(table)}\n"
    )
    with pytest.raises(ConfigError, match="different numbers when other rows are missing"):
        prepared(path)


def test_what_was_computed_before_a_failure_is_kept(path, monkeypatch):
    monkeypatch.setattr(clean, "FIRST_ROWS", 4)
    last = TRAIN[-1].split(",")[1]
    fails = (
        f"    if 'FAIL' in os.environ and {last!r} in list(table['SMILES']):\n        1 / 0\n    return {{"
    )
    path.with_name("mine.py").write_text(CODE.replace("    return {", fails))
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        prepared(path)
    monkeypatch.delenv("FAIL")
    assert calls(path)[0] == f"{CHECKED} 2 1 1"  # the last are two of six rows


def test_a_file_that_the_function_writes_in_its_own_folder_is_no_input(path):
    path.with_name("mine.py").write_text(CODE.replace('os.environ["CALLS"]', 'SCALE.with_name("calls")'))
    assert calls(path)[0] == ALL
    new_process()
    assert calls(path)[0] == CHECKED


def test_other_columns_for_other_rows_are_an_error(path):
    result = "{'bromine' if table['SMILES'].str.contains('Br').any() else 'n': [1.0] * len(table)}"
    path.with_name("mine.py").write_text(f"def make(table):\n    return {result}\n")
    path.with_name("test.csv").write_text("id,SMILES\nt1,CCCC\nt2,CCO\n")
    assert "feature n" in prepared(path).test
    path.with_name("test.csv").write_text("id,SMILES\nt1,CCCC\nt2,BrBr\n")
    with pytest.raises(ConfigError, match="returned the columns bromine for some rows, and n for others"):
        prepared(path)


PAUSING = """import os, time
def make(table):
    time.sleep(float(os.environ["PAUSE"]) * len(table))
    if "FAIL" in os.environ and "CCCl" in list(table["SMILES"]):
        raise KeyError("weights")
    return {"n": table["SMILES"].str.len(), "process": [os.getpid()] * len(table)}
"""


@pytest.fixture
def slow(path, monkeypatch):
    """The competition with a function that takes a fiftieth of a second per row, and workers for hundredths."""
    path.with_name("mine.py").write_text(PAUSING.replace("[os.getpid()]", "[0]"))
    monkeypatch.setenv("PAUSE", "0.02")
    monkeypatch.setattr(clean, "FIRST_ROWS", 2)
    monkeypatch.setattr(clean, "MIN_SECONDS_OF_WORKER", 0.01)
    monkeypatch.setattr(clean, "SECONDS_PER_CALL", 0.005)
    return path


def test_features_that_take_long_are_computed_by_several_processes_in_the_order_of_the_rows(
    slow, capsys, monkeypatch
):
    code = PAUSING.replace("[os.getpid()]", "[float(os.getpid() != int(os.environ['DRIVER']))]")
    slow.with_name("mine.py").write_text(code)
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    train = prepare(load_competition(str(slow)), n_workers=2).train
    assert train["feature n"].tolist() == train["SMILES"].str.len().tolist()
    assert train["feature process"].tolist() == [0, 0, 1, 1, 1, 1, 0]
    said = capsys.readouterr().out
    assert "mine.py:make: computing features of 6 rows\n" in said
    assert re.search(r"mine\.py:make: the other 4 take about 0\.\d+ s \(workers: 2\)\n", said)
    assert re.search(r"mine\.py:make: \d+% of them, .* left\n", said)


def test_many_parts_are_written_a_few_times_and_an_interruption_keeps_all_that_are_finished(
    slow, monkeypatch
):
    """Parts are single rows. The third part of the training rows is interrupted, and two rows are left."""
    n_rows, content = list[int](), clean.as_parquet
    monkeypatch.setattr(
        clean, "as_parquet", lambda table, **given: n_rows.append(len(table)) or content(table, **given)
    )

    def until_interrupted(tables, code_ref, n_workers):
        for number, table in enumerate(tables):
            if number == 2:
                raise KeyboardInterrupt
            yield clean._compute_in_worker(table, code_ref)[0]

    with monkeypatch.context() as changed:
        changed.setattr(clean, "_compute_by_workers", until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(load_competition(str(slow)), n_workers=2)
    assert n_rows == [2, 6]
    monkeypatch.setattr(clean, "MIN_SECONDS_BETWEEN_WRITES", 0)
    prepare(load_competition(str(slow)), n_workers=2)
    assert n_rows == [2, 6, 8]


def test_an_error_in_another_process_is_one_sentence_with_the_line_and_what_it_opens_is_recorded(
    slow, monkeypatch
):
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(ConfigError, match=r"mine\.py:make must .*KeyError in line 5: 'weights'\.$"):
        prepare(load_competition(str(slow)), n_workers=2)
    monkeypatch.delenv("FAIL")
    opens = "    if 'CCCl' in [*table['SMILES']]: open(__file__[:-7] + 'scale' + '.txt')\n    return"
    slow.with_name("mine.py").write_text(PAUSING.replace("os.getpid()", "0").replace("    return", opens))
    opened = prepare(load_competition(str(slow)), n_workers=2).report["opened"]
    assert opened["mine.py"].keys() == {"scale.txt"}


def test_a_table_in_another_order_is_matched_by_its_index_and_another_index_is_refused(path):
    for result, message in (
        ("table.assign(n=table['SMILES'].str.len())[['n']].sort_values('n', ascending=False)", None),
        (
            "table.assign(n=1.0).set_index('SMILES')",
            r"index of the table, 'CCCC', 'CCBr', does not name its rows, 0, 1\.",
        ),
    ):
        path.with_name("mine.py").write_text(f"def make(table):\n    return {result}\n")
        if message is None:
            train = prepared(path).train
            assert train["feature n"].tolist() == train["SMILES"].str.len().tolist()
            continue
        with pytest.raises(ConfigError, match=message):
            prepared(path)
