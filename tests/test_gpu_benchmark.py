"""The benchmark for a card, by what of it can be tested on the cores."""

import threading

import pytest
import torch

from benchmarks import gpu


def test_without_a_card_it_reports_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "torch sees no card on this machine, so there is nothing to measure.\n"


def test_a_training_is_timed_and_its_weights_can_be_predicted_with(tmp_path):
    case = gpu.Case("gnn", tmp_path, tiny=True)
    alone = threading.Barrier(1)
    assert gpu.time_training(case, seconds=0.1, barrier=alone)["rows"] > 0
    gpu.fit(case, tmp_path)
    assert (gpu.predict(case, tmp_path, "auto") == gpu.predict(case, tmp_path, "float32")).all()
    assert gpu.predict(case, tmp_path, "auto").std() > 0


@pytest.mark.parametrize("name", [name for name in gpu.DECODERS if "NF4" not in name])  # which needs a card
def test_decoders_with_random_weights_are_timed(name, tmp_path):
    case = gpu.Case(name, tmp_path, tiny=True)
    alone = threading.Barrier(1)
    assert gpu.time_training(case, seconds=0.1, barrier=alone)["rows"] > 0
