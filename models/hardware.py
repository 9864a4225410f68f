"""The hardware of this machine: processor, GPUs, memory, and the precision that they support.

This module does not import torch; some of its functions do.
"""

import gc
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loky

from core.errors import ConfigError
from core.workers import new_pool

TRY_OPENCL = """
import lightgbm, numpy
x = numpy.arange(100.0)[:, None]
lightgbm.train({"device_type": "gpu", "verbosity": -1}, lightgbm.Dataset(x, x[:, 0]), 1)
"""
NVIDIA_DRIVERS = (Path("/proc/driver/nvidia"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
"""What a driver leaves on Linux, and on Linux in Windows."""
CONTEXT_GIB = 0.5
"""Memory of a card that CUDA takes for each process."""
OUT_OF_MEMORY = (
    "out of memory", "alloc_failed", "allocation failure", "can't allocate memory",
    "cudnn_status_not_supported",
)  # fmt: skip
"""Parts of the messages of torch, CUDA's libraries and OpenCL if memory ran out, in lower case."""


@dataclass(frozen=True)
class Card:
    """A GPU that torch sees.

    Attributes:
        name_for_cuda: its entry in CUDA_VISIBLE_DEVICES: a number, a UUID or a MIG instance.
        memory_gib: its memory in GiB.
        has_bf16: whether it multiplies in bf16: from compute capability 8 on; a T4 emulates it slowly.
        fault: why torch cannot compute on it; "" if it can.
    """

    name_for_cuda: str
    memory_gib: float
    has_bf16: bool
    fault: str = ""


def visible_cards() -> tuple[list[Card], str]:
    """Return the cards that torch sees in this process, and why it cannot use all or any. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
        except Exception as error:
            return [], f"torch {torch.__version__} sees no GPU: {' '.join(str(error).split())}"
        return [], f"torch {torch.__version__} sees no GPU"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (
        visible.replace(" ", "").split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    )
    cards = []
    for index, name in enumerate(names[: torch.cuda.device_count()]):
        properties = torch.cuda.get_device_properties(index)
        fault = ""
        try:
            torch.ones(2, device=index).sum().item()
        except RuntimeError as error:  # most often, this build of torch has no kernels for the card
            fault = f"{properties.name} ({str(error).splitlines()[0]})"
        cards.append(Card(name, properties.total_memory / 2**30, properties.major >= 8, fault))
    faults = ", ".join(card.fault for card in cards if card.fault)
    return cards, faults and (
        f"torch {torch.__version__} cannot compute on {faults}; older GPUs need its build for CUDA 12.6"
    )


def cards_in_new_process() -> tuple[list[Card], str]:
    """Return the cards that torch can use, and why not all or any, without importing torch in this process.

    Raises:
        ConfigError: if torch cannot be imported.
    """
    with new_pool(1) as process:
        try:
            cards, reason = process.submit(visible_cards).result()
        except Exception as error:  # what an import of a broken library raises
            raise ConfigError(
                f"torch cannot be imported to list the GPUs: {type(error).__name__}: {error}. "
                "Set precision: auto."
            ) from None
    return [card for card in cards if not card.fault], reason


def why_no_gpu() -> str:
    """Return why torch can use no GPU of this machine; "" if it can, or if no driver is installed."""
    has_driver = any(path.exists() for path in NVIDIA_DRIVERS)
    if not has_driver or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    cards, reason = cards_in_new_process()
    return "" if cards else reason


def is_out_of_memory(message: str) -> bool:
    """Return whether the message of an exception says that the memory of a card or of the machine ran out."""
    return any(part in message.lower() for part in OUT_OF_MEMORY)


def free_gpu_memory() -> None:
    """Free the memory of networks that are not used any more, also for other processes on the same card."""
    gc.collect()  # parts of a fitted network refer to each other
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with suppress(RuntimeError):  # after an error of CUDA, which is reported itself
            torch.cuda.empty_cache()


def require_gpu() -> None:
    """Raise a RuntimeError if torch sees no card, so that a task that needs one does not run on the cores.

    `peak_gpu_gib` counts from here.
    """
    import torch

    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise RuntimeError(f"placed on a GPU (CUDA_VISIBLE_DEVICES={visible}), but torch sees none")
    torch.cuda.reset_peak_memory_stats()


def machine() -> dict[str, Any]:
    """Return processor, cores of this process, memory in GiB, and the GPU in use."""
    match = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    processor = match[1] if match else platform.machine()
    description = {
        "processor": processor,
        "cores": loky.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30),
    }
    torch = sys.modules.get("torch")  # a stage that does not use it does not use a GPU
    if torch is not None and torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name(0)
    return description


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_gpu_gib() -> float:
    """Return the peak GPU memory of this process since `require_gpu`, in GiB; 0 without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return CONTEXT_GIB + torch.cuda.max_memory_reserved() / 2**30


def cpu_has_bf16() -> bool:
    """Return whether the processor has instructions for bf16 (AMD Zen 4, Intel Sapphire Rapids, or later)."""
    return "avx512_bf16" in _cpuinfo()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")  # only on Linux
    return path.read_text(encoding="utf-8") if path.exists() else ""


def require_precision(precision: str, has_gpu: bool, has_bf16: bool) -> None:
    """Raise a ConfigError if the hardware does not support a precision."""
    if (precision == "fp16" and not has_gpu) or (precision == "bf16" and not has_bf16):
        raise ConfigError(
            f"precision {precision} needs a GPU{'' if precision == 'fp16' else ' or a CPU'} "
            "with support for it. Set precision: auto."
        )


def require_opencl() -> None:
    """Raise a ConfigError if LightGBM finds no GPU by OpenCL, which its wheels use, though torch sees one."""
    if not cards_in_new_process()[0]:
        return  # the trees are then trained on the cores, with a note
    # In a new process, since this one would keep memory of the card.
    done = subprocess.run([sys.executable, "-c", TRY_OPENCL], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"LightGBM cannot train on the GPU: {done.stderr.strip().rpartition(chr(10))[2]}. "
            "Containers often lack the file that names the driver: mkdir -p /etc/OpenCL/vendors; "
            "echo libnvidia-opencl.so.1 > /etc/OpenCL/vendors/nvidia.icd. Or set gpu: false."
        )
