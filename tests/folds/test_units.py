"""Units by which an organiser divided the tables: their counts by hand, and the choice among them."""

import numpy as np
import pandas as pd
import pytest

from competition.dataset import TableColumns
from competition.units import Unit, units_of
from folds.unit_values import canonical_table, values_of
from folds.units import compare_units, count_shared

RINGS = ["c1ccccc1", "c1ccncc1", "c1ccoc1", "c1ccsc1", "C1CCCCC1", "C1CCNCC1", "C1CCCC1", "c1ccc2ccccc2c1"]


def compared(table, is_test, text=(), smiles=(), numeric=(), categorical=()):
    """Compare the two parts of a table; its other columns, except `y`, are no inputs."""
    table = table.assign(**{"id": [f"r{i}" for i in range(len(table))]} if "id" not in table else {})
    is_test = np.asarray(is_test)
    roles = (list(names) for names in (smiles, text, numeric, categorical))
    columns = TableColumns("id", ["y"], [], *roles)
    return compare_units(table[~is_test], table[is_test], columns)


def chosen(*args, **roles):
    return [str(share.unit) for share in compared(*args, **roles).chosen]


def rows_of(n_values, n_rows):
    """Number of the value of each of the rows, in turn."""
    return np.tile(np.arange(n_values), n_rows // n_values)


def at_random(n, share=0.25):
    return np.random.default_rng(0).permutation(n) < share * n


def test_shared_rows_and_their_number_after_a_random_split_by_hand():
    """Values a a a b b c of six rows, of which a third are in the test table: 3/3 (1 - 1/9) + 2/3 (1 - 1/3) + 0."""
    codes = np.array([[0, 0, 0, 1, 1, 2, -1]])
    share = count_shared(Unit("value", ("x",)), codes, np.array([0, 0, 1, 1, 0, 0, 1], dtype=bool))
    assert (share.observed, share.n_values, share.n_train_values, share.n_test_values) == (2, 3, 3, 2)
    assert share.at_random == pytest.approx(8 / 9 + 4 / 9)
    alone = count_shared(Unit("value", ("x",)), codes, np.array([0, 0, 0, 1, 1, 0, 0], dtype=bool))
    assert alone.observed == 0


def test_a_row_with_several_values_is_shared_if_all_of_them_occur_in_the_training_table():
    """Rows ab, ac, bd, of which the last is the test row: d is new, b is not. Only ab can be shared: 1/3 (2/3)(2/3)."""
    codes = np.array([[0, 0, 1], [1, 2, 3]])
    share = count_shared(Unit("pool", ("x", "y")), codes, np.array([False, False, True]))
    assert share.observed == 0
    assert share.at_random == pytest.approx(4 / 27)


@pytest.mark.parametrize(
    ("unit", "cells", "expected"),
    [
        ("x", ["Red  Fox", "red fox", " "], ["red fox", "red fox", ""]),
        ("x", ["1", "1.0", "nan"], ["1.0", "1.0", ""]),
        ("smiles", ["OCC", "CCO", ""], ["CCO", "CCO", ""]),
        (
            {"scaffold": "smiles"},
            ["Cc1ccccc1", "C[C@H]1CCC[C@@H]1C", "CO"],
            ["c1ccccc1", "C1CCCC1", "acyclic CO"],
        ),
        ({"prefix": "x"}, ["p1_a-2", "p1-b", "p2"], ["p1", "p1", ""]),
        ({"long_prefix": "x"}, ["p1_a-2", "p1-b", "p2"], ["p1_a", "", ""]),
        (
            {"plain_text": "x"},
            ["RT @me: so good! 5 https://t.co/a1", "so good", "w5"],
            ["so good", "so good", "w5"],
        ),
        ({"cell": ["x", "smiles"]}, ["CC", "CC", ""], ["cc | CC", "cc | CC", ""]),
        ({"component_1": "smiles"}, ["CCO.O", "CCN.O", "O"], ["CCO", "CCN", ""]),
        ({"component_2": "smiles"}, ["CCO.O", "CCN.O", "O"], ["O", "O", ""]),
    ],
)
def test_the_values_of_each_kind_of_unit(unit, cells, expected):
    table = pd.DataFrame({"x": cells, "smiles": cells})
    (unit,) = units_of(unit)
    assert units_of(unit.setting) == [unit]
    columns = canonical_table(table, unit.columns, ["smiles"])
    assert [values.tolist() for values in values_of(unit, columns, columns)] == [expected]


def test_a_pool_has_the_values_of_all_its_columns():
    table = pd.DataFrame({"x": ["a", "b"], "y": ["b", "c"]})
    values = values_of(Unit("pool", ("x", "y")), table, table)
    assert [column.tolist() for column in values] == [["a", "b"], ["b", "c"]]


def test_a_column_is_found_if_its_test_values_are_new_and_not_after_a_random_split():
    """Plates of 8 rows, which are no input, and equal wells on all of them."""
    table = pd.DataFrame({"x": range(480), "plate": rows_of(60, 480), "well": rows_of(480, 480) // 60})
    assert chosen(table, table["plate"] < 12, numeric=["x"]) == ["'plate'"]
    assert chosen(table, at_random(480), numeric=["x"]) == []


def test_codes_that_are_no_input_and_new_words_that_are_one_are_units():
    """Labs of 12 rows beside equal conditions; a word that stands in several sentences."""
    table = pd.DataFrame({"x": np.arange(480) % 7, "lab": [f"L{k}" for k in rows_of(40, 480)]})
    assert chosen(table, rows_of(40, 480) < 8, numeric=["x"]) == ["'lab'"]
    words = [f"word{chr(97 + k // 20)}{chr(97 + k % 20)}" for k in rows_of(120, 480)]
    table = pd.DataFrame({"sentence": [f"it is {word} w{k}" for k, word in enumerate(words)], "word": words})
    assert chosen(table, rows_of(120, 480) < 24, text=["sentence", "word"]) == ["'word'"]


def test_values_that_only_equal_inputs_share_are_no_unit():
    table = pd.DataFrame({"t": [f"text {i % 100}" for i in range(400)]})
    assert compared(table, np.arange(400) % 100 < 30, text=["t"]).shares == []


def test_of_nested_units_the_one_that_explains_the_other_is_chosen():
    table = pd.DataFrame({"x": range(480), "plate": rows_of(60, 480)})
    table["lab"] = table["plate"] // 6
    assert chosen(table, table["plate"].isin(range(0, 60, 5)), numeric=["x"]) == ["'plate'"]
    assert chosen(table, table["lab"] < 2, numeric=["x"]) == ["'lab'"]


def test_two_units_that_do_not_explain_each_other_are_both_chosen():
    """Test rows have new patients and new devices; what has an old one of either is left out."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": range(4000), "p": rng.integers(0, 60, 4000), "d": rng.integers(0, 60, 4000)})
    is_test = (table["p"] < 24) & (table["d"] < 24)
    kept = is_test | ((table["p"] >= 24) & (table["d"] >= 24))
    assert sorted(chosen(table[kept], is_test[kept], numeric=["x"])) == ["'d'", "'p'"]


def test_a_pair_of_columns_is_found_only_if_neither_of_the_two_is():
    table = pd.DataFrame(
        {"x": range(1200), "drug": rows_of(20, 1200), "cell_line": rows_of(1200, 1200) // 20 % 15}
    )
    new_pair = (table["drug"] + table["cell_line"]) % 5 == 0
    pair = ["cell of 'drug', 'cell_line'"]
    assert chosen(table, new_pair, numeric=["x"]) == pair
    assert chosen(table, table["drug"] < 4, numeric=["x"]) == ["'drug'"]


def test_scaffolds_are_found_beside_other_inputs_and_doses_do_not_hide_them():
    smiles = [f"{'C' * (1 + i % 5)}{RINGS[i % 8]}" for i in range(400)]
    table = pd.DataFrame({"s": smiles, "dose": [i // 40 for i in range(400)]})
    is_new = [ring in RINGS[:2] for ring in np.resize(RINGS, 400)]
    assert chosen(table, is_new, smiles=["s"], numeric=["dose"]) == ["scaffold of 's'"]


def test_time_comes_before_units_that_follow_it():
    days = pd.date_range("2024-01-01", periods=400).astype(str)
    table = pd.DataFrame({"x": range(400), "day": days, "month": days.str[:7]})
    is_late = np.arange(400) >= 320
    assert chosen(table, is_late, numeric=["x"]) == ["time of 'day'"]
    assert chosen(table, at_random(400), numeric=["x"]) == []
    table["year"] = table["x"] // 20
    assert chosen(table[["x", "year"]], is_late, numeric=["x", "year"]) == ["time of 'year'"]


def test_prefixes_of_ids_are_found_and_names_of_tables_are_not():
    ids = [f"p{i % 50}_{i}" for i in range(400)]
    table = pd.DataFrame({"id": ids, "x": range(400)})
    is_test = np.arange(400) % 50 < 12
    assert chosen(table, is_test, numeric=["x"]) == ["prefix of 'id'"]
    names = np.where(is_test, "test", "train")
    assert (
        chosen(table.assign(id=[f"{name}_{i}" for i, name in enumerate(names)]), is_test, numeric=["x"]) == []
    )


def test_a_unit_with_two_values_in_the_training_table_is_known_to_be_unknown():
    table = pd.DataFrame({"x": range(300), "site": rows_of(3, 300)})
    units = compared(table, table["site"] == 0, numeric=["x"], categorical=[])
    assert units.chosen == [] and [str(share.unit) for share in units.unknown] == ["'site'"]


def test_a_random_split_of_many_kinds_of_columns_is_hardly_ever_taken_for_one_by_a_unit():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"id": [f"p{i % 70}-{i}" for i in range(600)], "x": range(600)})
    for n_values in (2, 5, 20, 100, 300):
        table[f"c{n_values}"] = rng.integers(0, n_values, 600)
    for share in (0.1, 0.3, 0.5, 0.8) * 5:
        assert chosen(table, rng.permutation(600) < share * 600, numeric=["x"]) == []


SOLUTES = [f"{'C' * (1 + k % 10)}{RINGS[k // 10]}" for k in range(80)]
SOLVENTS = ["O", "CO", "CCO", "CC#N"]
ALONE = pd.DataFrame({"x": range(240), "solute": [SOLUTES[k // 3] for k in range(240)]})
PAIRS = [(SOLUTES[k % 16], SOLUTES[(k + 1 + k // 16) % 16]) for k in range(240)]


@pytest.mark.parametrize(
    ("columns", "roles", "chosen", "unknown"),
    [
        ({}, {}, ["'solute'"], []),
        ({"solvent": [SOLVENTS[k % 4] for k in range(240)]}, {"smiles": ["solute", "solvent"]}, ["'solute'"], []),
        ({"note": [f"row {k}" for k in range(240)]}, {"text": ["note"]}, ["'solute'"], []),
        ({"note": [f"sample {k // 4}" for k in range(240)]}, {"smiles": [], "text": ["note"]}, ["'note'"], []),
        ({"x": 0}, {}, [], []),
        ({"solute": [f"C{'N' * k}C" for k in range(1, 241)]}, {}, [], []),
        (
            {"solute": [f"C{'N' * k}C" for k in range(1, 241)], "prompt": [f"task {k % 12}" for k in range(240)]},
            {"text": ["prompt"]}, [], [],
        ),
        ({"solute": [f"C{'N' * k}C" for k in range(1, 239)] + ["CNC", "CNC"]}, {}, [], []),
        ({"solute": [SOLUTES[k % 5] for k in range(240)]}, {}, [], ["'solute'"]),
        (
            {"solute": [SOLUTES[k // 20] for k in range(240)], "base": [SOLUTES[20 + k % 10] for k in range(240)],
             "ligand": [SOLUTES[40 + k // 2 % 10] for k in range(240)]},
            {"smiles": ["solute", "base", "ligand"]}, [], ["'solute'"],
        ),
        (
            {"solute": [pair[0] for pair in PAIRS], "other": [pair[1] for pair in PAIRS]},
            {"smiles": ["solute", "other"]}, ["pool of 'solute', 'other'"], [],
        ),
    ],
)  # fmt: skip
def test_without_a_test_table_the_units_are_molecules_and_texts_with_several_rows(
    columns, roles, chosen, unknown
):
    """Not conditions, such as four solvents and twelve prompts, and not rows with equal inputs, or two rows of 240."""
    roles = {"smiles": ["solute"], "numeric": ["x"], **roles}
    units = compared(ALONE.assign(**columns), np.zeros(240, dtype=bool), **roles)
    assert [str(share.unit) for share in units.chosen] == chosen
    assert [str(share.unit) for share in units.unknown] == unknown
    assert units.is_guess


def test_rows_that_share_a_molecule_are_counted_without_repeats_of_their_inputs():
    table = pd.DataFrame(
        {"solute": [*SOLUTES[:20], *SOLUTES[:20], *SOLUTES[20:60]], "x": [0] * 20 + [1] * 60}
    )
    table = pd.concat([table, table[-5:]], ignore_index=True)
    (share,) = compared(table, np.zeros(85, dtype=bool), smiles=["solute"], numeric=["x"]).chosen
    assert (share.at_random, share.n_values) == (40, 60)
