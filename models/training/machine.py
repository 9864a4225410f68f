"""The machine: what a job ran on, for the report of a run, and which precision it has. Without torch."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from competition.errors import ConfigError


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, and the GPU in use, where there is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory)}
    torch = sys.modules.get("torch")  # a stage that does not use it does not use a GPU
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16 (AMD from Zen 4, Intel's servers from Sapphire Rapids); else slower."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return False


def require_precision(precision: str, has_gpu: bool, has_bf16: bool) -> None:
    """Refuse what the hardware has no instructions for.

    Raises:
        ConfigError: if it has none.
    """
    if (precision == "fp16" and not has_gpu) or (precision == "bf16" and not has_bf16):
        raise ConfigError(
            f"precision {precision} needs a GPU{'' if precision == 'fp16' else ' or a CPU'} that has it; "
            "there is none here. Set precision: auto."
        )
