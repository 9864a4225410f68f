"""Names of folders and files."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.files import PROJECT, work_root

CONFIGS = PROJECT / "competition" / "configs"
DEFAULT_COMPETITION = "qm9_orbitals"
BUNDLE_MANIFEST = "bundle.json"
"""File at the root of an offline notebook's data set: the folder `work` next to it is no earlier run."""


def config_folders() -> list[Path]:
    """Return the folders of the YAMLs: next to the code, and in the work folder."""
    return [CONFIGS, work_root() / "configs"]


def find_config(name: str) -> Path:
    """Return the YAML file of a competition.

    Args:
        name: a path that ends in .yaml, or a name in one of `config_folders()`.
    """
    for folder in config_folders():
        path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
        if path.is_file():
            return path.resolve()
    available: set[str] = set()
    for folder in config_folders():
        available.update(file.stem for file in folder.glob("*.yaml"))
    raise ConfigError(
        f"there is no competition {name!r}; available: {', '.join(sorted(available))}, "
        "or the path of a YAML file. ./run.sh new NAME --train F --test F --sample F writes one from CSV "
        "files, and --kaggle SLUG from Kaggle."
    )


def name_of(competition: str) -> str:
    """Return the name of a competition, which may contain dots, from its name or the path of its YAML."""
    path = Path(competition)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def generated_yaml(name: str) -> Path:
    """Return the YAML of a competition that a study, `--holdout` or `fit` of Python makes."""
    return config_folders()[1] / f"{name}.yaml"


def holdout_yaml(competition: str, share: float) -> Path:
    """Return the YAML of a competition without the training rows that `--holdout` keeps out."""
    return generated_yaml(f"{name_of(competition)}_holdout{round(100 * share)}")


def display_path(path: Path) -> Path:
    """Return a path relative to the current folder, if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def child_path(path: str) -> property:
    """Return a property with a path below the `root` of its object."""
    return property(lambda owner: owner.root / path)


@dataclass(frozen=True)
class Paths:
    """Files of one competition below `work_root()`.

    Attributes:
        new_test: prepared test table of `./run.sh predict`, instead of the competition's.
    """

    name: str
    new_test: Path | None = None

    owner = child_path("yaml")  # text file with the path of the YAML that the files were made from
    raw = child_path("raw")  # tables of a competition that `--holdout` or a study makes
    train = child_path("prepared/train.parquet")
    sample = child_path("prepared/sample_submission.parquet")
    prepare_report = child_path("prepared/report.json")
    folds = child_path("folds/folds.csv")  # to look at; the prepared tables have the folds
    shift = child_path("folds/shift.json")  # comparison of training and test rows
    similarity = child_path("folds/similarity.png")
    latest_run = child_path("submissions/latest")  # text file: the folder of the latest submission
    submission = child_path("submission.csv")  # copy of the latest submission
    report = child_path("report")
    ledger = child_path("ledger.csv")  # submissions and their scores
    lock = child_path("lock")
    submit_lock = child_path("submit.lock")  # held while a submission is sent, also during training

    @staticmethod
    def for_competition(competition: str) -> "Paths":
        """Return the files of a competition, given its name or the path of its YAML."""
        return Paths(name_of(competition))

    @property
    def root(self) -> Path:
        return work_root() / self.name

    @property
    def on_command_line(self) -> str:
        """The competition as commands take it: its name, or its YAML if that is in another folder."""
        name = self.name
        if self.owner.exists():
            yaml_file = Path(self.owner.read_text(encoding="utf-8").strip())
            if yaml_file.parent not in [folder.resolve() for folder in config_folders()]:
                name = str(display_path(yaml_file))
        return shlex.quote(name)

    @property
    def test(self) -> Path:
        return self.new_test or self.root / "prepared" / "test.parquet"

    @property
    def cache(self) -> Path:
        """Folder of conformers and features, which all competitions of a work folder share."""
        return work_root() / "cache"

    def training_lock(self, shard: int, n_shards: int) -> Path:
        """Return the lock of the driver that trains a shard of the jobs."""
        return self.root / f"train_{shard}_of_{n_shards}.lock"

    def budget(self, seconds: float) -> Path:
        """Return the file with the decisions of `./run.sh full --budget` for this time."""
        return self.root / f"budget_{seconds:.0f}.json"

    def job(self, stage: str, key: str, seed: int, fold: int | str) -> Path:
        return self.root / "models" / stage / key / f"seed_{seed}" / f"fold_{fold}"

    def run(self, run: str) -> Path:
        return self.root / "submissions" / run

    def prediction(self, test_key: str) -> Path:
        """Return the folder of `./run.sh predict` for a new test table."""
        return self.root / "predictions" / test_key

    def submitted(self, submission: str) -> Path:
        """Return the copy of a submission that was sent."""
        return self.root / "submitted" / f"{submission}.csv"
