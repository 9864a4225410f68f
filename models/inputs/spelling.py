"""Other spellings of a SMILES: by (SMILES, row's inputs, augmentation, seed) alone, so no row depends on its company.

Sources: Bjerrum, SMILES Enumeration, arXiv 1703.07076; Schwaller et al., Data augmentation strategies to improve
reaction yield predictions, 2020 (both spellings and the order of the molecules of a reaction).
"""

import functools
import random
import re
from collections.abc import Iterable

from rdkit import Chem

from competition.files import derive_seed

ANY_SPELLING = "()/\\123456789%10%11%12"
"""Branches, bond directions and ring numbers: tokens that the canonical spelling of a molecule may do without."""


def spelled(smiles: str, row: str, augmentation: int, seed: int, order_only: bool = False) -> str:
    """A random spelling of a molecule, a mixture or a reaction, its molecules in random order on each side of ">".

    The SMILES itself in augmentation 0, and where a part of it is no molecule. `row` is all that stands in the row.
    With `order_only` each molecule keeps its spelling.
    """
    if augmentation == 0 or len(smiles.split()) != 1:
        return smiles
    generator = random.Random(derive_seed(seed, augmentation, smiles, row))
    sides = []
    for side in re.split("(?<!-)>", smiles):  # "->" is a bond that one atom gives
        parts = [part for part in side.split(".") if part]
        molecules = [_molecule(part) for part in parts]
        if None in molecules:
            return smiles
        if not order_only:
            parts = [Chem.MolToRandomSmilesVect(molecule, 1, generator.getrandbits(31))[0] for molecule in molecules]
        generator.shuffle(parts)
        sides.append(".".join(parts))
    return ">".join(sides)


@functools.lru_cache(maxsize=10_000)  # parsing takes longer than spelling; some 10 kB each
def _molecule(smiles: str) -> Chem.Mol | None:
    return Chem.MolFromSmiles(smiles)


def mirrored(texts: Iterable[str]) -> list[str]:
    """Texts with "@" and with "@@" throughout: which of the two an atom has depends on the spelling."""
    clockwise = [text.replace("@@", "@") for text in texts]
    return [*clockwise, *(text.replace("@", "@@") for text in clockwise)]
