"""Published sets of pretrained weights by name; the table is `weight_sets.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class WeightSet:
    """A published set of files; the table says what each field means."""

    files: dict[str, str | None]
    size_mb: int
    licence: str
    hub: str | None = None
    package: tuple[str, str] | None = None
    url: str | None = None
    labels: str | None = None
    atoms: bool = False


TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
WEIGHT_SETS = {name: WeightSet(**known) for name, known in TABLE.items()}
