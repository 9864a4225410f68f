"""Settings of the `submissions:` section."""

from typing import Annotated, Literal

from pydantic import Field

from competition.metrics import CLASS_TYPES
from core.settings import StrictModel, UniqueList, UserCodeRef
from core.types import ProblemType
from submissions.blend.candidates import CANDIDATES

Blend = Literal[*CANDIDATES] | UserCodeRef  # type: ignore[valid-type]
DEFAULT_OF_CLASSES = "shrunk_logits"
DEFAULT_OF_NUMBERS = "shrunk_ridge"


class SubmissionsConfig(StrictModel):
    """Settings of the `submissions:` section."""

    default: Blend | None = None
    """The blend that is submitted unless another candidate is better by more than `margin` standard errors
    and by a thousandth of the default's gain over a constant. Unset: shrunk_ridge, or shrunk_logits for
    classification.
    """
    candidates: Annotated[list[Blend], UniqueList] = []
    """Blends to compare with the default, in addition to best_single, mean and convex. `file.py:function` is
    a function of yours (`submissions/blend/candidates.py`).
    """
    margin: float = Field(default=2.0, ge=0)
    """Standard errors of the paired difference by which another candidate must be better; of few groups more."""
    trials: int = Field(default=40, ge=2)
    """Trials of Optuna on the two amounts of `shrunk_ridge`, for each target; other blends ignore them."""
    stack: bool = True
    """Whether the stack is a candidate: small trees on the residual of the default blend."""
    postprocess: UserCodeRef | None = None
    """`file.py:function` of predictions (n_rows, n_outputs), which returns those to submit or, if the metric
    scores labels, those to make labels from. It is applied to every candidate, so that the scores count it.
    """

    def default_blend(self, problem_type: ProblemType) -> str:
        """Return the blend that is submitted unless another one is better."""
        return self.default or (DEFAULT_OF_CLASSES if problem_type in CLASS_TYPES else DEFAULT_OF_NUMBERS)

    def blends(self, problem_type: ProblemType) -> list[str]:
        """Return the default blend and the candidates of the YAML."""
        return [self.default_blend(problem_type), *self.candidates]
