"""Does `./run.sh new` find what a test table was split off by, and nothing after a random split?

    python -m benchmarks.units --work FOLDER [--data FOLDER_WITH_COMPETITIONS] [--sets ...] [--draws 2] [--random 20]

Each set gets three columns that have nothing to do with its labels: plates of about eight rows, a date, and ids with a
patient before the sign _. All rows of some values of a unit, about a fifth of the rows, are the test table: of each
column with repeated values, of plates, patients and scaffolds, of two columns together, or the latest rows. For each
draw `new` chooses folds, which are right if they hold out this unit and no other. After --random random splits with
test tables of a tenth to a half of the rows, folds that hold out anything are false alarms. Nothing is trained.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.budget import parse, parser_of
from benchmarks.holdouts import MOLECULE, drawn_rows, repeated_columns
from core.user_tables import read_text_table
from folds.groups import scaffolds
from folds.splitters import balanced_group_folds
from pipeline.new.detect import detect
from pipeline.new.problem_type import choose_problem
from pipeline.new.stage_choices import FoldChoice, choose_folds

MAX_ROWS = 3000
ROWS_PER_PLATE = 8
N_PATIENTS = 150
N_DAYS = 700
SHARES = (0.1, 0.2, 0.3, 0.5)
"""Shares of the test rows after a random split."""


def with_made_columns(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows with plates, dates, and patients in their ids."""
    n_rows = len(rows)
    patients, days = rng.integers(N_PATIENTS, size=n_rows), rng.integers(N_DAYS, size=n_rows)
    return rows.assign(
        id=[f"p{patient}_{row}" for row, patient in enumerate(patients)],
        plate=[f"P{number:03d}" for number in rng.integers(max(4, n_rows // ROWS_PER_PLATE), size=n_rows)],
        date=(pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")).strftime("%Y-%m-%d"),
    )


def divisions(rows: pd.DataFrame, inputs: list[str], seed: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the unit that folds should hold out, as text, and the mask of the test rows, (n_rows,)."""
    columns = repeated_columns(rows[inputs])
    keys = {"'plate'": rows["plate"], "prefix of 'id'": rows["id"].str.partition("_")[0]}
    keys |= {repr(name): rows[name] for name in columns}
    if MOLECULE in inputs:
        keys["scaffold"] = pd.Series(scaffolds(list(rows[MOLECULE])))
    if len(columns) > 1:
        first, second = columns[:2]
        keys[f"cell of {first!r}, {second!r}"] = rows[first] + " " + rows[second]
    for unit, key in keys.items():
        yield unit, balanced_group_folds(pd.factorize(key)[0], rows[[]], 5, seed=seed) == 0
    yield "time", (rows["date"] > rows["date"].sort_values().iloc[int(0.8 * len(rows))]).to_numpy()


def chosen_unit(choice: FoldChoice) -> str:
    """Return what folds hold out as text; "" for folds at random."""
    if choice.kind in ("scaffold", "time"):
        return choice.kind
    return ", ".join("scaffold" if "scaffold" in unit.kind else str(unit) for unit in choice.units)


def folds_by_new(
    rows: pd.DataFrame, is_test: NDArray[np.bool_], targets: list[str], folder: Path
) -> FoldChoice:
    """Return the folds that `new` chooses for a training and a test table."""
    test = rows[is_test]
    tables = {
        "train": rows[~is_test],
        "test": test.drop(columns=targets),
        "sample": test[["id"]].assign(**rows.loc[~is_test, targets].iloc[0].to_dict()),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    detected = detect([folder / f"{name}.csv" for name in tables], targets=targets)
    return choose_folds(detected, choose_problem(detected))


def main() -> None:
    """Print how often each unit was found, and the number of false alarms."""
    parser = parser_of(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--random", type=int, default=20, help="random splits of each set")
    args = parse(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    n_right: Counter[str] = Counter()
    n_all: Counter[str] = Counter()
    n_alarms = 0
    for name in args.sets:
        source = args.data / name
        drawn = drawn_rows(source, MAX_ROWS, draw=0)
        inputs = [column for column in read_text_table(source / "test.csv") if column != "id"]
        targets = [column for column in read_text_table(source / "sample_submission.csv") if column != "id"]
        rng = np.random.default_rng(0)
        rows = with_made_columns(drawn[["id", *inputs, *targets]], rng)
        for draw in range(args.draws):
            for unit, is_test in divisions(rows, inputs, draw):
                choice = folds_by_new(rows, is_test, targets, args.work)
                found = chosen_unit(choice)
                n_all[unit] += 1
                n_right[unit] += found == unit
                if found != unit:
                    print(f"{name}: {unit}, but {found or 'nothing'}: {choice.reason}", flush=True)
        for _ in range(args.random):
            is_test = rng.permutation(len(rows)) < rng.choice(SHARES) * len(rows)
            found = chosen_unit(folds_by_new(rows, is_test, targets, args.work))
            n_alarms += bool(found)
            if found:
                print(f"{name}: a random split, but {found}", flush=True)
    table = pd.DataFrame({"right": n_right, "of": n_all}).fillna(0).astype(int)
    print(f"\nfolds by the unit of the test table\n{table.to_string()}")
    print(f"\n{n_alarms} of {args.random * len(args.sets)} random splits have folds by a unit")


if __name__ == "__main__":
    main()
