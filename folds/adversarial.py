"""Adversarial validation: can a classifier distinguish training and test rows, and by which features?

LightGBM learns which table a row is from, and is scored on other rows. At an AUC of 0.5 it cannot distinguish
them. Source: Zajac, "Adversarial validation", fastml.com 2016.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from tqdm import tqdm

from competition.config import CompetitionConfig
from competition.dataset import FEATURE, INPUT_KEY
from competition.descriptors import DESCRIPTORS, descriptors

MAX_ROWS = 2_000
"""Number of rows of each table that are used."""
MIN_INPUTS = 20
"""Number of distinct inputs that each table must have."""
N_FOLDS = 5
N_LISTED = 10
"""Number of features that are reported."""
N_WORDS = 300
"""Number of words, and of character n-grams, per text column."""
LIGHTGBM = {
    "n_estimators": 150, "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 10,
    "colsample_bytree": 0.5, "importance_type": "gain", "n_jobs": 1, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip


def adversarial_validation(
    train: pd.DataFrame,
    test: pd.DataFrame,
    competition: CompetitionConfig,
    seed: int,
) -> dict[str, Any] | None:
    """Return the AUC of the classifier and the features that it uses most; None if there are too few rows.

    Rows with equal inputs share a fold, so that no row is recognized by a duplicate. The `features` have
    their share of the `gain` and their mean in each table.

    Args:
        train: prepared training rows.
        test: prepared test rows.
    """
    from lightgbm import LGBMClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_validate

    if min(train[INPUT_KEY].nunique(), test[INPUT_KEY].nunique()) < MIN_INPUTS:
        return None
    samples = [table.sample(min(MAX_ROWS, len(table)), random_state=seed) for table in (train, test)]
    rows = pd.concat(samples, ignore_index=True)
    is_test = np.repeat([0, 1], [len(sample) for sample in samples])
    features = readable_features(rows, competition)
    if features.empty:
        return None
    results = cross_validate(
        LGBMClassifier(**LIGHTGBM, random_state=seed), features.to_numpy(dtype=np.float32), is_test,
        groups=rows[INPUT_KEY], cv=StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed),
        scoring="roc_auc", return_estimator=True,
    )  # fmt: skip
    aucs = results["test_score"]
    gains = np.sum([model.feature_importances_ for model in results["estimator"]], axis=0)
    table = features.groupby(is_test).mean().T.set_axis(["mean_in_train", "mean_in_test"], axis=1)
    table.insert(0, "gain", gains / max(gains.sum(), 1e-300))
    table = table.sort_values("gain", ascending=False, kind="stable")[:N_LISTED]
    return {
        "auc": aucs.mean(),
        "standard_deviation": aucs.std(ddof=1),
        "features": table.reset_index(names="feature").to_dict("records"),
    }


def readable_features(rows: pd.DataFrame, competition: CompetitionConfig) -> pd.DataFrame:
    """Return features with readable names, (n_rows, n_features) float, NaN if undefined."""
    user_features = [name for name in rows if str(name).startswith(FEATURE)]
    blocks = {"": rows[[*competition.numeric, *user_features]]}
    for name in competition.smiles:
        progress = tqdm(rows[name].unique(), desc="descriptors", leave=False, disable=None)
        values = {text: descriptors(Chem.MolFromSmiles(text)) for text in progress}
        table = np.stack([values[text] for text in rows[name]])
        blocks[f"{name}: "] = pd.DataFrame(table, columns=list(DESCRIPTORS))
    for name in competition.text:
        blocks[f"{name}: "] = _words(rows[name])
    for name in competition.categorical:
        n_rows_of_cell = rows[name].map(rows[name].value_counts())
        blocks[f"{name}: is "] = pd.get_dummies(rows[name].where(n_rows_of_cell >= MIN_INPUTS))
    named = [block.add_prefix(prefix) for prefix, block in blocks.items()]
    features = pd.concat(named, axis=1).astype(float)
    return features.loc[:, features.nunique() > 1]


def _words(text: pd.Series) -> pd.DataFrame:
    """Return lengths of texts, and which frequent words and character n-grams they contain."""
    from sklearn.feature_extraction.text import CountVectorizer

    lengths = {"number of characters": text.str.len(), "number of words": text.str.count(r"\S+")}
    blocks = [pd.DataFrame(lengths)]
    words = CountVectorizer(binary=True, max_features=N_WORDS, token_pattern=r"(?u)\b\w+\b")
    ngrams = CountVectorizer(binary=True, max_features=N_WORDS, analyzer="char", ngram_range=(2, 3))
    for prefix, vectorizer in (("word", words), ("characters", ngrams)):
        with suppress(ValueError):  # no text has a word
            is_present = vectorizer.fit_transform(text).toarray()
            names = [f"{prefix} {name!r}" for name in vectorizer.get_feature_names_out()]
            blocks.append(pd.DataFrame(is_present, columns=names))
    return pd.concat(blocks, axis=1)
