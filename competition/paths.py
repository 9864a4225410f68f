"""The only place that spells the names of folders and files."""

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


def name_of(competition: str) -> str:
    """The name of a competition given by its name, in which dots may stand, or by the path of its YAML."""
    path = Path(competition)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def generated_yaml(name: str) -> Path:
    """The YAML of a competition that a study or `--holdout` makes."""
    return config_folders()[1] / f"{name}.yaml"


def holdout_yaml(competition: str, share: float) -> Path:
    """The YAML of a competition without the share of its training rows that `--holdout` keeps out."""
    return generated_yaml(f"{name_of(competition)}_holdout{round(100 * share)}")


def kaggle_files(slug: str) -> Path:
    """Files of a competition on Kaggle, as `./run.sh new NAME --kaggle SLUG` downloads them; folders that end
    in .zip are archives there.
    """
    return work_root() / "kaggle" / slug


def kaggle_mount(slug: str) -> Path:
    """Where a notebook of the platform sees the files of a competition."""
    return Path("/kaggle/input/competitions") / slug


def hub_revisions() -> Path:
    """Repository of the hub -> its revision when it was first used."""
    return work_root() / "cache" / "hub_revisions.json"


def weight_folders() -> list[Path]:
    """Folders with pretrained weights that the user keeps: $WEIGHTS_DIR, $UNIMOL_WEIGHT_DIR, `weights/`."""
    named = [os.environ.get("WEIGHTS_DIR"), os.environ.get("UNIMOL_WEIGHT_DIR")]
    return [Path(folder) for folder in named if folder] + [PROJECT / "weights"]


def display_path(path: Path) -> Path:
    """A path as a person reads it: relative to where they stand, if it is below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def child_path(path: str) -> property:
    """A path below the `root` of the object that has it."""
    return property(lambda owner: owner.root / path)


@dataclass(frozen=True)
class Paths:
    """Products of one competition below `work_root()`.

    new_test: a prepared test table other than the competition's own (`./run.sh predict`).
    """

    name: str
    new_test: Path | None = None

    owner = child_path("yaml")  # text file with the path of the YAML that made these products
    raw = child_path("raw")  # the tables of a competition that `--holdout` or a study makes
    train = child_path("prepared/train.parquet")
    sample = child_path("prepared/sample_submission.parquet")
    prepare_report = child_path("prepared/report.json")
    folds = child_path("folds/folds.csv")
    groups = child_path("folds/groups.csv")
    test_groups = child_path("folds/test_groups.csv")
    folds_report = child_path("folds/report.json")
    shift = child_path("folds/shift.json")  # what `./run.sh folds` finds; its pictures lie beside it
    latest_run = child_path("submissions/latest")  # text file with the name of the run that was written last
    submission = child_path("submission.csv")  # a copy of that of the latest run
    report = child_path("report")
    ledger = child_path("ledger.csv")  # what was submitted, and how it scored
    lock = child_path("lock")
    submit_lock = child_path(
        "submit.lock"
    )  # held while something is sent, which may be while something is trained

    @staticmethod
    def for_competition(competition: str) -> "Paths":
        """Products of a competition given by its name or by the path of its YAML."""
        return Paths(name_of(competition))

    @property
    def root(self) -> Path:
        return work_root() / self.name

    @property
    def test(self) -> Path:
        return self.new_test or self.root / "prepared" / "test.parquet"

    @property
    def cache(self) -> Path:
        """Conformers and features, shared by every competition below one work root."""
        return work_root() / "cache"

    def training_lock(self, shard: int, n_shards: int) -> Path:
        """Held by the one driver that trains this shard of the jobs."""
        return self.root / f"train_{shard}_of_{n_shards}.lock"

    def budget(self, seconds: float) -> Path:
        """What `./run.sh full --budget` has decided for this time."""
        return self.root / f"budget_{seconds:.0f}.json"

    def job(self, stage: str, key: str, seed: int, fold: int | str) -> Path:
        return self.root / "models" / stage / key / f"seed_{seed}" / f"fold_{fold}"

    def run(self, run: str) -> Path:
        return self.root / "submissions" / run

    def prediction(self, test_key: str) -> Path:
        """Products of `./run.sh predict` for one new test table."""
        return self.root / "predictions" / test_key

    def submitted(self, submission: str) -> Path:
        """The file of one submission, as it was sent."""
        return self.root / "submitted" / f"{submission}.csv"

    @property
    def kernel(self) -> "Kernel":
        """What `./run.sh kernel` makes."""
        return Kernel(self.root / "kernel")

    @property
    def training_kernel(self) -> "Kernel":
        """What `./run.sh kernel --training` makes."""
        return Kernel(self.root / "kernel_training")


@dataclass(frozen=True)
class Kernel:
    """An offline notebook and its data set, the bundle."""

    root: Path
    notebook = child_path("notebook")  # folder of the notebook and of what it is uploaded with
    proof_log = child_path("proof.log")  # what the notebook printed when it was proved

    @property
    def bundle(self) -> "Bundle":
        return Bundle(self.root / "dataset")

    @property
    def pushed(self) -> Path:
        """What was uploaded; beside the folder, which each `./run.sh kernel` makes anew."""
        return self.root.with_name(f"{self.root.name}_pushed.json")


@dataclass(frozen=True)
class Bundle:
    """The data set of an offline notebook: code, weights and packages, wherever it is mounted."""

    root: Path
    manifest = child_path(
        "bundle.json"
    )  # what the notebook finds the bundle by, with the digests of the other files
    metadata = child_path("dataset-metadata.json")  # what the data set is uploaded with
    requirements = child_path("requirements.txt")  # the packages of `wheels`, which the notebook installs
    code = child_path("code")
    work = child_path("work")  # products, as below `work_root()`
    user = child_path("work/user")  # code and tables of the user's own
    weights = child_path("weights")
    wheels = child_path("wheels")
