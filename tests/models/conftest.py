"""Fixtures of the tests of stages on text: an encoder and a decoder."""

import pytest

from tests.models.encoders import publish, publish_decoder


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    return publish_decoder(tmp_path_factory.mktemp("decoder"))
