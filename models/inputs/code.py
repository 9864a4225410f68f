"""Digests of code: what makes finished jobs and cached arrays out of date. Comments and docstrings do not count."""

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

from competition.errors import ConfigError
from competition.files import digest

PROJECT = Path(__file__).parents[2]
ROOMS = ("models", "competition", "folds")
NO_RESULT = {
    "config", "settings", "stage", "machine", "code", "weights", "errors", "files", "paths", "durations", "loss_log",
    "tracking",
}  # fmt: skip
"""Modules that change no result: settings and digests of weights are in keys themselves, the others read and say."""


def code_digest_of(*files: Path) -> str:
    """Digest of some modules and of the modules of this project that they import."""
    return _digest(_with_imports(list(files)))


def own_and_shared_code(own: Path, shared: Iterable[Path], alone: Iterable[Path]) -> tuple[str, str]:
    """Digests of a module by itself, and of all other code that its result comes from.

    Beside what `own` imports, that is the `shared` modules with what they import, and those that count `alone`.
    """
    code = _with_imports([own, *shared]) | {path: _code_of(path.read_text(encoding="utf-8"))[0] for path in alone}
    return _digest({own: code.pop(own)}), _digest(code)


def _digest(code: dict[Path, str]) -> str:
    return digest(sorted((path.name, text) for path, text in code.items()))


def _with_imports(files: list[Path]) -> dict[Path, str]:
    """Code of some modules and of those of ours that they import; followed further are imports inside `models`."""
    seen: dict[Path, str] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path in seen or not (path.exists() or path in files):
            continue
        try:
            seen[path], imported = _code_of(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError) as error:
            raise ConfigError(f"{path} cannot be read as Python: {error}. Correct the file, or its path.") from None
        if path in files or path.is_relative_to(PROJECT / "models"):
            waiting += [PROJECT / name for name in imported if Path(name).stem not in NO_RESULT]
    return seen


@functools.cache
def _code_of(text: str) -> tuple[str, list[str]]:
    """A module without comments and docstrings, and the files of ours that it may import."""
    tree, imported = ast.parse(text), list[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ROOMS:
            module = node.module.replace(".", "/")
            imported += [f"{module}.py", *(f"{module}/{alias.name}.py" for alias in node.names)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree), imported
