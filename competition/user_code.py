"""Functions and classes of the user's own files, named `file.py:name` in the YAML."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

from competition.errors import ConfigError
from competition.files import digest, sha256_of


def user_code(settings: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of each of some dumped settings that names code of the user's, `file.py:name`."""
    if isinstance(settings, str) and ".py:" in settings:
        yield where, settings
    elif isinstance(settings, dict | list):
        for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
            yield from user_code(value, f"{where}.{key}".lstrip("."))


def label(named: str) -> str:
    """How it is called in tables and messages: by its name, or `file.py:name` without the folder."""
    file, _, name = named.rpartition(":")
    return f"{Path(file).name}:{name}" if file else name


@contextmanager
def users(named: str, must: str) -> Iterator[None]:
    """Around a call of a user's function; whatever it raises is a ConfigError with the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f" in line {frame.lineno}" for frame in frames if frame.filename == named.rpartition(":")[0]]
        what = f"{type(error).__name__}{lines[-1] if lines else ''}: {str(error).rstrip('.')}"
        raise ConfigError(f"{label(named)} must {must}; {what}.") from error


def load_user_code(setting: str, named: str, what: str) -> Any:
    """The function or class that `file.py:name` names; a process runs a file once, and again when it has changed.

    Args:
        setting: key of the YAML, for messages.
        what: what the file must define, for messages, as `score(y_true, y_pred)`.
    """
    file, _, name = named.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{setting} names {path}, which is not there; correct the path.")
    # Dataclasses and pydantic look annotations up in sys.modules, where no other file's name may be in the way.
    module_name = f"{path.stem}_{digest([str(path.resolve()), sha256_of(path)])}"
    try:
        if module_name not in sys.modules:
            spec = util.spec_from_file_location(module_name, path)
            assert spec is not None and spec.loader is not None
            sys.modules[module_name] = util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module_name])
        return getattr(sys.modules[module_name], name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        sys.modules.pop(module_name, None)
        raise ConfigError(
            f"{setting}: {path} must define {what}; it fails with {type(error).__name__}: {error}."
        ) from error
