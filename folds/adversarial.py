"""Adversarial validation: can train and test be told apart, and by what?

A classifier of LightGBM's learns which table a row comes from and is scored on rows it has not seen. AUC 0.5:
it cannot tell. Source: Zajac, "Adversarial validation", fastml.com 2016.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import Descriptors
from tqdm import tqdm

from competition.config import CompetitionConfig
from competition.dataset import FEATURE, INPUT_KEY

SAMPLE, MIN_INPUTS = 2_000, 20
"""Rows of each table: the most that are looked at, and the fewest distinct ones that there must be."""
N_FOLDS, N_SHOWN, N_WORDS = 5, 10, 300
LIGHTGBM = {
    "n_estimators": 150, "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 10, "colsample_bytree": 0.5,
    "importance_type": "gain", "n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip


def adversarial_validation(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig, seed: int
) -> dict[str, Any] | None:
    """Classify rows of both prepared tables; None where one has fewer than `FEWEST` distinct inputs, or no
    features.

    Rows with the same whole input share a fold, so that no row is recognised by its twin. The most telling
    `features` come with their share of the classifier's `gain` and their mean in each table.
    """
    from lightgbm import LGBMClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_validate

    if min(train[INPUT_KEY].nunique(), test[INPUT_KEY].nunique()) < MIN_INPUTS:
        return None
    parts = [table.sample(min(SAMPLE, len(table)), random_state=seed) for table in (train, test)]
    rows = pd.concat(parts, ignore_index=True)
    is_test = np.repeat([0, 1], [len(part) for part in parts])
    features = readable_features(rows, competition)
    if features.empty:
        return None
    found = cross_validate(
        LGBMClassifier(**LIGHTGBM, random_state=seed), features.to_numpy(dtype=np.float32), is_test,
        groups=rows[INPUT_KEY], cv=StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed),
        scoring="roc_auc", return_estimator=True,
    )  # fmt: skip
    aucs, gains = (
        found["test_score"],
        np.sum([model.feature_importances_ for model in found["estimator"]], axis=0),
    )
    telling = features.groupby(is_test).mean().T.set_axis(["mean_in_train", "mean_in_test"], axis=1)
    telling.insert(0, "gain", gains / max(gains.sum(), 1e-300))
    telling = telling.sort_values("gain", ascending=False, kind="stable")[:N_SHOWN].reset_index(
        names="feature"
    )
    return {
        "auc": aucs.mean(),
        "standard_deviation": aucs.std(ddof=1),
        "features": telling.to_dict("records"),
    }


def readable_features(rows: pd.DataFrame, competition: CompetitionConfig) -> pd.DataFrame:
    """Features with names a person can read, (n_rows, n_features) float, NaN where one is not defined."""
    parts = [rows[[*competition.numeric, *(name for name in rows if str(name).startswith(FEATURE))]]]
    roles = (
        (competition.smiles, _descriptors),
        (competition.text, _words),
        (competition.categorical, _categories),
    )
    for columns, read in roles:
        parts += [read(rows[name]).add_prefix(f"{name}: ") for name in columns]
    whole = pd.concat(parts, axis=1).astype(float)
    return whole.loc[:, whole.nunique() > 1]


def _descriptors(smiles: pd.Series) -> pd.DataFrame:
    found = {
        text: Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(text), missingVal=np.nan, silent=True)
        for text in tqdm(smiles.unique(), desc="descriptors", leave=False, disable=None)
    }
    return pd.DataFrame(list(smiles.map(found))).clip(-1e6, 1e6)  # Ipc has no bound


def _categories(cells: pd.Series) -> pd.DataFrame:
    return pd.get_dummies(cells.where(cells.map(cells.value_counts()) >= MIN_INPUTS)).add_prefix("is ")


def _words(text: pd.Series) -> pd.DataFrame:
    """Lengths, and which frequent words and short runs of characters there are."""
    from sklearn.feature_extraction.text import CountVectorizer

    parts = [
        pd.DataFrame({"number of characters": text.str.len(), "number of words": text.str.count(r"\S+")})
    ]
    of_words = CountVectorizer(binary=True, max_features=N_WORDS, token_pattern=r"(?u)\b\w+\b")
    of_runs = CountVectorizer(binary=True, max_features=N_WORDS, analyzer="char", ngram_range=(2, 3))
    for what, vectorizer in (("word", of_words), ("characters", of_runs)):
        with suppress(ValueError):  # no text has a word
            found = vectorizer.fit_transform(text).toarray()
            parts.append(
                pd.DataFrame(found, columns=[f"{what} {x!r}" for x in vectorizer.get_feature_names_out()])
            )
    return pd.concat(parts, axis=1)
