"""The setting `gpu` of a stage: the share of one card that each of its jobs takes."""

from typing import Annotated

from pydantic import AfterValidator


def _at_most_one_card(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(
            "must be true, false, or a share of one card up to 1; several cards for one job are not supported"
        )
    return share


GpuShare = Annotated[float, AfterValidator(_at_most_one_card)]
"""Share of one card that a job takes, where there is a card: with 0.25 four jobs train on it together. true is 1, and
false is 0: on the cores."""
