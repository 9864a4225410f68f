"""One job from prepared tables to a published folder: alignment, leaks, resumption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import ConfigError, DataError
from competition.files import sha256_of, write_table
from competition.paths import Paths
from competition.prepare import prepare
from competition.tables import Rows, read_rows
from folds.make import load_folds_config
from folds.make import run as make_folds
from folds.table import read_folds
from models.config import LightgbmStage, UnimolStage, load_stages
from models.inputs import conformers
from models.jobs import train as train_module
from models.jobs import work as work_module
from models.jobs.plan import Plan, plan
from models.jobs.predictions import stage_oof, stage_test
from models.jobs.prefill import check_molecules
from models.jobs.selection import select
from models.jobs.work import job_seed, run_job
from models.notes import write_notes
from models.training import checkpoint
from tests.conftest import mixed_tables, write_competition


class Echo:
    """Predicts the number in a row's id; what comes out of place is seen at once."""

    context: Any

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        pass

    def predict(self, rows: Rows, folder: Path) -> np.ndarray:
        return np.array([[float(i[1:]), -float(i[1:])] for i in rows.ids])


class Memoriser:
    """Knows the labels of every input it was fitted on, and the mean for any other."""

    context: Any

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        assert valid is None
        assert train.y is not None
        keys = train.inputs["SMILES"]
        self.mean = np.nanmean(train.y, axis=0)
        self.known = dict(zip(keys, np.where(np.isnan(train.y), self.mean, train.y), strict=True))

    def predict(self, rows: Rows, folder: Path) -> np.ndarray:
        assert rows.y is None, "held-out rows come without labels"
        return np.array([self.known.get(smiles, self.mean) for smiles in rows.inputs["SMILES"]])


def planned(path: Path) -> tuple[Any, Paths, dict[str, Any], Plan]:
    """A competition with its tables and folds made: settings, paths, stages and jobs."""
    config, paths = load_competition(str(path)), Paths("mixed")
    prepared = prepare(config)
    write_table(paths.train, prepared.train)
    write_table(paths.test, prepared.test)
    make_folds(config, load_folds_config(str(path)), paths)
    stages = load_stages(str(path))
    todo = plan(config, stages, paths)
    return config, paths, stages, todo


def run_all(
    tmp_path: Path, monkeypatch: Any, stage: Any, train: pd.DataFrame, test: pd.DataFrame, **sections: Any
) -> tuple[Any, ...]:

    def build(config: Any, context: Any) -> Any:
        stage.context = context
        return stage

    monkeypatch.setattr(work_module, "build_stage", build)
    path = write_competition(tmp_path, train, test, **sections)
    config, paths, stages, todo = planned(path)
    for job in reversed(todo.jobs):
        run_job(job, stages[job.stage], config, paths, todo.test_key)
    rows = read_rows(paths.train, config, True)
    folds = read_folds(paths.folds, rows.ids)
    test_rows = read_rows(paths.test, config, False)
    oof = stage_oof(todo.jobs, rows.ids, folds, config.targets)
    return rows, oof, test_rows, stage_test(todo.jobs, todo.test_key, test_rows.ids, config.targets)


def test_predictions_stay_with_their_ids_through_shuffled_folds_and_unordered_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, oof, test_rows, test = run_all(tmp_path, monkeypatch, Echo(), *mixed_tables())
    assert rows.ids != sorted(rows.ids)
    assert oof[:, 0].tolist() == [float(i[1:]) for i in rows.ids]
    assert test[:, 1].tolist() == [-float(i[1:]) for i in test_rows.ids]


def test_a_stage_that_memorises_scores_at_chance_on_random_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each input stands twice with the same random label, written differently: only folds that split them leak."""
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = ["same", 7.0, "a"]
    rng = np.random.default_rng(1)
    train["lumo"], train["mu"] = rng.normal(size=(2, len(train)))
    twin = train.copy()
    twin["id"] = "t" + train["id"]
    from rdkit import Chem

    twin["SMILES"] = [Chem.MolToSmiles(Chem.MolFromSmiles(s), canonical=False, doRandom=True) for s in train["SMILES"]]
    both = pd.concat([train, twin], ignore_index=True)
    rows, oof, _, _ = run_all(tmp_path, monkeypatch, Memoriser(), both, test)
    assert rows.y is not None
    r2 = 1 - ((oof - rows.y) ** 2).sum(axis=0) / ((rows.y - rows.y.mean(axis=0)) ** 2).sum(axis=0)
    assert (r2 <= 0.0).all()


@pytest.mark.parametrize("asks", [True, False])
def test_inputs_of_held_out_and_test_rows_reach_only_a_stage_that_asks_for_them(
    asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"kind": "bert", "pretrain_epochs": 1, "pretrain_on": "all_inputs" if asks else "train"}
    seen: list[Rows | None] = []

    class Listening(Echo):
        def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
            seen.append(self.context.unlabelled)

    train, test = mixed_tables()
    run_all(tmp_path, monkeypatch, Listening(), train, test, stages={"one": block})
    assert len(seen) == 3
    for rows in seen:
        if not asks:
            assert rows is None
            continue
        assert rows is not None
        assert rows.y is None
        assert set(test["id"]) < set(rows.ids)
        assert len(rows) == len(rows.inputs) == len(test) + len(train) // 3


def test_what_a_stage_notes_is_printed_once_after_its_first_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Noting(Echo):
        def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
            write_notes(folder, ["9 of 40 texts are cut."])

    rows, *_ = run_all(tmp_path, monkeypatch, Noting(), *mixed_tables())
    config, paths = load_competition(str(tmp_path / "mixed.yaml")), Paths("mixed")
    todo = plan(config, load_stages(str(tmp_path / "mixed.yaml")), paths)
    scorer = train_module._Scorer(config, rows, read_folds(paths.folds, rows.ids), todo.n_folds)
    capsys.readouterr()
    for job in todo.jobs:
        scorer.print_line(job)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["seed 0", "9 of 40 texts are cut.", "seed 0", "seed 0"]


def test_what_a_killed_run_left_in_a_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "build_stage", lambda config, context: Echo())
    train, test = mixed_tables()
    path = write_competition(tmp_path, train, test)
    config, paths, stages, todo = planned(path)
    job = todo.jobs[0]
    job.folder.mkdir(parents=True)
    (job.folder / "half.bin").write_bytes(b"half")
    run_job(job, stages["trees"], config, paths, "key")
    assert not (job.folder / "half.bin").exists()
    assert job.finished


def test_every_seed_and_fold_has_random_numbers_of_its_own_which_stages_share(tmp_path: Path) -> None:
    train, test = mixed_tables()
    path = write_competition(tmp_path, train, test)
    config = load_competition(str(path))
    other = load_competition(str(path), seed=1)
    from models.jobs.plan import Job

    jobs = [Job(stage, "k", seed, fold, tmp_path) for stage in "ab" for seed in (0, 1) for fold in (0, 1)]
    seeds = [[job_seed(c, job) for c in (config, other)] for job in jobs]
    assert seeds[:4] == seeds[4:]
    assert len({seed for pair in seeds for seed in pair}) == 8


def test_a_molecule_without_coordinates_stops_the_run_first_where_error_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands before the stage that wants coordinates; a column that it does not read does not concern it."""
    train, test = mixed_tables()
    config = load_competition(str(write_competition(tmp_path, train.assign(other="CCO"), test.assign(other="CCO"))))
    config = config.model_copy(update={"smiles": ["SMILES", "other"]})
    rows = Rows(["a"], pd.DataFrame({"SMILES": ["CO"], "other": ["CCO"]}), None)
    embed = conformers._embed

    def small(molecule: Any, *rest: Any) -> bool:
        return molecule.GetNumHeavyAtoms() < 3 and embed(molecule, *rest)

    monkeypatch.setattr(conformers, "_embed", small)
    trees, reads_both = LightgbmStage(kind="lightgbm"), UnimolStage(kind="unimol", unembeddable="error")
    with pytest.raises(DataError, match="1 of 2 molecules have no 3-D conformer: CCO"):
        check_molecules(config, [trees, reads_both], Paths("mixed"), [rows])
    check_molecules(config, [trees, reads_both.model_copy(update={"unembeddable": "flat"})], Paths("mixed"), [rows])
    check_molecules(config, [trees, reads_both.model_copy(update={"columns": ["SMILES"]})], Paths("mixed"), [rows])


def test_a_stage_or_fold_that_is_not_there_is_named(tmp_path: Path) -> None:
    todo = Plan([], {"trees": "k"}, 3, "t")
    with pytest.raises(ConfigError, match="--stage must be one of trees; found 'forest'"):
        select(todo, "forest", None)
    with pytest.raises(ConfigError, match="--fold must be from 0 to 2; found 3"):
        select(todo, None, 3)


def test_a_job_that_was_stopped_inside_its_fold_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gnn = {"kind": "gnn", "width": 16, "hidden_width": 16, "epochs": 4, "batch_size": 8, "pooler_dropout": 0.2}
    path = write_competition(tmp_path, *mixed_tables(), stages={"graph": gnn})
    config, paths, stages, todo = planned(path)
    job = todo.jobs[0]
    run_job(job, stages["graph"], config, paths, todo.test_key)
    undisturbed = {path.name: sha256_of(path) for path in job.folder.rglob("*.*") if path.name != "report.json"}
    shutil.rmtree(job.folder)
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)

    def stop(done: int, total: int) -> None:
        if done == total - 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, stages["graph"], config, paths, todo.test_key, progress=stop)
    assert not job.folder.exists()
    assert [path.name for path in job.folder.parent.glob(".fold_0.*/checkpoint*")] == ["checkpoint.pt"]
    steps: list[int] = []
    run_job(job, stages["graph"], config, paths, todo.test_key, progress=lambda done, total: steps.append(done))
    assert len(steps) < max(steps)  # it did not begin anew
    again = {path.name: sha256_of(path) for path in job.folder.rglob("*.*") if path.name != "report.json"}
    assert again == undisturbed
    assert not list(job.folder.glob("checkpoint*"))
