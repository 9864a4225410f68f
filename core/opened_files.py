"""The files that user code opens: data in its folder that its results depend on, however the code names them.

An audit hook of Python sees each file that is opened, and each folder that is listed, while code of a user
file is on the call stack, or in a thread, where the caller cannot be seen. It does not see what another
process opens, nor what a library opens in C, as of a Parquet file. Of the latter count all files of a folder
that is listed, and what strings in the code name (`core.user_code.data_files`).
"""

import functools
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from core.files import digest, sha256_of, work_root

EVENTS = {"open", "os.listdir", "os.rename", "os.scandir", "sqlite3.connect"}
NOT_DATA = {"__pycache__", "site-packages", "dist-packages"}
"""Names of folders whose files do not count. Code does not either: it is in the keys."""
CODE = {".py", ".pyc"}
IMPORTS = "<frozen importlib"
"""Start of the name of the code of Python that imports modules."""
GONE = "gone"
"""Content of a file that is not there."""
WRITTEN_BY_CODE = "own"
"""Content of a file that the code itself had written before it read it."""
FOLDERS: dict[str, set[Path]] = {}
"""Python file of user code, or helper of some -> folders of the user files that it belongs to."""
OPENED: dict[str, set[str]] = {}
"""Python file -> what was opened while its code was on the call stack."""
CONTENTS: dict[str, str] = {}
"""What was opened -> its content when this process opened it first."""


def watch(user_file: Path, files: Iterable[Path]) -> None:
    """Record from now on what a user file opens in or below its folder.

    Args:
        files: itself and its helpers.
    """
    for file in files:
        FOLDERS.setdefault(str(file), set()).add(user_file.parent)
    _install_hook()


@functools.cache
def _install_hook() -> None:
    """Install the hook, which cannot be removed, once, in a process that executes user code."""
    sys.addaudithook(_record)


def _record(event: str, args: tuple[Any, ...]) -> None:
    """Record what user code opens, with the content before it is opened."""
    if event not in EVENTS:
        return
    path = args[1] if event == "os.rename" else args[0]
    if not isinstance(path, str | bytes | os.PathLike):  # a number of an open file
        return
    files: set[str] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _record.__code__:  # the hook itself reads a file
            return
        if not files and frame.f_code.co_filename.startswith(IMPORTS):  # an import looks for a module
            return
        files.add(frame.f_code.co_filename)
        frame = frame.f_back
    is_written = event == "os.rename" or (event == "open" and bool(args[2] & (os.O_WRONLY | os.O_TRUNC)))
    watched = files & FOLDERS.keys()
    if not watched and threading.current_thread() is not threading.main_thread():
        # What started the thread, such as `pool.map(np.load, paths)` in user code, is not on its stack.
        watched = set(FOLDERS)
    for file in watched:
        for folder in FOLDERS[file]:
            name = _name(Path(os.fsdecode(path)), folder)
            if name:
                opened = f"{folder}/{name}"
                if is_written and CONTENTS.get(opened, GONE) == GONE:
                    CONTENTS[opened] = WRITTEN_BY_CODE
                elif opened not in CONTENTS:
                    CONTENTS[opened] = content_of(folder / name)
                OPENED.setdefault(file, set()).add(opened)  # last, since other threads read both


def _name(path: Path, folder: Path) -> str:
    """Return the name of a data file relative to a folder; "" if it does not count.

    The name of a folder ends in /. A link counts by its path, not by its target. The folder itself, which
    libraries list to find modules, does not count.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (Path.resolve follows links)
    if not absolute.is_relative_to(folder):
        absolute = path.resolve()
        folder = folder.resolve()
    work = work_root().resolve()
    is_output = absolute.is_relative_to(work) and not folder.is_relative_to(work)
    if not absolute.is_relative_to(folder) or is_output:
        return ""
    inside = absolute.relative_to(folder)
    is_other = any(part.startswith(".") or part in NOT_DATA for part in inside.parts)
    if not inside.parts or is_other or inside.suffix in CODE:
        return ""
    return inside.as_posix() + ("/" if absolute.is_dir() else "")


def content_of(path: Path) -> str:
    """Return a digest of the content of a file, or of all files of a folder; GONE if it does not exist.

    Of a folder that was listed all files count, since its list depends on them, and C may have read them.
    """
    try:
        if path.is_dir():
            return digest([[file.name, sha256_of(file)] for file in files_in(path)])
        return sha256_of(path) if path.is_file() else GONE
    except OSError:  # it may not be read; who opens it gets this error
        return GONE


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the data files of a folder, without those below its folders."""
    return sorted(file for file in folder.glob(pattern) if file.is_file() and _name(file, folder))
