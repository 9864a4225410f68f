"""Predictions made elsewhere, from `new --oof` to the submission, and every mistake in them before any work."""

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.dataset import FOLD
from competition.prepare import prepare
from core.errors import ConfigError, DataError
from core.user_tables import read_text_table
from folds.make import make_folds
from pipeline import commands
from submissions.config import load_config
from submissions.predict import predict
from tests.competition.small import write_small
from tests.models.external_predictions import write_external_predictions
from tests.pipeline.made import checked
from tests.submissions.fakes import built, by_id, train_all
from tests.submissions.made_up import notes, write_tables

pytestmark = pytest.mark.usefixtures("jobs_in_process")

OOF, TEST = "id,y\nf,6\ne,5\nd,4\nc,3\nb,2\na,1\n", "id,y\nt2,2\nt1,1\n"


def small(folder, oof=OOF, predicted=TEST, stages="", **settings):
    """The competition of `write_small` with one stage, `theirs`, of kind file, and perhaps others."""
    given = folder / "given" / "x"
    given.mkdir(parents=True, exist_ok=True)
    (given / "oof.csv").write_text(oof)
    (given / "test.csv").write_text(predicted)
    all_stages = yaml.safe_load(f"{{theirs: {{kind: file, folder: given/x}}, {stages}}}")
    return write_small(folder, stages=all_stages, **settings)


@pytest.mark.parametrize(
    ("oof", "test", "words"),
    [
        ("id,y\nf,6\ne,5\nd,4\nc,3\n", TEST, r"oof\.csv has no predictions for 2 rows .* \('a', 'b'\)"),
        (f"{OOF}a,2\n", TEST, r"oof\.csv: duplicate ids: 'a'\. Give every row its own id"),
        (OOF.replace("a,1", "a,"), TEST, r"oof\.csv has no predictions for 1 rows .* \('a'\)"),
        (
            OOF.replace("a,1", "a,inf"),
            TEST,
            r"oof\.csv: column 'y' has cells that are not finite numbers: row 7 .*: 'inf'",
        ),
        (OOF, TEST.replace("t1,1", "t1,-inf"), r"test\.csv: column 'y' has cells that are not .* '-inf'"),
    ],
)
def test_a_mistake_in_a_file_is_reported_before_any_training(oof, test, words, tmp_path):
    with pytest.raises(ConfigError, match=rf"stages\.theirs: .*{words}"):
        checked(small(tmp_path, oof, test))


def test_all_mistakes_of_all_stages_are_reported_at_once(tmp_path):
    others = "gone: {kind: file, folder: given/gone}, note: {kind: bert, template: '{note}'}"
    with pytest.raises(ConfigError) as error:
        checked(small(tmp_path, "id,y\na,x\nb,2\nzz,1\n", "id,y\nt2,2\n", others))
    lines = sorted(str(error.value).splitlines())
    assert [line.split(": ")[0] for line in lines] == ["stages.gone", "stages.note", "stages.theirs"]
    assert "given/gone" in lines[0]


def test_a_stage_is_trained_although_the_files_of_another_one_are_missing(tmp_path, capsys):
    path = small(tmp_path, stages="level: {kind: baseline}")
    (tmp_path / "given" / "x" / "oof.csv").unlink()
    assert commands.main(["train", str(path), "--stages", "level"]) == 0
    assert capsys.readouterr().out.count("stage level  seed 0  fold") == 3


def test_rows_that_preparation_drops_need_no_prediction(tmp_path):
    train = ["id,SMILES,y", *(f"{name},{'C' * i},{i}" for i, name in enumerate("abcdef", 1)), "bad,c1cc,1"]
    for oof in (OOF, f"{OOF}bad,\n"):
        output = checked(small(tmp_path, oof, train=train, unparsable="drop"))
        assert (
            "stage theirs: file; unknown folds: external predictions without a fold in each row of oof.csv"
            in output
        )
        assert "WARNING" not in output.split("stage theirs")[1]


def test_a_stage_that_learns_needs_an_input_column(tmp_path):
    tables = {"train": ["id,y", "a,1", "b,2", "c,3", "d,4", "e,5", "f,6"], "test": ["id", "t1", "t2"]}
    assert "6 training rows, 2 test rows" in checked(small(tmp_path, **tables, smiles=None))
    with pytest.raises(ConfigError, match=r"stages\.trees: .* must name at least one input column under"):
        checked(small(tmp_path, stages="trees: {kind: lightgbm}", **tables, smiles=None))


N_TRAIN, N_TEST, TARGETS = 120, 30, ["p", "q"]


def ids_alone(folder, **inputs):
    """Options that name tables with ids, which both have from 0, and two targets; the tables."""
    labels = np.random.default_rng(0).normal(size=(N_TRAIN, 2))
    table = pd.DataFrame({"id": [str(i) for i in range(N_TRAIN)], **inputs})
    train = table.assign(p=labels[:, 0], q=labels[:, 1]).sample(frac=1, random_state=0)
    test = table[:N_TEST]
    return write_tables(folder, train, test, test[["id"]].assign(p=0.0, q=0.0)), train, test


def full(path):
    """What `./run.sh full` does, but for the report."""
    checked(path)
    train_all(path)
    return built(path)


def test_a_competition_of_nothing_but_files_gives_a_blend_of_them(tmp_path):
    """Two files, one with folds of its own, and a folder that has none."""
    options, *tables = ids_alone(tmp_path)
    path, given = tmp_path / "mine.yaml", tmp_path / "oof"
    write_external_predictions(given / "a b", *tables, TARGETS, seed=1)
    write_external_predictions(given / "c", *tables, TARGETS, folds=np.arange(N_TRAIN) % 4, seed=2)
    (given / "empty").mkdir()
    commands.main(["new", str(path), *options, "--oof", str(given)])
    text = path.read_text().replace("n_folds: 10", "n_folds: 3")
    path.write_text(text + "submissions: {default: mean, margin: 100, trials: 2, stack: false}\n")
    run = full(path)
    marks = {name: stage.marks for name, stage in run.manifest.stages.items()}
    assert marks == {"a_b": ["unknown folds"], "c": ["other folds"]}
    warnings = run.choice.expected.warnings
    for said in ("a_b: external predictions without a fold", "c: external predictions with other folds"):
        assert any(line.startswith(f"WARNING: {said}") for line in warnings)
    submission = run.folder / "submission.csv"
    before, written = submission.read_bytes(), by_id(submission)
    assert list(written.index) == [str(i) for i in range(N_TEST)]
    files = [by_id(given / name / "test.csv") for name in ("a b", "c")]
    np.testing.assert_allclose(written, (files[0] + files[1]).loc[written.index, TARGETS] / 2, rtol=1e-6)

    # new rows are refused, and the test table itself is not
    assert predict(str(path), tmp_path / "test.csv", 1).read_bytes() == before
    (tmp_path / "rows.csv").write_text("id\n0\n1\n")
    with pytest.raises(DataError, match=r"the stages a_b, c \(kind: file\)"):
        predict(str(path), tmp_path / "rows.csv", 1)

    # a moved folder changes neither the run nor its bytes
    given.rename(tmp_path / "moved")
    path.write_text(path.read_text().replace("folder: oof/", "folder: moved/"))
    assert full(path).name == run.name
    assert submission.read_bytes() == before


def test_new_takes_the_folds_of_files_whatever_the_column_of_ids_is_called(tmp_path):
    options, *tables = ids_alone(tmp_path, note=notes(N_TRAIN))
    folder = write_external_predictions(
        tmp_path / "oof" / "theirs", *tables, TARGETS, folds=np.arange(N_TRAIN) % 4
    )
    for file in [*tmp_path.glob("*.csv"), *folder.glob("*.csv")]:
        file.write_text(file.read_text().replace("id,", "row_id,", 1))
    path = tmp_path / "mine.yaml"
    commands.main(["new", str(path), *options, "--oof", str(tmp_path / "oof")])
    assert yaml.safe_load(path.read_text())["folds"]["kind"] == "file"
    config = load_config(str(path))
    folds = make_folds(config.competition, config.folds, prepare(config.competition)).train.set_index(
        "row_id"
    )[FOLD]
    expected = read_text_table(folder / "oof.csv").set_index("row_id")["fold"].astype(int)
    assert folds.to_dict() == expected.to_dict()


def test_new_takes_the_folds_that_all_files_agree_on_and_the_stages_of_a_preset(tmp_path):
    options, *tables = ids_alone(tmp_path, note=notes(N_TRAIN))
    path, oof = tmp_path / "mine.yaml", tmp_path / "oof"
    command = ["new", str(path), *options, "--oof", str(oof), "--force"]
    with pytest.raises(DataError, match=r"--oof .*oof has no folder with oof\.csv and test\.csv"):
        commands.main(command)
    folds = np.arange(N_TRAIN) % 4
    write_external_predictions(oof / "7th", *tables, TARGETS, folds=folds)
    for theirs, more, chosen in (
        (7 - folds, [], {"kind": "file", "file": "oof/7th/oof.csv"}),
        (folds // 2, [], {"kind": "kfold"}),
        (folds // 2, ["--folds", "stratified"], {"kind": "stratified"}),
    ):
        write_external_predictions(oof / "lightgbm", *tables, TARGETS, folds=theirs)
        commands.main([*command, *more])
        assert yaml.safe_load(path.read_text())["folds"].items() >= chosen.items()
    commands.main([*command, "--preset", "quick"])
    document = yaml.safe_load(path.read_text())
    kinds = [(name, stage["kind"]) for name, stage in document["stages"].items()]
    expected = [
        ("stage_7th", "file"),
        ("lightgbm_2", "file"),
        ("baseline", "baseline"),
        ("minilm_frozen", "sklearn"),
        ("minilm_svr", "sklearn"),
        ("use_svm", "sklearn"),
        ("lightgbm", "lightgbm"),
    ]
    assert kinds[:7] == expected
    ids_alone(tmp_path)
    with pytest.raises(DataError, match="is an input to learn from"):
        commands.main([*command, "--preset", "quick"])
