"""Do assays of other molecules help a target with few labels: as heads of a network, or as a frozen encoder?

    python -m benchmarks.other_assays --data FOLDER_WITH_COMPETITIONS --work FOLDER [--sets ...] [--seeds 3]

For each set, 300 molecules of the training table keep the label of one target, and 1,200 others keep the labels of all
other targets: a table for `extra_train` with labels of `auxiliary_targets` only. Each method is trained on all 300 rows
(without folds), and predicts the test molecules with an answer. All networks are `gnn` of width 128. FOLDER keeps the
predictions, so a repetition trains only what is missing.

    gnn alone: `extra_rows: ignore`; 30 epochs are the default, and 150 read as many rows as the next method does
    gnn with heads: all 1,500 rows, `auxiliary_weight` 0.3
    svr, ridge: support vectors and ridge regression on a block of features of the 300 molecules: MiniMol's, the pooled
        features of a `gnn` that was trained on the others alone (screen), or both
    blend of ...: the default blend, fitted on four fifths of the test molecules for the predictions of the others

The table has the error on the answers, as a mean over seeds; its standard deviation over seeds; and its changes to the
first method, and to a blend without the frozen encoder, in per cent, +- the standard error of a paired bootstrap over
the test molecules.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import load_file
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.svm import SVR

from competition.config import load_competition
from competition.dataset import Dataset, read_rows
from competition.files import write_table
from competition.metrics import METRICS
from competition.paths import Paths
from competition.prepare import run as prepare
from competition.task import Task
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.base_config import EncoderFeature
from models.config import load_stages
from models.inputs.frozen_encoders import encoder_cache
from models.jobs.job_rows import JobRows, rows_of_job
from models.jobs.plan import REFIT_FOLD, Job, JobPlan, make_plan
from models.registry import build_stage
from models.stages.gnn import Gnn
from models.training.prediction import WEIGHTS
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.weight_problem import BlendData

N_LABELLED = 300
N_OTHERS = 1200
N_RESAMPLES = 1000
SMALL = {"kind": "gnn", "width": 128, "hidden_width": 128}
STAGES: dict[str, dict[str, Any]] = {
    "gnn alone, 30 epochs": {**SMALL, "epochs": 30, "extra_rows": "ignore", "auxiliary_weight": 0},
    "gnn alone, 150 epochs": {**SMALL, "epochs": 150, "extra_rows": "ignore", "auxiliary_weight": 0},
    "gnn with heads, 30 epochs": {**SMALL, "epochs": 30},
}
ALONE = "gnn alone, 30 epochs"
HEADS = "gnn with heads, 30 epochs"
MINIMOL = ["svr on minimol", "ridge on minimol"]
SCREEN = ["svr on screen", "ridge on screen"]
BLENDS = {
    "blend of gnn alone, minimol": [ALONE, *MINIMOL],
    "blend of gnn with heads, minimol": [HEADS, *MINIMOL],
    "blend of gnn with heads, screen": [HEADS, *SCREEN],
    "blend of gnn with heads, minimol, screen": [HEADS, *MINIMOL, *SCREEN],
}
N_BLEND_FOLDS = 5
DEFAULT = "shrunk_ridge"
REFERENCES = {"to gnn alone, %": ALONE, "to its blend with minimol, %": "blend of gnn with heads, minimol"}


@dataclass(frozen=True)
class AssaySet:
    """A target with few labels, and how errors (n_rows,) become a number."""

    target: str
    metric: str


SETS = {
    "biogen_adme": AssaySet("log_HLM_CLint", "rmse"),
    "qm9_electronic": AssaySet("homo_eV", "mae"),
}


def write_set(name: str, data: Path, work: Path) -> Path:
    """Write the tables and the YAML of a set; return the YAML."""
    target = SETS[name].target
    train, test, answers = (pd.read_csv(data / name / f"{part}.csv") for part in ("train", "test", "answers"))
    assays = [column for column in answers if column not in ("id", target)]
    mixed = train.sample(frac=1, random_state=0)
    labelled = mixed[mixed[target].notna()][:N_LABELLED]
    others = mixed.drop(labelled.index).dropna(subset=assays, how="all")[:N_OTHERS]
    scored = answers.dropna(subset=target)
    tables = {
        "train": labelled[["id", "SMILES", target]],
        "test": test[test["id"].isin(scored["id"])],
        "sample_submission": scored[["id"]].assign(**{target: 0.0}),
        "answers": scored[["id", target]],
        "others": others[["SMILES", *assays]],
    }
    for part, table in tables.items():
        write_table(work / name / f"{part}.csv", table)
    files = {part: f"{name}/{part}.csv" for part in ("train", "test", "sample_submission")}
    competition = {
        **files, "id": "id", "targets": [target], "smiles": ["SMILES"], "metric": SETS[name].metric,
        "auxiliary_targets": assays, "extra_train": [{"file": f"{name}/others.csv"}],
    }  # fmt: skip
    stages = {f"stage_{number}": stage for number, stage in enumerate(STAGES.values())}
    file = work / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"competition": competition, "stages": stages}, sort_keys=False))
    return file


def plan_of(file: Path) -> JobPlan:
    """Return the jobs of a YAML, with its tables and folds."""
    competition, paths = load_competition(str(file)), Paths.for_competition(str(file))
    print(prepare(competition, paths, file), flush=True)
    make_folds(competition, load_folds_config(str(file)), paths)
    return make_plan(competition, load_stages(str(file)), paths)


def rows_of(method: str, seed: int, plan: JobPlan) -> tuple[Any, JobRows]:
    """Return the settings of a stage, and its rows if no fold is held out."""
    stage = f"stage_{list(STAGES).index(method)}"
    job = Job(stage, plan.keys[stage], seed, REFIT_FOLD, Path())
    return plan.stages[stage], rows_of_job(job, plan)


def fit_stage(method: str, seed: int, plan: JobPlan, folder: Path) -> np.ndarray:
    """Return the predictions of the test rows by a stage, (n_rows,)."""
    config, rows = rows_of(method, seed, plan)
    model = build_stage(config, rows.context)
    model.fit(rows.train, folder)
    return model.predict(rows.test, folder)[:, 0]


def screen_features(seed: int, plan: JobPlan, folder: Path) -> dict[str, np.ndarray]:
    """Return the pooled features of the 300 and of the test molecules by a `gnn` trained on the others alone."""
    config, rows = rows_of(HEADS, seed, plan)
    extra = rows.train.extra
    others = rows.train.take(extra)
    assays = Task(plan.competition.auxiliary_targets)
    model = Gnn(config, replace(rows.context, task=assays, auxiliary=[]))
    model.fit(replace(others, y=others.auxiliary, auxiliary=None), folder)
    parts = {"train": rows.train.take(~extra), "test": rows.test}
    return {part: pooled(model, table, folder) for part, table in parts.items()}


def pooled(model: Gnn, rows: Dataset, folder: Path) -> np.ndarray:
    """Return the features that the heads of a trained network read, (n_rows, width)."""
    batches = model.encode(rows, folder, 0, 0)
    network = model._network(model.restore_backbone(folder), batches)
    network.load_state_dict(load_file(folder / WEIGHTS))
    network.eval()
    plan = batches.sorted_plan(64)
    with torch.inference_mode():
        features = [network.features(batches.batch(part, torch.device("cpu"))) for part in plan]
    return torch.cat(features).numpy()[np.argsort(np.concatenate(plan))]


def minimol_features(plan: JobPlan) -> dict[str, np.ndarray]:
    """Return MiniMol's features of the 300 and of the test molecules."""
    cache = encoder_cache(EncoderFeature(weights="minimol"), plan.paths.cache)
    train = rows_of(ALONE, 0, plan)[1].train
    test = read_rows(plan.paths.test, plan.competition, labelled=False)
    parts = {"train": train, "test": test}
    return {part: np.concatenate(cache.load(rows.inputs["SMILES"])) for part, rows in parts.items()}


def fit_head(name: str, x: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """Return the predictions of the test rows by a regressor on ranks of features, as the stage `sklearn` does."""
    ranks = QuantileTransformer(n_quantiles=200, random_state=0)
    if name == "svr":
        model = make_pipeline(ranks, SVR(C=3.0))
    else:
        model = make_pipeline(ranks, StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
    mean, std = y.mean(), y.std()
    return mean + std * model.fit(x["train"], (y - mean) / std).predict(x["test"])


def predictions(name: str, seed: int, plan: JobPlan, work: Path) -> dict[str, np.ndarray]:
    """Return the predictions of each method, (n_test_rows,); networks are trained once."""
    folder = work / name / f"seed_{seed}"
    result = {}
    for method in STAGES:
        file = folder / f"{method}.npy"
        if not file.exists():
            (folder / method).mkdir(parents=True, exist_ok=True)
            np.save(file, fit_stage(method, seed, plan, folder / method))
        result[method] = np.load(file)
    file = folder / "screen.npz"
    if not file.exists():
        (folder / "screen").mkdir(parents=True, exist_ok=True)
        np.savez(file, **screen_features(seed, plan, folder / "screen"))
    with np.load(file) as arrays:
        screen = dict(arrays)
    minimol = minimol_features(plan)
    both = {part: np.hstack([minimol[part], screen[part]]) for part in screen}
    y = rows_of(ALONE, seed, plan)[1].train.y[:, 0]
    for head in ("svr", "ridge"):
        for block, x in {"minimol": minimol, "screen": screen, "minimol and screen": both}.items():
            result[f"{head} on {block}"] = fit_head(head, x, y)
    return result


def blended(predicted: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the predictions of each blend, where a row is predicted by weights fitted without its fold."""
    folds = np.random.default_rng(0).permutation(len(y)) % N_BLEND_FOLDS
    result = {}
    for label, members in BLENDS.items():
        preds = np.stack([predicted[member] for member in members], axis=1)[:, :, None]
        data = BlendData(preds, y[:, None], folds, METRICS["rmse"])
        result[label] = cross_fitted(CANDIDATES[DEFAULT], data)[:, 0]
    return result


def table_of(name: str, by_seed: list[dict[str, np.ndarray]], y: np.ndarray) -> pd.DataFrame:
    """Return a row per method: error, its deviation over seeds, and changes to two methods +- standard errors."""
    is_squared = SETS[name].metric == "rmse"

    def error(losses: np.ndarray) -> float:
        """Return the mean over seeds of the error, from losses (n_seeds, n_rows)."""
        return float(errors_of_seeds(losses).mean())

    def errors_of_seeds(losses: np.ndarray) -> np.ndarray:
        mean = losses.mean(axis=1)
        return np.sqrt(mean) if is_squared else mean

    losses = {}
    for method in by_seed[0]:
        residuals = np.array([predicted[method] for predicted in by_seed]) - y
        losses[method] = residuals**2 if is_squared else np.abs(residuals)
    resamples = np.random.default_rng(0).integers(len(y), size=(N_RESAMPLES, len(y)))
    lines = []
    for method, of_method in losses.items():
        of_seeds = errors_of_seeds(of_method)
        line = {
            "method": method,
            "error": f"{of_seeds.mean():.4f}",
            "over seeds": f"{of_seeds.std(ddof=1):.4f}",
        }
        for label, reference in REFERENCES.items():
            change = error(of_method) / error(losses[reference]) - 1
            drawn = [error(of_method[:, i]) / error(losses[reference][:, i]) - 1 for i in resamples]
            line[label] = f"{100 * change:+.1f} +- {100 * np.std(drawn):.1f}"
        lines.append(line)
    return pd.DataFrame(lines).set_index("method")


def main() -> None:
    """Train what is missing and print a table per set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of competitions")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WORK_DIR"] = str(args.work / "work")
    for name in args.sets:
        file = write_set(name, args.data, args.work)
        plan = plan_of(file)
        by_seed = [predictions(name, seed, plan, args.work) for seed in range(args.seeds)]
        test_ids = read_rows(plan.paths.test, plan.competition, labelled=False).ids
        answers = pd.read_csv(args.work / name / "answers.csv").set_index("id")[SETS[name].target]
        y = answers.loc[test_ids].to_numpy()
        by_seed = [predicted | blended(predicted, y) for predicted in by_seed]
        print(
            f"\n{name}: {SETS[name].target}, {SETS[name].metric}, {len(y)} test molecules, {args.seeds} seeds"
        )
        print(table_of(name, by_seed, y).to_string(), flush=True)


if __name__ == "__main__":
    main()
