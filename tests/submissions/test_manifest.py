"""run.json: what is written is what is read, and what its fields do not describe is refused."""

import math

import numpy as np
import pytest

from core.errors import DataError
from core.files import read_json, write_json
from submissions.manifest import MANIFEST, Expected, ExpectedShift, read_manifest, write_manifest
from tests.submissions.fakes import run_of


def test_numbers_that_are_not_finite_are_none_in_memory_as_in_the_file(done):
    run = run_of(done)
    shift = ExpectedShift(sentence="They differ.", factor=math.inf)
    expected = Expected(
        score=np.float32(math.nan), interval=None, unknown="It is late.", shift=shift, warnings=[]
    )
    assert (expected.score, shift.factor) == (None, None)
    choice = run.choice.model_copy(update={"expected": expected})
    manifest = run.manifest.model_copy(update={"choice": choice})
    write_manifest(run.folder, manifest)
    assert read_manifest(run.folder) == manifest
    assert read_json(run.folder / MANIFEST)["choice"]["expected"]["score"] is None


def test_a_run_json_with_another_key_or_without_one_is_broken_and_the_message_names_the_key(done):
    folder = run_of(done).folder
    content = read_json(folder / MANIFEST)
    choice = {**content["choice"], "decides": True}
    for changed, key in (({"choice": choice}, "choice.decides"), ({"n_folds": "three"}, "n_folds")):
        write_json(folder / MANIFEST, {**content, **changed})
        with pytest.raises(DataError, match=rf"run\.json is broken \({key}: .*\); delete .* ./run\.sh full"):
            read_manifest(folder)
    del content["test_key"]
    write_json(folder / MANIFEST, content)
    with pytest.raises(DataError, match=r"\(test_key: Field required\)"):
        read_manifest(folder)


def test_a_run_reads_its_run_json_once(done):
    run = run_of(done)
    before = run.manifest
    (run.folder / MANIFEST).unlink()
    assert run.manifest is before and run.choice is before.choice
