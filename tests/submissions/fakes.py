"""A competition whose jobs are made up: predictions are labels and noise, so every weight has a known
meaning.
"""

import numpy as np
import pandas as pd
import yaml
from scipy.special import expit, softmax

from competition.config import load_competition
from competition.dataset import FOLD
from competition.metrics import METRICS
from core.files import read_table, write_table
from folds.make import run as make_folds
from models.jobs.job import write_predictions
from models.jobs.job_files import write_report
from models.jobs.plan import make_plan
from models.jobs.train import train
from submissions.build import build
from submissions.config import load_config
from submissions.report.scores import read_answers
from submissions.run import open_run
from tests.conftest import write_competition
from tests.models.jobs.common import InlineExecutor

TARGETS = ["height", "Depth"]
LAST_SEEN = 7.0


def fake_competition(folder, n_train=150, n_test=30, **sections):
    """YAML, tables and answers of a made-up competition with two targets, one with missing labels."""
    rng, table = _inputs(1, n_train + n_test)
    noise = rng.normal(size=len(table))
    is_missing = rng.random(len(table)) < 0.2
    labels = {
        "height": 10 + 2 * table["x"] + noise,
        "Depth": (table["z"] + rng.normal(size=len(table))).mask(is_missing),
    }
    return _with_answers(folder, table.assign(**labels), n_train, {"targets": TARGETS}, sections)


def _inputs(seed, n):
    rng = np.random.default_rng(seed)
    ids = [f"0{i}" for i in rng.permutation(n)]
    return rng, pd.DataFrame({"id": ids, "x": rng.normal(size=n), "z": rng.normal(size=n)})


def _with_answers(folder, table, n_train, roles, sections):
    own = {"smiles": [], "text": [], "numeric": ["x", "z"], "categorical": [], "answers": "answers.csv"}
    roles = {**own, **roles, **sections.pop("competition", {})}
    test, targets = table[n_train:].reset_index(drop=True), roles["targets"]
    stages = {
        name: {"kind": "lightgbm", "parameters": {"num_leaves": leaves}}
        for name, leaves in {"good": 4, "fair": 5, "poor": 6}.items()
    }
    submissions = {"trials": 4, **sections.pop("submissions", {})}
    sections = {"stages": stages, "submissions": submissions, **sections, "competition": roles}
    write_table(folder / "answers.csv", test[["id", *targets]].sample(frac=1, random_state=0))
    return write_competition(folder, table[:n_train], test.drop(columns=targets), **sections)


CLASSES = {
    "binary": ["no", "yes"],
    "multiclass": ["calm", "glad", "angry", "sad"],
    "multilabel": ["0", "1"],
    "ordinal": ["1", "2", "3", "4", "5"],
}


def fake_classes(folder, problem_type, metric, n_train=240, n_test=60, exponent=1.5, **sections):
    """Return a competition with classes, of which the later ones are rarer, the more the larger the exponent;
    multilabel has missing labels.

    `competition` in `sections` may name other `classes`.
    """
    rng, table = _inputs(2, n_train + n_test)
    several = problem_type == "multilabel"
    names = np.array(sections.get("competition", {}).get("classes", CLASSES[problem_type]))
    targets = ["fever", "rash", "cough"] if several else ["mood"]
    for t, target in enumerate(targets):
        rank = (0.5 * (table["x"] + rng.normal(size=len(table)))).rank(pct=True) - 1e-9
        labels = pd.Series(names[(len(names) * rank ** (exponent + t / 4)).astype(int)])
        table[target] = labels.where((rng.random(len(table)) > 0.2) | (not several), "")
    roles = {"targets": targets, "classes": names.tolist(), "problem_type": problem_type, "metric": metric}
    if problem_type == "multiclass" and METRICS[metric].kind != "labels":
        roles["submission_columns"] = [f"p_{name}" for name in names]
    return _with_answers(folder, table, n_train, roles, sections)


def planned(path):
    """The jobs of a YAML, on prepared tables and folds."""
    config = load_competition(str(path))
    make_folds(config, load_config(str(path)).folds)
    return make_plan(config, load_config(str(path)).stages)


def prepare_and_fake_jobs(path):
    """Prepared tables, folds and finished jobs for a competition of `fake_competition` or `fake_classes`.

    Predictions are the labels and noise; of classes, noise in logits.
    """
    jobs, competition = planned(path), load_competition(str(path))
    task, paths = competition.task, competition.paths
    paths.owner.unlink()  # what is made here is copied
    train, test_ids = read_table(paths.train), list(read_table(paths.test)["id"])
    answers = read_answers(competition, path.parent / "answers.csv").loc[test_ids].to_numpy()

    def predicted(y, deviation, rng):
        truth = task.one_hot(y)
        noise = deviation * rng.normal(size=truth.shape)
        if not task.has_probabilities:
            return np.nan_to_num(truth, nan=LAST_SEEN) + noise
        logits = 4 * np.nan_to_num(truth, nan=0.5) - 2 + 4 * noise
        return softmax(logits, axis=1) if task.problem_type == "multiclass" else expit(logits)

    for job in jobs.jobs:
        rng = np.random.default_rng([len(job.stage), job.stage.encode()[0], job.seed, job.fold % 100])
        own, deviation = train[train[FOLD] == job.fold], {"good": 0.5, "fair": 0.7, "poor": 1.0}[job.stage]
        oof, of_test = (predicted(y, deviation, rng) for y in (own[task.targets].to_numpy(), answers))
        write_predictions(job.oof_file, list(own["id"]), task.outputs, oof)
        write_predictions(job.test_file(jobs.test_key), test_ids, task.outputs, of_test)
        write_report(job.folder, {"seconds": 1.5})
    return jobs


def train_all(path):
    """Prepared tables, folds and jobs that were really trained."""
    train(planned(path), InlineExecutor())


def run_of(path):
    """Return the run of a YAML with prepared tables and finished jobs."""
    config = load_config(str(path))
    return open_run(config, make_plan(config.competition, dict(config.stages)))


def built(path):
    """Return the run of a made-up competition with its files."""
    run = run_of(path)
    build(run)
    return run


def with_setting(path, section, **values):
    """Change values in a section of a YAML; return its path."""
    document = yaml.safe_load(path.read_text())
    document[section] |= values
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def opened(folder, n_train=150, **sections):
    """Return the run of a made-up competition with finished jobs."""
    path = fake_competition(folder, n_train, **sections)
    prepare_and_fake_jobs(path)
    return run_of(path)


def finished(path):
    """Return the run of a made-up competition with its finished jobs and its files."""
    prepare_and_fake_jobs(path)
    return built(path)


def by_id(file):
    """A table of numbers with its ids as the index."""
    return read_table(file).set_index("id")
