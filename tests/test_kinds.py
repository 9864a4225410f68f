"""Outside of `models/stages` and of the settings classes, no code asks which kind a stage is."""

import re

import pytest

from core.files import PROJECT
from core.paths import PACKAGES
from models.registry import KINDS, stage_class
from models.stage import Stage

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
STAGE = r"(?:[\w.]+\.)?(?:stage|settings|text_settings|text_stage|stages\[[^]]+\])"
"""A variable or attribute that holds a stage or its settings, or an entry of `stages`."""
HOLDER = rf"(?:{STAGE}|(?:[\w.]+\.)?(?:config|model|network|encoder))"
QUESTION = re.compile(
    rf"(?:isinstance|issubclass)\([^()]*\b(?:{'|'.join(CLASSES)})\b[^()]*\)"
    rf"|(?:getattr|hasattr)\({HOLDER}, [^()]*\)"
    rf"|{STAGE}\.kind (?:==|!=|in|not in) .*"
)


def test_code_outside_of_the_stages_does_not_ask_which_kind_a_stage_is() -> None:
    asked = {file.relative_to(PROJECT).as_posix(): QUESTION.findall(file.read_text()) for file in FILES}
    of_transformers = ['getattr(encoder.config, "max_position_embeddings", None)']
    found = {file: questions for file, questions in asked.items() if questions}
    assert found == {"models/networks/encoders.py": of_transformers}


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(x, Gp | trees.Trees)",
        "getattr(self.config, 'quantization', None)",
        "hasattr(run.config.stages[name], 'epochs')",
        "plan.stages[job.stage].kind in ('gp', 'file')",
        "stage.kind == 'file'",
    ],
)
def test_a_question_about_the_kind_is_found(code: str) -> None:
    assert QUESTION.findall(f"    if not {code}") == [code]


def test_the_kind_of_something_else_may_be_asked() -> None:
    others = "folds.kind == 'time' or isinstance(head, MultiSampleHead) or getattr(module, name)"
    assert not QUESTION.findall(others)
