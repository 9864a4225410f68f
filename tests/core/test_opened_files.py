"""Files that user code opens are known by their content, however the code names them."""

import json
import sqlite3

import numpy as np
import pandas as pd
import pytest
from rdkit.Chem import MolFromSmiles, MolToMolBlock
from safetensors.numpy import save_file

from core.files import write_atomically
from core.opened_files import GONE
from core.user_code import changed_files, files_to_copy, load_user_code, opened_files
from tests.conftest import new_process

START = """import glob, importlib, json, os, sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import pandas as pd
from rdkit.Chem import SDMolSupplier
HERE = Path(__file__).parent
def f(name="first"):
    return """


@pytest.fixture
def here(tmp_path):
    """A folder of user code, whose data is below it; `link.json` is a link to a file elsewhere."""
    folder = tmp_path / "code"
    write_atomically(folder / "data" / "first.json", "[1]")
    write_atomically(tmp_path / "elsewhere.json", "[1]")
    np.save(folder / "data" / "first.npy", np.ones(1))
    pd.DataFrame({"k": [1]}).to_csv(folder / "data" / "first.csv")
    pd.DataFrame({"k": [1]}).to_parquet(folder / "data" / "first.parquet")
    (folder / "data" / "first.sdf").write_text(MolToMolBlock(MolFromSmiles("CC")) + "$$$$\n")
    save_file({"k": np.ones(1)}, folder / "data" / "first.safetensors")
    with sqlite3.connect(folder / "data" / "first.db") as base:
        base.execute("create table numbers(k int)")
    (folder / "link.json").symlink_to(tmp_path / "elsewhere.json")
    return folder


def called(here, code, file="mine.py"):
    """What a function of a user's file opened, with its reference; the process has executed nothing of it before."""
    write_atomically(here / file, code)
    code_ref = f"{here / file}:f"
    load_user_code("code", code_ref, "f()")()
    return code_ref, opened_files(code_ref)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ('json.loads((HERE / "data" / f"{name}.json").read_text())', "data/first.json"),
        ('open(f"{HERE}/data/{name}.json").read()', "data/first.json"),
        ('[Path(path).read_text() for path in glob.glob(f"{HERE}/data/*.json")]', "data/first.json"),
        ('[path.read_bytes() for path in HERE.glob("*/f*.json")]', "data/first.json"),
        ('os.read(os.open(HERE / "data" / f"{name}.json", os.O_RDONLY), 9)', "data/first.json"),
        ('(HERE / ("link" + ".json")).read_text()', "link.json"),
        ('np.load(HERE / "data" / f"{name}.npy")', "data/first.npy"),
        ('pd.read_csv(HERE / "data" / f"{name}.csv")', "data/first.csv"),
        ('pd.read_csv(HERE / "data" / f"{name}.csv", engine="python")', "data/first.csv"),
        ('pd.read_parquet(HERE / "data" / "first.parquet")', "data/first.parquet"),
        ('sqlite3.connect(HERE / "data" / f"{name}.db").close()', "data/first.db"),
        ('[pd.read_parquet(path) for path in HERE.glob("*/*.parquet")]', "data/"),
        ('pd.read_parquet(HERE / "data" / f"{name}.parquet")', "data/first.parquet"),
        ('pd.read_parquet((HERE / "data" / name).with_suffix("." + "parquet"))', "data/first.parquet"),
        ('len(SDMolSupplier(f"{HERE}/data/{name}.sdf"))', "data/first.sdf"),
        (
            'importlib.import_module("safetensors.numpy").load_file(f"{HERE}/data/{name}.safetensors")',
            "data/first.safetensors",
        ),
        ('[*ThreadPoolExecutor(1).map(np.load, [f"{HERE}/data/{name}.npy"])]', "data/first.npy"),
    ],
)
def test_a_file_counts_by_its_content_however_code_names_and_reads_it(here, code, name):
    code_ref, opened = called(here, START + code)
    assert name in opened["mine.py"]
    assert changed_files(code_ref, opened) == {}
    (here / name / "first.parquet" if name == "data/" else here / name).write_bytes(b"edited")
    assert name in changed_files(code_ref, opened)
    assert json.loads(json.dumps(opened)) == opened


def test_a_file_that_a_module_reads_when_it_is_imported_counts_for_each_user_file_that_imports_it(here):
    reads = "from pathlib import Path\nRATES = Path(__file__).parents[1].joinpath('data', 'first.json').read_text()\n"
    write_atomically(here / "tools" / "rates.py", reads)
    for file in ("mine.py", "other.py"):
        _, opened = called(here, "from tools.rates import RATES\ndef f():\n    return RATES\n", file)
        assert opened[file].keys() == {"data/first.json"}


def test_code_outputs_hidden_files_and_those_of_other_folders_do_not_count(here, monkeypatch):
    """Nor does a list of the files of the folder itself, in which libraries look for modules."""
    monkeypatch.setenv("WORK_DIR", str(here / "work"))
    names = [".hidden/a", "work/a", "env/lib/site-packages/a", "../elsewhere"]
    for name in names:
        write_atomically(here / f"{name}.json", "[1]")
    reads = f"[open(f'{{HERE}}/{{file}}.json').read() for file in {names}], os.listdir(HERE), open(__file__).read()"
    _, opened = called(here, START + reads)
    assert opened == {"mine.py": {}}


def test_a_file_that_the_code_wrote_itself_is_no_input_and_one_that_it_did_not_find_is(here):
    code = """(HERE / f"{name}.log").write_text("a") + len((HERE / f"{name}.log").read_text())
def g():
    try:
        return open(HERE / "data" / "absent.json").read()
    except FileNotFoundError:
        return "[]"
def f(g=g, f=f):
    return f(), g()
"""
    code_ref, opened = called(here, START + code)
    assert opened == {"mine.py": {"data/absent.json": GONE}}
    (here / "first.log").write_text("b")
    assert changed_files(code_ref, opened) == {}
    (here / "data" / "absent.json").write_text("[1]")
    assert [*changed_files(code_ref, opened)] == ["data/absent.json"]


def test_an_edited_and_a_new_file_in_a_folder_that_the_code_lists_are_changes(here):
    code_ref, opened = called(here, START + 'sorted((HERE / "data").iterdir())')
    (here / "data" / "deep").mkdir()
    assert changed_files(code_ref, opened) == {}
    for name in ("first.json", "second.json"):
        (here / "data" / name).write_text("edited")
        assert [*changed_files(code_ref, opened)] == ["data/"]
        opened = opened_files(code_ref) | {"mine.py": {"data/": changed_files(code_ref, opened)["data/"]}}


def test_a_file_that_was_edited_between_two_readings_is_a_change(here):
    code_ref, _ = called(here, START + 'open(f"{HERE}/data/{name}.json").read()')
    (here / "data" / "first.json").write_text("[2]")
    load_user_code("code", code_ref, "f()")()
    assert [*changed_files(code_ref, opened_files(code_ref))] == ["data/first.json"]
    new_process()
    load_user_code("code", code_ref, "f()")()
    assert changed_files(code_ref, opened_files(code_ref)) == {}


def test_two_user_files_of_one_name_have_their_own_folders(here, tmp_path):
    code = START + 'open(f"{HERE}/data/{name}.json").read()'
    write_atomically(tmp_path / "b" / "mine.py", "def f():\n    return 1\n")
    code_ref, opened = called(here, code)
    settings = [code_ref, f"{tmp_path}/b/mine.py:f"]
    assert changed_files(settings, opened) == {}
    (here / "data" / "first.json").write_text("[2]")
    assert [*changed_files(settings, opened)] == ["data/first.json"]


def test_what_was_opened_is_copied_with_the_code_and_all_of_a_folder_that_was_listed(here):
    write_atomically(here / "data" / "deep" / "far.json", "[]")
    write_atomically(here / "helper.py", 'NAMED = "link.json"\n')
    code_ref, opened = called(here, "import helper\n" + START + 'os.listdir(f"{HERE}/data")')
    names = [
        f"data/first.{suffix}" for suffix in ("csv", "db", "json", "npy", "parquet", "safetensors", "sdf")
    ]
    copied = files_to_copy(here / "mine.py", opened)
    assert copied == sorted(here / name for name in (*names, "helper.py", "link.json", "mine.py"))
