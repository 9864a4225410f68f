"""Canonical and standardised forms of molecules (`competition.standardise`), and of texts."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

from rdkit import Chem, RDLogger
from rdkit.Chem.MolStandardize import rdMolStandardize
from rdkit.Chem.SaltRemover import SaltRemover
from tqdm import tqdm

from core.types import Standardise
from core.words import MARKS

RDLogger.DisableLog("rdApp.*")  # messages of this project name the row instead

MAX_ATOMS = 500
"""Number of atoms above which a molecule has no descriptors, atom pairs, Avalon and ErG fingerprints,
scaffold and features of MiniMol. Their time grows with the cube of the atoms: minutes for 2,500.
"""

LINK_OR_USER = re.compile(r"https?://\S+|www\.\S+|@\w+")
TRIMMED = re.compile(rf"\w(?:\S*[\w{MARKS}])?")
"""A word without the punctuation around it; what is inside stays, as in 1,4-dioxane and Ba0.5SrTiO3."""
LETTER = re.compile(r"[^\W\d_]")
REACTION = re.compile(r"[^\s>]*>[^\s>]*>[^\s>]*( \|.*\|)?")
"""Reaction SMILES, perhaps with an extension."""

FUNCTIONS: dict[str, Callable[[Chem.Mol], Chem.Mol]] = {
    "cleanup": rdMolStandardize.Cleanup,
    "parent": rdMolStandardize.ChargeParent,
}
_SALTS = SaltRemover()
_UNCHARGER = rdMolStandardize.Uncharger()


def without_stereo(smiles: str) -> str:
    """Return the canonical SMILES of a molecule without its stereochemistry; "" for ""."""
    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False) if smiles else ""


@cache  # tables are read several times, and parsing is slow
def canonical_smiles(smiles: str) -> str | None:
    """Return RDKit's canonical SMILES of a SMILES or InChI; None if RDKit cannot parse it, or without atoms.

    RDKit takes text after whitespace for the name of the molecule, so 'CC O' would be ethane. Only a CXSMILES
    extension, '|...|', is accepted there.
    """
    parts = smiles.split(maxsplit=1)
    if len(parts) == 2 and not parts[1].startswith("|"):
        return None
    read = Chem.MolFromInchi if smiles.startswith("InChI=") else Chem.MolFromSmiles
    molecule = read(smiles)
    return Chem.MolToSmiles(molecule) if molecule is not None and molecule.GetNumAtoms() else None


@cache
def desalted(smiles: str) -> str:
    """Return a canonical SMILES without the salts of RDKit's list, each remaining fragment once.

    Counter-ions, mineral acids and a few organic acids such as acetate, mesylate and tosylate are removed. A
    mixture or an ionic liquid keeps its fragments. A SMILES that has only salts is unchanged.
    """
    if "." not in smiles:
        return smiles
    return _fragments(_SALTS.StripMol(Chem.MolFromSmiles(smiles))) or smiles


@cache
def parent(smiles: str) -> str:
    """Return the neutral form of a desalted molecule, so that a sodium salt equals its acid; others stay
    unchanged.
    """
    if desalted(smiles) == smiles:
        return smiles
    neutral = _fragments(_UNCHARGER.uncharge(Chem.MolFromSmiles(desalted(smiles))))
    return canonical_smiles(neutral) or desalted(smiles)  # a metallocene has no neutral form


def _fragments(molecule: Chem.Mol) -> str:
    return ".".join(sorted(set(Chem.MolToSmiles(molecule).split("."))))


def is_large(smiles: str) -> bool:
    """Return whether a molecule has more than MAX_ATOMS atoms, without hydrogens."""
    # A SMILES has a character for each atom.
    return len(smiles) > MAX_ATOMS and Chem.MolFromSmiles(smiles).GetNumHeavyAtoms() > MAX_ATOMS


def normalised_text(text: str) -> str:
    """Return text for comparisons: Unicode NFKC, single spaces, lower case except for reactions."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return text if REACTION.fullmatch(text) else text.lower()


def plain_text(text: str) -> str:
    """Return a normalised text without what its copies differ in: links, names of users, RT, numbers, and
    punctuation around words.

    The text stays if nothing would be left, and so do reactions, and single words, which may be molecules,
    sequences or codes.
    """
    is_word = " " not in text and text.isascii()
    if is_word or REACTION.fullmatch(text):
        return text
    words = TRIMMED.findall(LINK_OR_USER.sub(" ", text))
    return " ".join([word for word in words if word != "rt" and LETTER.search(word)]) or text


@cache  # tables are read several times, and a molecule takes some milliseconds
def standard_form(smiles: str, standardise: Standardise) -> str | None:
    """Return the canonical SMILES of the standard form; None if RDKit has none that it can read.

    Source: RDKit's documentation, "MolStandardize"; Bento et al., J. Cheminform. 2020, on the parents of
    ChEMBL.

    Args:
        smiles: canonical SMILES.
    """
    try:
        molecule = FUNCTIONS[standardise](Chem.MolFromSmiles(smiles))
    except (ValueError, RuntimeError):  # such as an impossible valence after the removal of a metal
        return None
    return canonical_smiles(Chem.MolToSmiles(molecule))


def standardise_molecules(smiles: Sequence[str], standardise: Standardise) -> list[str]:
    """Return canonical SMILES of standard forms; "" and molecules without one stay unchanged.

    Args:
        smiles: canonical SMILES, or "".
    """
    if standardise == "none":
        return list(smiles)
    # A bar is shown in a terminal only.
    progress = tqdm(smiles, desc=f"standardise: {standardise}", leave=False, disable=None)
    return [(text and standard_form(text, standardise)) or text for text in progress]
