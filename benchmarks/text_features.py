"""What SVMs on layers of mpnet add to blends of texts.

    python -m benchmarks.text_features --data FOLDER_WITH_COMPETITIONS --work W [--rows 2000] [--sets ...] [--bfloat16]
    python -m benchmarks.text_features --data ... --work W --sets icwsm_tweets --runs WORK/NAME ...

Five random folds of at most --rows training rows of each set. The blend has n-grams, a linear model on the last layer
of MiniLM and an SVM on its layers 2 to 5, and for two texts an SVM on their differences and products, and trees on
their common words and cosine. With --runs, the blend is that of the stages of finished runs with equal folds, on the
rows of the folds that all of them have finished. Printed are the cross-fitted score of the default blend after a
change, and the gain with its 95 % interval of a paired bootstrap over rows. --bfloat16 computes mpnet in less than half
of the time, with features that differ by up to .1 standard deviations.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightgbm import LGBMClassifier, LGBMRegressor
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from competition.metrics import get_metric
from competition.pairs import compare_texts
from competition.task import Task
from models.features import DEAD, compare_vectors, encoder_cache
from models.inputs.encoder_settings import EncoderFeature
from models.networks import frozen_texts
from submissions.blend.candidates import fit_candidate
from submissions.blend.data import BlendData
from submissions.blend.selection import cross_fit

SETS = {  # columns, target, columns of which equal values share a fold, metric
    "icwsm_tweets": (["text"], "sentiment", ["text"], "rmse"),
    "emotion": (["text"], "label", ["text"], "f1_macro"),
    "lcp_phrases": (["sentence", "token"], "complexity", ["token"], "pearson"),
    "sts_benchmark": (["sentence1", "sentence2"], "similarity_score", ["sentence1", "sentence2"], "pearson"),
}
LAYERS = ([12], [8, 10, 12], [8, 9, 10, 11], [6, 7, 8, 9], [4, 5, 6, 7])
ENCODERS = {
    "last": {"encoder": "minilm"},
    "layers": {"encoder": "minilm", "layers": [2, 3, 4, 5]},
    "mpnet": {"encoder": "mpnet", "layers": [*range(4, 13)]},
}
CHARACTERS = {"analyzer": "char_wb", "ngram_range": (2, 5), "max_features": 20000}


def use_bfloat16():
    """Compute the encoder mpnet in bfloat16, and pool in float32."""
    load, pool = frozen_texts._load_encoder, frozen_texts.pooled

    def load_half(settings):
        encoder, tokenizer = load(settings)
        return encoder.to(torch.bfloat16) if encoder.config.model_type == "mpnet" else encoder, tokenizer

    frozen_texts._load_encoder = load_half
    frozen_texts.pooled = lambda states, mask, how: pool(states.float(), mask, how)


def embeddings(name, texts, cache):
    """Return features of texts, (n_rows, n_features), by a name such as "last" or "mpnet [8, 10]"."""
    encoder, _, layers = name.partition(" ")
    settings = EncoderFeature.model_validate(ENCODERS[encoder])
    values = np.concatenate(encoder_cache(settings, cache).load(texts))[:, :-3]
    if layers:
        chosen = [settings.layers.index(layer) for layer in json.loads(layers)]
        values = values.reshape(len(values), len(settings.layers), -1)[:, chosen].reshape(len(values), -1)
    return np.where(np.abs(values) < DEAD, 0, values).astype(float)


def features(name, table, columns, cache):
    """Return the features of a name such as "last", "last: vectors", "last: cosine" or "numbers"."""
    block, _, comparison = name.partition(": ")
    if block == "numbers":
        return np.nan_to_num([compare_texts(*texts) for texts in table[columns].to_numpy()])
    vectors = [embeddings(block, table[column], cache) for column in columns]
    if not comparison:
        return np.hstack(vectors)
    compared = compare_vectors(*vectors)
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


def build(kind, is_class, is_dense):
    if kind == "svm":
        settings = {"kernel": "precomputed"}
        return (
            SVC(C=1.0, probability=True, random_state=0, **settings) if is_class else SVR(C=3.0, **settings)
        )
    if kind == "linear" and is_class:
        return LogisticRegression(C=0.003 if is_dense else 5.0, max_iter=300)
    if kind == "linear":
        return Ridge(alpha=100.0 if is_dense else 3.0)
    trees = {"n_estimators": 150, "learning_rate": 0.05, "colsample_bytree": 0.8, "num_leaves": 15}
    return (LGBMClassifier if is_class else LGBMRegressor)(
        **trees, min_child_samples=10, verbose=-1, n_jobs=1
    )


def rbf_kernel(x, rows):
    """Return the kernel of all rows with the training rows, by scikit-learn's gamma: scale, once for all fits."""
    squares = (x**2).sum(axis=1)
    distances = squares[:, None] + squares[rows] - 2 * x @ x[rows].T
    return np.exp(-np.maximum(distances, 0) / (x.shape[1] * x[rows].var()))


def out_of_fold(kind, y, folds, x_of_rows, n_classes):
    predicted = np.zeros((len(y), n_classes or 1))
    for fold in range(folds.max() + 1):
        rows = np.flatnonzero(folds != fold)
        held_out = folds == fold
        x, is_dense = x_of_rows(rows)
        if is_dense and kind != "trees":
            x = np.clip(StandardScaler().fit(x[rows]).transform(x), -5, 5)
        if kind == "svm":
            x = rbf_kernel(x, rows)
        mean, scale = (0, 1) if n_classes else (y[rows].mean(), y[rows].std())
        fitted = build(kind, bool(n_classes), is_dense).fit(x[rows], (y[rows] - mean) / scale)
        if n_classes:
            predicted[held_out] = fitted.predict_proba(x[held_out])
        else:
            predicted[held_out, 0] = fitted.predict(x[held_out]) * scale + mean
    return predicted


def read_runs(runs, ids):
    """Return stage -> out-of-fold predictions of runs with equal folds, NaN in unfinished folds; and the folds."""
    position = pd.Series(range(len(ids)), index=ids)
    columns, folds = {}, np.full(len(ids), -1)
    for file in sorted(file for run in runs for file in run.glob("models/*/*/seed_0/fold_*/oof.parquet")):
        table = pd.read_parquet(file)
        rows, fold = position[table.pop("id")].to_numpy(), int(file.parent.name.removeprefix("fold_"))
        stage = file.parents[3].name
        assert set(folds[rows]) <= {-1, fold}, f"{stage} has other folds"
        folds[rows] = fold
        columns.setdefault(stage, np.full((len(ids), table.shape[1]), np.nan))[rows] = table
    return columns, folds


def compare(name, options):
    columns, target, unit, metric_name = SETS[name]
    table = pd.read_csv(options.data / name / "train.csv", keep_default_na=False, dtype={"id": str})
    cache = options.work / ("bfloat16" if options.bfloat16 else "float32")
    preds = {}
    if options.runs:
        preds, folds = read_runs(options.runs, table["id"])
        finished = np.all([np.isfinite(each).all(axis=1) for each in preds.values()], axis=0)
    else:
        table = (
            table.sample(min(options.rows, len(table)), random_state=0).sort_index().reset_index(drop=True)
        )
        _, group = np.unique(table[unit].agg("|".join, axis=1), return_inverse=True)
        folds = (np.random.default_rng(1).permutation(group.max() + 1) % 5)[group]
        finished = np.full(len(table), True)
    before = [*preds] or ["linear, ngrams", "linear, last", "svm, layers"]
    before += (
        [] if len(columns) == 1 or options.runs else ["svm, last: vectors", "trees, numbers + last: cosine"]
    )
    is_class = metric_name == "f1_macro"
    classes = sorted(set(table[target])) if is_class else []
    y = table[target].map(classes.index).to_numpy(float) if is_class else table[target].to_numpy(float)
    kind = "multiclass" if is_class else "regression"
    task = Task([target], problem_type=kind, classes=classes, scores_labels=is_class)
    metric = get_metric(metric_name, kind)

    def column(model):
        if model not in preds:
            kind, _, names = model.partition(", ")

            def x_of_rows(rows):
                if names == "ngrams":
                    return ngrams(table, columns, rows), False
                return np.hstack([features(each, table, columns, cache) for each in names.split(" + ")]), True

            preds[model] = out_of_fold(kind, y, folds, x_of_rows, len(classes))
        return preds[model][finished]

    labels = y[finished][:, None]

    def blend(models):
        stacked = np.stack([column(model) for model in models], axis=1)
        ids = [*map(str, range(len(labels)))]
        fields = {"metric": metric, "task": task, "y": labels, "folds": folds[finished], "ids": ids}
        data = BlendData(**fields, groups=np.arange(len(labels)), preds=stacked)
        default = "shrunk_logits" if is_class else "shrunk_ridge"
        return cross_fit(data, partial(fit_candidate, data, default)).scored

    def alone(model):
        return metric(labels, column(model).argmax(axis=1)[:, None] if is_class else column(model))

    def gain(before, after):
        def difference(rows):
            scores = [metric(labels[rows], scored[rows]) for scored in (before, after)]
            return (scores[1] - scores[0]) * (1 if metric.greater_is_better else -1)

        rng = np.random.default_rng(0)
        resampled = [difference(rng.integers(len(labels), size=len(labels))) for _ in range(400)]
        low, high = np.quantile(resampled, [0.025, 0.975])
        everything = difference(np.arange(len(labels)))
        return f"{metric(labels, after):.4f} {everything:+.4f} [{low:+.4f}, {high:+.4f}]"

    today = blend(before)
    print(f"{name}, {len(labels)} rows: today {metric(labels, today):.4f}", flush=True)
    print("  alone:", *(f"{model} {alone(model):.4f};" for model in before), flush=True)
    for layers in LAYERS:
        model = f"svm, mpnet {layers}"
        print(f"  and {model}, alone {alone(model):.4f}:", gain(today, blend([*before, model])), flush=True)
    if len(columns) == 2:
        model = f"svm, mpnet {LAYERS[0]}: vectors"
        print(f"  and {model}, alone {alone(model):.4f}:", gain(today, blend([*before, model])), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--sets", nargs="*", default=[*SETS])
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    if options.bfloat16:
        use_bfloat16()
    for each in options.sets:
        compare(each, options)
