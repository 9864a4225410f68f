"""Lines of a YAML: settings with their reasons as comments, and paths relative to the YAML."""

import math
import os
import textwrap
from pathlib import Path
from typing import Any

from core import files
from core.yaml_files import dump_yaml

WIDTH = 110


def setting(key: str, value: Any, *reasons: str, indent: str = "  ") -> list[str]:
    """Return the lines of one setting, its reason after it if there is space, else above; [] for None."""
    if value is None:
        return []
    line = f"{indent}{key}: {to_yaml(value)}"
    if len(reasons) == 1 and len(line) + len(reasons[0]) + 4 <= WIDTH:
        return [f"{line}  # {on_one_line(reasons[0])}"]
    lines = [line]
    if len(line) > WIDTH and isinstance(value, dict):
        lines = [f"{indent}{key}:", *(f"{indent}  {name}: {to_yaml(each)}" for name, each in value.items())]
    return [*(comment for reason in reasons for comment in comments(reason, indent)), *lines]


def comments(text: str, indent: str = "  ") -> list[str]:
    """Return text as lines of comments."""
    return textwrap.wrap(
        on_one_line(text), WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   "
    )


def to_yaml(value: Any) -> str:
    """Return a value on one line of YAML, quoted if plain text would be read as something else."""
    texts = value if isinstance(value, list) else [value]
    style = '"' if any(isinstance(text, str) and len(text.splitlines()) > 1 for text in texts) else None
    dumped = dump_yaml([value], default_flow_style=True, default_style=style, width=math.inf)
    return dumped.strip()[1:-1]


def on_one_line(text: str) -> str:
    """Return text on one line; names of columns may contain line breaks."""
    return " ".join(text.split())


def path_in_yaml(file: Path, yaml_file: Path) -> str:
    """Return a path relative to the YAML if both are in one folder or in the project, else absolute."""
    file = file.resolve()
    folder = yaml_file.parent
    in_project = file.is_relative_to(files.PROJECT) and folder.is_relative_to(files.PROJECT)
    together = in_project or file.is_relative_to(folder)
    return Path(os.path.relpath(file, folder)).as_posix() if together else str(file)
