"""Folds that hold out what the test table holds out: what is recommended, and what is said of other folds."""

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import FOLD
from competition.prepare import prepare
from competition.units import Unit
from folds.compare import describe_units, recommend_folds
from folds.kinds import FoldsConfig
from folds.make import make_folds
from folds.recommended import fold_warnings, recommend, units_of_competition
from folds.units import UnitShare, UnitTable
from tests.competition.small import write_small

N = 120
PLATES = [k // 4 for k in range(N)]
WELLS = [k % 4 for k in range(N)]
DAYS = [f"2024-{1 + k // 28:02d}-{1 + k % 28:02d}" for k in range(N)]


def written(folder, is_test, columns, **settings):
    """A competition with a number `x` and more columns, of which some rows are the test table."""
    names = ["id", "x", *columns]
    rows = [",".join([f"r{k}", str(k), *(str(column[k]) for column in columns.values())]) for k in range(N)]
    train = [f"{','.join(names)},y", *(f"{row},{k % 7}" for k, row in enumerate(rows) if not is_test[k])]
    test = [",".join(names), *(row for k, row in enumerate(rows) if is_test[k])]
    sample = ["id,y", *(f"r{k},0" for k in range(N) if is_test[k])]
    path = write_small(folder, train, test, sample, smiles=None, numeric=["x"], **settings)
    return load_competition(str(path))


def warnings(competition, kind):
    config = FoldsConfig(kind=kind, n_folds=3)
    prepared = make_folds(competition, config, prepare(competition)).train
    return fold_warnings(*units_of_competition(competition), competition, config, prepared)


def recommended(competition, configured="kfold"):
    return recommend_folds(competition, *units_of_competition(competition), configured)


LATER = [k >= 90 for k in range(N)]
NEW_PLATES = [k // 4 % 4 == 0 for k in range(N)]
AT_RANDOM = list(np.random.default_rng(0).permutation(N) < 30)


def test_folds_that_split_what_the_test_table_does_not_share_are_a_warning(tmp_path):
    """Eight of thirty plates are the test table; folds at random split the others, and folds by plate do not."""
    columns = {"plate": PLATES, "well": WELLS}
    competition = written(tmp_path, NEW_PLATES, columns, group="plate")
    (warning,) = warnings(competition, "kfold")
    assert warning.startswith("WARNING: 0 test rows share 'plate' with a training row, and 31 would")
    assert "of 88 held-out rows (folds.kind kfold) share it with rows that train" in warning
    assert "recommends folds.kind stratified_group with competition.group: plate" in warning
    assert warnings(competition, "group") == []


def test_folds_that_hold_out_what_the_test_table_shares_are_a_warning(tmp_path):
    columns = {"plate": PLATES, "day": DAYS}
    competition = written(tmp_path, AT_RANDOM, columns, group="plate", time="day")
    (warning,) = warnings(competition, "group")
    assert warning.startswith("WARNING: folds.kind group holds out what the test table does not:")
    (warning,) = warnings(competition, "time")
    assert "test rows are as early ('day') as 95 % of the training rows" in warning
    assert warnings(competition, "kfold") == []


@pytest.mark.parametrize(("of_stereo_scaffolds", "n_warnings"), [(80, 1), (20, 0)])
def test_scaffold_folds_fit_tables_that_were_divided_by_scaffolds_with_stereochemistry(
    tmp_path, of_stereo_scaffolds, n_warnings
):
    competition = load_competition(str(write_small(tmp_path)))
    kinds = {"scaffold": 60, "stereo_scaffold": of_stereo_scaffolds}
    shares = [
        UnitShare(Unit(kind, (competition.smiles[0],)), 300, 250, 90, observed, 100.0, 10.0)
        for kind, observed in kinds.items()
    ]
    units = UnitTable(shares, [], [], pd.DataFrame())
    found = fold_warnings(units, pd.DataFrame(), competition, FoldsConfig(kind="scaffold"), pd.DataFrame())
    assert len(found) == n_warnings


def test_folds_by_a_component_count_it_in_both_tables_and_keep_water(tmp_path):
    """In the training table alone the molecules are in fewer rows than the solvents, and not in both together."""
    molecules, solvents = ["c1ccccc1C", "c1ccccc1N", "c1ccccc1F"], ["O", "CCO", "CC#N", "CO", "CS", "CCC"]
    train = [f"{m}.{s}" for s in solvents[:2] for m in molecules for _ in range(2)]
    test = [f"{m}.{s}" for s in solvents[2:] for m in molecules]
    path = write_small(
        tmp_path,
        ["id,SMILES,y", *(f"a{k},{smiles},{k}" for k, smiles in enumerate(train))],
        ["id,SMILES", *(f"t{k},{smiles}" for k, smiles in enumerate(test))],
        ["id,y", *(f"t{k},0" for k in range(len(test)))],
        group={"component_1": "SMILES"},
        folds={"kind": "group", "n_folds": 2},
    )
    competition = load_competition(str(path))
    prepared = make_folds(competition, FoldsConfig(kind="group", n_folds=2), prepare(competition)).train
    assert prepared[FOLD].nunique() == 2
    solvent = prepared["id"].str[1:].astype(int) // 6
    assert prepared.groupby(solvent)[FOLD].nunique().max() == 1


def test_folds_without_an_order_are_a_warning_if_test_rows_are_later(tmp_path):
    competition = written(tmp_path, LATER, {"day": DAYS}, time="day")
    (warning,) = warnings(competition, "kfold")
    assert "0 test rows are as early ('day')" in warning and "has no order in time" in warning
    assert "recommends folds.kind time with competition.time: day" in warning
    assert warnings(competition, "time") == []


def test_later_test_rows_whose_days_and_months_are_unclear_are_a_warning(tmp_path):
    days = [f"{1 + k % 12:02d}.{1 + k // 12:02d}.2024" for k in range(N)]
    competition = written(tmp_path, LATER, {"day": days})
    (warning,) = warnings(competition, "kfold")
    assert "0 test rows are as early ('day')" in warning and "or a date such as 2025-05-31" in warning


def test_dates_with_the_day_first_make_folds_in_time(tmp_path):
    days = [f"{1 + k % 28:02d}.{1 + k // 28:02d}.2024" for k in range(N)]
    competition = written(tmp_path, LATER, {"day": days}, time="day")
    assert warnings(competition, "time") == []


def test_inputs_that_repeat_over_time_make_no_folds_in_time(tmp_path):
    """The number of a shop is the only input, and every shop has rows of all days."""
    days = [f"2024-03-{1 + k // 4:02d}" for k in range(N)]
    competition = written(tmp_path, LATER, {"day": days, "shop": WELLS})
    competition = competition.model_copy(update={"numeric": ["shop"]})
    (warning,) = warnings(competition, "kfold")
    assert "of rows with equal inputs the latest, do not make three blocks" in warning
    assert "folds.kind time" not in str(recommended(competition)["setting"])


def test_a_unit_that_no_folds_can_hold_out_is_a_warning(tmp_path):
    competition = written(tmp_path, [k % 3 == 0 for k in range(N)], {"site": [k % 3 for k in range(N)]})
    (warning,) = warnings(competition, "kfold")
    assert "has only 2 values, so the error of the test rows is not known" in warning
    units, raw_train = units_of_competition(competition)
    recommended = recommend_folds(competition, units, raw_train, "kfold")
    assert "the folds cannot hold out what divides the tables" in recommended["reason"]


def test_a_small_test_table_of_new_values_is_a_warning_that_names_the_option(tmp_path):
    """Three rows of two new prompts are too few to find the unit."""
    prompts = [k % 4 for k in range(N - 3)] + [4, 5, 5]
    competition = written(tmp_path, [k >= N - 3 for k in range(N)], {"prompt": prompts})
    units, raw_train = units_of_competition(competition)
    (warning,) = recommend(units, raw_train, competition.columns, True).warnings
    assert warning.startswith("0 test rows share 'prompt' with a training row, and 3 would in a random split")
    assert warning.endswith("--group 'prompt'")
    few_repeat = {"prompt": [k if k % 30 else 0 for k in range(N)]}  # four rows have the same value
    large = written(tmp_path, AT_RANDOM, few_repeat)
    units, raw_train = units_of_competition(large)
    assert recommend(units, raw_train, large.columns, True).warnings == []
    seen = written(tmp_path, [k % 30 == 0 for k in range(N)], {"prompt": prompts})
    units, raw_train = units_of_competition(seen)
    assert recommend(units, raw_train, seen.columns, True).warnings == []


def test_a_unit_that_connects_most_rows_is_said_to_be_unknown_and_nothing_else_is_recommended(tmp_path):
    """All plates have the same four inputs, so that folds by plate would be one."""
    competition = written(tmp_path, NEW_PLATES, {"plate": PLATES, "well": WELLS})
    competition = competition.model_copy(update={"numeric": ["well"]})
    (warning,) = warnings(competition, "kfold")
    assert (
        "88 of 88 training rows are connected, also by equal inputs, so the error of the test rows is"
        in warning
    )


@pytest.mark.parametrize(
    ("is_test", "columns", "settings", "configured", "expected"),
    [
        (
            NEW_PLATES,
            {"plate": PLATES},
            {},
            "kfold",
            "folds.kind stratified_group with competition.group: plate",
        ),
        (LATER, {"day": DAYS}, {}, "kfold", "folds.kind time with competition.time: day"),
        (AT_RANDOM, {"plate": PLATES}, {}, "kfold", "folds.kind kfold"),
        (AT_RANDOM, {"plate": PLATES}, {"group": "plate"}, "group", "folds.kind stratified"),
        (AT_RANDOM, {}, {"group": "y2"}, "group", "folds.kind group"),
    ],
)
def test_the_recommended_folds_follow_the_table_of_units(
    tmp_path, is_test, columns, settings, configured, expected
):
    competition = written(tmp_path, is_test, columns, **settings)
    if "y2" in settings.values():  # only in the training table
        lines = competition.train.read_text().splitlines()
        competition.train.write_text(
            "\n".join(f"{line},{'y2' if not k else k // 4}" for k, line in enumerate(lines))
        )
    assert recommended(competition, configured)["setting"] == expected


def test_the_table_of_units_has_the_least_shared_first_and_says_what_divides_the_tables(tmp_path):
    units, _ = units_of_competition(written(tmp_path, NEW_PLATES, {"plate": PLATES, "well": WELLS}))
    first, header, *rows = describe_units(units).splitlines()
    assert first == "test rows that share a unit with a training row"
    assert header.split() == ["unit", "values", "shared", "at", "random"]
    assert rows[0].split() == ["'plate'", "30", "0", "31", "divides", "the", "tables"]
    assert rows[1].split() == ["'well'", "4", "32", "32"]


def without_test_table(folder, columns):
    """Molecules, each with two temperatures, or as `columns` say, of a YAML without a test table."""
    molecules = [f"{'C' * (1 + k // 2 % 10)}{RINGS[k // 20]}" for k in range(60)]
    table = pd.DataFrame(
        {"id": range(60), "s": molecules, "t": range(60), "y": [k % 7 for k in range(60)], **columns}
    )
    sample = ["id,y", *(f"{k},0" for k in range(60))]
    lines = table.to_csv(index=False).split()
    path = write_small(
        folder, lines, sample=sample, test=lines, smiles=["s"], numeric=["t"], time="day", group="day"
    )
    settings = path.read_text().replace("test.csv", "train.csv")
    path.write_text(settings)
    return load_competition(str(path))


RINGS = ["c1ccccc1", "c1ccncc1", "c1ccoc1"]


@pytest.mark.parametrize(
    ("columns", "kind", "n_warnings"),
    [({}, "kfold", 1), ({}, "scaffold", 0), ({}, "time", 0), ({}, "group", 0), ({"t": 0}, "kfold", 0)],
)
def test_without_a_test_table_random_folds_that_split_the_rows_of_a_molecule_are_a_warning(
    tmp_path, columns, kind, n_warnings
):
    """Not folds for which the user has named what they hold out, and not rows with equal inputs."""
    found = warnings(without_test_table(tmp_path, {"day": [k // 3 for k in range(60)], **columns}), kind)
    assert len(found) == n_warnings
    for warning in found:
        assert warning.startswith(
            "WARNING: there is no test table, and 60 of 60 rows share 's' (30 values) with rows of other inputs, but "
        )
        assert "of 60 held-out rows (folds.kind kfold) share it with rows that train" in warning
        assert warning.endswith("recommends folds.kind stratified_group with competition.group: s")


def test_without_a_test_table_folds_that_cannot_hold_out_the_molecules_are_said(tmp_path):
    """Most rows are of one molecule."""
    columns = {"s": [f"{'C' * (k - 35)}O" if k > 40 else "CCN" for k in range(60)], "day": range(60)}
    competition = without_test_table(tmp_path, {**columns, "s": ["CCN"] * 40 + columns["s"][40:50] * 2})
    (warning,) = warnings(competition, "kfold")
    assert (
        "training rows are connected, also by equal inputs, so the error of new values is not known"
        in warning
    )
    assert recommended(competition)["setting"] == "folds.kind kfold"
    assert warnings(competition, "group") == []
