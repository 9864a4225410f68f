"""A bundle holds what the notebook reads, and nothing of the training table or of the machine that packed."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file

from core.errors import ConfigError, DataError, UserError
from core.files import PROJECT, read_json, write_atomically
from core.paths import Paths
from core.user_tables import read_text_table
from pipeline import commands
from submissions.config import load_config
from submissions.kaggle import pack
from submissions.kaggle.pack import write_notebook
from submissions.kaggle.paths import Bundle, Kernel, kaggle_files
from tests.conftest import new_process
from tests.submissions.fakes import built, fake_competition, train_all, with_setting
from tests.submissions.kaggle.conftest import SHIPPED, SLUG

pytestmark = pytest.mark.usefixtures("image")


def contents_of(bundle):
    files = [path for path in bundle.root.rglob("*") if path.is_file()]
    return {str(path.relative_to(bundle.root)): path.read_bytes() for path in files}


def build(paths):
    return pack.build(paths, None, "me").bundle


def test_no_label_no_training_input_no_out_of_fold_prediction_and_no_folder_travels(made, work):
    table, test = read_text_table(made / "train.csv"), read_text_table(made / "test.csv")
    secrets = {cell for name in ("lumo", "mu", "SMILES") for cell in {*table[name]} - {*test.get(name, [])}}
    secrets = {secret for secret in secrets if len(secret) > 8} | {*table["id"]} - {*test["id"]}
    assert len(secrets) > 150
    bundle = Kernel.of(work).bundle
    packed = contents_of(bundle)
    everything = b"\n".join(packed.values())
    assert not [secret for secret in secrets if secret.encode() in everything]
    assert not [folder for folder in (made, PROJECT, work.root) if str(folder).encode() in everything]
    not_read = ("oof", "cross_fitted", "/test/", "code/tests", "code/competition/data/", "code/docs")
    assert not [name for name in packed if any(part in name for part in not_read)]
    jobs = [Path(name).parts for name in packed if name.endswith("report.json")]
    folds = sorted((job[3], job[-2]) for job in jobs)
    assert folds == [
        ("own", "fold_0"),
        ("own", "fold_1"),
        ("refit", "fold_all"),
        ("trees", "fold_0"),
        ("trees", "fold_1"),
    ]
    assert bundle.requirements.read_text().split("==")[0] == SHIPPED


def test_a_second_bundle_is_the_same_whatever_was_done_to_the_first(work):
    bundle = Kernel.of(work).bundle
    before = contents_of(bundle)
    (bundle.root / "stray").touch()
    assert contents_of(build(work)) == before


def test_code_alone_travels_of_what_a_user_keeps_next_to_it(tmp_path, monkeypatch):
    project, bundle = tmp_path / "project", Bundle(tmp_path / "bundle")
    code = ("models/own.py", *pack.SCRIPTS)
    for name in (*code, "models/kaggle.json", "competition/mine/a.csv", "models/.hidden/a.py"):
        write_atomically(project / name, "")
    monkeypatch.setattr(pack, "PROJECT", project)
    pack.copy_code(bundle)
    assert set(contents_of(bundle)) == {f"code/{name}" for name in code}


def test_a_stage_without_weight_in_the_submission_does_not_travel(made, work):
    folder = work.root.parent.parent
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("work"), dirs_exist_ok=True)
    built(with_setting(folder / "mixed.yaml", "submissions", default="best_single"))
    bundle = build(work)
    stages = {path.relative_to(bundle.work).parts[2] for path in bundle.work.rglob("report.json")}
    stored = read_json(next(bundle.work.glob("mixed/submissions/*/run.json")))
    assert set(stored["config"]["stages"]) == set(stored["stages"]) == stages
    assert len(stages) < 3  # of two targets, each has a best single stage


def test_a_job_that_changed_since_the_run_is_not_packed(work):
    booster = next(work.root.glob("models/trees/*/seed_0/fold_1/target_0.txt"))
    booster.write_text(booster.read_text() + " ")
    with pytest.raises(DataError, match=r"target_0\.txt has changed since the job wrote it"):
        build(work)


def test_data_that_user_defined_code_opened_travels_in_its_place_next_to_the_code(work):
    """No string in the code names it."""
    packed = contents_of(Kernel.of(work).bundle)
    for code, data in (("own.py", "shares/half.txt"), ("features.py", "units/one.txt")):
        (folder,) = [
            name.removesuffix(code) for name in packed if "/user/" in name and name.endswith(f"/{code}")
        ]
        assert f"{folder}{data}" in packed


@pytest.mark.parametrize("file", ["own.py", "features.py", "means.py", "shares/half.txt", "units/one.txt"])
def test_user_defined_code_or_data_that_changed_since_the_run_is_not_packed(made, work, tmp_path, file):
    manifest = work.run(work.latest_run.read_text().strip()) / "run.json"
    shutil.copytree(made, tmp_path / "edited", ignore=shutil.ignore_patterns("work"))
    manifest.write_text(manifest.read_text().replace(f"{made}/", f"{tmp_path}/edited/"))
    with (tmp_path / "edited" / file).open("a") as code:
        code.write("\nMORE = 1\n")
    with pytest.raises(DataError, match=rf"{file}\b.* changed since the run"):
        build(work)


def test_the_notebook_is_valid_has_no_outputs_and_asks_for_no_internet(work, tmp_path):
    kernel = Kernel.of(work)
    metadata = read_json(kernel.notebook / "kernel-metadata.json")
    expected = {
        "enable_internet": False, "is_private": True, "enable_gpu": False, "competition_sources": [SLUG],
        "dataset_sources": ["me/mixed-pack"],
    }  # fmt: skip
    assert expected.items() <= metadata.items()
    written = read_json(kernel.notebook / metadata["code_file"], "nbformat")
    assert not any(cell.get("outputs") for cell in written["cells"])
    manifest = {
        **read_json(kernel.bundle.manifest),
        "accelerator": "NvidiaTeslaT4",
        "name": "My_" + 80 * "y",
    }
    write_notebook(tmp_path, kernel.bundle, manifest, "me")
    metadata = read_json(tmp_path / "kernel-metadata.json")
    assert (metadata["enable_gpu"], metadata["machine_shape"]) == (True, "NvidiaTeslaT4")
    assert metadata["id"] == f"me/my-{39 * 'y'}-offline"  # at most 50 characters


FEATURES = "def product(inputs):\n    return inputs[['x']].to_numpy() * inputs[['z']].to_numpy()\n"


def to_train(folder, **sections):
    """The YAML of a competition of numbers on the platform, which has a feature of the user's own."""
    folder.mkdir(exist_ok=True)
    (folder / "features.py").write_text(FEATURES)
    sections = {"stages": {"trees": {"kind": "lightgbm", "max_trees": 10}}, **sections}
    roles = {"kaggle": SLUG, "features": "features.py:product", **sections.pop("competition", {})}
    submissions = {"default": "mean", "stack": False}
    return fake_competition(folder, 90, 20, competition=roles, submissions=submissions, **sections)


def build_training(path):
    """The bundle of a notebook that trains, and its YAML."""
    bundle = pack.build(Paths.for_competition(str(path)), load_config(str(path)), "me").bundle
    return bundle, yaml.safe_load((bundle.root / "mixed.yaml").read_text())


def test_a_notebook_that_trains_gets_what_user_code_opened_for_the_latest_run(tmp_path, capsys):
    path = to_train(tmp_path / "made")
    scale = "from pathlib import Path\ndef product(inputs, name='scale'):\n"
    scale += "    return inputs[['x']] * float(Path(f'{Path(__file__).parent}/{name}.txt').read_text())\n"
    (tmp_path / "made" / "features.py").write_text(scale)
    (tmp_path / "made" / "scale.txt").write_text("2")
    bundle, _ = build_training(path)
    assert not [name for name in contents_of(bundle) if name.endswith("scale.txt")]
    assert "is packed after ./run.sh full" in capsys.readouterr().out
    train_all(path)
    built(path)
    new_process()
    bundle, settings = build_training(path)
    assert (
        contents_of(bundle)[settings["competition"]["features"].replace("features.py:product", "scale.txt")]
        == b"2"
    )
    assert "is packed after" not in capsys.readouterr().out


def test_every_path_of_the_training_yaml_leads_to_the_mount_or_into_the_bundle(tmp_path):
    """The tables are as downloaded; one of them the platform has in an archive alone."""
    downloaded, mount = kaggle_files(SLUG), f"/kaggle/input/competitions/{SLUG}"
    tables = {
        "train": downloaded / "data/train.csv",
        "test": downloaded / "test.csv.zip/test.csv",
        "sample_submission": downloaded / "sample_submission.csv",
    }
    path = to_train(tmp_path / "made", competition={"extra_train": [{"file": "extra.csv"}]})
    shutil.copy(path.with_name("train.csv"), path.with_name("extra.csv"))
    for file in tables.values():
        write_atomically(file, path.with_name(file.name).read_bytes())
    with_setting(path, "competition", **{name: str(file) for name, file in tables.items()})
    bundle, document = build_training(path)
    settings = document["competition"]
    assert "answers" not in settings and settings["sample_submission"] == f"{mount}/sample_submission.csv"
    assert settings["train"] == f"{mount}/data/train.csv"
    packed = contents_of(bundle)
    assert packed[settings["features"].split(":")[0]].decode() == FEATURES
    assert packed[settings["test"]] == tables["test"].read_bytes()
    assert packed[settings["extra_train"][0]["file"]] == path.with_name("extra.csv").read_bytes()
    assert sum(name.endswith(".csv") for name in packed) == 2


def test_a_training_table_that_is_not_that_of_the_platform_travels_though_it_has_its_name(tmp_path, capsys):
    path = to_train(tmp_path / "made")
    archived = kaggle_files(SLUG) / "train.csv.zip/train.csv"
    for downloaded in (None, kaggle_files(SLUG) / "train.csv", archived):
        if downloaded:
            write_atomically(downloaded, b"id\n")
        if downloaded == archived:
            write_atomically(archived, path.with_name("train.csv").read_bytes())
            with_setting(path, "competition", train=str(archived))
        bundle, document = build_training(path)
        assert (
            contents_of(bundle)[document["competition"]["train"]] == path.with_name("train.csv").read_bytes()
        )
        assert "train.csv is packed with the code" in capsys.readouterr().out
    assert document["competition"]["unparsable"] == "drop"


def test_a_test_table_that_travels_is_a_warning(tmp_path, capsys):
    path = to_train(tmp_path / "made")
    write_atomically(kaggle_files(SLUG) / "train.csv", b"id\n")
    build_training(path)
    assert "WARNING: test.csv is packed with the code" in capsys.readouterr().out


def test_weights_travel_or_the_bundle_is_not_made(tmp_path):
    write_atomically(tmp_path / "encoder" / "config.json", "{}")
    save_file({"layer": torch.zeros(2)}, tmp_path / "mine.safetensors")
    encoder, text = str(tmp_path / "encoder"), {"kind": "bert", "columns": ["x"]}
    features = ["maccs", {"encoder": encoder, "columns": ["x"]}]
    stages = {
        "text": {**text, "weights": encoder},
        "blocks": {"kind": "sklearn", "features": features, "tfidf_features": 0},
        "file": {**text, "weights": str(tmp_path / "mine.safetensors")},
    }
    roles = {"numeric": ["z"], "text": ["x"], "features": None}
    bundle, settings = build_training(to_train(tmp_path / "made", competition=roles, stages=stages))
    packed = contents_of(bundle)
    written = settings["stages"]
    of_file = written["file"]["weights"]  # since others ask for its ending
    assert of_file.endswith("mine.safetensors")
    assert packed[of_file] == (tmp_path / "mine.safetensors").read_bytes()
    folders = {written["text"]["weights"], written["blocks"]["features"][1]["weights"]}
    assert [packed[f"{folder}/config.json"] for folder in folders] == [b"{}", b"{}"]
    stages["text"]["weights"] = "someone/unknown"
    with pytest.raises(ConfigError, match="the weights 'someone/unknown'"):
        build_training(to_train(tmp_path / "made", competition=roles, stages=stages))
    assert contents_of(bundle) == packed  # the one that was there stays


def test_weights_that_a_package_downloaded_travel_as_a_cache_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "HF_HUB_CACHE", str(tmp_path / "cache"))
    bundle = Bundle(tmp_path / "bundle")
    estimators = {"tabicl.TabICLRegressor", "sklearn.svm.SVR"}
    with pytest.raises(DataError, match=r"weights of tabicl\.TabICLRegressor are not on this machine"):
        pack.copy_hub_weights(bundle, estimators)
    stored = tmp_path / "cache" / "models--jingang--TabICL"
    write_atomically(stored / "refs" / "main", "abc")
    write_atomically(stored / "blobs" / "1", "weights")
    (stored / "snapshots" / "abc").mkdir(parents=True)
    (stored / "snapshots" / "abc" / "v2.ckpt").symlink_to("../../blobs/1")
    pack.copy_hub_weights(bundle, estimators)
    found = hf_hub_download("jingang/TabICL", "v2.ckpt", cache_dir=bundle.hub_cache, local_files_only=True)
    assert Path(found).read_bytes() == b"weights"
    assert not Path(found).is_symlink()


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], ["--verify tries the notebook here without a network", "--push uploads both to Kaggle"]),
        (["--verify"], ["--push uploads both to Kaggle"]),
        (["--push"], []),  # which says itself what to do on the platform
    ],
)
def test_the_last_line_is_the_next_step(monkeypatch, capsys, arguments, steps):
    kernel = Kernel.of(Paths.for_competition("tides"))
    kernel.bundle.root.mkdir(parents=True)
    monkeypatch.setattr(commands, "build", lambda *given: kernel)
    competition = SimpleNamespace(kaggle="heights")
    for name in ("latest_run", "verify_notebook", "push"):
        monkeypatch.setattr(
            commands, name, lambda *given: SimpleNamespace(config=SimpleNamespace(competition=competition))
        )
    commands.main(["kernel", "tides", *arguments])
    last = capsys.readouterr().out.splitlines()[-1]
    expected = "; ".join(f"./run.sh kernel tides {step}" for step in steps)
    assert last == (f"Next: {expected}" if steps else f"Notebook: {kernel.notebook}")
    competition.kaggle = None
    if "--push" in arguments:
        with pytest.raises(ConfigError, match=r"names no Kaggle competition; add competition\.kaggle: SLUG"):
            commands.main(["kernel", "tides", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], r"run \./run\.sh full nothing first, or check the name"),
        (["smoke", "--training"], r"add competition\.kaggle: SLUG"),
        (["holdout/mixed.yaml", "--training"], "without --holdout"),
    ],
)
def test_what_cannot_be_packed_is_reported_before_anything_is_made(
    tmp_path, monkeypatch, capsys,
    arguments, message,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    to_train(tmp_path / "holdout", competition={"holdout_of": "mixed"})
    with pytest.raises(UserError, match=message):
        commands.main(["kernel", *arguments])
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "work").exists()
