"""Digest of code: what makes finished jobs and cached arrays out of date."""

from __future__ import annotations

import ast
from pathlib import Path

from competition.files import digest

PROJECT = Path(__file__).parents[2]


def code_digest_of(file: Path) -> str:
    """Digest of a module and of the modules of `models` it imports, without comments and docstrings.

    Left out are `config.py` and `settings.py`, since settings are in the key themselves, and `stage.py`, the contract.
    """
    seen: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in seen or path.name in ("config.py", "settings.py", "stage.py") or not path.exists():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("models."):
                module = PROJECT.joinpath(*node.module.split("."))
                waiting += [module.with_suffix(".py"), *(module / f"{alias.name}.py" for alias in node.names)]
            body = getattr(node, "body", None)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
                first = body[0]
                if (
                    isinstance(first, ast.Expr)
                    and isinstance(first.value, ast.Constant)
                    and isinstance(first.value.value, str)
                ):
                    body.pop(0)
        seen[path] = ast.dump(tree)
    return digest(sorted((path.name, code) for path, code in seen.items()))
