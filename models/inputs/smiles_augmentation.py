"""SMILES augmentation by randomized SMILES.

A randomized SMILES depends only on (SMILES, inputs of its row, number of the augmentation, seed),
and so not on the other rows of a batch.

Sources: Bjerrum, SMILES Enumeration, arXiv 1703.07076; Schwaller et al., Data augmentation
strategies to improve reaction yield predictions, 2020 (randomized SMILES, and the order of the
molecules of a reaction).
"""

import functools
import random
import re
from collections.abc import Iterable

from rdkit import Chem

from core.files import derive_seed

RANDOM_SMILES_TOKENS = "()/\\123456789%10%11%12"
"""Branches, bond directions and ring closures: tokens that a randomized SMILES may need and the
canonical one may not."""


def randomize_smiles(smiles: str, row: str, augmentation: int, seed: int, order_only: bool = False) -> str:
    """Return a randomized SMILES of a molecule, a mixture or a reaction.

    The molecules on each side of a ">" are shuffled. A SMILES that RDKit cannot parse is returned
    unchanged.

    Args:
        smiles: canonical SMILES.
        row: all values of the row as text, so that a molecule is written differently in each of its
            rows.
        augmentation: number of the randomized SMILES; 0 is `smiles` itself.
        seed: seed of the job.
        order_only: shuffle the molecules, but do not randomize their SMILES.
    """
    if augmentation == 0 or len(smiles.split()) != 1:
        return smiles
    generator = random.Random(derive_seed(seed, augmentation, smiles, row))
    sides = []
    for side in re.split("(?<!-)>", smiles):  # "->" is a dative bond
        components = [component for component in side.split(".") if component]
        molecules = [_parse(component) for component in components]
        if None in molecules:
            return smiles
        if not order_only:
            components = [
                Chem.MolToRandomSmilesVect(mol, 1, generator.getrandbits(31))[0] for mol in molecules
            ]
        generator.shuffle(components)
        sides.append(".".join(components))
    return ">".join(sides)


@functools.lru_cache(maxsize=10_000)  # parsing takes longer than writing; about 10 kB each
def _parse(smiles: str) -> Chem.Mol | None:
    return Chem.MolFromSmiles(smiles)


def mirror_stereo(texts: Iterable[str]) -> list[str]:
    """Return all texts twice, with every chirality as "@" and as "@@", since a randomized SMILES
    may contain either.
    """
    one_way = [text.replace("@@", "@") for text in texts]
    return [*one_way, *(text.replace("@", "@@") for text in one_way)]
