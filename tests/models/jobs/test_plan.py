"""Which jobs there are, what their keys depend on, and what happens to finished jobs of other code."""

import os
import sys
from dataclasses import replace
from importlib import metadata

import pytest

from core import modules
from core.errors import ConfigError
from models.jobs import plan as plan_module
from models.jobs.job_files import write_report
from models.jobs.plan import describe_retraining
from models.jobs.run_job import run_job
from tests.conftest import mixed_tables, new_process
from tests.models.jobs.common import GNN, TREES, planned, upgrade


def test_what_can_change_a_result_changes_the_key_and_the_list_of_seeds_does_not(tmp_path):
    def key(seed=None, **changes):
        sections = {name: changes.pop(name) for name in ("folds", "competition", "tables") if name in changes}
        return planned(tmp_path, seed, stages={"trees": {**TREES, **changes}}, **sections).keys["trees"]

    plain, (train, test) = key(), mixed_tables()
    assert key() == key(seeds=[0, 1], final_fit="both") == plain
    others = [
        key(parameters={"num_leaves": 7}),
        key(learning_rate=0.07),
        key(target_transform="quantile"),
        key(seed=5),
        key(folds={"n_folds": 4}),
        key(competition={"metric": "mae"}),
        key(competition={"metric": "mape"}),
        key(competition={"numeric": []}),
        key(tables=(train.assign(lumo=train["lumo"] * 2), test)),
    ]
    assert len({plain, *others}) == 10
    before, after = planned(tmp_path), planned(tmp_path, tables=(train, test.assign(note="other words")))
    assert (before.keys == after.keys, before.test_key == after.test_key) == (True, False)


def test_a_share_of_a_card_is_in_no_key_but_the_device_of_trees_is(tmp_path):
    def keys(gpu):
        settings = {} if gpu is None else {"gpu": gpu}
        stages = {"trees": {**TREES, **settings}, "graph": {**GNN, **settings}}
        return list(planned(tmp_path, stages=stages).keys.values())

    trees, graph = keys(None)
    assert keys(False) == [trees, graph]
    assert keys(True) == keys(0.25)
    assert (keys(True)[0] != trees, keys(True)[1]) == (True, graph)


def test_more_than_one_card_for_a_job_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"gpu.*several GPUs for one job are not supported"):
        planned(tmp_path, stages={"graph": {**GNN, "gpu": 1.5}})


def test_comments_docstrings_and_imports_for_annotations_are_in_no_key(tmp_path, monkeypatch):
    monkeypatch.setattr(modules, "PROJECT", tmp_path)
    own, settings = tmp_path / "own.py", tmp_path / "competition" / "config.py"
    settings.parent.mkdir()
    settings.write_text("S = 1\n")
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from competition.config import S\ndef f(x):\n"
    own.write_text(f"{code}    return x\n")
    before = modules.closure(own)
    assert list(before) == [own]
    own.write_text(f'"""Doc."""\n{code}    """What."""\n    # and why\n    return x\n')
    assert modules.closure(own) == before
    own.write_text(f"{code}    import competition.config, competition.nothing\n    return x\n")
    assert list(modules.closure(own)) == [own, settings]


def edit(monkeypatch, file):
    """From now on, this file of the code is as after an edit."""
    code_files = plan_module.code_files
    monkeypatch.setattr(plan_module, "code_files", lambda *given: {**code_files(*given), file: "edited"})


def finish(job_plan, seconds):
    for job in job_plan.jobs:
        job.folder.mkdir(parents=True)
        assert not job.finished  # a folder without a report is none of a finished job
        write_report(job.folder, {"seconds": seconds, "made_by": job_plan.made_by[job.stage]})


def test_edited_code_makes_a_new_key_and_reuse_takes_the_latest_finished_one_and_marks_it(
    tmp_path, monkeypatch
):
    old = planned(tmp_path)
    finish(old, 1.0)
    for job in old.jobs:
        os.utime(job.folder / "report.json", (0, 0))
    edit(monkeypatch, "models/stages/lightgbm.py")
    new = planned(tmp_path)
    assert all(job.finished for job in old.jobs) and not any(job.finished for job in new.jobs)
    reused = planned(tmp_path, reuse=True)
    assert reused.keys == old.keys != new.keys
    assert reused.is_from_other_code("trees")
    finish(new, 1.0)
    edit(monkeypatch, "competition/dataset.py")
    assert planned(tmp_path, reuse=True).keys == new.keys
    finish(
        planned(tmp_path).select(fold=0), 1.0
    )  # all folds of other code are worth more than one of this code
    assert planned(tmp_path, reuse=True).keys == new.keys


def test_finished_jobs_that_will_be_trained_again_are_counted_with_the_files_and_libraries_that_changed(
    tmp_path, monkeypatch
):
    stages = {"trees": TREES, "others": {**TREES, "parameters": {"num_leaves": 4}}}
    old = planned(tmp_path, stages=stages)
    finish(replace(old, jobs=old.jobs_of_stage("trees")), 400.0)
    assert describe_retraining(old) == []
    edit(monkeypatch, "models/stages/lightgbm.py")
    edit(monkeypatch, "folds/groups.py")
    before = metadata.version("lightgbm")
    upgrade(monkeypatch, "lightgbm", "99.0.1")
    new = planned(tmp_path, stages=stages)
    assert describe_retraining(new) == [
        f"stage trees: 3 finished jobs (20 min) will be trained again: lightgbm {before} -> 99.0.1, "
        "changes of folds/groups.py, models/stages/lightgbm.py; --reuse keeps them"
    ]
    assert describe_retraining(planned(tmp_path, stages=stages, reuse=True)) == []
    finish(new.select(fold=0), 400.0)
    assert describe_retraining(new) == []  # training has begun


def test_an_edit_of_a_helper_of_user_code_makes_a_new_key_and_is_named_by_its_path_next_to_the_code(
    tmp_path,
):
    mine = "from tools.rates import RATE\nfrom tests.models.jobs.user_stages import Memoriser as Mine\n"
    (tmp_path / "mine.py").write_text(mine)
    (tmp_path / "tools").mkdir()

    def plan_with(helper):
        (tmp_path / "tools" / "rates.py").write_text(helper)
        return planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}})

    first = plan_with("RATE = 1\n")
    finish(first, 60.0)
    assert plan_with("RATE = 1  # per row\n").keys == first.keys
    (line,) = describe_retraining(plan_with("RATE = 2\n"))
    assert "again: changes of tools/rates.py; " in line


OWN = """from pathlib import Path
from tests.models.jobs.user_stages import Memoriser as Mine
RATES = Path(__file__).with_name("rates.csv")
"""


def test_an_edit_of_a_file_that_user_code_names_makes_a_new_key(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "rates.csv").write_text("1")
    first = planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}})
    finish(first, 60.0)
    (tmp_path / "rates.csv").write_text("2")
    (line,) = describe_retraining(planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}}))
    assert "again: changes of rates.csv; " in line


OPENS = """from pathlib import Path
from tests.models.jobs.user_stages import Memoriser
class Mine(Memoriser):
    def fit(self, train, folder, context):
        for name in ["rates"]:
            Path(f"{Path(__file__).parent}/data/{name}.csv").read_text()
        super().fit(train, folder, context)
"""


def test_jobs_are_trained_again_while_a_file_that_they_opened_has_another_content(tmp_path):
    (tmp_path / "mine.py").write_text(OPENS)
    rates = tmp_path / "data" / "rates.csv"
    rates.parent.mkdir()

    def plan_with(content, **options):
        rates.write_text(content)
        new_process()
        return planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}}, **options)

    def train(plan):
        assert {run_job(job, plan).status for job in plan.jobs} == {"ok"}

    first = plan_with("1")
    train(first)
    assert plan_with("1").keys == first.keys
    second = plan_with("2")
    assert second.keys != first.keys
    (line,) = describe_retraining(second)
    assert "mine: 3 finished jobs" in line and "again: changes of data/rates.csv; --reuse keeps them" in line
    assert plan_with("2", reuse=True).keys == first.keys
    train(second)
    assert plan_with("2").keys == second.keys
    assert plan_with("3").keys not in (first.keys, second.keys)
    assert plan_with("1").keys == first.keys
    third = plan_with("3")
    assert third.with_settings("mine", third.stages["mine"]).keys == third.keys


def test_a_job_that_opened_a_file_after_an_edit_is_deleted_where_its_key_has_the_content_before(
    tmp_path, capsys
):
    (tmp_path / "mine.py").write_text(OPENS)
    rates = tmp_path / "data" / "rates.csv"
    rates.parent.mkdir()
    plans = []
    for before, while_it_trains in (("1", "1"), ("2", "3"), ("2", "2")):
        rates.write_text(before)
        plan = planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}})
        rates.write_text(while_it_trains)
        new_process()
        plans.append(plan)
        assert run_job(plan.jobs[0], plan).status == "ok"
    assert plans[0].keys != plans[1].keys == plans[2].keys
    assert "fold_0 is deleted: data/rates.csv was edited while it trained" in capsys.readouterr().out
    assert planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}}).jobs[0].finished


def test_an_edit_of_code_after_the_plan_was_made_fails_its_jobs(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "rates.csv").write_text("1")
    plan = planned(tmp_path, stages={"mine": {"kind": "mine.py:Mine"}})
    (tmp_path / "rates.csv").write_text("a log of the stage itself")
    first, second, _ = plan.jobs
    assert run_job(first, plan).status == "ok"
    (tmp_path / "mine.py").write_text(f"{OWN}SCALE = 2\n")
    result = run_job(second, plan)
    assert "mine.py was edited after this command had started. Run it again" in result.error
    assert (first.finished, second.finished) == (True, False)


def test_code_of_the_project_that_was_edited_fails_jobs_of_workers_that_have_not_imported_it(
    tmp_path, monkeypatch
):
    plan = planned(tmp_path, stages={"trees": TREES})
    plan.made_by["trees"]["models/features.py"] = "before the edit"
    assert run_job(plan.jobs[0], plan).status == "ok"
    monkeypatch.delitem(sys.modules, "models.features")
    assert "models/features.py was edited after this command" in run_job(plan.jobs[1], plan).error


def test_a_refit_is_one_more_job_per_seed_after_its_folds_and_changes_no_key(tmp_path):
    folds, refit, both = (
        planned(tmp_path, stages={"trees": {**TREES, "final_fit": how, "seeds": [0, 7]}})
        for how in ("folds", "refit", "both")
    )
    assert folds.keys == refit.keys == both.keys
    assert folds.jobs == [job for job in both.jobs if job.folder.name != "fold_all"]
    assert [job.predicts_test for job in refit.jobs] == [False, False, False, True] * 2
    jobs = both.jobs
    assert [job.folder.name for job in jobs] == ["fold_0", "fold_1", "fold_2", "fold_all"] * 2
    assert [job.n_rows for job in jobs] == [40, 40, 40, 60] * 2
    assert [list(job.dependencies) for job in jobs[4:]] == [[], [], [], jobs[4:7]]


def test_seeds_and_folds_have_different_random_numbers_which_stages_share(tmp_path):
    tables = [planned(tmp_path, seed).tables for seed in (None, 1)]
    seeds = {each.job_seed(seed, fold) for each in tables for seed in (0, 1) for fold in (-2, 0, 1)}
    assert len(seeds) == 12
    assert tables[0].job_seed(0, 0) == 1904144577


def test_shards_have_each_job_once(tmp_path):
    plan = planned(tmp_path, stages={"a": TREES, "ab": {**TREES, "final_fit": "both"}})

    def selected(**options):
        return [job.title.replace("/seed_0/fold_", "") for job in plan.select(**options).jobs]

    shares = [selected(shard=(i, 3)) for i in (1, 2, 3)]
    assert shares == [["a0", "ab0", "aball"], ["a1", "ab1"], ["a2", "ab2"]]
    assert selected(fold=1) == ["a1", "ab1"]
    with pytest.raises(ConfigError, match="--fold must be from 0 to 2; got 3"):
        plan.select(fold=3)


def test_a_stage_with_other_settings_has_the_jobs_that_a_plan_of_it_has(tmp_path):
    both = planned(tmp_path, stages={"trees": TREES, "net": {**GNN, "epochs": 4}})
    shorter = both.stages["net"].with_share_of_epochs(0.5)
    assert shorter.n_epochs == 2
    assert (
        both.with_settings("net", shorter).jobs
        == plan_module.make_plan(both.competition, {"net": shorter}).jobs
    )
