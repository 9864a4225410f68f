"""The kinds of stages, how a block of the YAML becomes a stage, and the section `stages`.

To add a kind, write a subclass of `models.stage.Stage` in `models/stages/KIND.py` and add it to `KINDS`. A
class in a file next to the YAML needs no entry: `kind: mine.py:Class`.
"""

import inspect
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo

from core.errors import ConfigError
from core.modules import load
from core.settings import absolute_code_ref
from core.user_code import load_user_code, short_ref
from models.stage import Stage

BASELINE = "baseline"
"""The kind that a budget adds to a YAML without a stage that comes first."""
KINDS = {
    "unimol": "models.stages.unimol:Unimol",
    "unimol2": "models.stages.unimol2:Unimol2",
    "gnn": "models.stages.gnn:Gnn",
    "bert": "models.stages.bert:Bert",
    "lightgbm": "models.stages.lightgbm:Lightgbm",
    "sklearn": "models.stages.sklearn:Sklearn",
    "gp": "models.stages.gp:Gp",
    BASELINE: "models.stages.baseline:Baseline",
    "file": "models.stages.file:File",
}
"""Value of the key `kind` in the YAML -> module and class."""


def stage_class(kind: str) -> type[Stage]:
    """Return the class of a kind, and import its module.

    Args:
        kind: name of a built-in kind, or `file.py:Class` with the path of a user's file.

    Raises:
        ConfigError: the kind does not exist, or the class of the user is not a stage.
    """
    if ":" in kind:
        return _users_class(kind)
    if kind not in KINDS:
        raise ConfigError(
            f"kind must be one of {', '.join(KINDS)}, or file.py:Class for a user-defined stage; got {kind!r}"
        )
    module, _, name = KINDS[kind].partition(":")
    built_in: type[Stage] = getattr(load(module), name)
    return built_in


def make_stage(values: Any, info: ValidationInfo | None = None) -> Stage:
    """Return the stage of a block of the YAML, or of the dumped settings of a stage.

    Args:
        info: of pydantic, with the folder of the YAML for paths in the block.

    Raises:
        ValueError: a setting is invalid; pydantic adds the name of the stage.
    """
    if isinstance(values, Stage):
        return values
    if not isinstance(values, dict):
        raise ValueError("must be a mapping (key: value)")
    kind = values.get("kind")
    if not isinstance(kind, str):
        raise ValueError("kind is missing")
    if ":" in kind and info is not None:
        kind = absolute_code_ref(kind, info)
    try:
        stage_type = stage_class(kind)
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from error
    return stage_type.model_validate(values | {"kind": kind}, context=None if info is None else info.context)


def _users_class(code_ref: str) -> type[Stage]:
    """Return a class of the user, with a message for what a stage needs."""
    user_class = load_user_code("kind", code_ref, "a class that inherits models.api.Stage")
    name = short_ref(code_ref)
    if not (inspect.isclass(user_class) and issubclass(user_class, Stage)):
        raise ConfigError(
            f"kind: {name} must inherit Stage and have the settings of the block as fields: "
            "`from models.api import Stage`, and methods fit(self, train, folder, context) and "
            "predict(self, rows, folder, context)."
        )
    if inspect.isabstract(user_class):
        raise ConfigError(
            f"kind: {name} has no method {' and '.join(sorted(user_class.__abstractmethods__))}; "
            "add it, with the arguments of the base class."
        )
    for method, rows in ((user_class.fit, "train"), (user_class.predict, "rows")):
        try:
            inspect.signature(method).bind("self", rows, "folder", "context")
        except TypeError:
            what = f"{method.__name__}{inspect.signature(method)}"
            raise ConfigError(
                f"kind: {name} defines {what}; write `def {method.__name__}(self, {rows}, folder, context):`"
            ) from None
    return user_class


StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""Letters, digits and underscores."""


def _stage(block: Any, info: ValidationInfo) -> Stage:
    return make_stage(block, info)  # pydantic passes `info` only if it has no default


AnyStage = Annotated[SerializeAsAny[Stage], BeforeValidator(_stage)]
"""A stage of the kind that its key `kind` names."""
Stages = Annotated[dict[StageName, AnyStage], Field(min_length=1)]
"""Name of a stage -> its settings, in the order of the YAML."""
