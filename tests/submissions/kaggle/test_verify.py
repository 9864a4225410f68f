"""`kernel --verify`: the notebook of a real run proved; then with something taken away."""

import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError, DataError, SubmissionError
from core.files import read_json, read_table, write_table
from core.paths import Paths
from submissions.config import load_config
from submissions.kaggle import pack, verify
from submissions.kaggle.paths import Bundle, Kernel
from submissions.kaggle.verify import INPUT, WORKING, make_sandbox, run_notebook
from submissions.kaggle.wheels import image_packages
from submissions.run import latest_run
from tests.submissions.fakes import built, fake_classes, train_all
from tests.submissions.kaggle.conftest import SHIPPED, SLUG
from tests.submissions.kaggle.test_pack import to_train

pytestmark = pytest.mark.usefixtures("image")


def test_the_notebook_predicts_hidden_and_unreadable_rows_as_predict_does(work, capsys):
    """Other ids, another order in the sample, a molecule that is none, though `unparsable` is `error` in the
    YAML.
    """
    verify.verify_notebook("mixed", 1, 50)
    printed = capsys.readouterr().out
    assert "lumo, mu: the same as ./run.sh predict, to 1e-06 standard deviations" in printed
    assert "verified on 51 hidden rows" in printed
    assert Kernel.of(work).bundle.manifest.stat().st_mode & 0o200  # what was tried is a copy


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["f1_macro", "log_loss"])
def test_a_notebook_of_classes_writes_the_same_names_or_probabilities(tmp_path, capsys, metric):
    stages = {"trees": {"kind": "lightgbm", "max_trees": 15}}
    sections: dict = {"competition": {"kaggle": SLUG}, "stages": stages, "submissions": {"stack": False}}
    path = fake_classes(tmp_path, "multiclass", metric, 60, 20, **sections)
    train_all(path)
    built(path)
    pack.build(Paths("mixed"), None, "me")
    verify.verify_notebook("mixed", 1, 50)
    assert ": the same as ./run.sh predict" in capsys.readouterr().out


def test_a_bundle_without_one_of_its_files_fails_in_one_sentence(work):
    next(Kernel.of(work).bundle.root.rglob("target_0.txt")).unlink()
    with pytest.raises(DataError, match=r"The notebook failed: .*target_0\.txt.*proof\.log\)$") as caught:
        verify.verify_notebook("mixed", 1, 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("difference", "words"),
    [(5e-7, ""), (2e-6, "differ .* by up to (1.9.*|2)e-06"), (np.nan, "by up to nan")],
)
def test_other_predictions_are_refused(work, tmp_path, difference, words):
    run = latest_run("mixed")
    deviation = np.nanstd(read_table(run.paths.train)["lumo"])
    table = pd.DataFrame({"id": ["a", "b"], "lumo": [0.1, 2.0], "mu": [3.0, 4.0]})
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    write_table(here, table)
    write_table(there, table.iloc[::-1].assign(lumo=[2.0, 0.1 + difference * deviation]))
    with pytest.raises(SubmissionError, match=words) if words else nullcontext():
        verify.require_same_predictions(run, there, here)


@pytest.mark.slow  # two trainings, each in a sandbox of its own
def test_a_training_notebook_makes_the_submission_and_a_second_session_goes_on(tmp_path):
    path = to_train(tmp_path / "made")
    kernel = pack.build(Paths.for_competition("mixed"), load_config(str(path)), "me")
    first = session(tmp_path / "first", kernel.root, path.parent)
    assert {file.name for file in first.iterdir()} == {"work", "submission.csv"}
    written = pd.read_csv(first / "submission.csv", dtype={"id": str})
    sample = pd.read_csv(path.parent / "sample_submission.csv", dtype={"id": str})
    assert list(written.columns) == list(sample.columns) and list(written["id"]) == list(sample["id"])
    assert written.drop(columns="id").std().min() > 0
    second = session(tmp_path / "second", kernel.root, path.parent, first)
    printed = (tmp_path / "second.log").read_text()
    assert "jobs were copied, which are finished or have a checkpoint" in printed
    assert "fold 0 of 3  valid" not in printed  # nothing is trained again
    assert (second / "submission.csv").read_bytes() == (first / "submission.csv").read_bytes()


def session(folder, kernel, tables, output=None):
    """Run the notebook on a machine of the platform; returns its working folder."""
    make_sandbox(folder, image_packages(), {SHIPPED})
    mounted = folder / INPUT
    bundle = Bundle(mounted / "datasets" / read_json(kernel / "dataset" / "dataset-metadata.json")["id"])
    shutil.copytree(kernel / "dataset", bundle.root)
    (mounted / SLUG).mkdir(parents=True)  # not where the YAML expects it
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        shutil.copy(tables / name, mounted / SLUG)
    if output is not None:
        shutil.copytree(output, mounted / "notebooks" / "me" / "first")
    notebook = next((kernel / "notebook").glob("*.ipynb"))
    run_notebook(folder, notebook, folder.with_suffix(".log"))
    return folder / WORKING


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Linux", "x86_64")]
)
def test_a_machine_without_the_wheels_of_the_platform_is_refused_before_anything_is_packed(
    monkeypatch, system, machine
):
    monkeypatch.setattr(verify.platform, "system", lambda: system)
    monkeypatch.setattr(verify.platform, "machine", lambda: machine)
    with (
        nullcontext()
        if machine == "x86_64"
        else pytest.raises(ConfigError, match=f"this is {system} on {machine}")
    ):
        verify.require_platform()
