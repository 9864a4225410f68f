"""Keep training rows out of everything, to score a finished submission: `./run.sh full [NAME] --holdout 0.2`.

Reads: the YAML and the raw training table. Writes: a new competition NAME_holdout20: a YAML in configs/ of
the work folder and, in its raw/ folder, train.csv without the rows, test.csv and sample_submission.csv of the
rows, and their labels as answers.csv. All later steps use that YAML, so only the final scoring sees the
labels.
"""

from fractions import Fraction

import numpy as np
import pandas as pd

from competition.dataset import without_extra_rows
from competition.prepare import prepare
from competition.task import to_submission_columns
from core.errors import ConfigError
from core.files import derive_seed, write_atomically, write_table
from core.overrides import NO_OVERRIDES, Overrides
from core.paths import Paths, holdout_yaml
from core.user_tables import read_text_table
from core.yaml_files import dump_yaml
from folds.make import assign_folds, compute_groups
from submissions.config import Config, load_config


def hold_out(name: str, share: float, overrides: Overrides = NO_OVERRIDES) -> str:
    """Write the competition without a share of its training rows; return a line about it."""
    config = load_config(name, overrides)
    external = [name for name, stage in config.stages.items() if not stage.is_trained]
    if external:
        raise ConfigError(
            f"--holdout trains every stage without the held-out rows, "
            f"which {', '.join(external)} (kind file) may have seen. Remove such stages, or use --stages."
        )
    competition = config.competition
    yaml_file = holdout_yaml(name, share)
    train = without_extra_rows(prepare(competition).train)
    held_out = held_out_ids(config, train, share)
    raw = read_text_table(competition.train).set_index(competition.id, drop=False)
    rows = raw[raw.index.isin(held_out)]
    columns_of_test = read_text_table(competition.test).columns
    groups = [name for name in competition.group_columns if name in columns_of_test]
    task = competition.task
    of_class_0 = to_submission_columns(task, np.zeros((len(rows), len(task.scored_columns))))
    tables = {
        ("competition", "train"): raw.drop(rows.index),
        ("competition", "test"): rows[list(dict.fromkeys([competition.id, *competition.inputs, *groups]))],
        ("competition", "sample_submission"): rows[[competition.id]].join(of_class_0.set_index(rows.index)),
        ("competition", "answers"): rows,  # with all columns, which a metric may read
    }
    if config.folds.file is not None:
        user_folds = read_text_table(config.folds.file)
        key = competition.id if competition.id in user_folds else "id"
        tables["folds", "file"] = user_folds[~user_folds[key].isin(held_out)]
    document = config.model_dump(mode="json", exclude_unset=True)
    folder = Paths(yaml_file.stem).raw
    for (section, key), table in tables.items():
        file = folder / f"{'folds' if section == 'folds' else key}.csv"
        write_table(file, table)
        document[section][key] = str(file.resolve())
    document["competition"]["holdout_of"] = competition.paths.name
    document["competition"].pop("kaggle", None)  # its submission is of training rows
    write_atomically(yaml_file, dump_yaml(document))
    part = f"{len(rows)} of {len(train)} training rows ({len(rows) / len(train):.0%})"
    return f"{yaml_file.stem}: {part} are kept out of everything but the final scoring"


def held_out_ids(config: Config, table: pd.DataFrame, share: float) -> set[str]:
    """Return the ids of the rows to keep out: folds of a separate split of the kind in the YAML.

    They differ from the other rows as held-out folds do: other groups, other scaffolds, or later rows.
    Classes are balanced, also for kfold. User-defined folds cannot be made again: the last folds are kept
    out, as many as come closest to the share.
    """
    competition = config.competition
    folds = config.folds
    if not folds.is_user_defined:
        n_groups = int(compute_groups(folds, table, competition).max()) + 1
        largest = max(2, min(20, n_groups))
        nearest = Fraction(share).limit_denominator(largest)
        n_folds = nearest.denominator if nearest else largest
        n_folds -= folds.is_ordered_in_time  # one more block is before the first fold
        kind = "stratified" if folds.kind == "kfold" and competition.classes else folds.kind
        folds = folds.model_copy(update={"n_folds": n_folds, "kind": kind})
    fold_of = assign_folds(folds, table, competition, derive_seed(competition.seed, "holdout"))[0]
    n_folds = int(fold_of.max()) + 1
    return set(table[competition.id][fold_of >= n_folds - max(1, round(share * n_folds))])
