"""`fit` of several programs and threads at once, and in scripts with packages of their own."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import wraps

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError
from core.files import PROJECT
from core.user_code import PACKAGES
from pipeline import NEEDED, api, commands
from pipeline.api import fit

MINE = """
import numpy as np

def third_power(table):
    return {"cube": table["x"].astype(float) ** 3}

def turns(data):
    return data.rows["x"].rank().astype(int) % data.n_folds

def median_error(y_true, y_pred):
    return float(np.median(np.abs(y_true - y_pred)))
"""
SMALL = {
    "targets": "y",
    "stages": {"s": {"kind": "baseline"}},
    "submissions": {"trials": 2, "stack": False},
    "workers": 1,
}


def table(n_rows, start=0.0):
    x = np.linspace(-2, 2, n_rows)
    return pd.DataFrame({"x": x, "y": start + x**3})


def in_thread(*arguments, **settings):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fit, *arguments, **settings).result()


@pytest.mark.usefixtures("jobs_in_process")
def test_a_second_call_with_a_name_is_refused_at_any_moment_and_changes_nothing_of_the_first(monkeypatch):
    n_refused = 0

    def call_again_before(module, name):
        step = getattr(module, name)

        @wraps(step)  # a command has the name of its function
        def together(*arguments):
            nonlocal n_refused
            monkeypatch.setattr(module, name, step)
            with pytest.raises(DataError, match=r"/shared is in use .* or use another name\."):
                in_thread(table(40, start=500.0), name="shared", **SMALL)
            n_refused += 1
            return step(*arguments)

        monkeypatch.setattr(module, name, together)

    call_again_before(commands, "new")
    call_again_before(commands, "full")
    call_again_before(api, "latest_run")
    train = table(30)
    oof = fit(train, name="shared", folds={"n_folds": 3}, **SMALL).oof()
    assert n_refused == 3
    np.testing.assert_array_equal(oof["y"], train["y"])


@pytest.mark.usefixtures("jobs_in_process")
def test_a_thread_fits_with_functions_of_the_user(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    run = in_thread(
        table(30),
        name="in_thread",
        folds={"kind": f"{tmp_path}/mine.py:turns", "n_folds": 3},
        metric=f"{tmp_path}/mine.py:median_error",
        greater_is_better=False,
        features=f"{tmp_path}/mine.py:third_power",
        **SMALL,
    )
    oof = run.oof()
    assert list(oof["fold"]) == [1, 2, 0] * 10
    assert run.choice.submitted.score == pytest.approx((oof["y"] - oof["submission y"]).abs().median())


def script(folder, code):
    """Status and stderr of a script in a folder that imports the package `pipeline`."""
    (folder / "script.py").write_text(f"import sys\n{code}\nimport pipeline\n")
    command = [
        sys.executable,
        "-I",
        str(folder / "script.py"),
    ]  # -I: without PYTHONPATH and the script's folder
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("module", "found", "code"),
    [
        ("models/__init__.py", "models", "sys.path[:0] = [{here!r}, {project!r}]"),
        ("folds.py", "folds.py", "sys.path[:0] = [{here!r}, {project!r}]"),
        # without an __init__.py, and imported before the project came first
        ("core/mine.py", "core", "sys.path[:0] = [{here!r}]; import core.mine; sys.path[:0] = [{project!r}]"),
    ],
)
def test_a_package_elsewhere_with_a_name_of_ours_is_an_error_with_both_places(tmp_path, module, found, code):
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).touch()
    status, error = script(tmp_path, code.format(here=str(tmp_path), project=str(PROJECT)))
    name = found.removesuffix(".py")
    assert status == 1
    assert (
        f"ImportError: pipeline needs {PROJECT / name}, but Python finds {name!r} in {tmp_path / found}."
        in error
    )
    assert "Rename the latter; or, if your code does not import it, start with: import sys; sys.path" in error


def test_a_package_elsewhere_that_comes_after_ours_does_not_matter(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    assert script(tmp_path, f"sys.path[:0] = [{str(PROJECT)!r}, {str(tmp_path)!r}]") == (0, "")


def test_all_packages_that_the_program_needs_are_looked_for():
    assert {*NEEDED} == {*PACKAGES} - {"pipeline", "studies"}
