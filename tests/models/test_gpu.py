"""What stages, workers and `full` do about GPUs, on a machine without one."""

import os
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from competition.task import Task as Target
from core.errors import ConfigError
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import Queue, Resources, Task, run
from models.stages.catboost import Catboost
from models.training import hardware, trainer
from models.training.hardware import Card, require_opencl
from pipeline.full import full
from tests.models import made
from tests.models.test_neural import rows, stage
from tests.pipeline.made import options, small

CARD = Card("0", 80.0, True)


@pytest.mark.parametrize(("problem_type", "n_classes"), [("regression", 0), ("binary", 2), ("multiclass", 3)])
def test_catboost_accepts_the_options_for_a_card(
    problem_type: Any, n_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It checks them before it asks for the driver, which is missing here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Catboost.model_validate({"kind": "catboost", "gpu": 1.0, "max_trees": 2})
    task = Target(["y"], problem_type=problem_type, classes=[str(c) for c in range(n_classes)])
    x = np.arange(60.0)
    train = made.rows(x % n_classes if n_classes else x, x=x)
    with pytest.raises(ConfigError, match="(?i)cuda") as raised:
        config.fit(train, tmp_path, made.context(tmp_path, numeric=["x"], task=task))
    assert "catboost_options" not in str(raised.value)


def test_nothing_of_a_network_is_left_after_a_fit_and_after_each_halving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[weakref.ref[nn.Module]] = []
    fit = trainer.Trainer.fit

    def full_at_first(self: trainer.Trainer, *sets: Any) -> bool:
        assert all(network() is None for network in networks)
        networks.append(weakref.ref(self.network))
        if len(networks) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return fit(self, *sets)

    monkeypatch.setattr(trainer.Trainer, "fit", full_at_first)
    stage(weight_averaging="ema").fit(rows(), tmp_path)
    assert [network() for network in networks] == [None] * 3


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
def test_messages_of_all_libraries_about_too_little_memory_are_recognised(
    message: str, expected: bool
) -> None:
    assert hardware.is_out_of_memory(message) == expected


def see_a_v100() -> tuple[list[Card], str]:
    def no_kernel(*size: int, device: int) -> None:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCompile with ..."
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards, reason = hardware.cards_in_new_process()
    assert len(cards) == torch.cuda.device_count()
    assert cards or "sees no GPU" in reason
    monkeypatch.setattr(hardware, "visible_cards", broken_torch)
    with pytest.raises(
        ConfigError, match=r"torch cannot be imported .*: libcudart is missing\. Set precision: auto"
    ):
        hardware.cards_in_new_process()


def broken_torch() -> None:
    raise ImportError("libcudart is missing")


def test_a_card_without_kernels_is_named_and_its_jobs_train_on_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.jobs.local.visible_cards", see_a_v100)
    task = Task("network", os.getenv, ("CUDA_VISIBLE_DEVICES",), Resources(1, 1.0))
    with closing(LocalExecutor(1)) as executor:
        assert run(Queue([task]), executor, "tasks")["network"].status == "ok"
        assert [slot.card for slot in executor.idle] == [""]
        assert len(executor.idle) == 1  # not the worker that sees the card
    assert "cannot compute on V100 (CUDA error: no kernel image" in capsys.readouterr().out


def test_a_worker_whose_task_failed_on_a_card_is_not_used_again() -> None:
    """After an error of CUDA its process cannot use the card any more. Here, torch sees no card."""
    tasks = [Task("on the card", os.getpid, (), Resources(1, 1.0)), Task("on the cores", os.getpid)]
    with closing(LocalExecutor(2, cards=[CARD])) as executor:
        results = run(Queue(tasks), executor, "tasks")
        assert executor.fits(Resources())
        assert [slot.card for slot in executor.idle] == [""]
    assert {name: result.status for name, result in results.items()} == {
        "on the card": "failed", "on the cores": "ok"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gpu", "budget", "stops"),
    [(0.5, "1m", True), (None, "2h", True), (None, "1m", False), (False, "2h", False)],
)
def test_full_stops_before_training_if_stages_rely_on_a_gpu_that_torch_does_not_see(
    gpu: float | None, budget: str, stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(
        hardware, "cards_in_new_process", lambda: ([], "torch sees no GPU: the driver is too old")
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    network = {"kind": "gnn"} if gpu is None else {"kind": "gnn", "gpu": gpu}
    path = small(tmp_path, stages={"net": network}, competition={"smiles": ["molecule"]})
    monkeypatch.setattr("pipeline.full.prepare", reached)
    with pytest.raises(ConfigError if stops else Reached) as raised:
        full(options(path, "--budget", budget))
    assert not stops or all(
        part in str(raised.value) for part in ("the driver is too old", "--set stages.net.gpu=false")
    )


class Reached(Exception):
    """The step after the check of the GPU."""


def reached(*arguments: object) -> None:
    raise Reached


def test_a_gpu_without_opencl_is_an_error_of_lightgbm_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.training.hardware.cards_in_new_process", lambda: ([CARD], ""))
    with pytest.raises(ConfigError, match=r"(?s)No OpenCL device found.*nvidia\.icd.*gpu: false"):
        require_opencl()
    monkeypatch.setattr("models.training.hardware.cards_in_new_process", lambda: ([], ""))
    require_opencl()
