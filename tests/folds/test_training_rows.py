"""Which rows train a fold: one rule, which plans, jobs, checks and comparisons of tables use."""

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError, DataError
from core.files import read_table
from folds.similarity import similarities
from folds.training_rows import trains_fold
from pipeline.check import check_all
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
from tests.folds.made import competition
from tests.models.jobs.common import TREES, planned, rows_of

FOLDS = np.array([-1, 0, 1, 2])


def everything(folds, fold, in_time_order):
    return folds == folds


def only_the_held_out_fold(folds, fold, in_time_order):
    return folds == fold


@pytest.mark.parametrize(
    ("fold", "in_time_order", "expected"),
    [
        (1, False, [True, True, False, True]),
        (1, True, [True, True, False, False]),
        (0, True, [True, False, False, False]),
        (-2, True, [True] * 4),
    ],
)
def test_all_other_folds_train_and_with_blocks_in_time_the_earlier_ones(fold, in_time_order, expected):
    assert trains_fold(FOLDS, fold, in_time_order).tolist() == expected


def plan(folder):
    """Numbers of training rows of the jobs of three folds, of 60 rows."""
    return [job.n_rows for job in planned(folder).jobs]


def job(folder):
    """Rows that the first job both trains on and holds out, and those that it trains on."""
    made = planned(folder)
    rows = rows_of(made.jobs[0], made)
    return len({*rows.train.ids} & {*rows.held_out.ids}), len(rows.train)


def similarity(folder):
    """Similarity of two different molecules, each alone in its fold, to the rows of the other fold."""
    train, test = pd.DataFrame({"s": ["CCO", "CCCCCN"]}), pd.DataFrame({"s": ["CCO"]})
    (result,) = similarities(train, test, competition(smiles=["s"]), {"kfold": np.arange(2)})
    return bool((result.held_out["kfold"] < 1).all())


def check(folder):
    """Whether a target with labels in one fold only, of which a model of that fold sees none, is a mistake."""
    train, test = mixed_tables()
    first = read_table(planned(folder).paths.train)["__fold"].to_numpy() == 0
    train = train.assign(mu=np.where(first, train["mu"].fillna(1.0), np.nan))
    path = write_competition(folder, train, test, stages={"trees": TREES})
    try:
        check_all(load_config(str(path)))
    except (ConfigError, DataError) as error:
        return "must have labels among the training rows of every fold" in str(error)
    return False


USERS = {plan: [40, 40, 40], job: (0, 40), similarity: True, check: True}


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.__name__)
def test_another_rule_would_change_the_result_of_each_of_its_users(user, tmp_path, monkeypatch):
    assert user(tmp_path) == USERS[user]
    for mutant in (everything, only_the_held_out_fold):
        with monkeypatch.context() as patch:
            patch.setattr(trains_fold, "__code__", mutant.__code__)
            if (
                user is not check or mutant is everything
            ):  # the labels of the held-out fold alone are none either
                assert user(tmp_path) != USERS[user], mutant
