"""One reading of a molecule or a text for the whole project: its canonical form."""

from __future__ import annotations

import unicodedata

from rdkit import Chem, RDLogger

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]  # our messages name the row instead


def canonical_smiles(smiles: str) -> str | None:
    """RDKit's canonical SMILES, or None where it cannot parse the text or it holds no atom."""
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(molecule) if molecule is not None and molecule.GetNumAtoms() else None


def normalised_text(text: str) -> str:
    """Text by which duplicates are found: Unicode NFKC, lower case, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
