"""Out-of-fold predictions of cheap stages with holdouts, kept on disk: the raw material of the blenders'
benchmarks.

Of each set at most POOL training rows are drawn once; a draw divides them into training rows and a holdout,
half and half, and the training rows into five folds. Draws 2 i and 2 i + 1 swap the halves, so over a pair
every row is as often out of fold as held out, and how hard the rows of a half are cancels. Each stage is
fitted on each fold's training rows and predicts its fold and the whole holdout, so every fold's models can be
scored on the holdout by themselves.

There are ten of the project's own stages (`draw_of`; `matrices` has each target by itself) and, of classes,
also eight of scikit-learn's and LightGBM's classifiers, each target by itself (`class_matrices`).
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from competition.dataset import Dataset
from competition.task import Task, class_names, class_numbers
from core.files import derive_seed
from models.context import Context
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.feature_blocks import build_vectorizer
from models.inputs.fingerprints import molecule_features
from models.inputs.frozen_encoders import encoder_cache
from models.registry import Stages

SETS = ["biogen_adme", "buchwald_hartwig", "esol", "icwsm_tweets", "photoswitch", "qm9_electronic"]
ALL_SETS = [*SETS, "bace", "chembl204_ki", "chembl218_ec50", "chembl287_ki", "emotion", "tox21"]
TEXTS = ("emotion", "icwsm_tweets")
POOL = 2000
N_FOLDS = 5
MIN_ROWS = 75
"""Labels that a target must have among the training rows and in the holdout to be counted."""

TOX21 = [*map("NR-{}".format, ["AR", "AR-LBD", "AhR", "Aromatase", "ER", "ER-LBD", "PPAR-gamma"]),
         *map("SR-{}".format, ["ARE", "ATAD5", "HSE", "MMP", "p53"])]  # fmt: skip
BIN_EDGES: dict[str, dict[str, list[float]]] = {
    "bace": {"active": [0.5]},
    "biogen_adme": {"log_HLM_CLint": [1.5], "log_MDR1_ER": [1], "log_solubility": [1], "log_RLM_CLint": [3]},
    "buchwald_hartwig": {"Yield": [50]},
    "chembl204_ki": {"pKi": [7]},
    "chembl218_ec50": {"pEC50": [6.2, 7.2]},
    "chembl287_ki": {"pKi": [7.5]},
    "emotion": {"label": []},  # four names
    "esol": {"logS": [-2]},
    "icwsm_tweets": {"sentiment": [-1, 1]},
    "photoswitch": {"E_pipi_nm": [400]},
    "qm9_electronic": {"gap_eV": [6.1, 7.5]},
    "tox21": dict.fromkeys(TOX21, [0.5]),
}
"""Set -> target -> where its numbers are cut into classes: near the median, or where a chemist would, so that
some classes are rare.
"""
MIN_CLASS_ROWS = 15
"""Rows that each class must have among the training rows and in the holdout."""

TREES = {"learning_rate": 0.1, "max_trees": 200, "patience": 20}
FOREST = {"n_estimators": 50, "max_features": 0.3, "min_samples_leaf": 2}
SHRUNK = {"solver": "lsqr", "shrinkage": "auto"}


def sklearn_stage(estimator: str, **settings: object) -> dict:
    return {"kind": "sklearn", "estimator": estimator, **settings}


def stages_of(text: bool, classes: bool) -> dict[str, dict]:
    """Ten stages in the words of the YAML; of classes a discriminant analysis for SVR, for time."""
    common: dict = {"n_bits": 256, "tfidf_features": 1000}
    encoder: dict = {"features": [{"encoder": "minilm" if text else "rxnfp"}], "tfidf_features": 0}
    sklearn = partial(sklearn_stage, **common)
    trees = {
        "lightgbm": {"kind": "lightgbm", **common, **TREES},
        "catboost": {"kind": "catboost", **common, **TREES, "depth": 5, "features": ["avalon", "erg"]},
    }
    if classes:
        return {
            **trees,
            "logistic": sklearn("LogisticRegression", parameters={"C": 3.0 if text else 0.1}),
            "discriminant": sklearn("LinearDiscriminantAnalysis", parameters=SHRUNK),
            "forest": sklearn("RandomForestClassifier", parameters=FOREST),
            "extra_trees": sklearn("ExtraTreesClassifier", parameters=FOREST),
            "neighbours": sklearn(
                "KNeighborsClassifier", parameters={"n_neighbors": 15, "weights": "distance"}
            ),
            "naive_bayes": sklearn("GaussianNB", features=["maccs"]),
            "encoder_logistic": sklearn("LogisticRegression", **encoder, parameters={"C": 0.01}),
            "encoder_discriminant": sklearn("LinearDiscriminantAnalysis", **encoder, parameters=SHRUNK),
        }
    return {
        **trees,
        "ridge": sklearn("Ridge", parameters={"alpha": 10.0} if not text else {}),
        "svr": sklearn("SVR"),
        "forest": sklearn("RandomForestRegressor", parameters=FOREST),
        "extra_trees": sklearn("ExtraTreesRegressor", parameters=FOREST),
        "neighbours": sklearn("KNeighborsRegressor", parameters={"weights": "distance"}),
        "gaussian_process": sklearn(
            "GaussianProcessRegressor", parameters={"optimizer": None}, features=["maccs"]
        ),
        "encoder_ridge": sklearn("Ridge", **encoder, parameters={"alpha": 30.0}),
        "encoder_svr": sklearn("SVR", **encoder),
    }


@dataclass(frozen=True)
class Matrix:
    """One target of one draw of one set.

    oof: (n_rows, n_stages); y, folds: (n_rows,).
    holdout: (n_folds, n_holdout, n_stages), by the models of each fold; y_holdout: (n_holdout,).
    Of classes, oof and holdout have one more axis: the probability of class 1 of two, or of each of several.
    """

    set_name: str
    target: str
    draw: int
    oof: np.ndarray
    y: np.ndarray
    folds: np.ndarray
    holdout: np.ndarray
    y_holdout: np.ndarray

    def of_columns(self, which: np.ndarray) -> Self:
        """Return the matrix of some of the stages."""
        rest = (self.y, self.folds, self.holdout[:, :, which], self.y_holdout)
        return type(self)(self.set_name, self.target, self.draw, self.oof[:, which], *rest)


def matrices(name: str, draw: int, data: Path, cache: Path) -> Iterator[Matrix]:
    """The matrices of a draw, made or kept; rows without a label are left out."""
    return matrices_of_parts(name, draw, draw_of(name, draw, data, cache))


def matrices_of_parts(name: str, draw: int, parts: dict[str, np.ndarray]) -> Iterator[Matrix]:
    """Yield the matrix of each target of a draw."""
    for t, target in enumerate(parts["targets"]):
        is_labelled, is_labelled_holdout = ~np.isnan(parts["y"][:, t]), ~np.isnan(parts["y_holdout"][:, t])
        if min(is_labelled.sum(), is_labelled_holdout.sum()) >= MIN_ROWS:
            yield Matrix(
                name, str(target), draw,
                parts["oof"][is_labelled, :, t], parts["y"][is_labelled, t], parts["folds"][is_labelled],
                parts["holdout"][:, :, :, t][:, is_labelled_holdout], parts["y_holdout"][is_labelled_holdout, t],
            )  # fmt: skip


def draw_of(name: str, draw: int, data: Path, cache: Path) -> dict[str, np.ndarray]:
    """A draw with all targets, made or kept.

    Returns:
        targets, classes (none of numbers), problem; oof (n_rows, n_stages, n_outputs), y (n_rows, n_targets),
        folds; holdout (n_folds, n_holdout, n_stages, n_outputs), y_holdout.
    """
    return _cached(cache / f"{name}_{draw}.npz", partial(_make, name, draw, data, cache))


MINIMOL = {"encoder": "minimol"}
RXNFP = {"encoder": "rxnfp"}
FAMILY_STAGES: dict[str, dict] = {
    "lightgbm": {"kind": "lightgbm", **TREES},
    "svr": sklearn_stage("sklearn.svm.SVR", parameters={"C": 10.0}),
    "gp": {"kind": "gp"},
    "gp_minimol": {"kind": "gp", "kernels": ["ecfp4", "atom_pairs", "fcfp4", "descriptors", MINIMOL]},
    "minimol_svr": sklearn_stage("sklearn.svm.SVR", features=[MINIMOL], parameters={"C": 3.0}),
    "minimol_ridge": sklearn_stage(
        "sklearn.linear_model.Ridge", features=[MINIMOL], parameters={"alpha": 30.0}
    ),
    "minimol_lightgbm": {"kind": "lightgbm", "features": [MINIMOL], **TREES},
    "minimol_neighbours": sklearn_stage(
        "sklearn.neighbors.KNeighborsRegressor", features=[MINIMOL], parameters={"weights": "distance"}
    ),
    "rxnfp_ridge": sklearn_stage("sklearn.linear_model.Ridge", features=[RXNFP], parameters={"alpha": 30.0}),
    "rxnfp_svr": sklearn_stage("sklearn.svm.SVR", features=[RXNFP]),
}
"""Stages for columns that are correlated: half of them read MiniMol's vectors."""


def family_matrices(name: str, draw: int, split: str, data: Path, cache: Path) -> Iterator[Matrix]:
    """Yield the matrices of FAMILY_STAGES; holdout and folds are drawn by rows or by scaffolds."""
    return matrices_of_parts(name, draw, family_parts(name, draw, split, data, cache))


def family_parts(name: str, draw: int, split: str, data: Path, cache: Path) -> dict[str, np.ndarray]:
    """Return a draw of FAMILY_STAGES with all targets, made or kept, as `draw_of` does."""
    return cached_parts(f"families_{split}", name, draw, data, cache, FAMILY_STAGES, split)


def cached_parts(
    prefix: str, name: str, draw: int, data: Path, cache: Path, stages: dict[str, dict], split: str
) -> dict[str, np.ndarray]:
    """Return a draw of stages with all targets, made or kept, as `draw_of` does."""
    make = partial(_make, name, draw, data, cache, stages, split)
    return _cached(cache / f"{prefix}_{name}_{draw}.npz", make)


def molecules_of_halves(name: str, draw: int, split: str, data: Path) -> tuple[list[str], list[str]]:
    """Return the SMILES of the training rows and of the holdout of a draw, of the first molecule column."""
    table, _, inputs = _pool(name, data)
    train, holdout = HALVES[split](name, draw, table[inputs])
    smiles = table[inputs[0]].to_numpy()
    return list(smiles[train]), list(smiles[holdout])


def class_matrices(name: str, draw: int, data: Path, cache: Path) -> Iterator[Matrix]:
    """Yield the matrices of the classes of a set."""
    parts = _cached(cache / f"classes_{name}_{draw}.npz", partial(_make_classes, name, draw, data, cache))
    for target in BIN_EDGES[name]:
        if f"{target} y" in parts:
            yield Matrix(name, target, draw, *(parts[f"{target} {part}"] for part in PARTS))


PARTS = ("oof", "y", "folds", "holdout", "y_holdout")


def arguments(doc: str | None, sets: list[str], draws: int) -> argparse.Namespace:
    """The command line of the benchmarks of blends; the folder of what is kept is made."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder of competitions")
    options.add_argument("--cache", type=Path, required=True, help="where what is slow to make is kept")
    options.add_argument("--draws", type=int, default=draws)
    options.add_argument("--sets", nargs="+", default=sets, choices=sets)
    args = options.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    return args


def cached_lines(
    prefix: str, lines_of: Callable[[str, int], list[Any]], args: argparse.Namespace
) -> list[Any]:
    """The lines of all sets and draws. Those of each are made or kept, so that a command goes on where it
    stopped and processes can share the sets; take the files PREFIX_*.json away after a change of what is
    measured.
    """
    lines = []
    for draw in range(args.draws):
        for name in args.sets:
            file = args.cache / f"{prefix}_{name}_{draw}.json"
            if not file.exists():
                with threadpool_limits(1):
                    file.write_text(json.dumps(lines_of(name, draw)))
            lines += json.loads(file.read_text())
    return lines


def cached_class_lines(
    prefix: str, lines_of: Callable[[Matrix], list[Any]], args: argparse.Namespace
) -> list[Any]:
    """The lines of the matrices of classes of all sets and draws, made or kept."""

    def of_draw(name: str, draw: int) -> list[Any]:
        matrices = class_matrices(name, draw, args.data, args.cache)
        return [line for matrix in matrices for line in lines_of(matrix)]

    return cached_lines(prefix, of_draw, args)


def over_sets(values: pd.Series, sets: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Mean of each set, and their mean with its 95 % interval, (3,), by a bootstrap that draws sets."""
    of_set = values.groupby(sets).mean()
    drawn = np.random.default_rng(0).choice(of_set.to_numpy(), (10_000, len(of_set))).mean(axis=1)
    return of_set, np.array([of_set.mean(), *np.quantile(drawn, [0.025, 0.975])])


def in_per_cent(interval: np.ndarray, digits: int = 1) -> str:
    """What `over_sets` finds of logarithms of ratios."""
    return "{:+.{n}f} % [{:+.{n}f}, {:+.{n}f}]".format(*100 * np.expm1(interval), n=digits)


def per_set(of_set: pd.Series) -> str:
    """Return the change of each set in per cent."""
    return ", ".join(f"{name} {100 * np.expm1(value):+.1f} %" for name, value in of_set.items())


def _cached(file: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not file.exists():
        made = make()
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            np.savez_compressed(Path(folder) / file.name, **made)
            (Path(folder) / file.name).rename(file)
    with np.load(file) as stored:
        return dict(stored)


def _halves(name: str, draw: int, inputs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training rows and of the holdout."""
    n_rows = len(inputs)
    order = np.random.default_rng(derive_seed(draw // 2, "holdout", name)).permutation(n_rows)
    halves = order[: n_rows // 2], order[n_rows // 2 :]
    return halves if draw % 2 == 0 else halves[::-1]


def _scaffold_halves(name: str, draw: int, inputs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training rows and of the holdout, which share no Murcko scaffold."""
    scaffolds = _scaffolds(inputs)
    rng = np.random.default_rng(derive_seed(draw // 2, "scaffolds", name))
    order = rng.permutation(scaffolds.max() + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    is_first = rank[scaffolds] <= np.median(rank[scaffolds])
    halves = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    return halves if draw % 2 == 0 else halves[::-1]


def _scaffolds(inputs: pd.DataFrame) -> np.ndarray:
    """Return the number of the Murcko scaffold of each row's first molecule."""
    return pd.factorize(np.array([MurckoScaffoldSmiles(smiles) for smiles in inputs.iloc[:, 0]]))[0]


HALVES = {"rows": _halves, "scaffolds": _scaffold_halves}


def _pool(name: str, data: Path) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """The rows of a set that draws divide, what its `competition.json` says, and its input columns."""
    info = json.loads((data / name / "competition.json").read_text())
    table, inputs = (
        pd.read_csv(data / name / "train.csv", dtype={"id": str}),
        info.get("inputs") or [info["column"]],
    )
    if name not in TEXTS:
        table = table[table[inputs[0]].map(MolFromSmiles).notna()]
    return table.sample(n=min(POOL, len(table)), random_state=0).reset_index(drop=True), info, inputs


def _make(
    name: str,
    draw: int,
    data: Path,
    cache: Path,
    stage_settings: dict[str, dict] | None = None,
    split: str = "rows",
) -> dict[str, np.ndarray]:
    (table, info, inputs), text, root = _pool(name, data), name in TEXTS, cache / "features"
    targets, problem = info["targets"], info.get("problem", "regression")
    cells = table[targets].astype(object).fillna("").astype(str)
    classes = [] if problem == "regression" else class_names(cells)
    if classes:
        table[targets] = cells.apply(lambda column: class_numbers(column, classes)[0])
    context = Context(
        smiles=[] if text else inputs, text=inputs if text else [], numeric=[], categorical=[],
        task=Task(targets, None, problem, classes), seed=derive_seed(0, "blenders", name), cache=root,
    )  # fmt: skip
    rows = Dataset(list(table["id"]), table[inputs], table[targets].to_numpy(dtype=np.float64))
    settings = stage_settings or stages_of(text, bool(classes))
    stages = TypeAdapter(Stages).validate_python(settings)
    for config in stages.values():
        for shared, keys in config.caches(context, [rows]):
            shared.load(keys)
    train, holdout = map(rows.take, HALVES[split](name, draw, rows.inputs))
    folds = np.empty(len(train), dtype=np.int64)
    groups = _scaffolds(train.inputs) if split == "scaffolds" else None
    splitter = (KFold if groups is None else GroupKFold)(N_FOLDS, shuffle=True, random_state=draw)
    for fold, (_, held_out) in enumerate(splitter.split(train.ids, groups=groups)):
        folds[held_out] = fold
    shape = (len(stages), len(context.task.outputs))
    oof, of_holdout = np.empty((len(train), *shape)), np.empty((N_FOLDS, len(holdout), *shape))
    for j, (stage_name, config) in enumerate(stages.items()):
        started = time.process_time()
        for fold in range(N_FOLDS):
            with tempfile.TemporaryDirectory() as folder:
                targets.fit(config, train.take(folds != fold), Path(folder), context)
                held_out = train.take(folds == fold).without_labels()
                oof[folds == fold, j] = targets.predict(config, held_out, Path(folder), context)
                of_holdout[fold, :, j] = targets.predict(
                    config, holdout.without_labels(), Path(folder), context
                )
        print(
            f"{name} {draw} {stage_name}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True
        )
    return {
        "targets": np.array(targets), "classes": np.array(classes), "problem": np.array(problem), "folds": folds,
        "y": np.array(train.y), "y_holdout": np.array(holdout.y), "oof": oof, "holdout": of_holdout,
    }  # fmt: skip


def classifiers(text: bool) -> dict[str, tuple[str, Any]]:
    """Name -> the features it sees (words, ranks, raw or encoder), and the classifier."""
    from lightgbm import LGBMClassifier
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    boosting = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=5, random_state=0
    )
    smooth, raw = ("words", "words") if text else ("ranks", "raw")
    return {
        "logistic": (smooth, LogisticRegression(C=3.0 if text else 0.01, max_iter=500)),
        "encoder_logistic": ("encoder", LogisticRegression(C=0.01, max_iter=500)),
        "neighbours": (smooth, KNeighborsClassifier(15, weights="distance")),
        "svm": (smooth, CalibratedClassifierCV(SVC(), ensemble=False, cv=3)),
        "mlp": (
            smooth,
            MLPClassifier((64,), max_iter=30, random_state=0),
        ),  # as sure of itself as a network is
        "extra_trees": (raw, ExtraTreesClassifier(100, max_features=0.1, random_state=0)),
        "hist_gradient_boosting": (raw, boosting),
        "lightgbm": (
            raw,
            LGBMClassifier(n_estimators=80, num_leaves=15, min_child_samples=5, verbosity=-1, n_jobs=1),
        ),
    }


def _class_features(inputs: pd.DataFrame, text: bool, cache: Path) -> dict[str, np.ndarray]:
    """Name of the features -> (n_rows, n_features), or texts (n_rows,); made of each row by itself."""
    texts = [".".join(cells) for cells in inputs.to_numpy()]
    settings = {"encoder": "minilm" if text else "rxnfp", "tokenizer": "auto" if text else "smiles"}
    embedded = encoder_cache(EncoderFeature.model_validate(settings), cache / "features").load(texts)
    encoder = np.concatenate(embedded)[:, :-3]
    if text:
        return {"encoder": encoder, "words": np.array(texts, dtype=object)}
    caches = molecule_features(
        ["morgan", "descriptors"], 64 if inputs.shape[1] > 1 else 256, cache / "features"
    )
    raw = np.hstack([np.concatenate(each.load(inputs[column])) for column in inputs for each in caches])
    return {"encoder": encoder, "ranks": raw, "raw": raw}


def _make_classes(name: str, draw: int, data: Path, cache: Path) -> dict[str, np.ndarray]:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, StandardScaler

    (table, _, inputs), text = _pool(name, data), name in TEXTS
    features, halves = _class_features(table[inputs], text, cache), _halves(name, draw, table)
    before: dict[str, Callable[[], list]] = {
        "encoder": lambda: [StandardScaler()],
        "words": lambda: [
            build_vectorizer(min_df=2, max_features=600),
            FunctionTransformer(lambda words: words.toarray()),
        ],
        "ranks": lambda: [SimpleImputer(strategy="median", keep_empty_features=True),
                          QuantileTransformer(n_quantiles=100), StandardScaler()],
        "raw": lambda: [],
    }  # fmt: skip
    made: dict[str, np.ndarray] = {}
    for target, edges in BIN_EDGES[name].items():
        values, started = table[target], time.process_time()
        classes = np.digitize(values, edges) if edges else pd.factorize(values, sort=True)[0]
        train, holdout = (half[values[half].notna()] for half in halves)
        y, y_holdout = classes[train], classes[holdout]
        if min(np.bincount(part, minlength=len(edges) + 1).min() for part in (y, y_holdout)) < MIN_CLASS_ROWS:
            continue
        folds = np.empty(len(train), dtype=np.int64)
        for fold, (_, held_out) in enumerate(
            StratifiedKFold(N_FOLDS, shuffle=True, random_state=draw).split(train, y)
        ):
            folds[held_out] = fold
        models = classifiers(text).values()
        shape = len(models), y.max() + 1
        oof, of_holdout = np.empty((len(train), *shape)), np.empty((N_FOLDS, len(holdout), *shape))
        for j, (kind, classifier) in enumerate(models):
            x = features[kind]
            for fold in range(N_FOLDS):
                in_fold, model = folds == fold, make_pipeline(*before[kind](), classifier)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # networks that have not converged
                    model.fit(x[train[~in_fold]], y[~in_fold])
                    oof[in_fold, j], of_holdout[fold, :, j] = map(
                        model.predict_proba, (x[train[in_fold]], x[holdout])
                    )
        outputs = slice(1, 2) if y.max() == 1 else slice(None)
        arrays = oof[..., outputs], y, folds, of_holdout[..., outputs], y_holdout
        made |= {f"{target} {part}": array for part, array in zip(PARTS, arrays, strict=True)}
        print(f"{name} {draw} {target}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
    return made
