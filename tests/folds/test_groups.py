"""Groups of training rows, of molecules that differ by salts, and of rows that are in no fold."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.clean import input_keys
from competition.dataset import INPUT_KEY
from competition.molecules import canonical_smiles
from folds.groups import desalted, parent
from folds.kinds import FoldsConfig
from folds.make import compute_groups, groups_outside_folds
from tests.folds.made import competition

ACID = "O=C(O)c1ccccc1"


def table(smiles: list[str], **columns: Any) -> pd.DataFrame:
    rows = pd.DataFrame(
        {"id": range(len(smiles)), "smiles": [canonical_smiles(text) for text in smiles], **columns}
    )
    return rows.assign(**{INPUT_KEY: input_keys(rows, roles())})


def roles() -> Any:
    return competition(smiles=["smiles"], group="g")


def config(kind: str) -> FoldsConfig:
    return FoldsConfig.model_validate({"kind": kind})


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("C[NH+](C)Cc1ccccc1.[Cl-]", "CN(C)Cc1ccccc1"),
        ("O=C([O-])c1ccccc1.O=C([O-])c1ccccc1.[Ca+2]", ACID),
        ("NCc1ccccc1.Cc1ccc(S(=O)(=O)O)cc1.O", "NCc1ccccc1"),
        ("C[N+](C)(C)CCO.[Br-]", "C[N+](C)(C)CCO"),
        ("[Cl-].[Na+]", "[Cl-].[Na+]"),  # salts alone stay
        ("CC(=O)[O-].[Na+]", "CC(=O)[O-].[Na+]"),
        ("CCCn1cc[n+](C)c1.F[B-](F)(F)F", "CCCn1cc[n+](C)c1.F[B-](F)(F)F"),  # an ionic liquid
        ("c1cc[cH-]c1.c1cc[cH-]c1.[Fe+2]", "[Fe+2].c1cc[cH-]c1"),  # no neutral form can be written
        ("C[NH+](C)Cc1ccccc1", "C[NH+](C)Cc1ccccc1"),  # an ion without a counter-ion
    ],
)
def test_a_molecule_without_its_salts_is_neutral_and_never_empty(smiles: str, expected: str) -> None:
    assert parent(str(canonical_smiles(smiles))) == canonical_smiles(expected)


@pytest.mark.parametrize("kind", ["kfold", "scaffold", "cluster"])
def test_salts_of_one_molecule_are_one_group(kind: str) -> None:
    """The acid, its sodium salt, the same as an ion, and other molecules."""
    ion = "O=C([O-])c1ccccc1"
    groups = compute_groups(
        config(kind), table([ACID, f"{ion}.[Na+]", ion, "CCO", "CCO.Cl", "C1CCCCCCC1"]), roles()
    )
    assert groups.tolist() == [0, 0, 0, 1, 1, 2]
    assert desalted(f"{ion}.[Na+]") == canonical_smiles(ion)


def test_other_inputs_that_differ_keep_salts_apart() -> None:
    settings = competition(smiles=["smiles"], numeric=["pH"])
    rows = pd.DataFrame({"smiles": [ACID, f"{ACID}.Cl", f"{ACID}.Cl"], "pH": [7.0, 7.0, 2.0]})
    rows[INPUT_KEY] = input_keys(rows, settings)
    assert compute_groups(config("kfold"), rows, settings).tolist() == [0, 0, 1]


def test_without_salts_groups_are_the_equal_inputs() -> None:
    rows = table([ACID, "O=C([O-])c1ccccc1", "OCC", "CCO", "C[NH3+]", "CN"])
    assert compute_groups(config("kfold"), rows, roles()).tolist() == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("kfold", [3, 2, 4, 5]), ("group", [3, 2, 0, 4]), ("scaffold", [3, 2, 0, 0]), ("cluster", [3, 2, 4, 0])],
)
def test_rows_outside_of_folds_join_the_groups_of_the_training_rows_or_form_new_ones(
    kind: str, expected: list[int]
) -> None:
    """A new molecule, the salt of a training molecule, a molecule of group a, and one that is similar to the
    first.
    """
    rows = table(["CCCCCCCCc1ccccc1", "C1CCCCC1", "CCN"], g=["a", "b", "c"])
    others = table(["FC(F)(F)I", "CCN.Cl", "Brc1ccccc1", "CCCCCCCCCc1ccccc1"], g=["", "", "a", np.nan])
    groups = groups_outside_folds(config(kind), rows, np.arange(3), others, roles())
    assert groups.tolist() == expected


def test_a_salt_of_a_molecule_of_another_group_is_in_no_group() -> None:
    """Its job would train on it while the molecule is held out; a row with equal inputs is recognised by them."""
    rows = table(["CCN", "CCO"], g=["a", "b"])
    others = table(["CCN.Cl", "CCN.Cl", "CCN", "CCCN"], g=["b", "a", "b", "b"])
    groups = groups_outside_folds(config("group"), rows, np.arange(2), others, roles())
    assert groups.tolist() == [-1, 0, 1, 1]


def test_rows_outside_of_folds_that_belong_together_share_a_new_group() -> None:
    rows, others = table(["C1CCCCC1", "CCN"]), table(["CCCCCCCc1ccccc1", "CCCCCCCCc1ccccc1", "FC(F)(F)I"])
    for kind in ("scaffold", "cluster"):
        groups = groups_outside_folds(config(kind), rows, np.array([1, 0]), others, roles())
        assert groups.tolist() == [2, 2, 3]
    assert len(groups_outside_folds(config("cluster"), rows, np.array([1, 0]), others[:0], roles())) == 0
