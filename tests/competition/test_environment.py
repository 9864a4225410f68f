"""An interpreter that is not ours is checked against pyproject.toml, and the advice fits where it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from competition.environment import within
from competition.paths import PROJECT


@pytest.mark.parametrize(
    ("variables", "advice", "wrong"),
    [
        ({}, "pip install -r", "--training"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "./run.sh kernel NAME --training", "pip install"),
    ],
)
def test_what_to_do_about_missing_packages_depends_on_the_machine(
    variables: dict[str, str], advice: str, wrong: str
) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "KAGGLE_KERNEL_RUN_TYPE"}
    bare = [sys.executable, "-I", "-S", str(PROJECT / "competition" / "environment.py")]  # without any package
    done = subprocess.run(bare, env=clean | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "torch is missing, needed torch>=" in done.stderr
    assert advice in done.stderr and wrong not in done.stderr


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [("2.13.0+cpu", ">=2.10,<3", True), ("2.9", ">=2.10", False), ("3.0", "<3", False), ("0.1.6", "==0.1.6", True)],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, fits: bool) -> None:
    assert within(version, wanted) is fits
