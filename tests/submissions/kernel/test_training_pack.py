"""`kernel --training`: the folder of the data set trains without a network, from the tables to the submission."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.paths import Kernel, Paths, kaggle_files, kaggle_listing
from submissions.config import load_config
from submissions.kernel import execute, pack, packages, wheels
from submissions.kernel.environment import make_environment
from submissions.kernel.limits import Limits
from submissions.kernel.packages import image_packages, project_ranges
from submissions.kernel.sandbox import Box, open_box, run
from submissions.kernel.training import build_training, require_on_platform
from tests.submissions.fakes import fake_competition
from tests.submissions.kernel.conftest import PYTHON, fetch_tiny
from tests.submissions.kernel.test_prove import SHIPPED, wheel_of_installed

SLUG = "small-numbers"
FEATURES = '''
def product(inputs):
    """Of both numbers."""
    return (inputs[["x"]].to_numpy() * inputs[["z"]].to_numpy())
'''


def competition(folder: Path, **sections: Any) -> Path:
    """The YAML of a competition of numbers on the platform, which has a feature of the user's own."""
    folder.mkdir(exist_ok=True)
    (folder / "features.py").write_text(FEATURES)
    sections = {"stages": {"trees": {"kind": "lightgbm", "max_trees": 10}}, **sections}
    roles = {"kaggle": SLUG, "features": "features.py:product", **sections.pop("competition", {})}
    submissions = {"bootstrap": 100, "default": "mean", "stack": False}
    return fake_competition(folder, 90, 20, competition=roles, submissions=submissions, **sections)


def packed(path: Path) -> Kernel:
    config = load_config(str(path))
    require_on_platform(config.competition, path.stem)
    return build_training(str(path), config, "me", PYTHON, None)


@pytest.fixture(autouse=True)
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that lacks one small package, and no network."""
    (tmp_path / "image.txt").write_text(" ".join([*(set(project_ranges()) - {SHIPPED}), "packaging"]))
    monkeypatch.setattr(packages, "IMAGE", tmp_path / "image.txt")
    monkeypatch.setattr(wheels, "fetch", wheel_of_installed)


def session(folder: Path, kernel: Kernel, tables: Path, output: Path | None = None) -> tuple[Box, str]:
    """Run the notebook in a machine of the platform; returns it and what was printed."""
    linked = make_environment(folder / "environment", image_packages(), {SHIPPED})[1]
    box = open_box(folder, folder / "environment", linked)
    inputs = box.folder / "kaggle" / "input"
    mounted = inputs / "datasets" / read_json(kernel.pack.metadata)["id"]
    shutil.copytree(kernel.pack.root, mounted)
    if not box.namespaces:  # then /kaggle is elsewhere
        settings = mounted / f"{read_json(kernel.pack.facts)['name']}.yaml"
        settings.write_text(settings.read_text().replace("/kaggle/", f"{box.kaggle}/"))
    (inputs / "competitions" / SLUG).mkdir(parents=True)
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        shutil.copy(tables / name, inputs / "competitions" / SLUG)
    if output is not None:
        shutil.copytree(output, inputs / "notebooks" / "me" / "first")
    for source in (next(kernel.notebook.glob("*.ipynb")), Path(execute.__file__)):
        shutil.copy(source, box.folder / "kaggle" / "src")
    said: list[str] = []
    source = box.kaggle / "src"
    notebook = next((box.folder / "kaggle" / "src").glob("*.ipynb")).name
    python = str(box.environment / "bin" / "python")
    status, _ = run(box, [python, f"{source}/execute.py", f"{source}/{notebook}"], Limits(300), said.append)
    assert status == 0, "\n".join(said)
    assert json.loads(said[0]) == {"reached": []}
    return box, "\n".join(said)


def test_the_folder_trains_from_the_tables_to_the_submission_and_a_second_session_goes_on(tmp_path: Path) -> None:
    path = competition(tmp_path / "made")
    kernel = packed(path)
    assert [file.name for file in kernel.pack.wheels.iterdir()] == [
        read_json(kernel.pack.facts)["wheels"][SHIPPED]["file"]
    ]
    first, said = session(tmp_path / "first", kernel, path.parent)
    assert f"installed from the pack: {SHIPPED}" in said
    working = first.folder / "kaggle" / "working"
    assert {file.name for file in working.iterdir()} == {"work", "submission.csv"}
    written, sample = (pd.read_csv(file, dtype={"id": str}) for file in (
        working / "submission.csv", path.parent / "sample_submission.csv"
    ))  # fmt: skip
    assert list(written.columns) == list(sample.columns) and list(written["id"]) == list(sample["id"])
    assert written.drop(columns="id").std().min() > 0

    second, said = session(tmp_path / "second", kernel, path.parent, working)
    assert "3 finished jobs" in said and "3 of 3 jobs are finished" in said
    assert (second.folder / "kaggle" / "working" / "submission.csv").read_bytes() == (
        working / "submission.csv"
    ).read_bytes()


def test_every_path_of_the_yaml_leads_to_the_mount_or_into_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", fetch_tiny)
    more = tmp_path / "made" / "more"
    path = competition(tmp_path / "made", competition={"extra_train": [{"file": "more/extra.csv"}]})
    more.mkdir()
    shutil.copy(path.parent / "train.csv", more / "extra.csv")
    made = packed(path).pack
    settings = yaml.safe_load((made.root / "mixed.yaml").read_text())["competition"]
    assert settings["train"] == f"/kaggle/input/competitions/{SLUG}/train.csv"
    assert settings["sample_submission"] == f"/kaggle/input/competitions/{SLUG}/sample_submission.csv"
    assert "answers" not in settings
    assert settings["features"] == "code/user/competition/features/features.py:product"
    assert (made.root / settings["features"].split(":")[0]).read_text() == FEATURES
    assert (made.root / settings["extra_train"][0]["file"]).read_bytes() == (more / "extra.csv").read_bytes()
    assert not [file for file in made.root.rglob("*.csv") if file.name != "extra.csv"]


def test_downloaded_tables_are_named_as_the_platform_has_them_and_one_in_an_archive_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", fetch_tiny)
    folder = kaggle_files(SLUG)
    path = competition(tmp_path / "made")
    (folder / "data").mkdir(parents=True)
    document = yaml.safe_load(path.read_text())
    for key, name in (("train", "data/train.csv"), ("test", "test.csv")):
        shutil.copy(path.parent / f"{key}.csv", folder / name)
        document["competition"][key] = str(folder / name)
    path.write_text(yaml.safe_dump(document))
    write_json(kaggle_listing(SLUG), {"listed": {"data/train.csv": 1, "test.csv.zip": 1, "sample_submission.csv": 1}})
    made = packed(path).pack
    settings = yaml.safe_load((made.root / "mixed.yaml").read_text())["competition"]
    assert settings["train"] == f"/kaggle/input/competitions/{SLUG}/data/train.csv"
    assert (made.root / settings["test"]).read_bytes() == (folder / "test.csv").read_bytes()


def test_without_the_name_on_the_platform_there_is_no_training_pack(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"competition\.kaggle must name .* add kaggle: SLUG"):
        packed(competition(tmp_path / "made", competition={"kaggle": None}))
    with pytest.raises(ConfigError, match="leave out --holdout"):
        packed(competition(tmp_path / "made", competition={"holdout_of": "mixed"}))
    assert not Paths.of("mixed").training_kernel.root.exists()


def test_what_cannot_be_packed_is_told_before_the_owner_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = competition(tmp_path / "made", competition={"kaggle": None})
    for arguments, message in (
        (["nothing"], "'nothing' must be a YAML file or one of the competitions"),
        (["nothing", "--training"], "'nothing' must be a YAML file or one of the competitions"),
        ([str(path), "--training"], r"competition\.kaggle must name"),
        ([str(path), "--training", "--try"], "--try must go without --training"),
    ):
        monkeypatch.setattr(sys, "argv", ["pack", *arguments])
        with pytest.raises(ConfigError, match=message):
            pack.main()
    assert capsys.readouterr().out == ""


def test_weights_travel_in_the_layout_of_weights_dir_or_the_pack_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", fetch_tiny)
    weights = tmp_path / "encoder"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    stages = {"text": {"kind": "bert", "weights": str(weights), "columns": ["x"]}}
    roles = {"numeric": ["z"], "text": ["x"], "features": None}
    made = packed(competition(tmp_path / "made", competition=roles, stages=stages)).pack
    settings = yaml.safe_load((made.root / "mixed.yaml").read_text())["stages"]["text"]
    assert settings["weights"] == "weights/text" and (made.root / "weights/text/config.json").read_text() == "{}"
    notebook = read_json(Paths.of("mixed").training_kernel.notebook / "kernel-metadata.json")
    assert (notebook["enable_gpu"], notebook["enable_internet"]) == (True, False)
    assert notebook["competition_sources"] == [SLUG]

    stages["text"]["weights"] = "someone/unknown"
    with pytest.raises(ConfigError, match=r"stages\.text: weights 'someone/unknown' must be"):
        packed(competition(tmp_path / "made", competition=roles, stages=stages))
    assert (made.root / "weights/text/config.json").exists()  # the one that was there stays
