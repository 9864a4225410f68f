"""A stand-in of the platform, and a small real run with its bundle."""

import shutil
import time
import tomllib
from importlib import metadata

import numpy as np
import pytest
from packaging.requirements import Requirement

from core.files import PROJECT, write_atomically
from core.paths import Paths
from submissions.kaggle import wheels
from submissions.kaggle.ledger import Submission
from submissions.kaggle.pack import build
from tests.conftest import mixed_tables, write_competition
from tests.kaggle_server import KaggleServer, archive
from tests.submissions.fakes import built, train_all, with_setting

SHIPPED = "threadpoolctl"
"""One file of Python, which prediction imports: the only package that travels in these tests."""
SLUG = "some-molecules"

USER_CODE = {
    "own.py": '''
import json

import numpy as np

from means import shrink
from models.api import Stage


class Shrunk(Stage):
    """Half the mean of the labels."""

    def fit(self, train, folder, context):
        (folder / "mean.json").write_text(json.dumps(np.nanmean(train.y, axis=0).tolist()))

    def predict(self, rows, folder, context):
        return np.tile(shrink(json.loads((folder / "mean.json").read_text())), (len(rows), 1))
''',
    "means.py": """
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def shrink(mean, name="half"):
    return np.multiply(mean, float((HERE / "shares" / f"{name}.txt").read_text()))
""",
    "shares/half.txt": "0.5",
    "features.py": '''
from pathlib import Path


def lengths(inputs):
    """Characters of a molecule."""
    units = [float(path.read_text()) for path in Path(__file__).parent.glob("units/*")]
    return inputs[["SMILES"]].map(len) * units[0]
''',
    "units/one.txt": "1",
}
TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 15}


def tiny_wheel(folder, name, version, tag="py3-none-any", files=()):
    """A wheel of some installed files, or of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    path, about = folder / f"{stem}-{tag}.whl", f"{stem}.dist-info"
    content = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{about}/RECORD": "",
        **{str(file): file.read_text() for file in files},
    }
    path.write_bytes(archive({name: text.encode() for name, text in content.items()}))
    return path


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An image that lacks one small package, of which pip finds the wheel, and no other."""
    prepare_image(tmp_path, monkeypatch)


def prepare_image(folder, patch):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = {Requirement(text).name for text in project["dependencies"]} - {SHIPPED}
    (folder / "image.txt").write_text("\n".join([*names, "packaging"]))
    patch.setattr(wheels, "IMAGE", folder / "image.txt")
    files = [file for file in metadata.files(SHIPPED) if file.suffix == ".py" and ".." not in file.parts]
    tiny_wheel(folder / "index", SHIPPED, metadata.version(SHIPPED), files=tuple(files))
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "index"))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folder with the YAML and tables of the competition `mixed` and, in `work`, its run and its bundle.

    The run has trees, a refit and a stage of the user's own.
    """
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(3)
    training, test = mixed_tables(n_train=60, n_test=20)
    training["lumo"] = rng.normal(size=60)  # with all digits: found wherever one of them stands
    training["mu"] = training["mu"].where(training["mu"].isna(), rng.normal(size=60))
    for name, code in USER_CODE.items():
        write_atomically(folder / name, code)
    stages = {"trees": TREES, "refit": {**TREES, "final_fit": "refit"}, "own": {"kind": "own.py:Shrunk"}}
    yaml = write_competition(
        folder,
        training,
        test,
        competition={"kaggle": SLUG, "features": "features.py:lengths"},
        folds={"n_folds": 2},
        stages=stages,
        submissions={"trials": 4, "stack": False, "default": "mean", "margin": 99},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        prepare_image(folder, patch)
        train_all(yaml)
        built(yaml)
        build(Paths("mixed"), None, "me")
    return folder


@pytest.fixture
def work(made, tmp_path):
    """A copy of the products, with the bundle, that a test may change."""
    shutil.copytree(made / "work", tmp_path / "work")
    return Paths("mixed")


@pytest.fixture
def server(tmp_path, monkeypatch, clock):
    """A running server with the competition `tides`; the client's home is in `tmp_path`, and no time passes."""
    with KaggleServer() as server:
        (tmp_path / "home" / ".kaggle").mkdir(parents=True)
        server.connect(tmp_path / "home", monkeypatch)
        server.competitions["tides"] = {"files": {}, "limit": 5}
        yield server


@pytest.fixture
def clock(monkeypatch):
    """The seconds that were slept, by which alone the clock goes on."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    return slept


@pytest.fixture
def paths(done):
    """The products of a finished run of a competition that is on Kaggle."""
    with_setting(done, "competition", kaggle="tides")
    return Paths.for_competition(str(done))


def one(name, day=1, **fields):
    """A row of the ledger."""
    base = {"status": "submitted", "file_digest": f"of {name}", "message": f"try {name}"}
    return Submission.model_validate(
        {"submission": name, "time": f"2026-11-{day:02d}T10:00:00Z", **base, **fields}
    )
