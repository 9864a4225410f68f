"""The settings of a competition for tests that need no files."""

from typing import Any

from competition.config import CompetitionConfig


def competition(**settings: Any) -> CompetitionConfig:
    files = {"train": "a", "test": "b", "sample_submission": "c", "id": "id", "metric": "rmse", "targets": ["y"]}
    return CompetitionConfig.model_validate({**files, **settings})
