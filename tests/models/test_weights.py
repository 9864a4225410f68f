"""Where weights are searched, that digests are checked, and that a repository keeps its revision."""

import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile

import huggingface_hub.constants as hub
import pytest
import torch
from safetensors.torch import save_file

from core.errors import ConfigError
from core.files import PROJECT, read_json, sha256_of
from models.inputs import weights
from models.inputs.weights import (
    WEIGHT_SETS,
    WeightSet,
    digest_of_weights,
    find_weights,
    hub_revisions,
    installed_folder,
)

FILES = {"vocab.txt": b"C\nN\n", "model.bin": b"weights"}


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("UNIMOL_WEIGHT_DIR", raising=False)


@pytest.fixture
def in_package(tmp_path, monkeypatch):
    """A weight set `packaged` that an installed package contains."""
    folder = written(tmp_path / "site" / "weights_package" / "inside")
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    digests = {name: sha256_of(folder / name) for name in FILES}
    monkeypatch.setitem(
        WEIGHT_SETS, "packaged", WeightSet(digests, "MIT", package=("weights_package", "inside"))
    )
    return folder


def written(folder):
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("place", ["packaged", "."])
def test_the_users_folder_comes_first_and_a_changed_copy_there_is_rejected_with_both_digests(
    place, in_package, tmp_path, monkeypatch
):
    assert find_weights("packaged") == {name: in_package / name for name in FILES}
    good = digest_of_weights("packaged")
    mine = written(tmp_path / "mine" / place / ".") / "vocab.txt"
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "mine"))
    assert find_weights("packaged")["vocab.txt"] == mine
    assert digest_of_weights("packaged") == digest_of_weights(str(mine.parent)) == good
    mine.write_bytes(b"changed")
    with pytest.raises(ConfigError) as error:
        find_weights("packaged")
    for part in (str(mine), sha256_of(mine), sha256_of(in_package / "vocab.txt")):
        assert part in str(error.value)
    assert digest_of_weights(str(mine.parent)) != good


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_truncated_file_is_rejected_wherever_it_ends(name, tmp_path):
    path, state = tmp_path / name, {"weight": torch.ones(50, 3)}
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    content = path.read_bytes()
    digest_of_weights(str(path))
    for size in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ConfigError, match="is cut short or damaged .* delete it and fetch it again"):
            digest_of_weights(str(path))


@pytest.mark.parametrize("name", ["unimol_small", "unimol_small_oled"])
def test_weights_of_this_project_have_their_digest_and_a_model_card(name):
    (path,) = find_weights(name).values()  # checks the digest
    card = path.with_suffix(".md").read_text()
    for text in ("weights: " + name, "Data", "None is among", f"studies.pretrain {name}"):
        assert text in card


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilmm", "minilm, use_multilingual"),
        ("nobody/nothing", "set WEIGHTS_DIR"),
        ("mpnet", r"follow requirements-mpnet\.txt, put the files into .*weights/mpnet, or set WEIGHTS_DIR"),
    ],
)
def test_missing_weights_are_an_error(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PROJECT", tmp_path)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=message):
        find_weights(name)


def test_the_commands_in_the_requirements_of_mpnet_join_its_parts_where_weights_are_searched(
    tmp_path, monkeypatch
):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in WEIGHT_SETS["mpnet"].files:
            archive.writestr(f"all-mpnet-base-v2/{name}", name)
    for part, content in enumerate([whole.getvalue()[:300], whole.getvalue()[300:]], start=1):
        folder = tmp_path / "packages" / f"part_{part}" / "input"
        folder.mkdir(parents=True)
        (folder / f"all-mpnet-base-v2.zip.00{part}").write_bytes(content)
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] && exec {sys.executable} "$@"\ncp -r packages "$6"\n')
    python.chmod(0o755)
    requirements = (PROJECT / "requirements-mpnet.txt").read_text()
    commands = "\n".join(re.findall("^#   (.+)", requirements, re.MULTILINE))
    environment = {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environment, check=True)
    monkeypatch.setattr(weights, "PROJECT", tmp_path)
    assert installed_folder("mpnet") == tmp_path / "weights" / "mpnet"
    assert {path.name for path in tmp_path.iterdir()} == {"packages", "bin", "weights"}


def test_a_hub_that_never_answers_is_an_error_after_seconds(monkeypatch):
    """Some firewalls drop all packets."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        end = threading.Timer(15, server.close)  # so that a caller that waits forever fails as well
        end.start()
        start = time.monotonic()
        with pytest.raises(ConfigError, match="could not be reached"):
            find_weights("unimol_all_h")
        assert time.monotonic() - start < 10
        end.cancel()


def snapshot(folder, revision):
    """Write the hub's cache of `someone/encoder` at a revision, which becomes its newest, and return its
    folder.
    """
    repository = folder / "hub" / "models--someone--encoder"
    path = repository / "snapshots" / (revision * 40)
    path.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (path / name).write_text(revision)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(revision * 40)
    return path


def test_a_hub_repository_stays_at_the_revision_of_its_first_use_which_the_cache_contains(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    first = snapshot(tmp_path, "1")
    expected = {name: first / name for name in ("config.json", "model.safetensors")}
    assert find_weights("someone/encoder") == expected
    (first / "README.md").touch()  # of another tool, and not a file of the weights
    (first / "pytorch_model.bin").touch()
    snapshot(tmp_path, "2")
    assert find_weights("someone/encoder") == expected
    assert read_json(hub_revisions()) == {"someone/encoder": "1" * 40}
