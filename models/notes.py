"""What a stage wants a person to know about a job: sentences in its folder, printed and reported once per stage."""

from __future__ import annotations

from pathlib import Path

from competition.files import read_json, write_json

NOTES = "notes.json"


def write_notes(folder: Path, notes: list[str]) -> None:
    """Leave sentences in a job's folder, while it is fitted."""
    write_json(folder / NOTES, notes)


def read_notes(folder: Path) -> list[str]:
    """The sentences of a job; none where it left no file."""
    return list(read_json(folder / NOTES)) if (folder / NOTES).exists() else []
