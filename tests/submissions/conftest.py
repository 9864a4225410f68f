"""A finished run of made-up jobs, to be copied."""

import shutil

import pytest

from tests.submissions.fakes import fake_competition, finished


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        finished(fake_competition(folder))
    return folder


@pytest.fixture
def done(template, tmp_path):
    """The YAML of a competition with a finished run."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "mixed.yaml"
