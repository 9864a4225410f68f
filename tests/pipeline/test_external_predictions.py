"""Predictions made elsewhere, from `new --oof` to the submission, and every mistake in them before any work."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from core.errors import ConfigError, DataError
from core.files import read_table, write_table
from core.paths import Paths
from pipeline import commands
from pipeline.check import check_all
from submissions.config import load_config
from submissions.predict import predict
from submissions.run import Run
from tests.competition.small import write_small
from tests.models.external_predictions import write_external_predictions
from tests.submissions.fakes import built, train_all
from tests.submissions.made_up import notes, write_tables

OOF = ["id,y", "f,6", "e,5", "d,4", "c,3", "b,2", "a,1"]
TEST = ["id,y", "t2,2", "t1,1"]


def small(folder: Path, oof: list[str] = OOF, predicted: list[str] = TEST, **competition: object) -> Path:
    """The competition of `write_small` with one stage, `theirs`, of kind file."""
    path = write_small(folder, **competition)
    document = yaml.safe_load(path.read_text())
    document["stages"] = {"theirs": {"kind": "file", "folder": "given/x"}}
    path.write_text(yaml.safe_dump(document))
    for name, lines in (("oof", oof), ("test", predicted)):
        (folder / "given" / "x").mkdir(parents=True, exist_ok=True)
        (folder / "given" / "x" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("oof", "test", "words"),
    [
        (OOF[:-2], TEST, r"oof\.csv lacks predictions for 2 rows of the competition \('a', 'b'\)"),
        ([*OOF, "a,2"], TEST, r"oof\.csv: duplicate ids: 'a'\. Remove"),
        ([*OOF[:-1], "a,"], TEST, r"oof\.csv lacks predictions for 1 rows of the competition \('a'\)"),
        (
            [*OOF[:-1], "a,inf"],
            TEST,
            r"oof\.csv: column 'y' has cells that are not finite numbers: row 7 .*: 'inf'",
        ),
        (
            OOF,
            [*TEST[:-1], "t1,-inf"],
            r"test\.csv: column 'y' has cells that are not finite numbers: .* '-inf'",
        ),
    ],
)
def test_a_mistake_in_a_file_is_reported_before_any_training(
    oof: list[str], test: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"stages\.theirs: .*{words}"):
        check_all(load_config(str(small(tmp_path, oof, test))))


def test_all_mistakes_of_all_stages_are_reported_at_once(tmp_path: Path) -> None:
    path = small(tmp_path, ["id,y", "a,x", "b,2", "zz,1"], TEST[:-1])
    others = "  gone: {kind: file, folder: given/gone}\n  note: {kind: bert, template: '{note}'}\n"
    path.write_text(path.read_text() + others)
    with pytest.raises(ConfigError) as error:
        check_all(load_config(str(path)))
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["stages.theirs", "stages.gone", "stages.note"]
    assert "given/gone" in lines[1]


def test_rows_that_preparation_drops_need_no_prediction(tmp_path: Path) -> None:
    train = ["id,SMILES,y", *(f"{name},{'C' * i},{i}" for i, name in enumerate("abcdef", 1)), "bad,c1cc,1"]
    for oof in (OOF, [*OOF, "bad,"]):
        output = check_all(load_config(str(small(tmp_path, oof, train=train, unparsable="drop"))))
        assert "stage theirs: file; unknown folds: external predictions without folds in oof.csv" in output
        assert "WARNING" not in output


def test_a_stage_that_learns_needs_an_input_column(tmp_path: Path) -> None:
    train = ["id,y", *(f"{name},{i}" for i, name in enumerate("abcdef"))]
    path = small(tmp_path, train=train, test=["id", "t1", "t2"], smiles=None)
    assert "6 training rows, 2 test rows" in check_all(load_config(str(path)))
    path.write_text(path.read_text() + "  trees: {kind: lightgbm}\n")
    with pytest.raises(
        ConfigError, match=r"stages\.trees: .* must name at least one input column under smiles, text"
    ):
        check_all(load_config(str(path)))


N_TRAIN, N_TEST, TARGETS = 120, 30, ["p", "q"]


def ids_alone(folder: Path, **inputs: list) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    """Tables with ids, which both have from 0, and two targets; the options that name them."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [str(i) for i in range(N_TRAIN)], **inputs})
    train_table = table.assign(p=rng.normal(size=N_TRAIN), q=rng.normal(size=N_TRAIN)).sample(
        frac=1, random_state=0
    )
    test = table[:N_TEST]
    return write_tables(folder, train_table, test, test[["id"]].assign(p=0.0, q=0.0)), train_table, test


def full(path: Path) -> tuple[Run, dict[str, list[str]]]:
    """What `./run.sh full` does, but for the report; the run, and the marks of its stages."""
    check_all(load_config(str(path)))
    train_all(path)
    run = built(path)
    return run, {stage["name"]: stage["marks"] for stage in run.stored["stages"]}


def test_a_competition_of_nothing_but_files_gives_a_blend_of_them(tmp_path: Path) -> None:
    """Two files, one with folds of its own, and a folder that has none."""
    options, train_table, test = ids_alone(tmp_path)
    path, given = tmp_path / "mine.yaml", tmp_path / "oof"
    write_external_predictions(given / "a b", train_table, test, TARGETS, seed=1)
    write_external_predictions(given / "c", train_table, test, TARGETS, folds=np.arange(N_TRAIN) % 4, seed=2)
    (given / "empty").mkdir()
    commands.main(["new", str(path), *options, "--oof", str(given)])
    text = path.read_text().replace("n_folds: 10", "n_folds: 3")
    path.write_text(text + "submissions: {default: mean, margin: 100, trials: 2, stack: false}\n")
    assert yaml.safe_load(path.read_text())["stages"] == {
        "a_b": {"kind": "file", "folder": "oof/a b"}, "c": {"kind": "file", "folder": "oof/c"},
    }  # fmt: skip
    run, marks = full(path)
    assert marks == {"a_b": ["unknown folds"], "c": ["other folds"]}
    before = (run.folder / "submission.csv").read_bytes()
    written = read_table(run.folder / "submission.csv", ["id"]).set_index("id")
    assert list(written.index) == [str(i) for i in range(N_TEST)]
    files = [read_table(given / name / "test.csv", ["id"]).set_index("id") for name in ("a b", "c")]
    np.testing.assert_allclose(written, (files[0] + files[1]).loc[written.index, TARGETS] / 2, rtol=1e-6)

    # new rows are refused, and the test table itself is not
    assert predict(str(path), tmp_path / "test.csv", 1).read_bytes() == before
    write_table(tmp_path / "rows.csv", pd.DataFrame({"id": ["0", "1"]}))
    with pytest.raises(DataError, match=r"the stages a_b, c \(kind: file\)"):
        predict(str(path), tmp_path / "rows.csv", 1)

    # a moved folder changes neither the run nor its bytes
    moved = given.rename(tmp_path / "moved")
    path.write_text(path.read_text().replace("folder: oof/", "folder: moved/"))
    second_output, _ = full(path)
    assert second_output.name == run.name
    assert (second_output.folder / "submission.csv").read_bytes() == before

    # their folds are not marked where they are ours, under other numbers
    made_folds = read_table(Paths("mine").folds, ["id"]).set_index("id")["fold"].astype(int)
    oof = read_table(moved / "c" / "oof.csv", ["id"])
    write_table(moved / "c" / "oof.csv", oof.assign(fold=9 - made_folds.loc[oof["id"]].to_numpy()))
    assert full(path)[1]["c"] == []


def test_folds_that_all_files_agree_on_are_adopted(tmp_path: Path) -> None:
    options, train_table, test = ids_alone(tmp_path)
    path, options = tmp_path / "mine.yaml", [*options, "--force", "--oof", str(tmp_path / "oof")]
    folds = np.arange(N_TRAIN) % 4
    write_external_predictions(tmp_path / "oof" / "a", train_table, test, TARGETS, folds=folds)
    for theirs, chosen, more in (
        (7 - folds, {"kind": "file", "file": "oof/a/oof.csv"}, []),
        (folds // 2, {"kind": "kfold"}, []),
        (folds // 2, {"kind": "stratified"}, ["--folds", "stratified"]),
    ):
        write_external_predictions(tmp_path / "oof" / "b", train_table, test, TARGETS, folds=theirs)
        commands.main(["new", str(path), *options, *more])
        assert yaml.safe_load(path.read_text())["folds"].items() >= chosen.items()


def test_a_preset_adds_its_stages_and_files_are_needed(tmp_path: Path) -> None:
    options, train_table, test = ids_alone(tmp_path, note=notes(N_TRAIN))
    path, oof = tmp_path / "mine.yaml", ["--oof", str(tmp_path / "oof")]
    with pytest.raises(DataError, match=r"--oof .*oof has no folder with oof\.csv and test\.csv"):
        commands.main(["new", str(path), *options, *oof])
    for name in ("lightgbm", "7th"):
        write_external_predictions(tmp_path / "oof" / name, train_table, test, TARGETS)
    commands.main(["new", str(path), *options, *oof, "--preset", "quick"])
    config = load_config(str(path))
    assert [stage.kind for stage in config.stages.values()][:3] == ["file", "file", "lightgbm"]
    assert list(config.stages)[:3] == ["stage_7th", "lightgbm_2", "lightgbm"]
    options, _, _ = ids_alone(tmp_path)
    with pytest.raises(DataError, match="is an input to learn from"):
        commands.main(["new", str(path), *options, *oof, "--force", "--preset", "quick"])
