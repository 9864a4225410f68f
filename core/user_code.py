"""User-defined functions and classes, `file.py:name` in a YAML, and the modules next to them."""

import ast
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.files import digest, sha256_of
from core.modules import imported_names

PACKAGES = ("core", "competition", "folds", "models", "submissions", "pipeline", "studies")
_LOADED: set[str] = set()
"""Paths of the user files that this process has executed, and of their helpers."""
_FOLDERS: list[str] = []
"""Folders of the user files at the end of sys.path, the latest first."""
_IMPORTED: dict[str, str] = {}
"""Name -> digest of the modules next to a user file that this process has imported."""


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
    files = {Path(code_ref.rpartition(":")[0]) for _, code_ref in user_code(settings)}
    return [*files.union(*map(with_helpers, files))]


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
    """Return the files in or below the folder of a user file that a string in it, or in a helper, names."""
    files: set[Path] = set()
    for path in with_helpers(file):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = path.parent / node.value
                # Unlike Path.is_file, false for text that cannot be a name.
                if os.path.isfile(named) and named.resolve().is_relative_to(file.parent):  # noqa: PTH113
                    files.add(named.resolve())
    return sorted(files)


def imported_versions(files: Iterable[Path]) -> dict[str, str]:
    """Return the versions of the installed packages that user files import."""
    names = [name for file in files for level, name in _imported_names(file.read_bytes()) if not level]
    return versions_of_modules(names)


def versions_of_modules(names: Iterable[str]) -> dict[str, str]:
    """Return package -> version of the installed packages that some dotted names are from."""
    distributions = metadata.packages_distributions()
    packages = {package for name in names for package in distributions.get(name.partition(".")[0], [])}
    return {package: metadata.version(package) for package in sorted(packages)}


@functools.cache
def _imported_names(code: bytes) -> list[tuple[int, str]]:
    """Return level and dotted name of all that some code may import, without the packages of this project."""
    try:
        names = imported_names(ast.parse(code))
    except (SyntaxError, ValueError):  # reported when the file is executed
        return []
    return [(level, name) for level, name in names if level or name.partition(".")[0] not in PACKAGES]


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


def _line_of(error: BaseException, file: str) -> str:
    """Return the last line of user code in a traceback, such as " in line 3" or " in line 3 of helper.py"."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in _LOADED]
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
    _LOADED.update(map(str, files))
    module_name = f"{path.stem}_{digest([str(path.resolve()), *map(sha256_of, files)])}"
    try:
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
