"""Standardisation of molecules (`competition.standardise`), with RDKit's MolStandardize."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pandas as pd
from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from competition.config import CompetitionConfig
from competition.molecules import canonical_smiles
from core.types import Standardise

FUNCTIONS: dict[str, Callable[[Chem.Mol], Chem.Mol]] = {
    "cleanup": rdMolStandardize.Cleanup,
    "parent": rdMolStandardize.ChargeParent,
}
SILENT_SECONDS = 2.0
"""Seconds after which the progress is printed."""


@cache  # tables are read several times, and a molecule takes some milliseconds
def standard_form(smiles: str, standardise: Standardise) -> str | None:
    """Return the canonical SMILES of the standard form; None if RDKit has none that it can read.

    Source: RDKit's documentation, "MolStandardize"; Bento et al., J. Cheminform. 2020, on the parents of ChEMBL.

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

    The progress is printed if it takes long.

    Args:
        smiles: canonical SMILES, or "".
    """
    if standardise == "none":
        return list(smiles)
    started = time.monotonic()
    says_progress = False
    standard = []
    for n_done, text in enumerate(smiles):
        seconds = time.monotonic() - started
        if n_done and seconds > SILENT_SECONDS and not says_progress:
            says_progress = True
            remaining = seconds / n_done * (len(smiles) - n_done)
            print(
                f"standardise: {standardise}, {n_done} of {len(smiles)} molecules, about {remaining:.0f} s left",
                flush=True,
            )
        standard.append((text and standard_form(text, standardise)) or text)
    if says_progress:
        per_1000 = (time.monotonic() - started) / len(smiles) * 1000
        print(f"standardise: {standardise} took {per_1000:.1f} s per 1,000 molecules", flush=True)
    return standard


def describe_changes(table: pd.DataFrame, config: CompetitionConfig, where: str) -> Iterator[str]:
    """Yield lines about the molecules of a raw table that standardisation changes, and about those without a
    standard form.
    """
    if config.standardise == "none":
        return
    n_molecules = 0
    changed = []
    without_form = []
    for name in config.smiles:
        for row_id, cell in zip(table[config.id], table[name], strict=True):
            before = canonical_smiles(cell.strip())
            if before is None:
                continue
            n_molecules += 1
            after = standard_form(before, config.standardise)
            if after is None:
                without_form.append(f"id {row_id}: {before}")
            elif after != before:
                changed.append(f"id {row_id}: {before} -> {after}")
    example = f", for example {changed[0]}" if changed else ""
    yield f"{config.standardise} changed {len(changed)} of {n_molecules} molecules of {where}{example}"
    if without_form:
        yield (
            f"{len(without_form)} molecules of {where} have no {config.standardise} that RDKit can read and stay "
            f"unchanged, for example {without_form[0]}"
        )
