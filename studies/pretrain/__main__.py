"""Pre-train a small Uni-Mol: `python -m studies.pretrain NAME --evaluation FOLDER --work FOLDER [--molecules CSV]`.

Reads studies/pretrain/NAME.yaml, the molecules (a CSV with a column SMILES, or those of the package qm9pack), and the
tables of the competitions in --evaluation, whose molecules are left out.
Writes into --work: NAME.safetensors, NAME.csv with the loss of each epoch, and NAME.md, the card. Run again, it goes on
from the last epoch.
"""

import argparse
import platform
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from competition.config import StrictModel, load_yaml, validate
from competition.files import sha256_of, write_atomically
from models.settings import UnimolStage
from models.stages.unimol import UnimolBackbone, read_vocabulary
from models.training.batches import Batches
from models.training.dropout import set_rates
from models.training.losses import Labels
from studies.pretrain import corpus
from studies.pretrain.network import Guesses, Molecules, Pretraining

SEED = 0


class Settings(StrictModel):
    """A pre-training."""

    n_molecules: PositiveInt
    """Most molecules, drawn at random."""
    weights_from: str | None = None
    """Another pre-training in the same folder, from whose weights this one goes on."""
    noised: float = 0.5
    """Share of the molecules of an epoch with masked and moved atoms; the others teach the labels."""
    of_labels: float = 1.0
    """Weight of the labels' loss: RDKit's descriptors, or of QM9 the energies of HOMO and LUMO."""
    stage: UnimolStage
    """The architecture, and the settings of the training loop."""


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name")
    options.add_argument("--molecules", type=Path, help="CSV with a column SMILES; without it QM9")
    options.add_argument("--evaluation", type=Path, required=True, help="folder of competitions to leave out")
    options.add_argument("--work", type=Path, required=True)
    args = options.parse_args()
    file, started = Path(__file__).with_name(f"{args.name}.yaml"), time.monotonic()
    settings = validate(Settings, load_yaml(file), file)
    torch.set_num_threads(joblib.cpu_count())

    known = {*corpus.skeletons(corpus.evaluation_molecules(args.evaluation))}
    table = corpus.without(corpus.read_molecules(args.molecules, settings.n_molecules, SEED), known)
    smiles = list(table["SMILES"])
    y = corpus.descriptors(smiles, args.work) if args.molecules else table[corpus.ORBITALS].to_numpy()
    vocabulary = read_vocabulary({})
    molecules, is_solid = corpus.as_read(smiles, vocabulary, settings.stage.remove_hydrogens, args.work)
    history, kept = train(settings, args.work, args.name, molecules, vocabulary, *corpus.standardised(y[is_solid]))
    save_file(kept, args.work / f"{args.name}.safetensors")
    pd.DataFrame(history).to_csv(args.work / f"{args.name}.csv", index_label="epoch")
    data = f"{args.molecules.name}, sha256 {sha256_of(args.molecules)}" if args.molecules else "qm9pack"
    versions = [f"{name} {version(name)}" for name in ("torch", "rdkit", "unimol_tools")]
    card = (
        f"# {args.name}\n\n```yaml\n{file.read_text(encoding='utf-8')}```\n\n"
        f"{len(molecules.lengths):,} molecules ({data}), none of the {len(known):,} of evaluation sets. "
        f"{sum(tensor.numel() for tensor in kept.values()):,} weights; loss {history[-1]['train_loss']:.4g} after "
        f"{len(history)} epochs, {time.monotonic() - started:.0f} s.\n"
        f"{', '.join(versions)}, Python {platform.python_version()}.\n"
    )
    write_atomically(args.work / f"{args.name}.md", card)


def train(
    settings: Settings, work: Path, name: str, molecules: Molecules, vocabulary: list[str], y: np.ndarray,
    is_known: np.ndarray,
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:  # fmt: skip
    """Losses of each epoch, and the trained backbone; y and is_known are (n_molecules, n_labels)."""
    set_seed(SEED)
    network: Any = Guesses(UnimolBackbone(settings.stage, vocabulary), len(vocabulary), y.shape[1])
    if settings.weights_from:
        network.backbone.load_state_dict(load_file(work / f"{settings.weights_from}.safetensors"))
    set_rates(network.backbone, settings.stage.backbone_dropout)
    (work / name).mkdir(parents=True, exist_ok=True)
    with tqdm(desc=f"{name}, steps") as bar:

        def progress(step: int, total: int) -> None:
            bar.total = total
            bar.update(step - bar.n)

        training = Pretraining(network, settings.stage, SEED, work / name, progress)
        training.of_labels = settings.of_labels
        labels = Labels(torch.from_numpy(y), torch.from_numpy(is_known.astype(np.float32)))
        history, state = training.train_epochs(partial(_encoded, settings, molecules, len(vocabulary)), labels, "")
    prefix = "backbone."
    return history, {key.removeprefix(prefix): t.contiguous() for key, t in state.items() if key.startswith(prefix)}


def _encoded(settings: Settings, molecules: Molecules, n_symbols: int, epoch: int) -> Batches:
    return molecules.noised(settings.noised, n_symbols, np.random.default_rng([SEED, epoch]))


if __name__ == "__main__":
    main()
