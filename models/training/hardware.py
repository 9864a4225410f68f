"""The machine: what a job ran on, for the report of a run, and which precision it has. Without torch."""

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
        built = (
            "torch sees no GPU" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
        )
        return [], built
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
    """Return the cards that torch sees, asked in another process: for commands that do without torch, in
    seconds.
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
        raise ConfigError(
            f"torch, which lists the cards, cannot be used here: {reason}. Set precision: auto."
        )
    return [Card(**card) for card in json.loads(done.stdout)]


def require_gpu() -> None:
    """Raise unless torch sees a card: for a task that was placed on one, so that no network trains on a core
    unseen.
    """
    import torch

    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise RuntimeError(f"placed on a GPU (CUDA_VISIBLE_DEVICES={visible}), and torch sees none")


def machine() -> dict[str, Any]:
    """Return processor, cores of this process, memory in GiB, and the GPU in use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    match = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    processor = match[1] if match else platform.machine()
    description = {"processor": processor, "cores": loky.cpu_count(), "memory_gib": round(memory)}
    torch = sys.modules.get("torch")  # a stage that does not use it does not use a GPU
    if torch is not None and torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name(0)
    return description


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
