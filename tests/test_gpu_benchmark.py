"""The checks of a card, as far as they run on the cores."""

import pytest
import torch

from benchmarks import gpu


def test_without_a_card_it_reports_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "torch sees no card on this machine, so there is nothing to check.\n"


@pytest.mark.parametrize(
    "name", ["env", *(pytest.param(name, marks=pytest.mark.slow) for name in ("small", "speed", "resume"))]
)
def test_each_check_passes_with_small_networks_on_the_cores(name, capsys):
    assert gpu.main(["--tiny", "--only", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and lines[-1] == "0 failed; left out for time: nothing"


def test_an_error_and_a_difference_are_failures(tmp_path, monkeypatch, capsys):
    checks = gpu.Checks(tmp_path, tiny=True)
    monkeypatch.setattr(gpu.Checks, "distance", lambda *_: 0.1)
    monkeypatch.setattr(gpu.Case, "fit", lambda *_, **__: None)
    monkeypatch.setattr(gpu.Checks, "speed", lambda self: 1 / 0)
    assert gpu.run(checks, ["small", "speed"], end=float("inf")) == []
    assert checks.n_failed == len(gpu.SMALL) + 1
    assert "FAIL speed: ZeroDivisionError" in capsys.readouterr().out
    assert gpu.run(checks, ["speed"], end=0.0) == ["speed"]
