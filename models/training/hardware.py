"""The hardware of this machine: processor, GPUs, memory, and the precision that they support.

This module does not import torch; some of its functions do.
"""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import loky

from competition.errors import ConfigError
from competition.paths import PROJECT


@dataclass(frozen=True)
class Card:
    """A GPU that torch sees.

    Attributes:
        name_for_cuda: its entry in CUDA_VISIBLE_DEVICES: a number, a UUID or a MIG instance.
        memory_gib: its memory in GiB.
        has_bf16: whether it multiplies in bf16: from compute capability 8 on; a T4 emulates it slowly.
    """

    name_for_cuda: str
    memory_gib: float
    has_bf16: bool


def visible_cards() -> tuple[list[Card], str]:
    """Return the cards that torch sees in this process and, if there are none, why. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda:
            return [], "torch sees no GPU"
        return [], f"torch {torch.__version__} is built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (
        visible.replace(" ", "").split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    )
    cards = []
    for index, name in enumerate(names[: torch.cuda.device_count()]):
        properties = torch.cuda.get_device_properties(index)
        cards.append(Card(name, properties.total_memory / 2**30, has_bf16=properties.major >= 8))
    return cards, ""


def cards_in_new_process() -> list[Card]:
    """Return the cards that torch sees, without importing torch in this process.

    Raises:
        ConfigError: if torch cannot be imported.
    """
    done = subprocess.run(
        [sys.executable, "-m", "models.training.hardware"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"torch cannot be imported to list the GPUs: {reason}. Set precision: auto.")
    return [Card(**card) for card in json.loads(done.stdout)]


def require_gpu() -> None:
    """Raise a RuntimeError if torch sees no card, so that a task that needs one does not run on the cores."""
    import torch

    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise RuntimeError(f"placed on a GPU (CUDA_VISIBLE_DEVICES={visible}), but torch sees none")


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
    """Return the peak GPU memory of the last training in this process, in GiB; 0 without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.max_memory_allocated() / 2**30)


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
            f"precision {precision} needs a GPU{'' if precision == 'fp16' else ' or a CPU'} with support for it. "
            "Set precision: auto."
        )


if __name__ == "__main__":
    print(json.dumps([asdict(card) for card in visible_cards()[0]]))
