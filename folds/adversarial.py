"""Adversarial validation: can a classifier distinguish training and test rows, and by which features?

LightGBM learns which table a row is from, and is scored on other rows. At an AUC of 0.5 it cannot distinguish
them. Source: Zajac, "Adversarial validation", fastml.com 2016.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.class_metrics import roc_auc
from competition.config import CompetitionConfig
from competition.dataset import FEATURE, GROUP, INPUT_KEY
from competition.descriptors import DESCRIPTORS
from competition.units import Unit
from core.types import Array, Integers
from core.words import MARKS
from folds.comparison import Shift
from folds.groups import connected
from folds.units import count_shared

MAX_TRAIN_ROWS = 20_000
"""Number of training rows above which a sample is used."""
MAX_ROWS = 2_000
"""Number of rows of this sample, and of test rows that are used."""
MIN_INPUTS = 20
"""Number of distinct inputs that each table must have."""
N_FOLDS = 5
N_LISTED = 10
"""Number of features that are reported."""
N_WORDS = 300
"""Number of words, and of character n-grams, per text column."""
SHARE_LIKE_TEST = 0.2
"""Share of the training rows that are held out as those most like the test rows."""
LIGHTGBM = {
    "n_estimators": 150, "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 10,
    "colsample_bytree": 0.5, "importance_type": "gain", "n_jobs": 1, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip


ComputeDescriptors = Callable[[list[str]], Array]
"""Function from molecules to their descriptors, (n_molecules, n_descriptors)."""


def adversarial_validation(
    train: pd.DataFrame,
    test: pd.DataFrame,
    competition: CompetitionConfig,
    seed: int,
    compute_descriptors: ComputeDescriptors,
) -> Shift | None:
    """Return how well a classifier distinguishes two tables; None if they have too few rows, or no features.

    Rows of one group share a fold, so that no row is recognized by its group: where folds hold out what the
    test table does not share with the training rows, only further differences count. So do rows with one molecule
    or text, if the tables share hardly any. If a table is one group, its rows with equal inputs share a fold
    instead.

    Args:
        train: prepared training rows with their groups.
        test: prepared test rows with their groups.
    """
    if min(train[INPUT_KEY].nunique(), test[INPUT_KEY].nunique()) < MIN_INPUTS:
        return None
    has_all_rows = len(train) <= MAX_TRAIN_ROWS
    if not has_all_rows:
        train = train.sample(MAX_ROWS, random_state=seed)
    sample = test.sample(min(MAX_ROWS, len(test)), random_state=seed)
    rows = pd.concat([train, sample], ignore_index=True)
    is_test = np.repeat([0, 1], [len(train), len(sample)])
    groups = _groups(rows, is_test == 1, competition)
    n_groups = _numbers_of_groups(groups, is_test)
    if 1 in n_groups:
        groups = pd.factorize(rows[INPUT_KEY])[0]
        n_groups = _numbers_of_groups(groups, is_test)
    features = readable_features(rows, competition, compute_descriptors)
    if features.empty:
        return None
    likeness, gains = _likeness(features, is_test, groups, min(N_FOLDS, *n_groups), seed)
    table = features.groupby(is_test).mean().T.set_axis(["mean_in_train", "mean_in_test"], axis=1)
    table.insert(0, "gain", gains / max(gains.sum(), 1e-300))
    table = table.sort_values("gain", ascending=False, kind="stable")[:N_LISTED]
    auc = roc_auc(is_test.astype(float), likeness)
    standard_error = _error_of_auc(auc, *n_groups)  # rows of a group are similar
    listed: list[Any] = table.reset_index(names="feature").to_dict("records")
    shift = Shift(auc=auc, standard_error=standard_error, features=listed)
    if not (has_all_rows and shift.is_clear):
        return shift
    is_like_test = rows_like_test(likeness[: len(train)], groups[: len(train)])
    return shift.model_copy(update={"like_test": list(train[competition.id][is_like_test])})


def _likeness(
    features: pd.DataFrame, is_test: Integers, groups: Integers, n_folds: int, seed: int
) -> tuple[Array, Array]:
    """Return the out-of-fold probability of each row to be a test row, and the gain of each feature."""
    from lightgbm import LGBMClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    x = features.to_numpy(dtype=np.float32)
    likeness = np.empty(len(x))
    gains = np.zeros(x.shape[1])
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for others, held_out in folds.split(x, is_test, groups):
        model = LGBMClassifier(**LIGHTGBM, random_state=seed).fit(x[others], is_test[others])
        likeness[held_out] = model.predict_proba(x[held_out])[:, 1]
        gains += model.feature_importances_
    return likeness, gains


def _groups(rows: pd.DataFrame, is_test: NDArray[np.bool_], competition: CompetitionConfig) -> Integers:
    """Return the group of each row, (n_rows,); rows with one molecule or text share it if the tables share hardly any.

    Such a row would be recognized by the other measurements of its molecule, which are all in one table.
    """
    keys = [rows[GROUP].to_numpy(dtype=np.int64)]
    for name in [*competition.smiles, *competition.text]:
        codes = pd.factorize(rows[name])[0]
        if count_shared(Unit("value", (name,)), codes[None], is_test).is_found:
            keys.append(codes + max(int(key.max()) for key in keys) + 1)
    return connected(np.array(keys))


def _numbers_of_groups(groups: Integers, is_test: Integers) -> tuple[int, int]:
    """Return the number of groups of the test rows, and of the training rows."""
    return len(np.unique(groups[is_test == 1])), len(np.unique(groups[is_test == 0]))


def _error_of_auc(auc: float, n_positive: int, n_negative: int) -> float:
    """Return the standard error of an AUC."""
    of_positives = auc / (2 - auc)
    of_negatives = 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_positive - 1) * (of_positives - auc**2)
    variance += (n_negative - 1) * (of_negatives - auc**2)
    return float(np.sqrt(max(variance, 0.0) / (n_positive * n_negative)))


def rows_like_test(likeness: Array, groups: Integers) -> NDArray[np.bool_]:
    """Return the mask of the training rows that are most like the test table: whole groups, about a fifth.

    Args:
        likeness: (n_rows,), the probability that a row is a test row.
        groups: (n_rows,).
    """
    table = pd.DataFrame({"likeness": likeness, "group": groups}).groupby("group")["likeness"]
    target_size = SHARE_LIKE_TEST * len(groups)
    chosen: list[Any] = []
    n_rows = 0
    for group, size in table.agg(["mean", "size"]).sort_values("mean", ascending=False)["size"].items():
        if n_rows + size <= 1.5 * target_size:  # a larger group would leave too few rows to train on
            chosen.append(group)
            n_rows += size
        if n_rows >= target_size:
            break
    return np.isin(groups, chosen)


def readable_features(
    rows: pd.DataFrame, competition: CompetitionConfig, compute_descriptors: ComputeDescriptors
) -> pd.DataFrame:
    """Return features with readable names, (n_rows, n_features) float, NaN if undefined."""
    user_features = [name for name in rows if str(name).startswith(FEATURE)]
    blocks = {"": rows[[*competition.numeric, *user_features]]}
    for name in competition.smiles:
        codes, molecules = pd.factorize(rows[name])
        table = compute_descriptors(list(molecules))[codes]
        blocks[f"{name}: "] = pd.DataFrame(table, columns=list(DESCRIPTORS))
    for name in competition.text:
        blocks[f"{name}: "] = _words(rows[name])
    for name in competition.categorical:
        n_rows_of_cell = rows[name].map(rows[name].value_counts())
        blocks[f"{name}: is "] = pd.get_dummies(rows[name].where(n_rows_of_cell >= MIN_INPUTS))
    prefixed = [block.add_prefix(prefix) for prefix, block in blocks.items()]
    features = pd.concat(prefixed, axis=1).astype(float)
    return features.loc[:, features.nunique() > 1]


def _words(text: pd.Series) -> pd.DataFrame:
    """Return lengths of texts, and which frequent words and character n-grams they contain."""
    from sklearn.feature_extraction.text import CountVectorizer

    lengths = {"number of characters": text.str.len(), "number of words": text.str.count(r"\S+")}
    blocks = [pd.DataFrame(lengths)]
    words = CountVectorizer(binary=True, max_features=N_WORDS, token_pattern=rf"\w[\w{MARKS}]*")
    ngrams = CountVectorizer(binary=True, max_features=N_WORDS, analyzer="char", ngram_range=(2, 3))
    for prefix, vectorizer in (("word", words), ("characters", ngrams)):
        with suppress(ValueError):  # the texts have no words
            is_present = vectorizer.fit_transform(text).toarray()
            names = [f"{prefix} {name!r}" for name in vectorizer.get_feature_names_out()]
            blocks.append(pd.DataFrame(is_present, columns=names))
    return pd.concat(blocks, axis=1)
