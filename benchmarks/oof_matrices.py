"""Out-of-fold predictions of ten cheap stages with holdouts, kept on disk: the raw material of the blenders' benchmark.

Of each set at most POOL training rows are drawn once; a draw divides them into training rows and a holdout, half and
half, and the training rows into five folds. Draws 2 i and 2 i + 1 swap the halves, so over a pair every row is as often
out of fold as held out, and how hard the rows of a half are cancels. Each stage is fitted on each fold's training rows
and predicts its fold and the whole holdout, so every fold's models can be scored on the holdout by themselves.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from competition.files import derive_seed
from competition.tables import Rows
from competition.task import Task
from models.config import StagesConfig
from models.registry import build_stage, shared_caches
from models.stage import Context

SETS = ["biogen_adme", "buchwald_hartwig", "esol", "icwsm_tweets", "photoswitch", "qm9_electronic"]
POOL = 2000
N_FOLDS = 5
FEWEST = 75
"""Labels that a target must have among the training rows and in the holdout to be counted."""

TREES = {"learning_rate": 0.1, "max_trees": 200, "patience": 20}
FOREST = {"n_estimators": 50, "max_features": 0.3, "min_samples_leaf": 2}


def stages_of(text: bool) -> dict[str, dict]:
    """Ten stages in the words of the YAML."""
    common: dict = {"n_bits": 256, "tfidf_features": 1000}
    weights = "minilm" if text else "rxnfp"

    def sklearn(estimator: str, **settings: object) -> dict:
        return {"kind": "sklearn", "estimator": estimator, **common, **settings}

    return {
        "lightgbm": {"kind": "lightgbm", **common, **TREES},
        "catboost": {"kind": "catboost", **common, **TREES, "depth": 5, "features": ["avalon", "erg"]},
        "ridge": sklearn("Ridge", parameters={"alpha": 10.0} if not text else {}),
        "svr": sklearn("SVR"),
        "forest": sklearn("RandomForestRegressor", parameters=FOREST),
        "extra_trees": sklearn("ExtraTreesRegressor", parameters=FOREST),
        "neighbours": sklearn("KNeighborsRegressor", parameters={"weights": "distance"}),
        "gaussian_process": sklearn("GaussianProcessRegressor", parameters={"optimizer": None}, features=["maccs"]),
        "encoder_ridge": {"kind": "embedding", "weights": weights, "parameters": {"alpha": 30.0}},
        "encoder_svr": {"kind": "embedding", "weights": weights, "estimator": "SVR"},
    }


@dataclass(frozen=True)
class Matrix:
    """One target of one draw of one set.

    oof: (n_rows, n_stages); y, folds: (n_rows,).
    holdout: (n_folds, n_holdout, n_stages), by the models of each fold; y_holdout: (n_holdout,).
    """

    set_name: str
    target: str
    draw: int
    oof: np.ndarray
    y: np.ndarray
    folds: np.ndarray
    holdout: np.ndarray
    y_holdout: np.ndarray

    def of_columns(self, which: np.ndarray) -> Matrix:
        """The same with some of the stages."""
        rest = (self.y, self.folds, self.holdout[:, :, which], self.y_holdout)
        return Matrix(self.set_name, self.target, self.draw, self.oof[:, which], *rest)


def matrices(name: str, draw: int, data: Path, cache: Path) -> Iterator[Matrix]:
    """The matrices of a draw, made or kept; rows without a label are left out."""
    file = cache / f"{name}_{draw}.npz"
    if not file.exists():
        made = _make(name, draw, data, cache)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            np.savez_compressed(Path(folder) / file.name, **made)
            (Path(folder) / file.name).rename(file)
    with np.load(file) as stored:
        parts = dict(stored)
    for t, target in enumerate(parts["targets"]):
        known, known_holdout = ~np.isnan(parts["y"][:, t]), ~np.isnan(parts["y_holdout"][:, t])
        if min(known.sum(), known_holdout.sum()) >= FEWEST:
            yield Matrix(
                name, str(target), draw,
                parts["oof"][known, :, t], parts["y"][known, t], parts["folds"][known],
                parts["holdout"][:, :, :, t][:, known_holdout], parts["y_holdout"][known_holdout, t],
            )  # fmt: skip


def _make(name: str, draw: int, data: Path, cache: Path) -> dict[str, np.ndarray]:
    told = json.loads((data / name / "competition.json").read_text())
    table = pd.read_csv(data / name / "train.csv", dtype={"id": str})
    table = table.sample(n=min(POOL, len(table)), random_state=0).reset_index(drop=True)
    text = name == "icwsm_tweets"
    context = Context(
        smiles=[] if text else told["inputs"], text=told["inputs"] if text else [], numeric=[], categorical=[],
        task=Task(told["targets"]), seed=derive_seed(0, "blenders", name), cache=cache / "features",
    )  # fmt: skip
    rows = Rows(list(table["id"]), table[told["inputs"]], table[told["targets"]].to_numpy(dtype=np.float64))
    stages = StagesConfig.model_validate({"stages": stages_of(text)}).stages
    for config in stages.values():
        for cache, keys in shared_caches(config, context, [rows]):
            cache.load(keys)
    order = np.random.default_rng(derive_seed(draw // 2, "holdout", name)).permutation(len(rows))
    halves = rows.take(order[: len(rows) // 2]), rows.take(order[len(rows) // 2 :])
    train, holdout = halves if draw % 2 == 0 else halves[::-1]
    folds = np.empty(len(train), dtype=np.int64)
    for fold, (_, held_out) in enumerate(KFold(N_FOLDS, shuffle=True, random_state=draw).split(train.ids)):
        folds[held_out] = fold
    shape = (len(stages), len(context.task.targets))
    oof, of_holdout = np.empty((len(train), *shape)), np.empty((N_FOLDS, len(holdout), *shape))
    for j, (stage_name, config) in enumerate(stages.items()):
        started = time.process_time()
        for fold in range(N_FOLDS):
            with tempfile.TemporaryDirectory() as folder:
                stage = build_stage(config, context)
                stage.fit(train.take(folds != fold), None, Path(folder))
                oof[folds == fold, j] = stage.predict(train.take(folds == fold).without_labels(), Path(folder))
                of_holdout[fold, :, j] = stage.predict(holdout.without_labels(), Path(folder))
        print(f"{name} {draw} {stage_name}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
    return {
        "targets": np.array(context.task.targets), "oof": oof, "y": np.array(train.y), "folds": folds,
        "holdout": of_holdout, "y_holdout": np.array(holdout.y),
    }  # fmt: skip
