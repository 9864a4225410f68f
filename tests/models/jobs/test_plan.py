"""Which jobs there are, what their keys depend on, and what happens to finished jobs of other code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.paths import Paths
from models.inputs import code
from models.jobs import plan as plan_module
from models.jobs.folder import write_report
from models.jobs.plan import Job, Plan, job_seed, require_answer
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import TREES, planned


def keys(folder: Path, seed: int | None = None, **sections: Any) -> dict[str, str]:
    return planned(folder, seed, **sections)[-1].keys


def trees(**settings: object) -> dict:
    return {"stages": {"trees": {**TREES, **settings}}}


def test_what_can_change_a_result_changes_the_key_and_the_list_of_seeds_does_not(tmp_path: Path) -> None:
    plain = keys(tmp_path, **trees())
    assert keys(tmp_path, **trees(seeds=[0, 1], final_fit="both")) == plain
    train, test = mixed_tables()
    others = [
        keys(tmp_path, **trees(num_leaves=7)),
        keys(tmp_path, **trees(learning_rate=0.07)),
        keys(tmp_path, **trees(target_transform="standard")),
        keys(tmp_path, seed=5, **trees()),
        keys(tmp_path, **trees(), folds={"n_folds": 4}),
        keys(tmp_path, **trees(), competition={"metric": "mae"}),
        keys(tmp_path, **trees(), competition={"numeric": []}),
        keys(tmp_path, **trees(), tables=(train.assign(lumo=train["lumo"] * 2), test)),
    ]
    assert len({key["trees"] for key in (plain, *others)}) == 9
    assert keys(tmp_path, **trees()) == plain


def test_the_test_table_is_in_the_key_of_a_stage_that_reads_its_inputs_and_of_no_other(tmp_path: Path) -> None:
    bert = {"kind": "bert", "pretrain_epochs": 1}
    stages = {"fair": bert, "saw": {**bert, "pretrain_on": "all_inputs"}}
    train, test = mixed_tables()
    *_, before = planned(tmp_path, stages=stages)
    *_, after = planned(tmp_path, stages=stages, tables=(train, test.assign(note="other words")))
    assert after.test_key != before.test_key
    assert after.keys["fair"] == before.keys["fair"]
    assert after.keys["saw"] != before.keys["saw"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a stage, what it imports, and what hands it its rows."""
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    for name, text in {
        "models/stages/own.py": "from models.inputs.shared import RATE\nfrom competition.far import FAR\n\nx = RATE\n",
        "models/inputs/shared.py": "from models.inputs.deep import DEEP\nfrom models.settings import S\n\nRATE = 1\n",
        "models/inputs/deep.py": "DEEP = 1\n",
        "models/settings.py": "S = 1\n",
        "competition/far.py": "FAR = 1\n",
        "work.py": "import models.inputs.nothing\n\n\ndef rows(folds):\n    return folds != 0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("models/stages/own.py", "x = RATE", "x = RATE + 1", ["own"]),
        ("models/inputs/shared.py", "RATE = 1", "RATE = 2", ["shared"]),
        ("models/inputs/deep.py", "DEEP = 1", "DEEP = 2", ["shared"]),
        ("competition/far.py", "FAR = 1", "FAR = 2", ["shared"]),
        ("work.py", "folds != 0", "folds != 1", ["shared"]),
        ("models/settings.py", "S = 1", "S = 2", []),
        ("work.py", "    return folds", '    """Says what."""\n    # and why\n    return folds', []),
    ],
)
def test_a_key_has_the_code_of_the_stage_of_what_it_imports_and_of_what_hands_it_its_rows(
    project: Path, file: str, old: str, new: str, changes: list[str]
) -> None:
    def digests() -> dict[str, str]:
        found = code.own_and_shared_code(project / "models/stages/own.py", [], [project / "work.py"])
        return dict(zip(("own", "shared"), found, strict=True))

    before, text = digests(), (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    assert [name for name, digest in digests().items() if digest != before[name]] == changes


def edited(monkeypatch: pytest.MonkeyPatch, own: str = "", shared: str = "") -> None:
    """From now on, code is as after an edit."""
    digest = plan_module.code_digest

    def after(stage: Any) -> str:
        parts = digest(stage).split("-")
        return f"{own or parts[0]}-{shared or parts[1]}"

    monkeypatch.setattr(plan_module, "code_digest", after)


def finish(todo: Plan, seconds: float) -> None:
    for job in todo.jobs:
        job.folder.mkdir(parents=True)
        write_report(job.folder, {"seconds": seconds})


def test_edited_code_makes_a_new_key_and_reuse_takes_the_latest_finished_one_and_marks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, old = planned(tmp_path)
    finish(old, 1.0)
    for job in old.jobs:
        os.utime(job.folder / "report.json", (0, 0))
    edited(monkeypatch, own="edited")
    *_, new = planned(tmp_path)
    assert new.keys != old.keys
    assert not any(job.finished for job in new.jobs)
    *_, reused = planned(tmp_path, reuse=True)
    assert reused.keys == old.keys
    assert all(job.finished and job.other_code for job in reused.jobs)
    finish(new, 1.0)
    edited(monkeypatch, shared="again")
    *_, latest = planned(tmp_path, reuse=True)
    assert latest.keys == new.keys


def test_hours_of_finished_jobs_are_not_lost_to_shared_code_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, paths, todo = planned(tmp_path, stages={"trees": TREES, "others": {**TREES, "num_leaves": 4}})
    finish(todo, 400.0)
    require_answer(todo)
    edited(monkeypatch, shared="edited")
    stages = {"trees": TREES, "others": {**TREES, "num_leaves": 4}}
    *_, new = planned(tmp_path, stages=stages)
    with pytest.raises(DataError, match=r"(?s)  trees: 3 jobs, 20 min\n  others: 3 jobs, 20 min\n.*--reuse.*--retrain"):
        require_answer(new)
    require_answer(new.select("trees"))  # 20 minutes are not worth a question
    finish(new.select(fold=0), 400.0)  # it was answered: some are trained again
    require_answer(new)
    edited(monkeypatch, own="own")
    require_answer(planned(tmp_path, stages=stages)[-1])  # who edits a stage wants to see what it does


def test_a_refit_is_one_more_job_per_seed_behind_its_folds_and_changes_no_key(tmp_path: Path) -> None:
    made = {how: planned(tmp_path, **trees(final_fit=how, seeds=[0, 7]))[-1] for how in ("folds", "refit", "both")}
    assert [len({job.folder for job in todo.jobs}) for todo in made.values()] == [6, 8, 8]
    assert len({todo.keys["trees"] for todo in made.values()}) == 1
    jobs = made["both"].jobs
    assert [job.folder.name for job in jobs] == ["fold_0", "fold_1", "fold_2", "fold_all"] * 2
    assert list(jobs[7].needs) == jobs[4:7]
    assert not any(job.needs for job in jobs[4:7])
    assert {job.fold for job in made["both"].select(fold=1).jobs} == {1}


def test_seeds_and_folds_have_random_numbers_of_their_own_which_stages_share(tmp_path: Path) -> None:
    path = str(write_competition(tmp_path, *mixed_tables()))
    configs = [load_competition(path), load_competition(path, seed=1)]
    assert len({job_seed(config, seed, fold) for config in configs for seed in (0, 1) for fold in (-2, 0, 1)}) == 12
    assert job_seed(configs[0], 0, 0) == 1904144577


def test_shards_have_each_job_once_and_a_stage_or_fold_that_is_not_there_is_named() -> None:
    jobs = [Job("a", "key", 0, fold, Path(f"/nowhere/fold_{fold}")) for fold in range(7)]
    todo = Plan(jobs, {"a": "key"}, 7, "test", {}, None, Paths("mixed"))  # type: ignore[arg-type]
    shares = [[job.fold for job in todo.select(shard=(i, 3)).jobs] for i in (1, 2, 3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert [job.fold for job in todo.select("a", 2).jobs] == [2]
    with pytest.raises(ConfigError, match="--stage must be one of a; found 'forest'"):
        todo.select("forest")
    with pytest.raises(ConfigError, match="--fold must be from 0 to 6; found 7"):
        todo.select(fold=7)
