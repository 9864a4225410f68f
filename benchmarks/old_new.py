"""Compare two checkouts: `python benchmarks/old_new.py OLD NEW [--variants A B] [--competitions A B]`.

Runs `full` in both checkouts in turn, for variants of the embedded competition smoke (each problem type, groups,
time, extra rows, pseudo-labels, classes in columns) and for whole competitions. Prints the seconds of both, how many
tables of predictions have the same bytes, and the largest difference of the others in standard deviations of a column.
Keys of jobs may differ between the checkouts. Two runs of the same code must agree in every byte.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

SMOKE = Path(__file__).parents[1] / "competition" / "data" / "smoke"
SMALL = {
    "lightgbm": {"kind": "lightgbm", "n_bits": 256, "max_trees": 100},
    "gnn": {"kind": "gnn", "width": 64, "hidden_width": 64, "epochs": 4, "batch_size": 16},
    "bert": {"kind": "bert", "layers": 2, "width": 64, "heads": 2, "epochs": 2, "learning_rate": 1e-3},
    "unimol": {
        "kind": "unimol", "layers": 2, "width": 32, "heads": 4, "epochs": 2, "batch_size": 16,
        "head": {"kind": "multi_sample", "samples": 4, "dropout": 0.1},
    },
    "gp": {"kind": "gp", "kernels": ["ecfp4", "descriptors"]},
    "catboost": {"kind": "catboost", "features": ["morgan"], "n_bits": 256, "max_trees": 50},
    "svr": {"kind": "sklearn", "estimator": "sklearn.svm.SVR", "features": ["descriptors"]},
}  # fmt: skip
NETWORK = SMALL["gnn"] | {"epochs": 2}


def variants(folder: Path) -> dict[str, Path]:
    """Write the YAML and the tables of each variant of smoke; return name -> YAML."""
    train = pd.read_csv(SMOKE / "train.csv")
    test = pd.read_csv(SMOKE / "test.csv")
    numbers = ["homo_eV", "lumo_eV", "mu_D"]
    level = pd.qcut(train.mu_D, 3, labels=False)
    made: dict[str, Path] = {}

    def add(
        name: str,
        table: pd.DataFrame,
        targets: list[str],
        stages: list[str],
        columns: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """Write one variant; `settings` are those of the competition, but the sections `folds` and `extra_stages`."""
        target_folder = folder / name
        target_folder.mkdir(parents=True)
        table.to_csv(target_folder / "train.csv", index=False)
        test.to_csv(target_folder / "test.csv", index=False)
        first = table[targets].dropna().iloc[0].to_dict() if not columns else dict.fromkeys(columns, 0.5)
        test[["id"]].assign(**first).to_csv(target_folder / "sample.csv", index=False)
        chosen = {stage: SMALL[stage] for stage in stages} | settings.pop("extra_stages", {})
        content = {
            "folds": settings.pop("folds", {"n_folds": 3}),
            "stages": chosen,
            "competition": {
                "train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv", "id": "id",
                "targets": targets, "smiles": ["SMILES"], **settings,
            },
        }  # fmt: skip
        made[name] = target_folder / f"{name}.yaml"
        made[name].write_text(yaml.safe_dump(content))

    add("values", train, numbers, list(SMALL), metric="r2", folds={"kind": "stratified", "n_folds": 3})
    binary = train[["id", "SMILES"]].assign(y=np.where(level == 2, "yes", "no"))
    kinds = ["lightgbm", "catboost", "gnn", "gp"]
    add("binary", binary, ["y"], [*kinds, "bert", "unimol"], metric="roc_auc", problem_type="binary")
    three = train[["id", "SMILES"]].assign(y=level.map({0: "low", 1: "mid", 2: "high"}))
    add(
        "multiclass", three, ["y"], [*kinds, "unimol"], ["low", "mid", "high"],
        metric="log_loss", problem_type="multiclass", submission_columns=["low", "mid", "high"],
    )  # fmt: skip
    add("labels", three, ["y"], kinds, metric="f1_macro", problem_type="multiclass")
    several = train[numbers].gt(train[numbers].median()).astype("Int64")
    several.iloc[::10, 0] = pd.NA
    multilabel = pd.concat([train[["id", "SMILES"]], several], axis=1)
    add("multilabel", multilabel, numbers, kinds, metric="roc_auc", problem_type="multilabel")
    ordinal = train[["id", "SMILES"]].assign(y=level)
    settings = {"metric": "quadratic_kappa", "problem_type": "ordinal", "classes": [0, 1, 2]}
    add("ordinal", ordinal, ["y"], kinds, **settings)

    grouped = train.assign(plate=np.arange(len(train)) % 12)
    refit = {"refit": SMALL["lightgbm"] | {"final_fit": "refit", "seeds": [0, 1]}}
    add(
        "groups", grouped, ["mu_D"], kinds,
        metric="mae", group="plate", folds={"kind": "group", "n_folds": 3}, extra_stages=refit,
    )  # fmt: skip
    add(
        "time", train.assign(year=np.arange(len(train)) // 10), ["mu_D"], kinds,
        metric="rmse", time="year", folds={"kind": "time", "n_folds": 3},
    )  # fmt: skip
    extra = train[60:].assign(mu_D=2 * train.mu_D + 1)
    settings = {
        "metric": "rmse",
        "extra_train": [{"file": "extra.csv", "weight": 0.5, "calibrate": "affine"}],
    }
    pretrained = {"pretrained": NETWORK | {"extra_rows": "pretrain"}}
    add("extra", train[:80], ["mu_D"], kinds, **settings, extra_stages=pretrained)
    extra.to_csv(folder / "extra" / "extra.csv", index=False)
    labelled = {"labelled": NETWORK | {"pseudo_labels": {"stages": ["lightgbm"]}}}
    add(
        "pseudo_labels", train, ["homo_eV", "mu_D"], ["lightgbm", "gnn"], metric="rmse", extra_stages=labelled
    )
    return made


def run(checkout: Path, competition: str, work: Path, log: Path) -> tuple[float, int]:
    """Run `full` in a checkout; return its seconds and exit status."""
    started = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            [str(checkout / "run.sh"), "full", competition, "--budget", "none"],
            env={**os.environ, "WORK_DIR": str(work)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return time.monotonic() - started, done.returncode


def tables_of(work: Path) -> dict[str, Path]:
    """Return the tables of predictions of all jobs and of the submission, by a name without keys."""
    tables = {}
    for file in work.glob("models/*/*/seed_*/fold_*/**/*.parquet"):
        stage, _, seed, fold, *rest = file.relative_to(work / "models").parts
        rest = ["test_std" if name.endswith("_std.parquet") else "test" for name in rest[1:]] or rest
        tables["/".join([stage, seed, fold, *rest])] = file
    for name in ("folds/folds.csv", "submission.csv"):
        tables[name] = work / name
    latest = work / "submissions" / "latest"
    if latest.exists():
        tables["oof.csv"] = latest.with_name(latest.read_text().strip()) / "oof.csv"
    return tables


def difference(old: Path, new: Path) -> float:
    """Return the largest difference of two tables in standard deviations of a column; infinite for other shapes."""
    first, second = (
        pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path) for path in (old, new)
    )
    if len(first) != len(second) or {*first} != {*second}:
        return np.inf
    largest = 0.0
    for name in first:
        if first[name].equals(second[name]):
            continue
        if first[name].dtype.kind not in "fi":
            return np.inf
        scale = first[name].std() or 1.0
        largest = max(largest, float((first[name] - second[name]).abs().max() / scale))
    return largest


def compare(name: str, competition: str, checkouts: dict[str, Path], folder: Path) -> None:
    """Run one competition in both checkouts and print the differences."""
    work = {}
    for side, checkout in checkouts.items():
        log = folder / f"{side}.{name}.log"
        seconds, status = run(checkout, competition, folder / side, log)
        work[side] = folder / side / name
        print(f"{name}  {side}  {seconds:.0f} s, exit status {status}", flush=True)
    old, new = tables_of(work["old"]), tables_of(work["new"])
    common = sorted(old.keys() & new.keys())
    changed = {
        key: difference(old[key], new[key])
        for key in common
        if old[key].read_bytes() != new[key].read_bytes()
    }
    print(f"  {len(common) - len(changed)} of {len(common)} tables have the same bytes", flush=True)
    for key, largest in changed.items():
        print(f"  {key} differs by {largest:.1e} standard deviations")
    for side, keys in {"old": old.keys() - new.keys(), "new": new.keys() - old.keys()}.items():
        if keys:
            print(f"  only in {side}: {', '.join(sorted(keys)[:5])} ({len(keys)})")


def main() -> None:
    """Compare all variants and competitions that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--variants", nargs="*", help="default: all; without a name: none")
    parser.add_argument(
        "--competitions", nargs="*", default=[], help="in competition/configs/, or YAML files"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="old_new_"))
    print(f"work folders and logs: {folder}", flush=True)
    checkouts = {"old": options.old.resolve(), "new": options.new.resolve()}
    made = variants(folder / "inputs")
    for name in made if options.variants is None else options.variants:
        compare(name, str(made[name]), checkouts, folder)
    for competition in options.competitions:
        compare(Path(competition).stem, competition, checkouts, folder)


if __name__ == "__main__":
    main()
