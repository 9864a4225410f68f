"""Functions and classes of the user's own files, named `file.py:name` in the YAML."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from competition.errors import ConfigError


def load_user_code(setting: str, named: str, what: str) -> Any:
    """The function or class that `file.py:name` names; the file is run once per call.

    Args:
        setting: key of the YAML, for messages.
        what: what the file must define, for messages, as `score(y_true, y_pred)`.

    Raises:
        ConfigError: if there is no such file, it fails, or it does not define the name.
    """
    file, _, name = named.rpartition(":")
    path = Path(file)
    if not name:
        raise ConfigError(f"{setting} must be file.py:name; found {named!r}.")
    if not path.is_file():
        raise ConfigError(f"{setting} names {path}, which is not there; correct the path.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise ConfigError(
            f"{setting}: {path} must define {what}; it fails with {type(error).__name__}: {error}."
        ) from error
