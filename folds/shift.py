"""Adversarial validation: can train and test be told apart, and by what?

A classifier of LightGBM's learns which table a row comes from and is scored on rows it has not seen. AUC 0.5: it cannot
tell. Source: Zajac, "Adversarial validation", fastml.com 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import Descriptors
from tqdm import tqdm

from competition.config import CompetitionConfig
from competition.tables import FEATURE, INPUT_KEY

SAMPLE = 2_000
"""Most rows of each table that are looked at."""
FEWEST = 20
"""Rows that each table must have."""
N_FOLDS, N_SHOWN, N_WORDS = 5, 10, 300
LIGHTGBM = {
    "n_estimators": 150, "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 10, "colsample_bytree": 0.5,
    "importance_type": "gain", "n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip


@dataclass(frozen=True)
class Shift:
    """What tells train and test apart.

    aucs: of each fold, on rows that the classifier has not seen.
    features: the most telling ones with `gain`, their share of the classifier's gain, and the mean in each table.
    """

    aucs: list[float]
    features: pd.DataFrame

    @property
    def auc(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.aucs))

    @property
    def standard_deviation(self) -> float:
        """Of the AUC over folds."""
        return float(np.std(self.aucs, ddof=1))


def adversarial_validation(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig, seed: int
) -> Shift | None:
    """Classify rows of both prepared tables; None where one has fewer than `FEWEST` distinct inputs.

    Rows with the same whole input share a fold, so that no row is recognised by its twin.
    """
    from lightgbm import LGBMClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    if min(train[INPUT_KEY].nunique(), test[INPUT_KEY].nunique()) < FEWEST:
        return None
    parts = [table.sample(min(SAMPLE, len(table)), random_state=seed) for table in (train, test)]
    rows = pd.concat(parts, ignore_index=True)
    is_test = np.repeat([0, 1], [len(part) for part in parts])
    features = readable_features(rows, competition)
    values = features.to_numpy(dtype=np.float32)
    aucs, gains = [], np.zeros(len(features.columns))
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    for fitted, asked in splitter.split(values, is_test, pd.factorize(rows[INPUT_KEY])[0]):
        model = LGBMClassifier(**LIGHTGBM, random_state=seed).fit(values[fitted], is_test[fitted])
        aucs.append(float(roc_auc_score(is_test[asked], model.predict_proba(values[asked])[:, 1])))
        gains += model.feature_importances_
    shown = np.argsort(-gains, kind="stable")[:N_SHOWN]
    of_train, of_test = (features[is_test == which].iloc[:, shown] for which in (0, 1))
    means = {"mean_in_train": of_train.mean().to_numpy(), "mean_in_test": of_test.mean().to_numpy()}
    table = pd.DataFrame({"feature": of_train.columns, "gain": gains[shown] / max(gains.sum(), 1e-300), **means})
    return Shift(aucs, table)


def readable_features(rows: pd.DataFrame, competition: CompetitionConfig) -> pd.DataFrame:
    """Features with names a person can read, (n_rows, n_features) float, NaN where one is not defined.

    RDKit's descriptors of molecules; lengths, frequent words and short runs of characters of text; numbers as they are;
    frequent categories.
    """
    parts = [rows[[*competition.numeric, *(name for name in rows if str(name).startswith(FEATURE))]].astype(float)]
    for columns, read in ((competition.smiles, _descriptors), (competition.text, _words)):
        parts += [read(rows[name]).add_prefix(f"{name}: " if len(columns) > 1 else "") for name in columns]
    for name in competition.categorical:
        frequent = [value for value, n in rows[name].value_counts().items() if n >= FEWEST][:N_WORDS]
        parts.append(pd.DataFrame({f"{name} is {value!r}": (rows[name] == value).astype(float) for value in frequent}))
    whole = pd.concat([part for part in parts if part.shape[1]], axis=1)
    return whole.loc[:, whole.nunique() > 1]


def _descriptors(smiles: pd.Series) -> pd.DataFrame:
    codes, distinct = pd.factorize(smiles)
    found = [
        Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(text), missingVal=np.nan, silent=True)
        for text in tqdm(distinct, desc="descriptors", leave=False, disable=None)
    ]
    return pd.DataFrame(found).clip(-1e6, 1e6).iloc[codes].reset_index(drop=True)  # Ipc has no bound


def _words(text: pd.Series) -> pd.DataFrame:
    from sklearn.feature_extraction.text import CountVectorizer

    lengths = {"number of characters": text.map(len), "number of words": text.map(lambda cell: len(cell.split()))}
    parts = [pd.DataFrame(lengths)]
    for what, vectorizer in {
        "word": CountVectorizer(binary=True, max_features=N_WORDS, token_pattern=r"(?u)\b\w+\b"),
        "characters": CountVectorizer(binary=True, max_features=N_WORDS, analyzer="char", ngram_range=(2, 3)),
    }.items():
        counts = vectorizer.fit_transform(text).toarray()
        parts.append(pd.DataFrame(counts, text.index, [f"{what} {x!r}" for x in vectorizer.get_feature_names_out()]))
    return pd.concat(parts, axis=1).astype(float)
