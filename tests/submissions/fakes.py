"""A competition whose jobs are made up: predictions are labels and noise, so every weight has a known
meaning.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.special import expit, softmax

from competition.config import load_competition
from competition.labels import parse_labels
from core.files import read_table, read_text_table, write_table
from core.paths import Paths
from folds.make import read_folds
from folds.make import run as make_folds
from models.jobs.job_files import write_report
from models.jobs.local import LocalExecutor
from models.jobs.plan import JobPlan, make_plan
from models.jobs.predictions import write_predictions
from models.jobs.train import train
from submissions.build import build_submission
from submissions.config import load_config
from submissions.run import Run, open_run
from tests.conftest import write_competition

TARGETS = ["height", "depth"]
LAST_SEEN = 7.0


def fake_competition(folder: Path, n_train: int = 150, n_test: int = 30, **sections: object) -> Path:
    """YAML, tables and answers of a made-up competition with two targets, one with missing labels, in
    `folder`.
    """
    rng, n = np.random.default_rng(1), n_train + n_test
    ids = [f"0{i}" for i in rng.permutation(n)]
    table = pd.DataFrame({"id": ids, "x": rng.normal(size=n), "z": rng.normal(size=n)})
    table["height"] = 10 + 2 * table["x"] + rng.normal(size=n)
    table["depth"] = np.where(rng.random(n) < 0.2, np.nan, table["z"] + rng.normal(size=n))
    roles: dict[str, object] = {"targets": TARGETS, **sections.pop("competition", {})}  # type: ignore[dict-item]
    return _with_answers(folder, table, n_train, roles, sections)


def _with_answers(folder: Path, table: pd.DataFrame, n_train: int, roles: dict, sections: dict) -> Path:
    train, test, own = table[:n_train], table[n_train:], {"smiles": [], "text": [], "numeric": ["x", "z"]}
    roles, targets = {**own, "categorical": [], "answers": "answers.csv", **roles}, roles["targets"]
    stages = {
        name: {"kind": "lightgbm", "parameters": {"num_leaves": i + 4}}
        for i, name in enumerate(("good", "fair", "poor"))
    }
    submissions = {"trials": 4} | sections.pop("submissions", {})
    sections = {"stages": stages, "folds": {"n_folds": 3}, **sections}
    write_table(folder / "answers.csv", test[["id", *targets]].sample(frac=1, random_state=0))
    inputs = test.drop(columns=targets).reset_index(drop=True)
    return write_competition(folder, train, inputs, **sections, submissions=submissions, competition=roles)


CLASSES = {
    "binary": ["no", "yes"],
    "multiclass": ["calm", "glad", "angry", "sad"],
    "multilabel": ["0", "1"],
    "ordinal": ["1", "2", "3", "4", "5"],
}


def fake_classes(
    folder: Path, problem_type: str, metric: str, n_train: int = 240, n_test: int = 60, **sections: object
) -> Path:
    """Return a competition with classes, of which the later ones are rarer; multilabel has missing labels.

    `competition` in `sections` may name other `targets` and `classes`.
    """
    rng, n = np.random.default_rng(2), n_train + n_test
    several = problem_type == "multilabel"
    roles = {"targets": ["fever", "rash", "cough"] if several else ["mood"], "classes": CLASSES[problem_type]}
    roles |= sections.pop("competition", {})  # type: ignore[operator]
    names, n_classes = np.array(roles["classes"]), len(roles["classes"])
    if problem_type == "multiclass" and metric in ("roc_auc", "average_precision", "log_loss", "brier"):
        roles["submission_columns"] = [f"p_{name}" for name in names]
    ids = [f"0{i}" for i in rng.permutation(n)]
    table = pd.DataFrame({"id": ids, "x": rng.normal(size=n), "z": rng.normal(size=n)})
    for t, target in enumerate(roles["targets"]):
        rank = (0.5 * (table["x"] + rng.normal(size=n))).rank(pct=True) - 1e-9
        table[target] = names[(n_classes * rank ** (1.5 + t / 4)).astype(int)]
        table[target] = table[target].where((rng.random(n) > 0.2) | (not several), "")
    return _with_answers(
        folder, table, n_train, {**roles, "problem_type": problem_type, "metric": metric}, sections
    )


def planned(path: Path) -> JobPlan:
    """The jobs of a YAML, on prepared tables and folds."""
    config = load_competition(str(path))
    make_folds(config, load_config(str(path)).folds)
    return make_plan(config, load_config(str(path)).stages)


def prepare_and_fake_jobs(path: Path, seen: Callable[[np.ndarray], np.ndarray] = np.asarray) -> JobPlan:
    """Prepared tables, folds and finished jobs for a competition of `fake_competition` or `fake_classes`.

    Predictions are those of `seen(labels)`, and noise; of classes, noise in logits.
    """
    jobs, paths, competition = planned(path), Paths.for_competition(str(path)), load_competition(str(path))
    task = competition.task
    paths.owner.unlink()  # what is made here is copied
    train, test = read_table(paths.train), read_table(paths.test)
    folds = read_folds(paths.folds, list(train["id"]))
    answers = read_text_table(path.parent / "answers.csv").set_index("id", drop=False).loc[test["id"]]
    answers = parse_labels(answers, task.targets, competition, "answers").table[task.targets].to_numpy()

    def predicted(y: np.ndarray, deviation: float, noise: np.random.Generator) -> np.ndarray:
        truth = task.one_hot(y)
        if not task.has_probabilities:
            return seen(np.nan_to_num(truth, nan=LAST_SEEN)) + deviation * noise.normal(size=truth.shape)
        logits = 4 * seen(np.nan_to_num(truth, nan=0.5)) - 2 + 4 * deviation * noise.normal(size=truth.shape)
        return softmax(logits, axis=1) if task.problem_type == "multiclass" else expit(logits)

    for job in jobs.jobs:
        noise = np.random.default_rng([len(job.stage), job.stage.encode()[0], job.seed, job.fold % 100])
        own, spread = train[folds == job.fold], {"good": 0.5, "fair": 0.7, "poor": 1.0}[job.stage]
        oof, of_test = (predicted(y, spread, noise) for y in (own[task.targets].to_numpy(), answers))
        write_predictions(job.oof_file, list(own["id"]), task.outputs, oof)
        write_predictions(job.test_file(jobs.test_key), list(test["id"]), task.outputs, of_test)
        write_report(job.folder, {"seconds": 1.5})
    return jobs


def train_all(path: Path, n_workers: int = 1) -> None:
    """Prepared tables, folds and jobs that were really trained."""
    with closing(LocalExecutor(n_workers)) as executor:
        train(planned(path), executor)


def run_of(path: Path) -> Run:
    """Return the run of a YAML with prepared tables and finished jobs."""
    config = load_config(str(path))
    return open_run(config, make_plan(config.competition, dict(config.stages)))


def built(path: Path) -> Run:
    """Return the run of a made-up competition with its files."""
    run = run_of(path)
    build_submission(run)
    return run


def with_setting(path: Path, section: str, **values: object) -> Path:
    """Change values in a section of a YAML; return its path."""
    document = yaml.safe_load(path.read_text())
    document[section] |= values
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def opened(folder: Path, n_train: int = 150, **sections: object) -> Run:
    """Return the run of a made-up competition with finished jobs."""
    path = fake_competition(folder, n_train, **sections)
    prepare_and_fake_jobs(path)
    return run_of(path)


def finished(path: Path) -> Run:
    """Return the run of a made-up competition with its finished jobs and its files."""
    prepare_and_fake_jobs(path)
    return built(path)


def by_id(file: Path) -> pd.DataFrame:
    """A table of numbers with its ids as the index."""
    return read_table(file, ["id"]).set_index("id")
