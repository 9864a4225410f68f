"""The section `stages` of the YAML."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationInfo

from models.registry import make_stage
from models.stage import Stage


def _stage(block: Any, info: ValidationInfo) -> Stage:
    return make_stage(block, info)


AnyStage = Annotated[SerializeAsAny[Stage], BeforeValidator(_stage)]
"""A stage of the kind that its key `kind` names."""


def _check_pseudo_label_sources(stages: dict[str, Any]) -> dict[str, Any]:
    """Check that pseudo-labels come from models that did not see the labels of the held-out fold.

    External predictions may have seen them.
    """
    allowed = [name for name, stage in stages.items() if stage.is_trained and not stage.pseudo_labels]
    invalid = []
    for name, stage in stages.items():
        sources = stage.pseudo_labels.stages if stage.pseudo_labels else []
        invalid += [f"{source} (of {name})" for source in sources if source not in allowed]
    if invalid:
        raise ValueError(
            "pseudo_labels.stages must name stages that are trained here and have no pseudo-labels "
            f"({', '.join(allowed) or 'none'}); got {', '.join(invalid)}"
        )
    return stages


StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(__[A-Za-z0-9_.]+)?$")]
"""Letters, digits and underscores. Stages of a study append the name of a variant, as in `gnn__rate_0.1`."""
Stages = Annotated[
    dict[StageName, AnyStage], Field(min_length=1), AfterValidator(_check_pseudo_label_sources)
]
"""Name of a stage -> its settings, in the order of the YAML."""
