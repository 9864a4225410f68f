"""The levels of a submission.

A command with a budget builds one after the other, so that there is a submission whenever its time is over;
one without a budget builds the last one at once. Within one run a later level replaces an earlier one.

The submission of a run with finished stages is complete, and in the folder of the run. What is not
complete, level FOLDS and submissions while other stages train, is in the folder `so_far`. It is the latest
submission of a competition only until there is a complete one (`submissions.build.publish`).
"""

from enum import StrEnum

from submissions.blend.candidates import ALWAYS
from submissions.blend.selection import MEAN
from submissions.blend.settings import SubmissionsConfig


class Level(StrEnum):
    """What is made of the predictions of finished jobs."""

    FOLDS = "folds"
    """The mean of the models of the finished folds of one stage, since no stage has all."""
    MEAN = "mean"
    """The mean of the stages, their convex weights, or the best of them: nothing is tuned."""
    BLEND = "blend"
    """All candidates but the LightGBM stack, which takes most of the time."""
    FULL = "full"
    """All candidates, and the default blend without each stage."""

    def includes(self, other: "Level") -> bool:
        """Return whether this is the other level or a later one."""
        levels = list(Level)
        return levels.index(self) >= levels.index(other)

    def limit(self, settings: SubmissionsConfig) -> SubmissionsConfig:
        """Return settings with this level's candidates only; the mean replaces a default of later levels."""
        changes: dict[str, object] = {}
        if not self.includes(Level.FULL):
            changes["stack"] = False
        if not self.includes(Level.BLEND):
            changes["candidates"] = []
            if settings.default not in ALWAYS:
                changes["default"] = MEAN
        return settings.model_copy(update=changes)


MISSING = {
    Level.MEAN: "Tuned blends, the LightGBM stack and the leave-one-stage-out blends",
    Level.BLEND: "The LightGBM stack and the leave-one-stage-out blends",
}
"""Level -> what it leaves out, for a sentence."""
