"""A fixture of the tests of stages on text: an encoder."""

from pathlib import Path

import pytest

from tests.models.encoders import publish


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))
