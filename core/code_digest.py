"""Digests of code, which decide whether finished jobs and cached arrays are out of date.

Comments and docstrings are not part of a digest.
"""

import ast
import functools
from collections.abc import Sequence
from pathlib import Path

from core.errors import ConfigError
from core.files import digest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("core", "competition", "folds", "models")
"""Packages of this project with code that results depend on."""
NOT_DIGESTED = {
    "config", "base_config", "neural_config", "bert_config", "stage", "hardware", "code_digest",
    "weights", "errors", "files", "paths", "settings", "text", "loss_log", "tracking",
}  # fmt: skip
"""Modules that do not change a result. Settings and digests of weights are part of a job's key
directly; the other modules read, write and report."""


CODE_DIGITS = 8
"""Length of the digest of a file. It only has to differ from that of the same file before an edit."""


def code_digest_of(*files: Path) -> str:
    """Return the digest of some modules and of the modules of this project that they import."""
    digests = digests_with_imports(files)
    return digest(sorted((path.name, code) for path, code in digests.items()))


def digests_with_imports(files: Sequence[Path], without_imports: Sequence[Path] = ()) -> dict[Path, str]:
    """Return file -> digest of its code, of some modules and of the modules of this project that they import.

    Imports are followed from `files` and from all modules of the package `models`.

    Args:
        without_imports: more modules, whose imports do not count.
    """
    digests: dict[Path, str] = {}
    queue = list(files)
    while queue:
        path = queue.pop()
        if path in digests or not (path.exists() or path in files):
            continue
        try:
            digests[path], imports = _parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError) as error:
            raise ConfigError(
                f"{path} cannot be read as Python: {error}. Correct the file, or its path."
            ) from None
        if path in files or path.is_relative_to(PROJECT / "models"):
            queue += [PROJECT / name for name in imports if Path(name).stem not in NOT_DIGESTED]
    for path in without_imports:
        digests[path] = _parse(path.read_text(encoding="utf-8"))[0]
    return digests


@functools.cache
def _parse(text: str) -> tuple[str, list[str]]:
    """Return the digest of a module without comments and docstrings, and the files of this project that it may
    import.

    Of `from a.b import c`, these are a/b.py and a/b/c.py; some of them do not exist.
    """
    tree = ast.parse(text)
    imports = list[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            module = node.module.replace(".", "/")
            imports += [f"{module}.py", *(f"{module}/{alias.name}.py" for alias in node.names)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return digest(ast.dump(tree), CODE_DIGITS), imports
