"""The shape of the code: imports go one way, files are short, and only stages know which kind they are."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from core.files import PROJECT
from models.registry import KINDS, stage_class
from models.stage import Stage

ROOMS = ["core", "competition", "folds", "models", "submissions", "pipeline", "studies"]
MODELS = [
    "models.context", "models.job_folder", "models.hardware", "models.inputs", "models.networks", "models.stage",
    "models.features", "models.targets", "models.training", "models.stages", "models.registry", "models.jobs",
]  # fmt: skip
BY_NAME = {
    "models.registry",
    "models.stage",
    "models.inputs.encoder_settings",
    "models.features",
    "models.training",
    "models.stages",
}
"""Who imports modules of the project by name: the kinds of stages, and what only some settings use. It is in the keys
of jobs (`Stage.modules`)."""
FILES = sorted(
    file for room in ROOMS for file in (PROJECT / room).rglob("*.py") if file.parent.name != "configs"
)


def module_of(file):
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def is_ours(name):
    return name.partition(".")[0] in ROOMS


def imports_in(node):
    """Modules of ours that some code imports, wherever the statement stands: in functions and for types, too."""
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            names |= {alias.name for alias in part.names}
        elif isinstance(part, ast.ImportFrom) and part.module:
            names |= {part.module, *(f"{part.module}.{alias.name}" for alias in part.names)}
    return set(filter(is_ours, names))


TREES = {module_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
IMPORTS = {module: imports_in(tree) for module, tree in TREES.items()}


def below(name, package):
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize(
    "rooms", [[*ROOMS, "tests", "benchmarks"], MODELS], ids=["rooms", "inside of models"]
)
def test_a_room_imports_only_rooms_to_its_left(rooms):
    for module, names in IMPORTS.items():
        for i, room in enumerate(rooms):
            later = [name for name in names if any(below(name, other) for other in rooms[i + 1 :])]
            assert not (below(module, room) and later), f"{module} imports {later}"


def test_every_module_of_models_but_the_api_has_a_place():
    placed = [name for name in IMPORTS if any(below(name, room) for room in MODELS)]
    assert {name for name in IMPORTS if below(name, "models")} - {*placed} == {"models", "models.api"}


def test_stages_do_not_import_each_other():
    modules = {f"models.stages.{kind}" for kind in KINDS}
    for module in modules:
        assert not IMPORTS[module] & (modules - {module}), module


def test_no_imports_go_in_a_circle():
    try:
        TopologicalSorter(
            {name: names & IMPORTS.keys() - {name} for name, names in IMPORTS.items()}
        ).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_modules_of_the_project_are_imported_at_the_top_of_a_file():
    """Libraries that take seconds to import may stand in functions."""
    late = {module: imports_in(tree) - imports_at_top(tree) for module, tree in TREES.items()}
    assert {module: names for module, names in late.items() if names} == {}


def imports_at_top(tree):
    return set().union(
        *(imports_in(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    )


def test_modules_are_imported_by_name_only_where_their_code_is_in_the_keys_of_jobs():
    users = {module for module, names in IMPORTS.items() if "core.modules.load" in names}
    assert {user for user in users if not any(below(user, name) for name in BY_NAME)} == set()
    libraries = {"competition.metrics", "models.stages.sklearn"}  # their names are in settings
    importers = {module for module, tree in TREES.items() if "import_module" in ast.dump(tree)}
    assert importers == {"core.modules", *libraries}


def test_no_file_is_longer_than_450_lines():
    lengths = {module_of(file): file.read_text(encoding="utf-8").count("\n") for file in FILES}
    assert {module: length for module, length in lengths.items() if length > 450} == {}


def test_commands_that_answer_in_seconds_do_not_import_slow_libraries():
    quick = (
        "pipeline.commands, folds.compare, models.jobs.train, pipeline.check, pipeline.full, pipeline.new.new"
    )
    slow = {"torch", "transformers", "sklearn", "scipy.stats", "matplotlib", "lightgbm"}
    stored = [{"kind": kind, "parameters": {}} for kind in ("sklearn", "lightgbm")]  # settings of a run
    stages = f"[*map(models.registry.make_stage, {stored})]"
    code = f"import sys, models.registry, {quick}; {stages}; print(*{slow} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


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


def test_code_outside_of_the_stages_does_not_ask_which_kind_a_stage_is():
    stages = PROJECT / "models" / "stages"
    files = [file for file in FILES if not file.is_relative_to(stages) and file.stem != "stage"]
    asked = {module_of(file): QUESTION.findall(file.read_text()) for file in files}
    assert {module: questions for module, questions in asked.items() if questions} == {}


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(x, Gp | lightgbm.Lightgbm)",
        "getattr(self.config, 'quantization', None)",
        "hasattr(run.config.stages[name], 'epochs')",
        "plan.stages[job.stage].kind in ('gp', 'file')",
        "stage.kind == 'file'",
    ],
)
def test_a_question_about_the_kind_is_found(code):
    assert QUESTION.findall(f"    if not {code}") == [code]


def test_the_kind_of_something_else_may_be_asked():
    others = "folds.kind == 'time' or isinstance(head, MultiSampleHead) or getattr(module, name)"
    assert not QUESTION.findall(others)
