"""The benchmark for a card, by what of it can be tested on the cores."""

import threading
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_without_a_card_it_reports_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "torch sees no card on this machine, so there is nothing to measure.\n"


def test_a_training_is_timed_and_its_weights_can_be_predicted_with(tmp_path: Path) -> None:
    case = gpu.Case("gnn", tmp_path, tiny=True)
    alone = threading.Barrier(1)
    assert gpu.time_training(case, compiled=False, seconds=0.1, barrier=alone, samples_card=True)["rows"] > 0
    gpu.fit(case, tmp_path)
    assert (gpu.predict(case, tmp_path, "auto") == gpu.predict(case, tmp_path, "float32")).all()
    assert gpu.predict(case, tmp_path, "auto").std() > 0
