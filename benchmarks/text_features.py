"""Compare features of texts in models and blends.

    python -m benchmarks.text_features --data FOLDER_WITH_COMPETITIONS --work W [--rows 2000] [--sets ...]

Five random folds of at most --rows training rows of each set. The blend of today has n-grams, a linear model and an SVM
on the last layer of MiniLM, and for two texts an SVM on their differences and products, and trees on their common
words and cosine. Printed are the cross-fitted score of the default blend after a change, and the gain with its
95 % interval of a paired bootstrap over rows. VADER's scores and word frequencies are left out unless the packages
vaderSentiment and wordfreq are installed.
"""

import argparse
import importlib.util
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from competition.metrics import get_metric
from competition.pairs import compare_texts
from competition.task import Task
from models.features import compare_vectors, encoder_cache
from models.inputs.encoder_settings import EncoderFeature
from submissions.blend.candidates import fit_candidate
from submissions.blend.data import BlendData
from submissions.blend.selection import cross_fit

SETS = {  # columns, target, columns of which equal values share a fold, metric
    "icwsm_tweets": (["text"], "sentiment", ["text"], "rmse"),
    "emotion": (["text"], "label", ["text"], "f1_macro"),
    "lcp_phrases": (["sentence", "token"], "complexity", ["token"], "pearson"),
    "sts_benchmark": (["sentence1", "sentence2"], "similarity_score", ["sentence1", "sentence2"], "pearson"),
}
ENCODERS = {
    "last": {"encoder": "minilm"},
    "layers": {"encoder": "minilm", "layers": [2, 3, 4, 5]},
    "layers6": {"encoder": "minilm", "layers": [2, 3, 4, 5, 6]},
    "use": {"encoder": "use_multilingual"},
}
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def statistics(text, frequency):
    words = WORD.findall(text.lower()) or [""]
    zipf = np.array([frequency(word, "en") for word in words])
    lengths = [len(word) for word in words]
    syllables = [max(1, len(re.findall("[aeiouy]+", word))) for word in words]
    quantiles = np.quantile(zipf, [0, 0.1, 0.25, 0.5])
    shares = [(zipf == 0).mean(), len(words) / max(1, len(re.findall(r"[.!?]+", text)))]
    numbers = [zipf.mean(), len(words), np.mean(lengths), max(lengths), np.mean(syllables), max(syllables)]
    return [*numbers, *quantiles, *shares]


def blocks_of(table, columns, cache):
    """Return name -> features of each text column."""
    blocks = {}
    for name, settings in ENCODERS.items():
        embeddings = encoder_cache(EncoderFeature.model_validate(settings), cache)
        blocks[name] = [np.concatenate(embeddings.load(table[column]))[:, :-3] for column in columns]
    if importlib.util.find_spec("wordfreq"):
        frequency = importlib.import_module("wordfreq").zipf_frequency
        blocks["stats"] = [np.array([statistics(text, frequency) for text in table[c]]) for c in columns]
    if importlib.util.find_spec("vaderSentiment"):
        module = importlib.import_module("vaderSentiment.vaderSentiment")
        scores = module.SentimentIntensityAnalyzer().polarity_scores
        blocks["vader"] = [np.array([[*scores(text).values()] for text in table[c]]) for c in columns]
    return blocks


def features(name, blocks, table, columns):
    """Return the features of a name such as "last", "last vectors", "last cosine" or "numbers"."""
    block, _, comparison = name.partition(" ")
    if block == "numbers":
        return np.nan_to_num([compare_texts(*texts) for texts in table[columns].to_numpy()])
    if not comparison:
        return np.hstack(blocks[block])
    compared = compare_vectors(*blocks[block])
    return compared[:, -1:] if comparison == "cosine" else compared


def ngrams(table, columns, rows):
    parts = []
    for column in columns:
        for settings in ({"ngram_range": (1, 2), "max_features": 5000}, CHARACTERS):
            vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, **settings).fit(
                table[column].iloc[rows]
            )
            parts.append(vectorizer.transform(table[column]))
    return sparse.hstack(parts, format="csr")


CHARACTERS = {"analyzer": "char_wb", "ngram_range": (2, 5), "max_features": 20000}


def build(kind, is_class, is_dense):
    if kind == "svm":
        return SVC(C=1.0, probability=True, random_state=0) if is_class else SVR(C=3.0)
    if kind == "linear" and is_class:
        return LogisticRegression(C=0.003 if is_dense else 5.0, max_iter=300)
    if kind == "linear":
        return Ridge(alpha=100.0 if is_dense else 3.0)
    trees = {"n_estimators": 150, "learning_rate": 0.05, "colsample_bytree": 0.8, "num_leaves": 15}
    return (LGBMClassifier if is_class else LGBMRegressor)(
        **trees, min_child_samples=10, verbose=-1, n_jobs=1
    )


def out_of_fold(model, y, folds, x_of_rows, is_class):
    predicted = np.zeros((len(y), len(np.unique(y)) if is_class else 1))
    for fold in range(5):
        rows = np.flatnonzero(folds != fold)
        held_out = folds == fold
        x, is_dense = x_of_rows(rows)
        if is_dense and model != "trees":
            x = np.clip(StandardScaler().fit(x[rows]).transform(x), -5, 5)
        mean, scale = (0, 1) if is_class else (y[rows].mean(), y[rows].std())
        fitted = build(model, is_class, is_dense).fit(x[rows], (y[rows] - mean) / scale)
        if is_class:
            predicted[held_out] = fitted.predict_proba(x[held_out])
        else:
            predicted[held_out, 0] = fitted.predict(x[held_out]) * scale + mean
    return predicted


def compare(name, data, work, n_rows):
    columns, target, unit, metric_name = SETS[name]
    table = pd.read_csv(data / name / "train.csv", keep_default_na=False)
    table = table.sample(min(n_rows, len(table)), random_state=0).sort_index().reset_index(drop=True)
    is_class = metric_name == "f1_macro"
    classes = sorted(set(table[target])) if is_class else []
    y = table[target].map(classes.index).to_numpy(float) if is_class else table[target].to_numpy(float)
    _, group = np.unique(table[unit].agg("|".join, axis=1), return_inverse=True)
    folds = (np.random.default_rng(1).permutation(group.max() + 1) % 5)[group]
    kind = "multiclass" if is_class else "regression"
    task = Task([target], problem_type=kind, classes=classes, scores_labels=is_class)
    metric = get_metric(metric_name, kind)
    blocks = blocks_of(table, columns, work / "cache")
    preds = {}

    def column(model):
        if model not in preds:
            kind, *names = model.split(", ")

            def x_of_rows(rows):
                if names == ["ngrams"]:
                    return ngrams(table, columns, rows), False
                return np.hstack([features(each, blocks, table, columns) for each in names]), True

            preds[model] = out_of_fold(kind, y, folds, x_of_rows, is_class)
        return preds[model]

    def blend(models):
        stacked = np.stack([column(model) for model in models], axis=1)
        fields = {"metric": metric, "task": task, "y": y[:, None], "folds": folds, "groups": group}
        data = BlendData(**fields, ids=[*map(str, table.index)], preds=stacked)
        default = "shrunk_logits" if is_class else "shrunk_ridge"
        return cross_fit(data, partial(fit_candidate, data, default)).scored

    def gain(before, after):
        def difference(rows):
            scores = [metric(y[rows][:, None], scored[rows]) for scored in (before, after)]
            return (scores[1] - scores[0]) * (1 if metric.greater_is_better else -1)

        rng = np.random.default_rng(0)
        resampled = [difference(rng.integers(len(y), size=len(y))) for _ in range(400)]
        low, high = np.quantile(resampled, [0.025, 0.975])
        return (
            f"{metric(y[:, None], after):.4f} {difference(np.arange(len(y))):+.4f} [{low:+.4f}, {high:+.4f}]"
        )

    pairs = ["svm, last vectors", "trees, numbers, last cosine"] if len(columns) == 2 else []
    use = ["svm, use", *(["svm, use vectors"] if pairs else [])]
    before = ["linear, ngrams", "linear, last", "svm, last", *pairs]
    layers = ["linear, ngrams", "linear, last", "svm, layers", *pairs]
    last_score = blend(before)
    print(f"{name}: today {metric(y[:, None], last_score):.4f}", flush=True)
    print("  layers 2 to 5 in place of the last in the SVM", gain(last_score, blend(layers)), flush=True)
    in_both = ["linear, ngrams", "linear, layers6", "svm, layers6", *pairs]
    print("  layers 2 to 6 in place of the last in both", gain(last_score, blend(in_both)), flush=True)
    with_layers = blend(layers)
    print("  and use_multilingual", gain(with_layers, blend([*layers, *use])), flush=True)
    for block in ("stats", "vader"):
        if block in blocks:
            models = [*layers, f"svm, {block}", f"trees, {block}"]
            print(f"  and {block} instead", gain(with_layers, blend(models)), flush=True)
    if "stats" in blocks and pairs:
        models = [*layers[:-1], f"{pairs[1]}, stats"]
        print("  stats in the trees", gain(with_layers, blend(models)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--sets", nargs="*", default=[*SETS])
    options = parser.parse_args()
    for each in options.sets:
        compare(each, options.data, options.work, options.rows)
