"""docs/settings.md, made from the classes of the settings: `python -m tests.settings_page > docs/settings.md`."""

import inspect
import json
import textwrap
from typing import Any

from pydantic import BaseModel

from competition.config import CompetitionConfig
from core.settings import StrictModel
from folds.kinds import FoldsConfig
from models.registry import KINDS, stage_class
from models.stage import Stage
from submissions.blend.settings import SubmissionsConfig
from submissions.config import Config

HEAD = """# Settings

All keys of a YAML, with their types and defaults; a key with neither a default nor "Unset:" is required.
`./run.sh new` writes those that a competition needs, and `./run.sh check` names a wrong one. [Stages](stages.md),
[folds](folds.md) and [submissions](ensembling.md) have examples. The link "Measured" leads to what a setting gains; the
others were not compared here.

This page is written by `python -m tests.settings_page > docs/settings.md`.
"""
TYPES = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping",
    "null": "null",
}  # fmt: skip
LIMITS = {
    "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
}  # fmt: skip
TEXTS = "benchmarks.md#texts"
MOLECULES = "benchmarks.md#molecules"
TRICKS = "benchmarks.md#training-tricks"
KEPT = "benchmarks.md#settings-that-stay"
OTHERS = "benchmarks.md#other-measurements"
EVIDENCE = {
    "pairs": TEXTS, "swap": "benchmarks.md#columns-in-any-order", "kernels": MOLECULES, "EncoderFeature.layers": TEXTS,
    "weights": MOLECULES,
    "tfidf_features": TEXTS, "backbone_dropout": "evidence.md",
    "pooler_dropout": TRICKS, "r_drop": "studies/head_regularisers.md", "head": TRICKS, "aggregation": TRICKS,
    "enumerate_smiles": "studies/reaction_yield.md", "censored": KEPT, "standardise": KEPT, "final_fit": KEPT,
    "loss": OTHERS, "parameters": OTHERS, "lora": OTHERS, "seeds": OTHERS, "auxiliary_targets": OTHERS,
    "extra_train": OTHERS, "group": "benchmarks.md#units", "margin": "benchmarks.md#selection-rule",
    "candidates": "benchmarks.md#blends", "default": "benchmarks.md#blends", "metric": "benchmarks.md#metrics",
    "target_transform": "benchmarks.md#metrics",
}  # fmt: skip
"""Where a setting was measured, with the class of a setting within settings."""
SECTIONS: dict[str, type[StrictModel]] = {
    "competition": CompetitionConfig,
    "folds": FoldsConfig,
    "submissions": SubmissionsConfig,
}


def settings_page() -> str:
    """Return the page as Markdown."""
    page = Page()
    page.add_section("The whole YAML", Config, ["budget"])
    for name, model in SECTIONS.items():
        page.add_section(f"`{name}:`", model, own_fields(model))
    kinds = {kind: stage_class(kind) for kind in KINDS}
    own = {kind: own_fields(stage) for kind, stage in kinds.items()}
    for model in shared_classes([*kinds.values()]):
        users = [kind for kind, stage in kinds.items() if issubclass(stage, model)]
        if len(users) == 1:
            own[users[0]] = own_fields(model) + own[users[0]]
            continue
        shared = f"Shared by {alternatives([f'`{kind}`' for kind in users], 'and')}"
        page.add_section("All stages" if len(users) == len(kinds) else shared, model, own_fields(model))
    for kind, stage in kinds.items():
        page.add_section(
            f"`kind: {kind}`", stage, [name for name in dict.fromkeys(own[kind]) if name != "kind"]
        )
    return "\n".join(page.lines) + "\n"


def shared_classes(stages: list[type[Stage]]) -> list[type[StrictModel]]:
    """Return the base classes of stages that have settings of their own, the most general first."""
    bases = {base: None for stage in stages for base in reversed(stage.__mro__[1:])}
    return [base for base in bases if issubclass(base, StrictModel) and own_fields(base)]


def own_fields(model: type[BaseModel]) -> list[str]:
    """Return the settings that a class adds, or has another default of."""
    return [name for name in inspect.get_annotations(model) if name in model.model_fields]


class Page:
    """The lines of the page, in which each class of settings within settings is described once."""

    def __init__(self) -> None:
        self.lines = [HEAD.rstrip()]
        self.described = {"Stage"}

    def add_section(self, title: str, model: type[BaseModel], names: list[str]) -> None:
        """Add some settings of a class, and then the settings within them."""
        if not names:
            return
        schema = model.model_json_schema()
        self.lines += ["", f"## {title}", ""]
        for name in names:
            meaning = meaning_of(name, model)
            self._add_setting(
                name, {"description": meaning, **schema["properties"][name]}, EVIDENCE.get(name)
            )
        for name in [each for setting in names for each in referenced(schema["properties"][setting])]:
            if name not in self.described:
                self.described.add(name)
                inner = schema["$defs"][name]
                self.lines += ["", *wrapped(f"`{name}`: {inner['description']}", ""), ""]
                for setting, values in inner["properties"].items():
                    self._add_setting(setting, values, EVIDENCE.get(f"{name}.{setting}"))

    def _add_setting(self, name: str, values: dict[str, Any], evidence: str | None) -> None:
        default = values.get("default")
        shown = default if isinstance(default, str) and default else json.dumps(default)
        about = f"{type_of(values)}, default `{shown}`" if "default" in values else type_of(values)
        text = f"- **`{name}`** ({about}): {values.get('description', '')}".rstrip(": ")
        self.lines += wrapped(f"{text} [Measured]({evidence})." if evidence else text, "  ")


def meaning_of(name: str, model: type[BaseModel]) -> str:
    """Return the docstring of a setting, of a base class if the class has another default only."""
    fields = [base.model_fields.get(name) for base in model.__mro__ if issubclass(base, StrictModel)]
    return next((field.description for field in fields if field and field.description), "")


def wrapped(text: str, indent: str) -> list[str]:
    """Return a text in lines of at most 120 characters."""
    return textwrap.wrap(" ".join(text.split()), 120, subsequent_indent=indent, break_on_hyphens=False)


def referenced(values: Any) -> list[str]:
    """Return the names of the classes that a part of a JSON schema refers to."""
    if isinstance(values, dict):
        own = [values["$ref"].rsplit("/", 1)[1]] if "$ref" in values else []
        return own + [name for value in values.values() for name in referenced(value)]
    return [name for value in values for name in referenced(value)] if isinstance(values, list) else []


def alternatives(words: list[str], conjunction: str = "or") -> str:
    """Return `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def type_of(values: dict[str, Any]) -> str:
    """Return the type of a part of a JSON schema in words."""
    parts = values.get("anyOf", values.get("oneOf"))
    if parts:
        return alternatives(list(dict.fromkeys(map(type_of, parts))))
    if "$ref" in values:
        return f"`{values['$ref'].rsplit('/', 1)[1]}`"
    if "enum" in values or "const" in values:
        return alternatives([f"`{value}`" for value in values.get("enum", [values.get("const")])])
    if values.get("type") == "array":
        return f"list of {type_of(values['items'])}"
    limits = [f"{words} {values[key]}" for key, words in LIMITS.items() if key in values]
    return " ".join([TYPES[values["type"]], " and ".join(limits)]).strip()


if __name__ == "__main__":
    print(settings_page(), end="")
