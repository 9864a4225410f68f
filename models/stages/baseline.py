"""Stage `baseline`: a model within seconds, for the first submission of every run with a budget.

It is a ridge or logistic regression on hashed n-grams of texts, circular fingerprints, categories, and
numbers with their quantile bins, since effects of numbers are rarely straight lines.

Sources: Weinberger et al., Feature hashing for large scale multitask learning, ICML 2009; Rogers and Hahn,
Extended-connectivity fingerprints, J. Chem. Inf. Model. 2010.
"""

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from competition.dataset import Dataset
from core.types import Array
from core.words import WORD_OF_TWO
from models.context import Context
from models.features import molecule_blocks
from models.inputs.columns import table_blocks
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.ngrams import N_RANGES
from models.inputs.scaling import fit_scaling, scaled_blocks
from models.stage import Feature
from models.stages.tabular import FeatureStage, TargetData

BASELINE = "baseline.npz"
N_HASHES = 2**14
"""Number of columns that the n-grams of a text column are hashed into."""
MIN_WORDS = 3.0
"""Mean number of words of a text below which only characters are read, as in scripts without blanks."""
MAX_CHARACTERS = 8_000_000
"""Maximum number of characters of a column in all training rows; longer texts are cut at their end. Words
take two seconds."""
MAX_CHARACTERS_TWICE = 3_000_000
"""Number of characters up to which n-grams of characters are read in addition to n-grams of words, which
takes two more seconds."""
N_BINS = 16
"""Number of bins of each column of numbers, with equally many training rows."""
RIDGE = 1.0
"""Strength of the regularisation of ridge regression."""
LOGISTIC = 3.0
"""Inverse of the strength of the regularisation of logistic regression."""
MAX_ITERATIONS = 30


class Baseline(FeatureStage):
    """A linear model that is trained within seconds.

    Under a budget it is the first stage, whatever its place in the YAML, and its submission is there from
    then on.
    """

    packages = ("scikit-learn", "scipy")
    comes_first = True
    no_effect = ("features", "tfidf_features", "parameters")
    kind: Literal["baseline"]
    features: list[Feature | EncoderFeature] = ["morgan"]

    def reads_texts(self, context: Context) -> bool:
        """Return False: its n-grams have no vocabulary."""
        return False

    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the errors of scikit-learn."""
        return (ValueError,)

    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the scaling and the bins of numbers, and the frequencies of n-grams."""
        blocks = table_blocks(train, context)
        fit_scaling(blocks, folder)
        numbers = scaled_blocks(blocks, folder)["numbers"]
        fitted = {"edges": np.quantile(numbers, np.linspace(0, 1, N_BINS + 1)[1:-1], axis=0)}
        for name in context.text:
            texts = train.inputs[name]
            length = MAX_CHARACTERS // len(train)
            n_characters = sum(min(len(text), length) for text in texts)
            has_words = sum(len(text.split()) for text in texts) >= MIN_WORDS * len(texts)
            has_characters = n_characters <= MAX_CHARACTERS_TWICE or not has_words
            is_used = {"word": has_words, "char_wb": has_characters}
            fitted[f"{name} length"] = np.array(length)
            for analyzer in [analyzer for analyzer in N_RANGES if is_used[analyzer]]:
                fitted[f"{name} {analyzer}"] = tfidf_of(texts.str[:length], analyzer)[1]
        np.savez_compressed(folder / BASELINE, **fitted)

    def build_features(self, rows: Dataset, folder: Path, context: Context) -> Any:
        """Return the features of rows, (n_rows, n_features), sparse."""
        from scipy import sparse
        from sklearn.preprocessing import normalize

        scaled = scaled_blocks(table_blocks(rows, context), folder)
        molecules = molecule_blocks(rows, self, context, folder)
        with np.load(folder / BASELINE) as fitted:
            blocks = [scaled["numbers"], scaled["categories"], bins_of(scaled["numbers"], fitted["edges"])]
            blocks += [normalize(np.log1p(counts)) for counts in molecules if counts.shape[1]]
            for name in context.text:
                texts = rows.inputs[name].str[: int(fitted[f"{name} length"])]
                used = [analyzer for analyzer in N_RANGES if f"{name} {analyzer}" in fitted]
                blocks += [tfidf_of(texts, analyzer, fitted[f"{name} {analyzer}"])[0] for analyzer in used]
        return sparse.hstack([*map(sparse.csr_matrix, blocks)], format="csr")

    def fit_target(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Fit the linear model and write its coefficients."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression, Ridge

        model: Any = Ridge(RIDGE, solver="sparse_cg", tol=1e-3)
        if context.task.has_probabilities:
            model = LogisticRegression(C=LOGISTIC, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of MAX_ITERATIONS
            model.fit(data.x, data.y, sample_weight=data.weights)
        coefficients = np.atleast_2d(model.coef_).astype(np.float32)
        np.savez(path.with_suffix(".npz"), coefficients=coefficients, intercept=model.intercept_)
        return {}

    def predict_target(self, x: Any, path: Path, context: Context) -> Array:
        """Return predictions (n_rows,), or probabilities (n_rows, n_classes)."""
        from scipy.special import expit, softmax

        with np.load(path.with_suffix(".npz")) as fitted:
            y_pred = np.asarray(x @ fitted["coefficients"].T + fitted["intercept"])
        if not context.task.has_probabilities:
            return y_pred[:, 0]
        return softmax(y_pred, axis=1) if y_pred.shape[1] > 1 else expit(np.hstack([-y_pred, y_pred]))


def bins_of(numbers: Array, edges: Array) -> Array:
    """Return which bin each number is in, (n_rows, n_columns * N_BINS), 0 or 1.

    Args:
        numbers: (n_rows, n_columns).
        edges: between the bins of each column, (N_BINS - 1, n_columns).
    """
    bins = [np.empty((len(numbers), 0))]
    for column, between in zip(numbers.T, edges.T, strict=True):
        bins.append(np.eye(N_BINS)[np.searchsorted(between, column)])
    return np.hstack(bins)


def tfidf_of(texts: "pd.Series[str]", analyzer: str, idf: Array | None = None) -> tuple[Any, Array]:
    """Return the TF-IDF of hashed n-grams, (n_rows, N_HASHES), sparse, and the inverse document frequencies.

    Args:
        idf: inverse document frequencies of training rows; None: computed from these rows.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    words = {"token_pattern": WORD_OF_TWO} if analyzer == "word" else {}
    hashing = HashingVectorizer(
        analyzer=analyzer, ngram_range=N_RANGES[analyzer], n_features=N_HASHES,
        norm=None, alternate_sign=False, dtype=np.float32, **words,
    )  # fmt: skip
    ngrams = hashing.transform(texts)
    weights = TfidfTransformer(sublinear_tf=True)
    if idf is None:
        weights.fit(ngrams)
    else:
        weights.idf_ = idf
    return weights.transform(ngrams), weights.idf_
