"""A pack holds what prediction reads, and nothing of the training table or of the machine that packed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from competition.command import locked
from competition.errors import ConfigError, DataError
from competition.files import read_json, read_text_table, sha256_of, write_json
from competition.paths import PROJECT, Pack, Paths
from competition.revision import ROOMS
from submissions.kernel import contents as contents_module
from submissions.kernel import notebook, packages, wheels
from submissions.kernel import pack as pack_module
from submissions.kernel.contents import SCRIPTS, copy_code
from submissions.kernel.pack import PYTHONS, build, require_run, table_of_sizes
from submissions.run import MANIFEST
from tests.submissions.kernel.conftest import PYTHON, fetch_tiny


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No prediction in another process, and no network."""
    monkeypatch.setattr(packages, "rehearse", lambda *arguments: ["lightgbm"])
    monkeypatch.setattr(wheels, "fetch", fetch_tiny)


def contents(pack: Pack) -> dict[str, bytes]:
    return {str(path.relative_to(pack.root)): path.read_bytes() for path in pack.root.rglob("*") if path.is_file()}


def test_no_label_no_training_input_and_no_out_of_fold_prediction_travels(made: Path, work: Paths) -> None:
    table = read_text_table(made / "train.csv")
    test = read_text_table(made / "test.csv")
    secrets = {label for name in ("lumo", "mu") for label in table[name] if len(label) > 8}
    secrets |= {smiles for smiles in set(table["SMILES"]) - set(test["SMILES"]) if len(smiles) > 8}
    secrets |= set(table["id"]) - set(test["id"])
    assert len(secrets) > 150
    packed = contents(work.pack)
    assert not any(secret.encode() in content for content in packed.values() for secret in secrets)
    assert not [name for name in packed if "oof" in Path(name).name or "cross_fitted" in name or "/test/" in name]


def test_no_folder_of_this_machine_is_named_in_a_pack(made: Path, work: Paths) -> None:
    for name, content in contents(work.pack).items():
        for folder in (made, PROJECT, work.root):
            assert str(folder).encode() not in content, name


def test_pack_json_lists_every_file_with_size_and_digest(work: Paths) -> None:
    facts = read_json(work.pack.facts)
    unlisted = {work.pack.facts.name, work.pack.metadata.name}
    assert set(facts["files"]) == set(contents(work.pack)) - unlisted
    for name, known in facts["files"].items():
        path = work.pack.root / name
        assert known == {"size": path.stat().st_size, "sha256": sha256_of(path)}
    assert (facts["run"], facts["kaggle"], facts["id"]) == (work.latest_run.read_text().strip(), "some-molecules", "id")
    assert "all" in table_of_sizes(facts["files"])


def test_of_a_refitted_stage_the_refit_alone_travels(work: Paths) -> None:
    jobs = {str(path.parent.relative_to(work.pack.work)) for path in work.pack.work.rglob("report.json")}
    assert [Path(job).name for job in sorted(jobs) if "/ridge/" in job] == ["fold_all"]
    assert [Path(job).name for job in sorted(jobs) if "/trees/" in job] == ["fold_0", "fold_1"]


def test_code_of_the_users_own_travels_and_tests_and_data_do_not(work: Paths) -> None:
    packed = contents(work.pack)
    assert {"code/user/competition/features.py", "code/user/own/own.py", "code/run.sh"} <= set(packed)
    assert not [name for name in packed if name.startswith(("code/tests", "code/competition/data", "code/docs"))]
    config = read_json(work.pack.work / "mixed" / "submissions" / work.latest_run.read_text().strip() / MANIFEST)[
        "config"
    ]
    assert config["stages"]["own"]["code"] == "code/user/own/own.py:Shrunk"
    assert config["competition"]["train"] == "train.csv"


def test_of_what_a_user_keeps_among_the_code_only_code_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ROOMS, "competition/mine"):
        (tmp_path / "project" / name).mkdir(parents=True)
    for name in ("models/own.py", "models/kaggle.json", "competition/mine/answers.csv", *SCRIPTS):
        (tmp_path / "project" / name).touch()
    monkeypatch.setattr(contents_module, "PROJECT", tmp_path / "project")
    copy_code(Pack(tmp_path / "pack"))
    assert set(contents(Pack(tmp_path / "pack"))) == {"code/models/own.py", *(f"code/{name}" for name in SCRIPTS)}


def test_an_interrupted_pack_leaves_the_old_one_whole(
    work: Paths, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work.pack.root / "stray").touch()  # else it would be kept
    before = contents(work.pack)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        build("mixed", "me", PYTHON, None)
    assert contents(work.pack) == before
    assert not list(work.root.glob(".kernel*"))


def test_a_new_pack_replaces_the_old_one_and_what_a_killed_process_left(work: Paths, quick: None) -> None:
    (work.pack.root / "stray").touch()
    left = work.root / ".kernel.new"
    left.mkdir()
    (left / "half").touch()
    with locked(work):
        build("mixed", "me", PYTHON, None)
    assert not (work.pack.root / "stray").exists()
    assert not left.exists()
    assert work.pack.facts.exists()


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an entry for each time that two rows are predicted, which is when a pack is made anew; none is, really."""
    times: list[int] = []
    monkeypatch.setattr(packages, "rehearse", lambda *arguments: times.append(1) or ["lightgbm"])
    monkeypatch.setattr(wheels, "fetch", fetch_tiny)
    return times


def test_an_unchanged_pack_is_kept_whoever_owns_it(
    work: Paths, rehearsed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(work.pack)
    build("mixed", "someone", PYTHON, "NvidiaTeslaT4")
    assert not rehearsed
    assert "the pack is kept as it is" in capsys.readouterr().out
    changed = {name for name, content in contents(work.pack).items() if before[name] != content}
    assert changed == {"dataset-metadata.json"}
    assert read_json(work.notebook / "kernel-metadata.json")["dataset_sources"] == ["someone/mixed-pack"]


@pytest.mark.parametrize("what", ["python", "run", "file of the pack", "file too many", "file too few", "code"])
def test_a_pack_of_anything_else_is_made_anew(
    work: Paths, rehearsed: list[int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run = work.run(work.latest_run.read_text().strip())
    packed = work.pack.code / "run.sh"
    if what == "run":
        write_json(run / MANIFEST, {**read_json(run / MANIFEST), "seconds": 1.0})
    elif what == "file of the pack":
        packed.write_text(packed.read_text() + "\n")
    elif what == "file too many":
        (work.pack.root / "stray").touch()
    elif what == "file too few":
        packed.unlink()
    elif what == "code":
        monkeypatch.setattr(pack_module, "code_files", lambda: [Path("run.sh")])
    other_python = next(python for python in PYTHONS if python != PYTHON)
    build("mixed", "me", other_python if what == "python" else PYTHON, None)
    assert rehearsed == [1]
    assert not (work.pack.root / "stray").exists() and packed.read_bytes() == (PROJECT / "run.sh").read_bytes()


def test_a_job_with_a_changed_file_is_not_packed(work: Paths, quick: None) -> None:
    shutil.rmtree(work.kernel)
    booster = next(work.root.glob("models/trees/*/seed_0/fold_1/target_0.txt"))
    booster.write_text(booster.read_text() + " ")
    with pytest.raises(DataError, match=r"target_0.txt must be as the job wrote it, but it has changed"):
        build("mixed", "me", PYTHON, None)


def test_a_stage_of_predictions_made_elsewhere_cannot_be_packed(work: Paths, quick: None) -> None:
    manifest = work.run(work.latest_run.read_text().strip()) / MANIFEST
    stored = read_json(manifest)
    stored["config"]["stages"]["theirs"] = {"kind": "file", "folder": "/somewhere"}
    write_json(manifest, stored)
    with pytest.raises(DataError, match=r"theirs \(kind: file\) have none"):
        build("mixed", "me", PYTHON, None)


@pytest.mark.parametrize("file", ["own.py", "features.py"])
def test_own_code_that_changed_since_the_run_is_not_packed(
    made: Path, work: Paths, quick: None, tmp_path: Path, file: str
) -> None:
    manifest = work.run(work.latest_run.read_text().strip()) / MANIFEST
    shutil.copy(made / file, tmp_path / file)
    manifest.write_text(manifest.read_text().replace(str(made / file), str(tmp_path / file)))
    with (tmp_path / file).open("a") as code:
        code.write("\nMORE = 1\n")
    with pytest.raises(DataError, match=f"{file} is gone or has changed"):
        build("mixed", "me", PYTHON, None)


def test_a_competition_without_a_run_is_told_to_make_one_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run ./run.sh full smoke"):
        require_run("smoke")
    with pytest.raises(ConfigError, match="'nothing' must be a YAML file or one of the competitions"):
        require_run("nothing")
    assert not (tmp_path / "work").exists()


def test_the_notebook_is_valid_has_no_outputs_and_asks_for_no_internet(work: Paths) -> None:
    metadata = read_json(work.notebook / "kernel-metadata.json")
    assert metadata["enable_internet"] is False
    assert metadata["enable_gpu"] is False  # no stage has a network
    assert metadata["competition_sources"] == ["some-molecules"]
    assert metadata["dataset_sources"] == [read_json(work.pack.metadata)["id"]] == ["me/mixed-pack"]
    assert metadata["id"].split("/")[1] == metadata["title"].lower().replace(" ", "-")
    written = nbformat.read(work.notebook / metadata["code_file"], as_version=4)
    nbformat.validate(written)
    assert not any(cell.get("outputs") for cell in written.cells)


@pytest.mark.parametrize(
    ("name", "slug"), [("x", "x-pack"), ("My_Data", "my-data-pack"), ("y" * 80, "y" * 45 + "-pack")]
)
def test_names_on_kaggle_have_6_to_50_characters(name: str, slug: str) -> None:
    assert notebook.slug_of(name, "pack") == slug
    assert 6 <= len(notebook.title_of(slug)) <= 50


def test_a_gpu_is_asked_for_by_its_id(work: Paths, tmp_path: Path) -> None:
    facts = json.loads(work.pack.facts.read_text())
    notebook.write(tmp_path / "notebook", work.pack, facts, "me", "NvidiaTeslaT4")
    metadata = read_json(tmp_path / "notebook" / "kernel-metadata.json")
    assert (metadata["enable_gpu"], metadata["machine_shape"]) == (True, "NvidiaTeslaT4")
