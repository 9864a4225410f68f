"""What stages, workers and `full` do about GPUs, on a machine without one."""

import os
from contextlib import closing

import pytest
import torch

from core.errors import ConfigError
from models import hardware
from models.hardware import Card, require_opencl
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Queue, Resources, Task, run
from pipeline import commands
from pipeline.full import full
from tests.conftest import mixed_tables, write_competition

CARD = Card("0", 80.0, True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("Memory Object Allocation Failure", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        ("CUDA error: device-side assert triggered", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_messages_of_all_libraries_about_too_little_memory_are_recognised(message, expected):
    assert hardware.is_out_of_memory(message) == expected


def see_a_v100():
    def no_kernel(*size, device):
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCompile with"
        )

    properties = type("Properties", (), {"name": "V100", "total_memory": 2**34, "major": 7})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        patch.setattr(torch, "ones", no_kernel)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return hardware.visible_cards()


def test_cards_are_listed_by_another_process_and_a_broken_torch_is_an_error_with_advice(
    monkeypatch,
):
    cards, reason = hardware.cards_in_new_process()
    assert len(cards) == torch.cuda.device_count()
    assert cards or "sees no GPU" in reason
    monkeypatch.setattr(hardware, "visible_cards", broken_torch)
    message = r"torch cannot be imported .*: libcudart is missing\. Set precision: auto"
    with pytest.raises(ConfigError, match=message):
        hardware.cards_in_new_process()


def broken_torch():
    raise ImportError("libcudart is missing")


def test_a_card_without_kernels_is_named_and_its_jobs_train_on_the_cores(monkeypatch, capsys):
    monkeypatch.setattr("models.jobs.local.visible_cards", see_a_v100)
    task = Task("network", os.getenv, ("CUDA_VISIBLE_DEVICES",), Resources(1, 1.0))
    with closing(LocalExecutor(1)) as executor:
        assert run(Queue([task]), executor)["network"].status == "ok"
        assert [slot.card for slot in executor.idle] == [""]  # not the worker that sees the card
    assert "cannot compute on V100 (CUDA error: no kernel image" in capsys.readouterr().out


def test_a_worker_whose_task_failed_on_a_card_is_not_used_again():
    """After an error of CUDA its process cannot use the card any more. Here, torch sees no card."""
    tasks = [Task("on the card", os.getpid, (), Resources(1, 1.0)), Task("on the cores", os.getpid)]
    with closing(LocalExecutor(2, cards=[CARD])) as executor:
        results = run(Queue(tasks), executor)
        assert [slot.card for slot in executor.idle] == [""]
    assert (results["on the card"].status, results["on the cores"].status) == ("failed", "ok")


@pytest.mark.parametrize(
    ("settings", "budget", "expected"),
    [
        ({"gpu": 0.5}, "1m", r"(?s)the driver is too old.*--set stages\.net\.gpu=false"),
        ({}, "2h", r"(?s)the driver is too old.*--set stages\.net\.gpu=false"),
        ({}, "1m", "reached"),
        ({"gpu": False}, "2h", "reached"),
    ],
)
def test_full_stops_before_training_if_stages_rely_on_a_gpu_that_torch_does_not_see(
    settings, budget, expected, tmp_path, monkeypatch
):
    def reached(*arguments):
        raise ConfigError("reached")

    no_cards = ([], "torch sees no GPU: the driver is too old")
    monkeypatch.setattr(hardware, "NVIDIA_DRIVERS", (tmp_path / "none", tmp_path))
    monkeypatch.setattr(hardware, "cards_in_new_process", lambda: no_cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("pipeline.full.prepare", reached)
    path = write_competition(tmp_path, *mixed_tables(), stages={"net": {"kind": "gnn", **settings}})
    with pytest.raises(ConfigError, match=expected):
        full(commands.parse(["full", str(path), "--budget", budget]))


def test_a_gpu_without_opencl_is_an_error_of_lightgbm_before_training(
    monkeypatch,
):
    cards = [CARD]
    monkeypatch.setattr(hardware, "cards_in_new_process", lambda: (cards, ""))
    with pytest.raises(ConfigError, match=r"(?s)No OpenCL device found.*nvidia\.icd.*gpu: false"):
        require_opencl()
    cards.clear()
    require_opencl()
