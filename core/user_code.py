"""User-defined functions and classes (`file.py:name` in a YAML), with their modules and data."""

import ast
import functools
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import ConfigError, join_first
from core.files import digest, sha256_of
from core.modules import imported_names
from core.opened_files import CONTENTS, FOLDERS, OPENED, WRITTEN_BY_CODE, content_of, files_in, watch
from core.signals import handled

PACKAGES = ("core", "competition", "folds", "models", "submissions", "pipeline", "studies")
Opened = dict[str, dict[str, str]]
"""Name of a user file -> what it opened, relative to its folder -> its content (`content_of`)."""
OPENED_IN_C = ["arrow", "cbm", "feather", "h5", "mol2", "parquet", "pdb", "safetensors", "sdf", "smi"]
"""Endings of files that libraries open in C, where Python does not see it."""
MAX_SECONDS = 20
"""Seconds after which the trial of a user-defined function ends with an error."""
_FOLDERS: list[str] = []
"""Folders of the user files at the end of sys.path, the latest first."""
_IMPORTED: dict[str, str] = {}
"""Name -> digest of the modules next to a user file that this process has imported."""
_LOADING = threading.RLock()
"""Held while a user file is executed: another thread must not see half of its module."""


def user_code(settings: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of each setting that is user code, `file.py:name`.

    Args:
        settings: dumped settings.
        where: key of `settings` in the YAML.
    """
    if isinstance(settings, str) and ".py:" in settings:
        yield where, settings
    elif isinstance(settings, dict | list):
        for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
            yield from user_code(value, f"{where}.{key}".lstrip("."))


def user_code_files(settings: Any) -> list[Path]:
    """Return the files of all user code in dumped settings, and the modules that these import."""
    files = _files_in_settings(settings)
    return [*files.union(*map(with_helpers, files))]


def _files_in_settings(settings: Any) -> set[Path]:
    """Return the files of all user code in dumped settings."""
    return {Path(code_ref.rpartition(":")[0]) for _, code_ref in user_code(settings)}


def with_helpers(file: Path) -> list[Path]:
    """Return a user file and its helpers: modules in or below its folder that it imports, also indirectly."""
    files: list[Path] = []
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in files or not (path.is_file() and path.is_relative_to(file.parent)):
            continue
        files.append(path)
        for level, name in _imported_names(path.read_bytes()):
            folder = path.parents[level - 1] if level else file.parent
            parts = name.split(".")
            for n_parts in range(1, len(parts) + 1):
                module = folder.joinpath(*parts[:n_parts])
                waiting += [module.with_suffix(".py"), module / "__init__.py"]
    return sorted(files)


def data_files(file: Path) -> list[Path]:
    """Return the files in or below the folder of a user file that strings in it, or in a helper, name.

    They can be listed before the code is executed, also those that it opens in C. A string names a file in
    the folder of the code, or in one that another string names: `HERE / "data" / "x.csv"`. Files that C
    opens, of a kind that the code mentions, count in all these folders, since their names may be computed.
    """
    codes = {path: path.read_bytes() for path in with_helpers(file)}
    strings = set[str]().union(*map(_strings, codes.values()))
    mentions = b"".join(codes.values()).lower()
    endings = [ending for ending in OPENED_IN_C if ending.encode() in mentions]
    files: set[Path] = set()
    folders = {path.parent for path in codes}
    waiting = sorted(folders)
    while waiting:
        folder = waiting.pop()
        for ending in endings:
            files.update(files_in(folder, f"*.{ending}"))
        for text in strings:
            path = Path(os.path.normpath(folder / text))
            if not path.is_relative_to(file.parent):
                continue
            # Unlike Path.is_file, false for text that cannot be a name.
            if os.path.isfile(path):  # noqa: PTH113
                files.add(path)
            elif os.path.isdir(path) and path not in folders:  # noqa: PTH112
                folders.add(path)
                waiting.append(path)
    return sorted(files)


@functools.cache
def _strings(code: bytes) -> set[str]:
    """Return the string constants in some code, also inside f-strings, without / at their ends."""
    constants = [node.value for node in ast.walk(_parse(code)) if isinstance(node, ast.Constant)]
    return {value.strip("/") for value in constants if isinstance(value, str)}


def opened_files(settings: Any) -> Opened:
    """Return what the user code in dumped settings has opened in this process.

    It includes the files that strings in the code name. If a file has changed meanwhile, its content is the
    one that was opened first.
    """
    opened: Opened = {}
    for user_file in sorted(_files_in_settings(settings)):
        folder = f"{user_file.parent}/"
        contents = {str(path): content_of(path) for path in data_files(user_file)}
        for file in with_helpers(user_file):
            contents |= {path: CONTENTS[path] for path in OPENED.get(str(file), ())}
        names = {
            path.removeprefix(folder): content
            for path, content in contents.items()
            if path.startswith(folder) and content != WRITTEN_BY_CODE
        }
        opened.setdefault(user_file.name, {}).update(names)
    return opened


def merge_opened(*records: Opened) -> Opened:
    """Return one record of what several results depend on; the first content of a file counts."""
    merged: Opened = {}
    for record in records:
        for name, contents in record.items():
            merged[name] = contents | merged.get(name, {})
    return merged


def remember_opened(code_ref: str, opened: Opened) -> None:
    """Record what a user file opened in an earlier process that wrote results used by this one."""
    file = Path(code_ref.rpartition(":")[0])
    for name, content in opened.get(file.name, {}).items():
        OPENED.setdefault(str(file), set()).add(f"{file.parent}/{name}")
        CONTENTS.setdefault(f"{file.parent}/{name}", content)


def changed_files(settings: Any, *records: Opened) -> dict[str, str]:
    """Return name -> present content of each changed file that user code in dumped settings opened."""
    folders: dict[str, list[Path]] = {}
    for file in sorted(_files_in_settings(settings)):
        folders.setdefault(file.name, []).append(file.parent)
    changed: dict[str, str] = {}
    for user_file, parents in folders.items():
        contents = [record.get(user_file, {}) for record in records]
        for name in sorted(set[str]().union(*contents)):
            now = [content_of(parent / name) for parent in parents]  # user files may share a name
            if any(each.get(name, now[0]) not in now for each in contents):
                changed[name] = now[0]
    return changed


def files_to_copy(file: Path, opened: Opened) -> list[Path]:
    """Return a user file, its helpers, and the data that it opened: all files of a listed folder."""
    files = {*with_helpers(file)}
    for name in opened.get(file.name, {}):
        path = file.parent / name
        if path.is_dir():
            files.update(files_in(path))
        elif path.is_file():
            files.add(path)
    return sorted(files)


def imported_versions(files: Iterable[Path]) -> dict[str, str]:
    """Return the versions of the installed packages that user files import."""
    names: list[str] = []
    for file in files:
        names += [name for level, name in _imported_names(file.read_bytes()) if not level]
    return versions_of_modules(names)


def versions_of_modules(names: Iterable[str]) -> dict[str, str]:
    """Return package -> version of the installed packages that some dotted names are from."""
    distributions = metadata.packages_distributions()
    packages: set[str] = set()
    for name in names:
        packages.update(distributions.get(name.partition(".")[0], []))
    return {package: metadata.version(package) for package in sorted(packages)}


def _imported_names(code: bytes) -> list[tuple[int, str]]:
    """Return level and dotted name of all that some code may import, without the packages of this project."""
    names = imported_names(_parse(code))
    return [(level, name) for level, name in names if level or name.partition(".")[0] not in PACKAGES]


@functools.cache
def _parse(code: bytes) -> ast.Module:
    """Return the syntax tree of some code.

    The tree is empty if the code is not valid Python, which is reported when it is executed.
    """
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def short_ref(code_ref: str) -> str:
    """Return the name in tables and messages: `file.py:name` without the folder, or a name of the project."""
    file, _, name = code_ref.rpartition(":")
    return f"{Path(file).name}:{name}" if file else name


@contextmanager
def user_code_errors(code_ref: str, must: str = "") -> Iterator[None]:
    """Turn errors of a user-defined function into a ConfigError with the line of the file.

    Args:
        must: what the function must do, if an error usually means that it does something else.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        line = _line_of(error, code_ref.rpartition(":")[0])
        what = f"{type(error).__name__}{line}: {str(error).rstrip('.')}"
        start = f"must {must};" if must else "raised"
        raise ConfigError(f"{short_ref(code_ref)} {start} {what}.") from error


def in_order_of(returned: Any, *row_names: Iterable[Any]) -> Any:
    """Return a table or column that user code returned for some rows, in their order; other values unchanged.

    Args:
        row_names: names of the rows in their order; of several, one must be the index of the table.

    Raises:
        ValueError: its index has other names.
    """
    indices = [pd.Index(names) for names in row_names]
    is_table = isinstance(returned, pd.DataFrame | pd.Series)
    if not is_table or len(returned) != len(indices[0]):
        return returned
    for index in indices:
        if {*returned.index} == {*index}:
            return returned.loc[index]
    raise ValueError(
        f"the index of the table, {join_first(returned.index)}, does not name its rows, "
        f"{join_first(indices[0])}. Keep the index of the input, or return an array in the order of the rows"
    )


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError in the line that is reached after some seconds; no limit outside the main thread."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"not finished after {seconds} s")

    with handled(end, signal.SIGALRM) as is_handled:
        if not is_handled:
            yield
            return
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)


def _line_of(error: BaseException, file: str) -> str:
    """Return the last line of user code in a traceback, such as " in line 3" or " in line 3 of helper.py"."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in FOLDERS]
    if not frames:
        return ""
    name = Path(frames[-1].filename).name
    return f" in line {frames[-1].lineno}" + ("" if name == Path(file).name else f" of {name}")


def load_user_code(setting: str, code_ref: str, what: str) -> Any:
    """Return a user-defined function or class.

    A process executes a file once, and again if it or a helper has changed. Its folder becomes importable.

    Args:
        setting: key of the YAML, for messages.
        code_ref: `file.py:name`.
        what: what the file must define, for messages, such as `score(y_true, y_pred)`.
    """
    file, _, name = code_ref.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{setting}: there is no file {path}; correct the path.")
    # Dataclasses and pydantic look annotations up in sys.modules, so the name must be unique.
    files = with_helpers(path)
    watch(path, files)
    module_name = f"{path.stem}_{digest([str(path.resolve()), *map(sha256_of, files)])}"
    try:
        with _LOADING:
            if module_name not in sys.modules:
                _make_importable(path.parent, [helper for helper in files if helper != path])
                spec = util.spec_from_file_location(module_name, path)
                assert spec is not None and spec.loader is not None
                sys.modules[module_name] = util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[module_name])
            return getattr(sys.modules[module_name], name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        sys.modules.pop(module_name, None)
        raise ConfigError(
            f"{setting}: {path} must define {what}; it fails with "
            f"{type(error).__name__}{_line_of(error, file)}: {error}."
        ) from error


def _make_importable(folder: Path, helpers: list[Path]) -> None:
    """Put a folder on sys.path, and unload its modules if other versions of them were imported.

    Libraries come first: workers start with this path, and must not import a `json.py` of the user.
    """
    if str(folder) in _FOLDERS or str(folder) not in sys.path:
        libraries = [entry for entry in sys.path if entry not in _FOLDERS]
        _FOLDERS[:] = [str(folder), *(other for other in _FOLDERS if other != str(folder))]
        sys.path[:] = libraries + _FOLDERS
    importlib.invalidate_caches()  # a helper may be newer than the listing of its folder
    digests: dict[str, str] = {}
    for helper in helpers:
        name = ".".join(helper.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        if name in _IMPORTED or name not in sys.modules:  # a library that has this name stays
            digests[name] = digest([str(helper), sha256_of(helper)])
    if not digests.items() <= _IMPORTED.items():
        for name in digests:
            sys.modules.pop(name, None)
        _IMPORTED.update(digests)
