"""One reading of a molecule or a text for the whole project: its canonical form."""

import unicodedata
from functools import cache

from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")  # for all rooms; our messages name the row, or the status, instead


@cache  # tables are read again and again, and parsing is slow
def canonical_smiles(smiles: str) -> str | None:
    """RDKit's canonical SMILES, or None where it cannot parse the text or it holds no atom.

    RDKit takes all that follows a blank for the molecule's name, so 'CC O' would be ethane; only a
    CXSMILES extension, '|...|', may follow one here.
    """
    parts = smiles.split(maxsplit=1)
    if len(parts) == 2 and not parts[1].startswith("|"):
        return None
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(molecule) if molecule is not None and molecule.GetNumAtoms() else None


def normalised_text(text: str) -> str:
    """Text by which duplicates are found: Unicode NFKC, lower case, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
