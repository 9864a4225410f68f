"""The only place that spells the names of folders and files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = PROJECT / "competition" / "configs"
DEFAULT_COMPETITION = "qm9_orbitals"


def work_root() -> Path:
    """Where every product goes: the environment variable WORK_DIR, or `work/` beside the code."""
    return Path(os.environ.get("WORK_DIR") or PROJECT / "work")


def config_folders() -> list[Path]:
    """Where the YAML of a named competition is looked for: beside the code, then among the products."""
    return [CONFIGS, work_root() / "configs"]


def holdout_yaml(competition: str, share: float) -> Path:
    """The YAML of a competition without the share of its training rows that `--holdout` keeps out."""
    return work_root() / "configs" / f"{Path(competition).stem}_holdout{round(100 * share)}.yaml"


def shown(path: Path) -> Path:
    """A path as a person reads it: relative to where they stand, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def weight_folders() -> list[Path]:
    """Folders with pretrained weights that the user keeps: $WEIGHTS_DIR, $UNIMOL_WEIGHT_DIR, `weights/`."""
    named = [os.environ.get("WEIGHTS_DIR"), os.environ.get("UNIMOL_WEIGHT_DIR")]
    return [Path(folder) for folder in named if folder] + [PROJECT / "weights"]


@dataclass(frozen=True)
class Paths:
    """Products of one competition below `work_root()`."""

    name: str

    @staticmethod
    def of(competition: str) -> Paths:
        """Products of a competition given by its name or by the path of its YAML."""
        return Paths(Path(competition).stem)

    @property
    def root(self) -> Path:
        return work_root() / self.name

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def owner(self) -> Path:
        """Text file with the path of the YAML that made these products."""
        return self.root / "yaml"

    @property
    def raw(self) -> Path:
        """The tables of a competition that `--holdout` makes."""
        return self.root / "raw"

    @property
    def train(self) -> Path:
        return self.root / "prepared" / "train.csv"

    @property
    def test(self) -> Path:
        return self.root / "prepared" / "test.csv"

    @property
    def sample(self) -> Path:
        return self.root / "prepared" / "sample_submission.csv"

    @property
    def prepare_report(self) -> Path:
        return self.root / "prepared" / "report.json"

    @property
    def folds(self) -> Path:
        return self.root / "folds" / "folds.csv"

    @property
    def units(self) -> Path:
        return self.root / "folds" / "units.csv"

    @property
    def folds_report(self) -> Path:
        return self.root / "folds" / "report.json"

    @property
    def shift(self) -> Path:
        """What `./run.sh folds` finds; its pictures lie beside it."""
        return self.root / "folds" / "shift.json"

    @property
    def cache(self) -> Path:
        """Conformers and descriptors, shared by every competition below one work root."""
        return work_root() / "cache"

    def job(self, stage: str, key: str, seed: int, fold: int | str) -> Path:
        return self.root / "models" / stage / key / f"seed_{seed}" / f"fold_{fold}"

    def job_test(self, stage: str, key: str, seed: int, fold: int, test_key: str) -> Path:
        return self.job(stage, key, seed, fold) / "test" / f"{test_key}.csv"

    @property
    def latest_run(self) -> Path:
        """Text file with the name of the run that was written last."""
        return self.root / "submissions" / "latest"

    def run(self, run: str) -> Path:
        return self.root / "submissions" / run

    def prediction(self, test_key: str) -> Path:
        """Products of `./run.sh predict` for one new test table."""
        return self.root / "predictions" / test_key

    @property
    def report(self) -> Path:
        return self.root / "report"
