"""Modules of this project: imports by name, and digests.

The digests decide whether jobs and cached arrays are out of date.

Imported by name is what needs a library that takes seconds to import, such as torch, and what only some
settings of a stage use: commands that only read settings do without it, and other jobs do not depend on its
code.

The digest of a module covers all modules of this project that it imports. Comments, docstrings and imports
for type checkers do not count.
"""

import ast
import functools
import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.files import PROJECT, digest

PACKAGES = ("core", "competition", "folds", "models")
"""Packages of this project with code that results depend on."""
PREFIXES = tuple(f"{package}." for package in PACKAGES)
CODE_DIGITS = 8
"""Length of the digest of a file. It only has to differ from that of the same file before an edit."""


def load(name: str) -> Any:
    """Return a module of this project by its name, such as `models.training.neural`; it is imported now."""
    return importlib.import_module(name)


def import_packages(names: Iterable[str]) -> None:
    """Import packages of libraries, such as torch, except those with another module name."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def file_of(name: str) -> Path:
    """Return the file of a module of this project."""
    return PROJECT / f"{name.replace('.', '/')}.py"


def code_digest_of(*files: Path) -> str:
    """Return the digest of some modules and of the modules of this project that they import."""
    return digest(sorted((path.name, code) for path, code in closure(*files).items()))


def code_without_comments(file: Path) -> str:
    """Return the digest of a module alone, without comments, docstrings and the modules that it imports."""
    return _parse(file.read_text(encoding="utf-8"))[0]


def closure(*files: Path) -> dict[Path, str]:
    """Return file -> digest of some modules and of all project modules that they reach by imports."""
    digests: dict[Path, str] = {}
    known: set[str] = set()
    queue = list(files)
    while queue:
        path = queue.pop()
        if path in digests:
            continue
        try:
            digests[path], modules = _parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError) as error:
            raise ConfigError(
                f"{path} cannot be read as Python: {error}. Correct the file, or its path."
            ) from None
        queue += [file for file in map(file_of, modules - known) if file.exists()]
        known |= modules
    return digests


@functools.cache
def _parse(text: str) -> tuple[str, set[str]]:
    """Return the digest of a module without comments and docstrings, and the modules that it may import.

    Of `from a.b import c`, these are a.b and a.b.c; some of them are no modules.
    """
    tree = ast.parse(text)
    names = [name for level, name in imported_names(tree) if level == 0 and name.startswith(PREFIXES)]
    for node in executed(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return digest(ast.dump(tree), CODE_DIGITS), {*names, *(name.rpartition(".")[0] for name in names)}


def imported_names(tree: ast.AST) -> list[tuple[int, str]]:
    """Return level of the relative import (0: absolute) and dotted name of all that some code may import."""
    names: list[tuple[int, str]] = []
    for node in executed(tree):
        if isinstance(node, ast.Import):
            names += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.level, f"{node.module or ''}.{alias.name}".lstrip(".")) for alias in node.names]
    return names


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all statements below it, but those that only a type checker reads."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):  # most nodes, and none of them is an import
            yield from executed(child)
