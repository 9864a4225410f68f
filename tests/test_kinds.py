"""Outside of `models/stages` and of the settings classes, no code asks which kind a stage is."""

import ast

import pytest

from core.files import PROJECT
from core.paths import PACKAGES
from models.registry import KINDS, stage_class
from models.stage import Stage

ALLOWED = {
    "models/networks/encoders.py": [
        "getattr(encoder.config, 'max_position_embeddings', None)"
    ],  # of transformers
}
"""File -> what it may ask."""
FILES = [
    file
    for package in (*PACKAGES, "studies")
    for file in sorted((PROJECT / package).rglob("*.py"))
    if not file.is_relative_to(PROJECT / "models" / "stages") and file.stem != "stage"
]
CLASSES = {"TextStage", "EncoderFeature"}
for kind in KINDS:
    CLASSES |= {
        cls.__name__ for cls in stage_class(kind).__mro__ if issubclass(cls, Stage) and cls is not Stage
    }
NAMES = {"stage", "settings", "config", "model", "network", "encoder", "text_settings", "text_stage"}
"""Names of variables and attributes that hold a stage or its settings."""
STAGES = {"stage", "settings", "text_settings", "text_stage"}
"""Those of them whose attribute `kind` is the kind of a stage. Others have a `kind` of another thing."""


def names_in(node: ast.AST) -> set[str]:
    """Names and attributes in an expression: of `run.config.stages[name]` these are run, config, stages and name."""
    names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return names | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}


def is_stage(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression is a variable or attribute with one of some names, or an entry of `stages`."""
    if isinstance(node, ast.Subscript):
        return "stages" in names_in(node.value)
    return isinstance(node, ast.Name | ast.Attribute) and bool(names_in(node) & names)


def questions(text: str) -> list[str]:
    """Return the expressions of some code that ask which kind a stage is, or what it has."""
    asked = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            asks_class = node.func.id in ("isinstance", "issubclass") and names_in(node) & CLASSES
            asks_attribute = node.func.id in ("getattr", "hasattr") and is_stage(node.args[0], NAMES)
            if asks_class or asks_attribute:
                asked.append(ast.unparse(node))
        elif isinstance(node, ast.Compare | ast.Match):
            sides = [node.subject] if isinstance(node, ast.Match) else [node.left, *node.comparators]
            kinds = [side for side in sides if isinstance(side, ast.Attribute) and side.attr == "kind"]
            if any(is_stage(kind.value, STAGES) for kind in kinds):
                asked.append(ast.unparse(node))
    return asked


def test_code_outside_of_the_stages_does_not_ask_which_kind_a_stage_is() -> None:
    asked = {}
    for file in FILES:
        asked[file.relative_to(PROJECT).as_posix()] = questions(file.read_text(encoding="utf-8"))
    assert {file: found for file, found in asked.items() if found} == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(x, Gp | trees.Trees)",
        "getattr(self.config, 'quantization', None)",
        "hasattr(run.config.stages[name], 'epochs')",
        "plan.stages[job.stage].kind in ('gp', 'file')",
    ],
)
def test_a_question_about_the_kind_is_found(code: str) -> None:
    assert questions(code) == [code]


def test_the_kind_of_something_else_may_be_asked() -> None:
    assert not questions("folds.kind == 'time' or isinstance(head, MultiSampleHead) or getattr(module, name)")
