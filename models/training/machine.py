"""The machine: what a job ran on, for the report of a run, and which precision it has. Without torch."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib

from competition.errors import ConfigError


def usable_gpus() -> list[str]:
    """Names of the GPUs that CUDA shows, as for CUDA_VISIBLE_DEVICES; found without importing torch."""
    if shutil.which("nvidia-smi") is None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.replace(" ", "").split(",") if device not in ("", "-1")]
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return re.findall(r"^GPU (\d+)", listed, re.MULTILINE)


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, and the GPU in use, where there is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    named = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    processor = named[1] if named else platform.machine()
    found = {"processor": processor, "cores": joblib.cpu_count(), "memory_gib": round(memory)}
    torch = sys.modules.get("torch")  # a stage that does not use it does not use a GPU
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def peak_gpu_gib() -> float:
    """Peak GPU memory of the tensors of the last training in this process, in GiB; 0 without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.max_memory_allocated() / 2**30)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16 (AMD from Zen 4, Intel's servers from Sapphire Rapids); else slower."""
    return "avx512_bf16" in _cpuinfo()


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")  # of Linux alone
    return path.read_text(encoding="utf-8") if path.exists() else ""


def require_precision(precision: str, has_gpu: bool, has_bf16: bool) -> None:
    """Refuse what the hardware has no instructions for."""
    if (precision == "fp16" and not has_gpu) or (precision == "bf16" and not has_bf16):
        raise ConfigError(
            f"precision {precision} needs a GPU{'' if precision == 'fp16' else ' or a CPU'} that has it; "
            "there is none here. Set precision: auto."
        )
