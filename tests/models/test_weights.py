"""Where weights are found, that the digest decides, and that a name of the hub stays what it was."""

import socket
import threading
import time
from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import torch
from safetensors.torch import save_file

from competition.errors import ConfigError
from competition.files import read_json, sha256_of
from competition.paths import hub_revisions
from models.inputs import weights
from models.inputs.weights import WEIGHT_SETS, WeightSet, digest_of_weights, find_weights

OURS = {"vocab.txt": b"C\nN\n", "model.bin": b"weights"}


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("UNIMOL_WEIGHT_DIR", raising=False)


@pytest.fixture
def in_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named set `ours` that an installed package carries."""
    folder = written(tmp_path / "site" / "ours_package" / "inside")
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    digests = {name: sha256_of(folder / name) for name in OURS}
    monkeypatch.setitem(WEIGHT_SETS, "ours", WeightSet(digests, "MIT", package=("ours_package", "inside")))
    return folder


def written(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in OURS.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("place", ["ours", "."])
def test_the_users_folder_comes_first_and_a_changed_copy_there_is_refused_with_both_digests(
    place: str, in_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_weights("ours") == {name: in_package / name for name in OURS}
    good = digest_of_weights("ours")
    mine = written(tmp_path / "mine" / place / ".") / "vocab.txt"
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "mine"))
    assert find_weights("ours")["vocab.txt"] == mine
    assert digest_of_weights("ours") == digest_of_weights(str(mine.parent)) == good  # not the place decides
    mine.write_bytes(b"changed")
    with pytest.raises(ConfigError) as error:
        find_weights("ours")
    for part in (str(mine), sha256_of(mine), sha256_of(in_package / "vocab.txt")):
        assert part in str(error.value)
    assert digest_of_weights(str(mine.parent)) != good


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_that_was_cut_short_is_named_wherever_it_ends(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    state = {"layer.weight": torch.ones(50, 3), "layer.bias": torch.zeros(50)}
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    digest_of_weights(str(path))
    for size in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ConfigError, match=rf"{path} is cut short or damaged .* delete it and fetch it again"):
            digest_of_weights(str(path))


@pytest.mark.parametrize(
    "name", [name for name, known in WEIGHT_SETS.items() if known.package and known.package[0] == "models"]
)
def test_weights_that_come_with_the_project_are_as_named_and_have_a_card_and_losses(name: str) -> None:
    (found,) = find_weights(name).values()  # by its digest
    assert found.stat().st_size < 12e6
    assert found.with_suffix(".csv").read_text().startswith("epoch,")
    card = found.with_suffix(".md").read_text()
    assert all(part in card for part in (name, "weights: " + name, "Data", "None is among", f"studies.pretrain {name}"))


def test_a_file_that_was_deleted_from_an_installed_package_is_named(in_package: Path) -> None:
    (in_package / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"ours_package is installed without \S+vocab.txt, .* Restore"):
        find_weights("ours")


@pytest.mark.parametrize(("name", "said"), [("minilmm", "minilm, rxnfp"), ("nobody/nothing", "set WEIGHTS_DIR")])
def test_what_is_not_found_is_an_error(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=said):
        find_weights(name)


def test_a_hub_that_never_answers_is_an_error_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some firewalls are."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(weights, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        end = threading.Timer(15, server.close)  # so that a caller that waits fails, in time
        end.start()
        start = time.monotonic()
        with pytest.raises(ConfigError, match="could not be reached"):
            find_weights("unimol_all_h")
        assert time.monotonic() - start < 10
        end.cancel()


def snapshot(folder: Path, revision: str, text: str = "{}") -> Path:
    """What the hub's cache holds of `someone/encoder` at a revision, which is then its newest."""
    repository = folder / "hub" / "models--someone--encoder"
    found = repository / "snapshots" / (revision * 40)
    for file, content in {found / "config.json": text, repository / "refs" / "main": revision * 40}.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (found / "model.safetensors").touch()
    return found


def test_a_name_of_the_hub_stays_at_the_revision_of_its_first_use_which_the_cache_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = snapshot(tmp_path, "1", "first")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    expected = {name: first / name for name in ("config.json", "model.safetensors")}
    assert find_weights("someone/encoder") == expected
    (first / "README.md").touch()  # of another tool, which is no part of the weights
    (first / "pytorch_model.bin").touch()
    snapshot(tmp_path, "2", "newer")
    assert find_weights("someone/encoder") == expected
    assert read_json(hub_revisions()) == {"someone/encoder": "1" * 40}
