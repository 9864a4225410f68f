"""Canonical forms of molecules and texts."""

import unicodedata
from functools import cache

from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")  # messages of this project name the row instead


MAX_ATOMS = 500
"""Number of atoms above which a molecule has no descriptors, atom pairs, Avalon and ErG fingerprints, scaffold and
features of MiniMol. Their time grows with the cube of the atoms: minutes for 2,500.
"""


@cache  # tables are read several times, and parsing is slow
def canonical_smiles(smiles: str) -> str | None:
    """Return RDKit's canonical SMILES; None if RDKit cannot parse the text, or if it has no atom.

    RDKit takes text after whitespace for the name of the molecule, so 'CC O' would be ethane. Only a CXSMILES
    extension, '|...|', is accepted there.
    """
    parts = smiles.split(maxsplit=1)
    if len(parts) == 2 and not parts[1].startswith("|"):
        return None
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(molecule) if molecule is not None and molecule.GetNumAtoms() else None


def is_large(smiles: str) -> bool:
    """Return whether a molecule has more than MAX_ATOMS atoms, without hydrogens."""
    # A SMILES has a character for each atom.
    return len(smiles) > MAX_ATOMS and Chem.MolFromSmiles(smiles).GetNumHeavyAtoms() > MAX_ATOMS


def normalised_text(text: str) -> str:
    """Return text for the detection of duplicates: Unicode NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
