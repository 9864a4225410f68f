"""Canonical cells of raw tables, keys of equal inputs, and user-defined features of the clean rows."""

import json
import math
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from loky import cpu_count
from loky.process_executor import BrokenProcessPool

from competition.cells import describe_rows, molecule_cells, parse_numbers, raise_if_any, to_numbers
from competition.config import CompetitionConfig
from competition.dataset import FEATURE, INPUT_KEY
from competition.molecules import (
    canonical_smiles,
    desalted,
    normalised_text,
    parent,
    plain_text,
    standard_form,
    standardise_molecules,
)
from core.errors import ConfigError, DataError, join_first
from core.files import as_parquet, digest, read_with_metadata, remove_damaged, work_root, write_atomically
from core.modules import code_digest_of
from core.text import format_duration
from core.types import Integers
from core.user_code import (
    Opened,
    changed_files,
    imported_versions,
    in_order_of,
    load_user_code,
    opened_files,
    remember_opened,
    short_ref,
    user_code_errors,
    with_helpers,
)
from core.workers import ignored, new_pool

MAX_COPIES = 0.1
"""Share of the rows up to which texts are copies. What more rows have in common is a template."""
FIRST_ROWS = 32
"""Rows in the first call of a user's function; later calls get as many as fit into SECONDS_PER_CALL."""
SECONDS_PER_CALL = 30.0
MIN_SECONDS_BETWEEN_WRITES = 10.0
"""A kill loses at most the features of these seconds and of one call of each worker. Ctrl-C and an error lose those
of the calls only."""
MAX_SHARE_OF_WRITES = 0.1
"""Share of the time that writing features may take, since each write is of all of them."""
MIN_SECONDS_OF_WORKER = 10.0
"""Seconds of work for which a worker is started."""
CHECKED_ROWS = 3
"""Number of rows whose user-defined features are computed again, to see that they depend neither on other
rows nor on something that has changed since they were kept."""


def describe_invalid_numbers(table: pd.DataFrame, config: CompetitionConfig, where: str) -> Iterator[str]:
    """Yield a line per numeric column of a raw table with cells that `unparsable: drop` reads as missing."""
    for name in config.numeric:
        _, is_invalid = to_numbers(table[name])
        if is_invalid.any():
            yield (
                f"WARNING: {is_invalid.sum()} cells of {name!r} in {where} are not finite numbers, and are "
                f"read as missing: {describe_rows(table, is_invalid, config.id, name)}"
            )


def empty_molecule(config: CompetitionConfig) -> str | None:
    """Return the cell of a clean table where the raw one has no molecule; None without `empty_smiles`."""
    smiles = config.empty_smiles and canonical_smiles(config.empty_smiles)
    return standardise_molecules([smiles], config.standardise)[0] if smiles else None


def clean_inputs(
    table: pd.DataFrame, config: CompetitionConfig, where: object, in_train: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return ids, canonical inputs and their key; and a mask (n_rows,) of rows without usable inputs.

    Without input columns the key is unique, also between a training row and a test row with the same id.
    """
    cells: dict[str, Any] = {config.id: table[config.id]}
    dropped = np.zeros(len(table), dtype=bool)
    advice = "Correct them, or set competition.unparsable: drop before ./run.sh full"
    for name in config.smiles:
        molecules = [cell or config.empty_smiles or "" for cell in molecule_cells(table[name])]
        canonical = [canonical_smiles(molecule) or "" for molecule in molecules]
        cells[name] = standardise_molecules(canonical, config.standardise)
        is_invalid = np.array(cells[name]) == ""
        if config.unparsable == "error":
            what = "cells that are not valid SMILES"
            remedy = f'{advice}, or empty_smiles: "[Ar]" where an empty cell means no molecule.'
            raise_if_any(table, is_invalid, name, config.id, where, what, remedy)
        dropped |= is_invalid
    cells |= {name: table[name] for name in config.text}
    if config.text and config.inputs == config.text:  # with other inputs, an empty text is valid
        is_empty = table[config.text].apply(is_empty_text).all(axis=1).to_numpy()
        if config.unparsable == "error":
            raise_if_any(table, is_empty, config.text[0], config.id, where, "empty texts", f"{advice}.")
        dropped |= is_empty
    if dropped.all():
        raise DataError(f"{where} has no row with readable molecules and texts.")
    for name in config.numeric:
        if config.unparsable == "error":
            advice = (
                "Correct or empty them, or set competition.unparsable: drop, which reads them as missing, before "
                "./run.sh full."
            )
            cells[name] = parse_numbers(table, name, config.id, where, advice)
        else:
            cells[name] = to_numbers(table[name])[0]
    for name in config.categorical:
        cells[name] = table[name].str.strip()
    clean = pd.DataFrame(cells)
    if config.inputs:
        clean[INPUT_KEY] = input_keys(clean, config)
    else:
        rows = ("train " if in_train else "test ") + table[config.id]
        clean[INPUT_KEY] = [digest([row]) for row in rows]
    return clean, dropped


def is_empty_text(texts: pd.Series) -> pd.Series:
    """Return a mask of texts without a character."""
    return texts.map(normalised_text) == ""


def input_keys(clean: pd.DataFrame, config: CompetitionConfig) -> list[str]:
    """Return a key of all inputs per clean row: molecules, normalised texts, numbers, categories."""
    keys = clean[config.inputs].copy()
    for name in config.text:
        keys[name] = clean[name].map(normalised_text)
    for name in config.numeric:
        keys[name] = clean[name].map(repr)
    if config.swap is None:
        return [digest(list(row)) for row in keys.itertuples(index=False)]
    return [digest(config.swap.sorted_cells(row)) for row in keys.to_dict("records")]


N_INPUT_KEYS = 3
"""Number of keys of the inputs of a row."""


def keys_of_inputs(rows: pd.DataFrame, competition: CompetitionConfig) -> list[pd.Series]:
    """Return `N_INPUT_KEYS` keys of the inputs of prepared rows, (n_rows,) text each: of the inputs as they
    are, and with desalted and with neutral molecules.
    """
    keys = [rows[INPUT_KEY]]
    molecules = rows[competition.smiles]
    for standardize in (desalted, parent):
        standardized = molecules.map(standardize)
        is_changed = (standardized != molecules).any(axis=1)
        key = rows[INPUT_KEY].copy()
        if is_changed.any():
            key[is_changed] = input_keys(rows.assign(**standardized)[is_changed], competition)
        keys.append(key)
    return keys


def share_keys(keys: list[pd.Series], others: list[pd.Series]) -> pd.Series:
    """Return whether each row of one table has a key of a row of another one, (n_rows,) bool."""
    return pd.concat([key.isin(pd.concat(others)) for key in keys], axis=1).any(axis=1)


def keys_of_near_inputs(rows: pd.DataFrame, competition: CompetitionConfig, n_in_folds: int) -> pd.Series:
    """Return a key per row, (n_rows,) text, equal for rows with equal inputs or copies of texts.

    Copies of a text differ in links, names of users, numbers or punctuation. Where more than MAX_COPIES of
    the rows in folds would share a key, rows have the key of their exact inputs.

    Args:
        rows: prepared rows; the first `n_in_folds` are in folds.
    """
    keys = rows[INPUT_KEY].copy()
    texts = rows[competition.text].map(normalised_text)
    plain = texts.map(plain_text)
    is_changed = (plain != texts).any(axis=1)
    keys[is_changed] = input_keys(rows.assign(**plain)[is_changed], competition)
    n_copies = keys[:n_in_folds].value_counts()
    templates = n_copies.index[n_copies > MAX_COPIES * n_in_folds]
    return keys.where(~keys.isin(templates), rows[INPUT_KEY])


def with_user_features(
    table: pd.DataFrame, config: CompetitionConfig, n_workers: int | None = None
) -> pd.DataFrame:
    """Return a prepared table with the columns of the user's function (`competition.features`), if any.

    It is called once for each distinct row of inputs, and again for a few rows of each table. The numbers are
    kept in `work/cache/user_features/`, in a file per version of the code, so that a new table only computes
    its new rows.

    Args:
        n_workers: number of processes that compute features which take long; None for one per core.

    Raises:
        ConfigError: if the function fails, returns other than finite numbers, or gives a row other numbers
            when other rows are missing.
    """
    if config.features is None:
        return table
    features = _read_or_compute(table[config.inputs], config.features, n_workers)
    is_infinite = features.abs() == np.inf
    n_infinite = is_infinite.to_numpy().sum()
    is_tolerant = config.unparsable == "drop"  # in a notebook, an error would cost the submission
    if n_infinite and is_tolerant:
        print(f"WARNING: {n_infinite} values of competition.features are infinite, and are read as missing")
    elif n_infinite:
        names = join_first(features.columns[is_infinite.any()], str)
        raise ConfigError(
            f"competition.features {config.features} returned {n_infinite} infinite values, in {names}. "
            "Return NaN for a missing number."
        )
    features = features.mask(is_infinite)
    return pd.concat([table, features.add_prefix(FEATURE)], axis=1)


def _read_or_compute(inputs: pd.DataFrame, code_ref: str, n_workers: int | None) -> pd.DataFrame:
    """Return the features of a table of inputs, (n_rows, n_features); new ones are computed and kept."""
    function = load_user_code("competition.features", code_ref, "a function of a table of inputs")
    file = _cache_file(code_ref, inputs.columns.tolist())
    keys = pd.Series([digest(row) for row in inputs.astype(str).to_numpy().tolist()])
    cached = _cached_features(file, function, inputs, keys, code_ref)
    is_new = ~keys.duplicated() & ~keys.isin(cached.index)
    new_rows = np.flatnonzero(is_new)
    if len(new_rows):
        print(f"{short_ref(code_ref)}: computing features of {len(new_rows)} rows", flush=True)
    n_written = len(cached)
    next_write = time.monotonic() + MIN_SECONDS_BETWEEN_WRITES
    with closing(_compute(function, inputs, new_rows, code_ref, n_workers or cpu_count())) as parts:
        try:
            for rows, computed in parts:
                computed.index = pd.Index(keys[rows], name=INPUT_KEY)
                if len(cached) and list(computed) != list(cached):
                    raise ConfigError(
                        f"competition.features {code_ref} returned the columns {join_first(computed, str)} for "
                        f"some rows, and {join_first(cached, str)} for others."
                    )
                cached = pd.concat([cached, computed]) if len(cached) else computed
                if time.monotonic() > next_write:
                    next_write = _write_features(file, cached, code_ref)
                    n_written = len(cached)
        finally:
            if len(cached) > n_written:
                _write_features(file, cached, code_ref)
    return cached.loc[keys.tolist()].reset_index(drop=True)


def _write_features(file: Path, features: pd.DataFrame, code_ref: str) -> float:
    """Write all features by key of the inputs, and return the time from which more of them are written again.

    What the function opened for them is in the same file: a kill cannot leave old numbers with new digests.
    """
    started = time.monotonic()
    write_atomically(file, as_parquet(features.reset_index(), opened=json.dumps(opened_files(code_ref))))
    ended = time.monotonic()
    return ended + max(MIN_SECONDS_BETWEEN_WRITES, (ended - started) / MAX_SHARE_OF_WRITES)


def _compute(
    function: Any, inputs: pd.DataFrame, rows: Integers, code_ref: str, n_workers: int
) -> Generator[tuple[Integers, pd.DataFrame], None, None]:
    """Yield some of the positions `rows` at a time, in their order, with their features.

    The first ones are computed here, and tell how long the others take. If it is long, workers compute these.
    """
    first, others = np.split(rows, [FIRST_ROWS])
    if not len(first):
        return
    first_inputs = inputs.iloc[first].reset_index(drop=True)
    started = time.monotonic()
    computed = _call(function, first_inputs, code_ref)
    first_seconds = time.monotonic() - started
    _require_independent(function, first_inputs, computed, code_ref)
    check_seconds = time.monotonic() - started - first_seconds
    yield first, computed
    if not len(others):
        return
    # What a function loads once, such as a model, takes time in its first call only.
    seconds = len(others) * min(first_seconds / len(first), check_seconds / (CHECKED_ROWS + 1))
    if seconds < MIN_SECONDS_OF_WORKER:
        other_inputs = inputs.iloc[others].reset_index(drop=True)
        computed = _call(function, other_inputs, code_ref)
        # The first rows may all have other values, so that counts of them are all 1.
        _require_independent(function, other_inputs, computed, code_ref)
        yield others, computed
        return
    n_workers = min(n_workers, int(seconds / MIN_SECONDS_OF_WORKER))
    left = seconds / n_workers
    parts = np.array_split(others, min(n_workers * math.ceil(left / SECONDS_PER_CALL), len(others)))
    name = short_ref(code_ref)
    print(
        f"{name}: the other {len(others)} take about {format_duration(left)} (workers: {n_workers})",
        flush=True,
    )
    started = time.monotonic()
    tables = [inputs.iloc[part].reset_index(drop=True) for part in parts]
    for n_done, computed in enumerate(_compute_by_workers(tables, code_ref, n_workers), start=1):
        yield parts[n_done - 1], computed
        left = (time.monotonic() - started) / n_done * (len(parts) - n_done)
        if left and n_done % n_workers == 0:  # about every SECONDS_PER_CALL
            print(f"{name}: {n_done / len(parts):.0%} of them, {format_duration(left)} left", flush=True)


def _compute_by_workers(tables: list[pd.DataFrame], code_ref: str, n_workers: int) -> Iterator[pd.DataFrame]:
    """Yield the features of tables, in their order, computed by several processes."""
    pool = new_pool(n_workers)
    try:
        with ignored(signal.SIGINT):  # Ctrl-C ends the workers below
            futures = [pool.submit(_compute_in_worker, table, code_ref) for table in tables]
        for future in futures:
            computed, opened = future.result()
            remember_opened(code_ref, opened)
            yield computed
    except BrokenProcessPool:
        raise ConfigError(
            f"{short_ref(code_ref)} ended one of {n_workers} worker processes, such as by too little memory; "
            "set --workers to fewer. What was computed is kept."
        ) from None
    finally:
        pool.shutdown(kill_workers=True)


def _compute_in_worker(table: pd.DataFrame, code_ref: str) -> tuple[pd.DataFrame, Opened]:
    """Return the features of a table of inputs, and what the function has opened in this process."""
    function = load_user_code("competition.features", code_ref, "a function of a table of inputs")
    return _call(function, table, code_ref), opened_files(code_ref)


def _cached_features(
    file: Path, function: Any, inputs: pd.DataFrame, keys: pd.Series, code_ref: str
) -> pd.DataFrame:
    """Return the features of earlier commands by key of the inputs.

    There are none if the file is damaged, if a file that the function opened has changed, or if it returns
    other numbers for a few of their rows.
    """
    if not file.exists():
        return pd.DataFrame()
    try:
        table, metadata = read_with_metadata(file)
        opened: Opened = json.loads(metadata["opened"])
        cached = table.set_index(INPUT_KEY)
    except (DataError, KeyError, ValueError):
        remove_damaged(file, "its features are computed again")
        return pd.DataFrame()
    changed = changed_files(code_ref, opened)
    if changed:
        names = join_first(changed, str)
        print(f"{names}: changed, so all features of {short_ref(code_ref)} are computed again", flush=True)
        return pd.DataFrame()
    remember_opened(code_ref, opened)
    in_cache = np.flatnonzero(keys.isin(cached.index))
    rows = in_cache[:: max(1, len(in_cache) // CHECKED_ROWS)][:CHECKED_ROWS]
    if not len(rows):
        return cached
    computed = _call(function, inputs.iloc[rows].reset_index(drop=True), code_ref)
    if list(computed) == list(cached) and np.allclose(computed, cached.loc[keys[rows]], equal_nan=True):
        return cached
    print(
        f"WARNING: {short_ref(code_ref)} returns other numbers than in an earlier command, though neither "
        "its code nor a file that it was seen to open has changed. All features are computed again.",
        flush=True,
    )
    return pd.DataFrame()


def _cache_file(code_ref: str, inputs: list[str]) -> Path:
    """Return the file with the features of this version of the code and of its libraries."""
    path, _, name = code_ref.rpartition(":")
    code = with_helpers(Path(path))
    made_by = {
        "code": [code_digest_of(*code), name],
        "libraries": imported_versions(code),
        "inputs": inputs,
        "version": 2,  # of the file: version 1 had what the code opened in another file
    }
    return work_root() / "cache" / "user_features" / f"{digest(made_by)}.parquet"


def _require_independent(function: Any, inputs: pd.DataFrame, features: pd.DataFrame, code_ref: str) -> None:
    """Raise a ConfigError if features of a row depend on other rows, such as counts, means and ranks."""
    some_rows = np.arange(len(inputs))[::-2][:CHECKED_ROWS]
    for rows in (some_rows, some_rows[:1]):
        recomputed = _call(function, inputs.iloc[rows].reset_index(drop=True), code_ref)
        is_same = list(recomputed) == list(features)
        if not is_same or not np.allclose(recomputed, features.iloc[rows], equal_nan=True):
            raise ConfigError(
                f"competition.features {code_ref} gives a row different numbers when other rows are missing. "
                "They must depend on that row only: fit or count nothing on the table inside the function. Write what "
                "other rows say into the tables (docs/recipes.md)."
            )


def _call(function: Any, inputs: pd.DataFrame, code_ref: str) -> pd.DataFrame:
    with user_code_errors(code_ref, "return a table of numbers for one of inputs"):
        features = pd.DataFrame(in_order_of(function(inputs.copy()), inputs.index))
        features = features.astype(float).rename(columns=str)
    if len(features) != len(inputs) or not features.columns.is_unique:
        raise ConfigError(
            f"competition.features {code_ref} has to return a row of finite numbers (NaN: missing) for each "
            f"row, in columns of different names; it returned {features.shape} for {len(inputs)} rows."
        )
    return features


def describe_raw_inputs(table: pd.DataFrame, config: CompetitionConfig, where: str) -> Iterator[str]:
    """Yield lines about the cells of a raw table that are changed or not read."""
    yield from table.attrs.get("warnings", [])
    yield from describe_changes(table, config, where)
    yield from describe_invalid_numbers(table, config, where)


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
            f"{len(without_form)} molecules of {where} have no {config.standardise} that RDKit can read and "
            f"stay unchanged, for example {without_form[0]}"
        )
