"""Limits of the platform: time, memory and disk of a notebook with all that it starts, looked at while it runs."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from competition.durations import in_words
from competition.errors import ConfigError, SubmissionError


@dataclass(frozen=True)
class Limits:
    """What a notebook may use."""

    seconds: float = 1800.0
    memory: float = 30e9
    """Bytes of all its processes together; files that are only mapped, such as weights, do not count."""
    disk: float = 20e9
    """Bytes in its working folder."""


def add_options(options: argparse.ArgumentParser) -> None:
    """Options of `--try`."""
    group = options.add_argument_group("with --try")
    for name, default, meaning in (
        ("rows", 200, "rows of the hidden test table, drawn from the training table"),
        ("minutes", Limits.seconds / 60, "the most that the notebook may take"),
        ("memory", Limits.memory / 1e9, "the most that it may use, in GB, all processes together"),
        ("disk", Limits.disk / 1e9, "the most that it may write into its working folder, in GB"),
    ):
        group.add_argument(f"--{name}", type=_positive, default=default, help=f"{meaning} (default: {default:g})")
    group.add_argument("--flat", action="store_true", help="inputs at /kaggle/input/SLUG, as they once were")


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the options of `add_options` name."""
    return Limits(60 * args.minutes, 1e9 * args.memory, 1e9 * args.disk)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise ConfigError(f"--rows, --minutes, --memory and --disk must be numbers above 0; found {text!r}.")
    return number


def watch(process: subprocess.Popen[str], limits: Limits, working: Path) -> float:
    """Wait for a process, and end all that it started; returns the most memory that they used at once, in bytes.

    Raises:
        SubmissionError: if it breaks a limit.
    """
    known: dict[int, str] = {process.pid: _table().get(process.pid, (0, ""))[1]}
    try:
        return _watch(process, known, limits, working)
    finally:
        _add_descendants(known)
        for pid in known:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _watch(process: subprocess.Popen[str], known: dict[int, str], limits: Limits, working: Path) -> float:
    started, peak, n_looks = time.monotonic(), 0.0, 0
    with tqdm(
        total=limits.seconds,
        desc="notebook",
        disable=not sys.stderr.isatty(),
        bar_format="{desc} {elapsed} passed{postfix}",
        leave=False,
    ) as bar:
        while True:
            try:
                process.wait(timeout=0.1)
                return peak
            except subprocess.TimeoutExpired:
                pass
            _add_descendants(known)
            memory = sum(_memory(pid) for pid in known)
            peak = max(peak, memory)
            bar.set_postfix_str(f"{memory / 1e9:.1f} of {limits.memory / 1e9:.3g} GB memory in use")
            if time.monotonic() - started > limits.seconds:
                raise SubmissionError(
                    f"the notebook must end within {in_words(limits.seconds)} and was stopped, since it ran longer. "
                    "Blend fewer or cheaper stages, or allow more with --minutes."
                )
            if memory > limits.memory:
                raise SubmissionError(
                    f"the notebook must work with {_gigabytes(limits.memory)} of memory and was stopped, since it used "
                    f"{_gigabytes(memory)}. Blend fewer or cheaper stages, or allow more with --memory."
                )
            n_looks += 1
            if n_looks % 10 == 0 and (used := _size(working)) > limits.disk:
                raise SubmissionError(
                    f"the notebook must put at most {_gigabytes(limits.disk)} into its working folder and was stopped, "
                    f"since it held {_gigabytes(used)}. Write temporary files elsewhere, or allow more with --disk."
                )


def _gigabytes(n: float) -> str:
    return f"{n / 1e9:.3g} GB"


def _table() -> dict[int, tuple[int, str]]:
    """All processes: id -> id of the parent, start time."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(folder.name)] = (int(fields[1]), fields[19])
    return found


def _add_descendants(known: dict[int, str]) -> None:
    """Update processes (id -> start time) by those that they started; a child stays known when its parent has ended."""
    table = _table()
    for pid in [pid for pid, start in known.items() if table.get(pid, (0, ""))[1] != start]:
        del known[pid]
    grown = True
    while grown:
        new = {pid: start for pid, (parent, start) in table.items() if parent in known and pid not in known}
        known |= new
        grown = bool(new)


def _memory(pid: int) -> int:
    """Bytes of a process that the system cannot take back: its own pages, not those of mapped files."""
    status = ""
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    return 1024 * sum(int(n) for n in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.MULTILINE))


def _size(folder: Path) -> int:
    """Bytes of all files in a folder that others are writing to."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_size
    return total
