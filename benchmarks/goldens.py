"""Whether two checkouts make the same predictions: recorded from whole runs of each, then compared.

python benchmarks/goldens.py record CHECKOUT OUT.json [CASE ...]    CASE: smoke, mixed, "bad inputs", ...; else all
python benchmarks/goldens.py compare A.json B.json

Record both with one copy of this script on one machine, in an environment that serves both: the runs use one thread,
one worker and no GPU. `compare` exits 1 above 1e-6 of a target's standard deviation (predictions), 1e-6 (weights) or
1e-3 (scores), where anything else differs at all, and where one side lacks something.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

PROJECT = Path(__file__).resolve().parents[1]
TARGETS = ["homo_eV", "lumo_eV", "mu_D"]
SHORT: dict[str, dict[str, Any]] = {
    "unimol": {"layers": 2, "width": 64, "heads": 4, "epochs": 2},
    "bert": {"epochs": 1},
    "gnn": {"width": 64, "hidden_width": 64, "epochs": 4},
    "lightgbm": {"max_trees": 200},
    "minilm": {"max_length": 48},
}
"""What makes the stages of the embedded competitions short."""


def embedded(folder: Path, name: str, rows: int | None = None) -> Path:
    """An embedded competition, of its first rows and with short stages if `rows` says so."""
    document = yaml.safe_load((PROJECT / "competition" / "configs" / f"{name}.yaml").read_text())
    for key in ("train", "test", "sample_submission", "answers"):
        table = pd.read_csv(PROJECT / "competition" / "data" / name / f"{key}.csv")
        document["competition"][key] = write(table[:rows], folder / f"{key}.csv")
    if rows:
        document["stages"] = {stage: {**block, **SHORT[stage]} for stage, block in document["stages"].items()}
        document["submissions"] = {"bootstrap": 200}
    return dump(document, folder / f"{name}.yaml")


def mixed(folder: Path) -> Path:
    """All that the embedded competitions lack, on the molecules of `smoke` and made-up columns beside them."""
    rng = np.random.default_rng(0)
    data = PROJECT / "competition" / "data" / "qm9_orbitals"
    table = pd.read_csv(data / "train.csv")[:260]
    n = len(table)
    mood = rng.integers(5, size=n)
    table["pH"] = np.where(rng.random(n) < 0.2, np.nan, rng.normal(7, 1, n).round(2))
    table["site"] = rng.choice(["a", "b", "c"], n)
    table["batch"] = [f"batch {i // 4}" for i in range(n)]
    words = np.array(["a calm day", "a warm evening with rain", "cold", "a bright and warm morning", "dark, long"])
    table["note"] = pd.Series(words[mood]) + " number " + pd.Series(rng.integers(9, size=n).astype(str))
    table["lumo_eV"] += 0.3 * mood + 0.2 * (table["site"] == "b") + 0.1 * table["pH"].fillna(7)
    table.loc[rng.random(n) < 0.3, "mu_D"] = np.nan
    train, extra, test = table[:160], table[160:200], table[200:]
    targets = ["lumo_eV", "mu_D"]
    for name, part in (("oof", train), ("test", test)):  # a colleague's: the labels, noise and no gaps
        theirs = part[targets].fillna(2.0) + rng.normal(0, 0.8, (len(part), 2))
        write(theirs.assign(id=part["id"]), folder / "theirs" / f"{name}.csv")
    competition = {
        "train": write(train, folder / "train.csv"),
        "test": write(test.drop(columns=[*TARGETS, "batch"]), folder / "test.csv"),
        "sample_submission": write(test[["id"]].assign(lumo_eV=0.0, mu_D=0.0), folder / "sample.csv"),
        "extra_train": [{"file": write(extra, folder / "extra.csv"), "weight": 0.5, "check_units": False}],
        "id": "id", "targets": targets, "auxiliary_targets": ["homo_eV"], "group": "batch", "metric": "mae", "seed": 3,
        "smiles": ["SMILES"], "text": ["note"], "numeric": ["pH"], "categorical": ["site"],
    }  # fmt: skip
    small: dict[str, Any] = {"epochs": 2, "batch_size": 16}
    shape = {"layers": 1, "width": 32, "heads": 2}
    stages = {
        "lightgbm": {"kind": "lightgbm", "n_bits": 128, "max_trees": 60, "seeds": [0, 1], "final_fit": "both"},
        "searched": {"kind": "lightgbm", "features": ["maccs"], "max_trees": 30, "search_trials": 3},
        "catboost": {"kind": "catboost", "n_bits": 64, "max_trees": 60, "topics": 8, "target_transform": "quantile"},
        "svr": {"kind": "sklearn", "features": ["erg", "descriptors"]},
        "embedding": {"kind": "embedding", "weights": "minilm", "molecule_features": ["maccs"]},
        "gnn": {"kind": "gnn", **small, "width": 32, "hidden_width": 32, "seeds": [0, 1], "average": "ema",
                "head": {"kind": "multi_sample", "samples": 3, "dropout": 0.2}, "loss": "huber"},
        "gnn_labelled": {"kind": "gnn", **small, "width": 32, "hidden_width": 32, "molecule_features": ["maccs"],
                         "pseudo_labels": {"of": ["svr"]}, "extra_rows": "pretrain", "loss": "gaussian"},
        "words": {"kind": "bert", "weights": None, **small, **shape, "pretrain_epochs": 1, "pooler_dropout": 0.1,
                  "r_drop": 1.0, "layer_decay": 0.9, "vocabulary": 150},
        "spelled": {"kind": "bert", "weights": None, **small, **shape, "columns": ["SMILES"], "enumerate_smiles": True,
                    "test_forms": 2, "final_fit": "refit", "backbone_dropout": 0.1, "mc_dropout": 2},
        "unimol": {"kind": "unimol", **small, **shape, "conformers": 2, "schedule": "cosine", "monitor": "held_out"},
        "unimol2": {"kind": "unimol2", **small, **shape, "pair_width": 8, "pair_hidden_width": 4, "accumulate": 2},
        "theirs": {"kind": "file", "folder": str(folder / "theirs")},
    }  # fmt: skip
    submissions = {
        "bootstrap": 200, "seeds": "separate", "stack_features": True, "stack_regressor": {"name": "Ridge"},
        "candidates": ["greedy", "hill_climb", "optuna"], "weight_trials": 20, "trials": 20,
        "postprocess": ["shift_scale", "isotonic", "average_equal_inputs", "clip", "round", "known_labels"],
    }  # fmt: skip
    folds = {"kind": "group", "n_folds": 4}
    document = {"competition": competition, "folds": folds, "stages": stages, "submissions": submissions}
    return dump(document, folder / "mixed.yaml")


BAD = "bad inputs"
CASES: dict[str, Callable[[Path], Path]] = {
    "smoke": lambda folder: embedded(folder, "smoke"),
    "qm9_orbitals": lambda folder: embedded(folder, "qm9_orbitals", 250),
    "tweet_sentiment": lambda folder: embedded(folder, "tweet_sentiment", 300),
    "mixed": mixed,
}


def bad_inputs(folder: Path) -> Iterator[tuple[str, Path]]:
    """YAMLs with one mistake each, and one without."""
    good = yaml.safe_load(embedded(folder / "good", "smoke").read_text())
    train = pd.read_csv(good["competition"]["train"])
    wrong: dict[str, dict[str, Any]] = {
        "none": {}, "unknown key": {"competition": {"metrik": "r2"}}, "no file": {"competition": {"train": "no.csv"}},
        "unknown metric": {"competition": {"metric": "r3"}}, "no such column": {"competition": {"targets": ["gap_eV"]}},
        "one fold": {"folds": {"n_folds": 1}}, "no group": {"folds": {"kind": "group"}},
        "unknown kind": {"stages": {"trees": {"kind": "forest"}}}, "no step": {"submissions": {"postprocess": ["a"]}},
        "unknown loss": {"stages": {"net": {"kind": "gnn", "loss": "cosh"}}},
        "no such weights": {"stages": {"net": {"kind": "bert", "weights": "/no/weights"}}},
    }  # fmt: skip
    for column, value in (("id", train["id"][1]), ("id", ""), ("SMILES", "C1CC"), ("mu_D", "many"), ("mu_D", "inf")):
        table = train.astype(str).assign(**{column: train[column].astype(str).where(train.index > 0, value)})
        file = write(table, folder / f"{column}_{value}.csv")
        wrong[f"first {column} {value!r}"] = {"competition": {"train": file}}
    for i, (name, changes) in enumerate(wrong.items()):
        document = {**good, **{key: {**good.get(key, {}), **part} for key, part in changes.items()}}
        yield name, dump(document, folder / f"bad{i}.yaml")


def write(table: pd.DataFrame, path: Path) -> str:
    """Write a table; returns its path for a YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return str(path)


def dump(document: dict[str, Any], path: Path) -> Path:
    """Write a YAML."""
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run(checkout: Path, work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb of a checkout, with the interpreter in use."""
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        ["bash", str(checkout / "run.sh"), *arguments], check=False, capture_output=True, text=True,
        env={**os.environ, **quiet, "PATH": path, "WORK_DIR": str(work)},
    )  # fmt: skip


Leaves = dict[str, Any]
"""Numbers and words by where they are, such as `gnn / seed_0 / fold_1 / mu_D / qm9_808`."""


def leaves(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that is neither a list nor a mapping, with the way to it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield path, value
    else:
        for name, part in parts:
            yield from leaves(part, *path, str(name))


def table(path: Path, *place: str) -> Leaves:
    """The numbers of a table of predictions."""
    read = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)  # all digits
    read = read.set_index(read["id"].astype(str)).drop(columns="id").astype(float)
    return {" / ".join(way): value for way, value in leaves({name: dict(part) for name, part in read.items()}, *place)}


def of_jobs(root: Path, wanted: str) -> Leaves:
    """The tables `oof` or `test` of all jobs, as CSV or Parquet."""
    found: Leaves = {}
    for path in sorted((root / "models").glob("*/*/seed_*/fold_*/**/*")):
        stage, _, seed, fold, *inside = path.relative_to(root / "models").with_suffix("").parts
        if path.suffix in (".csv", ".parquet") and inside[0] == wanted and not inside[-1].endswith("spread"):
            found |= table(path, stage, seed, fold)
    return found


def of_run(root: Path, pattern: str) -> list[Path]:
    """Files of the run that was written last."""
    latest = root / "submissions" / "latest"
    return sorted((latest.parent / latest.read_text().strip()).rglob(pattern)) if latest.exists() else []


def of_candidates(root: Path, key: str) -> Leaves:
    """All that is called `key` below the candidates of a run, wherever its JSON files have them."""
    read = (leaf for file in of_run(root, "*.json") for leaf in leaves(json.loads(file.read_text())))
    inside = ((path[path.index("candidates") :], value) for path, value in read if key in path and "candidates" in path)
    return {
        " / ".join(part for part in path if part not in ("candidates", "models", "blend", key)): v for path, v in inside
    }


def choice(root: Path) -> Leaves:
    """What was chosen on all rows and without each fold, and which post-processing was kept."""
    found = [json.loads(file.read_text()) for name in ("selection.json", "run.json") for file in of_run(root, name)]
    read = (leaf for content in found for leaf in leaves(content.get("choice", content)))
    return {" / ".join(path): value for path, value in read if {*path} & {"chosen", "kept", "step", "procedure"}}


ITEMS: dict[str, tuple[float, Callable[[Path], Leaves]]] = {
    "out-of-fold predictions": (1e-6, lambda root: of_jobs(root, "oof")),
    "test predictions": (1e-6, lambda root: of_jobs(root, "test")),
    "submission": (
        1e-6,
        lambda root: {k: v for file in of_run(root, "submission.csv") for k, v in table(file).items()},
    ),
    "weights": (1e-6, lambda root: of_candidates(root, "weights")),
    "cross-fitted scores": (1e-3, lambda root: of_candidates(root, "cross_fitted_score")),
    "choice": (1e-3, choice),
}
"""What is kept of each case: the largest difference, and how it is found; where it is not found, nothing is."""


def record(checkout: Path, out: Path, cases: list[str]) -> None:
    """Run cases with a checkout and add what they made to a record."""
    for name in cases:
        found: dict[str, dict[str, Leaves]] = json.loads(out.read_text()) if out.exists() else {}
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            found[name] = exit_codes(checkout, folder) if name == BAD else products(checkout, folder, name)
        out.write_text(json.dumps(found))
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def products(checkout: Path, folder: Path, name: str) -> dict[str, Leaves]:
    """What a whole run of a case makes."""
    path = CASES[name](folder)
    done = run(checkout, folder / "work", "full", str(path), "--workers", "1")
    print(done.stdout, done.stderr, flush=True)
    found = {item: find(folder / "work" / path.stem) for item, (_, find) in ITEMS.items()}
    found["settings"] = {"exit code": done.returncode, "yaml": path.read_text().replace(str(folder), "")}
    spread = pd.read_csv(folder / "train.csv").std(numeric_only=True)
    return found | {"scale": {str(target): value for target, value in spread.items()}}


def exit_codes(checkout: Path, folder: Path) -> dict[str, Leaves]:
    """What `check` says of bad inputs."""
    codes: Leaves = {}
    for name, path in bad_inputs(folder):
        done = run(checkout, folder / "work", "check", str(path))
        print(f"{name}: exit {done.returncode}; {done.stderr.strip()[-500:]}", flush=True)
        codes[name] = done.returncode
    return {"exit codes": codes}


def gap(one: Any, other: Any, unit: float) -> float:
    """By how much two leaves differ, in units; without end where they are no numbers and differ."""
    if one == other or (one != one and other != other):
        return 0.0
    numbers = all(isinstance(each, float) and np.isfinite(each) for each in (one, other))
    return abs(one - other) / unit if numbers else np.inf


def compare(a: dict[str, dict[str, Leaves]], b: dict[str, dict[str, Leaves]]) -> bool:
    """Print the largest difference of every item and what one side lacks; whether all is below the limits."""
    fine = True
    for name, item in sorted({(case, part) for side in (a, b) for case in side for part in side[case]}):
        one, other = (side.get(name, {}).get(item, {}) for side in (a, b))
        scale = a.get(name, {}).get("scale", {}) if "predictions" in item or item == "submission" else {}
        unit = {key: next((scale[part] for part in key.split(" / ") if part in scale), 1.0) for key in one}
        gaps = {key: gap(one[key], other[key], unit[key]) for key in one.keys() & other.keys()}
        worst = max(sorted(gaps), key=lambda key: gaps[key], default="nothing")
        lacking = sorted(one.keys() ^ other.keys())
        alike = bool(gaps) and not lacking and gaps[worst] <= ITEMS.get(item, (0.0,))[0]
        fine &= alike
        said = f"{name}, {item}: {len(gaps)} compared; largest difference {gaps.get(worst, 0):.2g} ({worst})"
        print("same" if alike else "DIFFERENT", said)
        for side, record in (("A", one), ("B", other)):
            only = [key for key in lacking if key in record]
            if only:
                print(f"    only in {side}: {len(only)}, such as {'; '.join(only[:5])}")
    return fine


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", checkout, out, *cases]:
            record(Path(checkout).resolve(), Path(out), cases or [*CASES, BAD])
        case ["compare", a, b]:
            sys.exit(not compare(json.loads(Path(a).read_text()), json.loads(Path(b).read_text())))
        case _:
            sys.exit(__doc__)
