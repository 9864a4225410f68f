"""The setting `gpu` of a stage: the share of one GPU that each of its jobs takes."""

from typing import Annotated

from pydantic import AfterValidator


def _check_single_gpu(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(
            "must be true, false, or a share of one card up to 1; several cards for one job are not supported"
        )
    return share


GpuShare = Annotated[float, AfterValidator(_check_single_gpu)]
"""Share of one GPU that a job takes if there is a GPU. With 0.25, four jobs train on it at the same
time. true means 1; false means 0, which is training on CPU cores."""
