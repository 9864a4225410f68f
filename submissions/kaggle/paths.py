"""Names of the folders and files of a competition on Kaggle and of its offline notebooks."""

from dataclasses import dataclass
from pathlib import Path

from core.files import work_root
from core.paths import BUNDLE_MANIFEST, Paths, child_path


def kaggle_files(slug: str) -> Path:
    """Return the folder for downloads of `./run.sh new NAME --kaggle SLUG`; archives become folders *.zip."""
    return work_root() / "kaggle" / slug


def kaggle_mount(slug: str) -> Path:
    """Return the folder of a competition's files in a notebook on Kaggle."""
    return Path("/kaggle/input/competitions") / slug


@dataclass(frozen=True)
class Kernel:
    """Files of an offline notebook and its data set, the bundle."""

    root: Path
    notebook = child_path("notebook")  # folder of the notebook and its metadata
    proof_log = child_path("proof.log")  # output of the notebook when it was verified

    @staticmethod
    def of(paths: Paths, training: bool = False) -> "Kernel":
        """Return the files that `./run.sh kernel` (with `--training` if `training`) writes."""
        return Kernel(paths.root / ("kernel_training" if training else "kernel"))

    @property
    def bundle(self) -> "Bundle":
        """Files of the data set."""
        return Bundle(self.root / "dataset")

    @property
    def pushed(self) -> Path:
        """File about what was uploaded, next to the folder, which each `./run.sh kernel` makes anew."""
        return self.root.with_name(f"{self.root.name}_pushed.json")


@dataclass(frozen=True)
class Bundle:
    """Files of the data set of an offline notebook: code, weights and packages."""

    root: Path
    manifest = child_path(BUNDLE_MANIFEST)  # digests of the other files; the notebook searches for it
    metadata = child_path("dataset-metadata.json")  # metadata for the upload
    requirements = child_path("requirements.txt")  # packages of `wheels`, which the notebook installs
    code = child_path("code")
    work = child_path("work")  # outputs, as below `work_root()`
    user = child_path("work/user")  # code and tables of the user
    weights = child_path("weights")
    hub_cache = child_path("hub")  # weights of packages, as in the cache of the Hugging Face hub
    wheels = child_path("wheels")
