"""A hidden test table, as a code competition has one: rows that the pack does not know, in the raw form of test.csv."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from competition.clean import require_columns
from competition.config import CompetitionConfig
from competition.files import derive_seed, read_text_table, write_table


def write_hidden_test(competition: CompetitionConfig, known_labels: bool, n_rows: int, folder: Path) -> tuple[int, str]:
    """Write the competition's three files with a hidden test table: new ids, the sample in another order.

    Args:
        known_labels: whether the run gives test rows the labels of equal training rows. Then training rows would
            prove nothing of its models, and the rows are drawn from the test table.
        n_rows: at most; drawn from the training table without its labels, the same ones each time.
        folder: of the files, named as those of the competition.

    Returns:
        The number of rows, and the name of the file that they were drawn from.

    Raises:
        DataError: if a raw table is gone, or lacks an input.
    """
    test = read_text_table(competition.test)
    file = competition.test if known_labels else competition.train
    source = read_text_table(file)
    require_columns(source, competition.inputs, file)
    rng = np.random.default_rng(derive_seed(competition.seed, "hidden test"))
    drawn = source.iloc[rng.permutation(len(source))[:n_rows]].reset_index(drop=True)
    drawn[competition.id] = [f"hidden{i:05d}" for i in range(len(drawn))]
    sample = read_text_table(competition.sample_submission).head(0)
    sample[competition.id] = drawn[competition.id].iloc[rng.permutation(len(drawn))]
    write_table(folder / competition.test.name, drawn[[name for name in test.columns if name in drawn]])
    write_table(folder / competition.sample_submission.name, sample.fillna("0"))
    shutil.copyfile(competition.train, folder / competition.train.name)
    return len(drawn), file.name
