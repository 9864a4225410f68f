"""folds.csv: made once, kept while nothing changes, and described; folds of the user's own and blocks in time:
taken and refused.
"""

import warnings
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import GROUP, read_rows
from competition.labels import labels_or_indicators
from core.errors import ConfigError, DataError
from core.files import read_json, read_table, write_table
from folds import make
from folds.kinds import FOLD_KINDS, FoldKind
from folds.soundness import missing_class_warnings
from folds.training_rows import training_rows
from models.jobs.plan import make_plan
from submissions.config import load_config
from tests.competition.small import TRAIN, write_small
from tests.conftest import new_process
from tests.folds.made import divided

NAN = np.nan
ABC = list("abc")
MOLECULES = ["CCO", "CCC", "CCN", "c1ccccc1", "CC(=O)O", "CCCl"]


def user_folds(folder, kind, cells="001122", more="", **folds):
    """Six rows with a cell each of a column `own`, which is the time and the fold column alike, and some more."""
    rows = [f"{i},{s},1,{cell}" for i, s, cell in zip("abcdef", MOLECULES, cells, strict=True)]
    role = "time" if kind == "time" else "fold_column"
    lines = ["id,SMILES,y,own", *rows, *more.split()]
    return write_small(folder, lines, folds={"kind": kind, **folds}, **{role: "own"})


def groups_in(table):
    return read_table(table)[GROUP].tolist()


def key_of(path):
    config = load_config(str(path))
    return make_plan(config.competition, dict(config.stages)).keys["trees"]


def test_the_table_names_every_training_id_once_and_is_described(tmp_path):
    output, paths, folds = divided(write_small(tmp_path, [*TRAIN, "g,OCC,8.0"]))
    assert sorted(np.bincount(folds)) == [2, 2, 3]
    assert folds[0] == folds[6]  # a and g are one molecule
    groups = groups_in(paths.train)
    assert groups[0] == groups[6] and len(set(groups)) == 6
    labels = pd.Series([1, 2, 3, 4, 5, 6, 8]).groupby(folds)
    for fold, line in enumerate(output.splitlines()[-3:]):
        n_rows, mean = folds.count(fold), labels.mean()[fold]
        assert line.split() == [str(fold), str(n_rows), f"{mean:.4g}"]


def test_folds_are_reused_while_nothing_changes_and_rebuilt_when_settings_seed_rows_or_code_do(
    tmp_path,
):
    path = write_small(tmp_path)
    first = divided(path)[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(make, "assign_folds")
        assert divided(path)[2] == first
        patch.setattr(make, "code_digest_of", lambda file: "edited")
        with pytest.raises(NameError, match="assign_folds"):
            divided(path)
    load_competition(str(path)).paths.test.unlink()
    assert divided(path)[2] == first
    assert np.bincount(divided(path, n_folds=2)[2]).tolist() == [3, 3]
    path.write_text(path.read_text().replace("competition:", "competition:\n  seed: 5"))
    assert divided(path)[2] != first
    assert sorted(np.bincount(divided(write_small(tmp_path, [*TRAIN, "g,CCCCCC,7.0"]))[2])) == [2, 2, 3]


def test_rows_that_have_another_fold_than_before_are_counted(tmp_path, capsys):
    path = user_folds(tmp_path, "file", file="mine.csv")
    file = path.with_name("mine.csv")
    for content, said in (
        ("id,fold\na,0\nb,1\nc,0\nd,1\ne,0\nf,1\n", ""),
        ("fold,id\n0,a\n1,b\n0,c\n1,d\n0,e\n1,f\n", ""),
        ("id,fold\na,0\nb,1\nc,0\nd,1\ne,1\nf,0\n", "2 of 6 training rows have another fold than before"),
    ):
        file.write_text(content)
        divided(path)
        out = capsys.readouterr().out
        assert said in out and ("another fold" in out) == bool(said)


def test_user_defined_folds_are_taken_as_they_are_and_reread_when_they_change(tmp_path):
    assert divided(user_folds(tmp_path, "column", ["2", "0", "1", "0", "-1", "2"]))[2] == [2, 0, 1, 0, -1, 2]
    path = user_folds(tmp_path, "file", file="mine.csv")
    for content, folds in (
        ("fold,id\n0,f\n1,e\n1,d\n0,c\n2,b\n2,a\n", [2, 2, 0, 1, 1, 0]),
        ("id,fold\na,0\nb,1\nc,0\nd,1\ne,0\nf,1\n", [0, 1, 0, 1, 0, 1]),
    ):
        path.with_name("mine.csv").write_text(content)
        assert divided(path)[2] == folds


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("id,fold a,0 b,1 c,0 d,1 e,0 x,1", r"1 of its ids are .* \('x'\), and 1 rows are missing \('f'\)"),
        ("id,fold a,0 b,1 c,0 d,1 e,0 f,1 x,1", r"1 of its ids are .* \('x'\), and 0 rows are missing"),
        ("id,fold a,0 a,1 b,1 c,0 d,1 e,0 f,1", "duplicate ids: 'a'"),
        ("id,fold a,0 b, c,0 d,1 e,-2 f,1", r"folds that are .* row 3 \(id 'b'\): '', row 6 \(id 'e'\): '-2'"),
        ("id,part a,0", "missing columns: fold"),
        ("id,fold a,0 b,2 c,0 d,2 e,0 f,2", r"fold of 0 to n-1.* got \[0, 2\]"),
        ("id,fold a,0 b,0 c,0 d,0 e,0 f,-1", r"got \[0\]"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(tmp_path, lines, words):
    (tmp_path / "mine.csv").write_text(lines.replace(" ", "\n") + "\n")
    with pytest.raises(DataError, match=words):
        divided(user_folds(tmp_path, "file", file="mine.csv"))


@pytest.mark.parametrize("folds", [[0, 0, 0, 0, 1, 1], [1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2]])
def test_a_kind_of_folds_gives_every_row_a_fold_of_0_to_n_folds(folds, tmp_path, monkeypatch):
    monkeypatch.setitem(FOLD_KINDS, "mine", FoldKind(lambda data: np.array(folds)))
    with pytest.raises(DataError, match=r"folds\.kind mine must give each of 6 rows a fold .* for [56] rows"):
        divided(write_small(tmp_path), kind="mine", n_folds=3)


def test_a_kind_of_folds_that_divides_a_group_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(FOLD_KINDS, "mine", FoldKind(lambda data: np.arange(len(data.groups)) % data.n_folds))
    assert divided(write_small(tmp_path), kind="mine")[2] == [0, 1, 2, 0, 1, 2]
    path = write_small(tmp_path, [*TRAIN, "h,OCC,8.0"])  # the molecule of a
    with pytest.raises(
        DataError, match=r"folds\.kind mine .* 1 are in several \(the first: 'a' in 0, 'h' in 2"
    ):
        divided(path, kind="mine", n_folds=4)


def test_user_defined_folds_that_split_equal_inputs_are_refused_or_counted_and_reported(
    tmp_path,
):
    path = user_folds(tmp_path, "column", "011202", "g,OCC,1,1")
    with pytest.raises(DataError, match=r"1 are in several \(the first: 'a' in 0, 'g' in 1\)"):
        divided(path)
    output, paths, folds = divided(path, allow_split_duplicates=True)
    assert folds == [0, 1, 1, 2, 0, 2, 1]
    assert "1 inputs are in several folds" in output
    groups = groups_in(paths.train)
    assert groups[0] == groups[6] and len(set(groups)) == 6


DATES = ["2021-03-01", "2020-01-01", "2023-01-01", "2022-05-05", "2020-06-01", "2024-01-01"]


@pytest.mark.parametrize(("fold", "trained"), [(0, "be"), (1, "abde")])
def test_rows_that_train_with_folds_in_time_are_of_earlier_blocks_alone(tmp_path, fold, trained):
    path = user_folds(tmp_path, "time", DATES, n_folds=2)
    _, paths, folds = divided(path)
    assert folds == [0, -1, 1, 0, -1, 1]
    rows = read_rows(paths.train, load_competition(str(path)).columns, labelled=True)
    assert "".join(rows.take(training_rows(rows, fold, in_time_order=True)).ids) == trained


def test_equal_folds_in_time_or_with_other_groups_give_other_keys(tmp_path):
    in_time = user_folds(tmp_path, "time", "001122", n_folds=2)
    divided(in_time)
    keys = {key_of(in_time)}
    path = user_folds(tmp_path, "column", ["-1", "-1", "0", "0", "1", "1"])
    _, paths, folds = divided(path)
    assert folds == [-1, -1, 0, 0, 1, 1]
    keys.add(key_of(path))
    write_table(paths.train, read_table(paths.train).assign(**{GROUP: [0, 0, 1, 1, 2, 2]}))
    keys.add(key_of(path))
    assert len(keys) == 3


def test_shares_are_of_each_class_or_of_the_second_of_two_among_the_rows_with_a_label():
    y = pd.DataFrame({"y": [0, 1, 2, 2, NAN]})
    assert labels_or_indicators(y, ABC).mean().to_dict() == {"y=a": 0.25, "y=b": 0.25, "y=c": 0.5}
    two = pd.DataFrame({"y": [0, 1, 1, 1, NAN], "z": [NAN, NAN, NAN, 0, 1]})
    assert labels_or_indicators(two, ["no", "yes"]).mean().to_dict() == {"y=yes": 0.75, "z=yes": 0.5}
    many = pd.DataFrame({"y": np.repeat(range(120), range(1, 121))})
    with warnings.catch_warnings(action="error"):  # pandas warns of a table that is made column by column
        shares = labels_or_indicators(many, [f"c{i}" for i in range(120)])
    assert list(shares) == [f"y=c{i}" for i in range(12)]  # the rarest


Y = [0, 0, 0, 1, 1, 2, NAN, 0, 1]
FOLDS = [0, 1, 2, 0, 1, 2, 0, 1, 2]


def untrained(label, fold):
    return (
        f"WARNING: y: no row of '{label}' trains the models of fold {fold}, which give it the probability 0; merge "
        "rare classes, or choose another folds.kind"
    )


NO_ROW_OF_C = (
    "y: some folds have no row of 'c' (1 rows); their scores by fold tell nothing about these classes"
)


@pytest.mark.parametrize(
    ("y", "classes", "folds", "in_time", "expected"),
    [
        (Y, ABC, FOLDS, False, [NO_ROW_OF_C, untrained("c", 2)]),
        (Y, ABC, [0, 1, 2, 0, 1, -1, 0, 1, 2], False, [NO_ROW_OF_C]),  # such rows train in every fold
        ([*Y, 2], ABC, FOLDS, False, [NO_ROW_OF_C.replace("1 rows", "2 rows")]),  # a row of extra_train
        (Y, [], FOLDS, False, []),
        (
            [0, 0, 1, NAN], ["a", "b"], [0, 0, 1, 1], False,
            [
                "y: some folds have no row of 'a' (2 rows), 'b' (1 rows); their scores by fold tell nothing about "
                "these classes",
                untrained("a", 0), untrained("b", 1),
            ],
        ),
        (
            [0, 1, 0, 1], ["a", "b"], [-1, 0, 0, 1], True,  # blocks train on earlier ones
            [
                "y: some folds have no row of 'a' (2 rows); their scores by fold tell nothing about these classes",
                untrained("b", 0),
            ],
        ),
    ],
)  # fmt: skip
def test_classes_that_a_fold_or_its_models_do_not_have_are_reported(y, classes, folds, in_time, expected):
    warnings = missing_class_warnings(pd.DataFrame({"y": y}), classes, np.array(folds), in_time)
    assert warnings == expected


def test_the_table_of_folds_shows_classes(tmp_path):
    train = "id,SMILES,y a,CCO,no b,CCC,yes c,CCN,yes d,CO,no e,CN,yes f,CCl,rare"
    path = write_small(tmp_path, train, problem_type="multiclass", metric="accuracy")
    output, _, _ = divided(path, kind="stratified")
    assert "some folds have no row of 'no' (2 rows), 'rare' (1 rows)" in output
    (line,) = [line.split() for line in output.splitlines() if line.startswith("share of y=yes")]
    assert line[3:] == ["0.5", "0.5", "0.5"]


def test_fewer_groups_than_folds_are_said(tmp_path):
    path = write_small(
        tmp_path, [TRAIN[0] + ",g", *(f"{row},{i % 3}" for i, row in enumerate(TRAIN[1:]))], group="g"
    )
    output, _, folds = divided(path, kind="group", n_folds=5)
    assert set(folds) == {0, 1, 2}
    assert "WARNING: 3 folds instead of the 5 of folds.n_folds, since the rows form only 3 groups" in output


def test_a_group_that_is_too_large_for_few_folds_is_refused_with_a_number_that_suffices():
    """Of 340 rows 60 are in other groups: a sixth, but no fifth."""
    groups = np.repeat(range(7), [280, 10, 10, 10, 10, 10, 10])
    ids = pd.Series([f"r{k}" for k in range(340)])
    make._require_divisible(groups, 6, ids)
    with pytest.raises(DataError, match=r"all others 60\. Set folds\.n_folds to 6, split that group"):
        make._require_divisible(groups, 5, ids)
    with pytest.raises(DataError, match=r"all others 20\. Split that group"):
        make._require_divisible(np.repeat(range(3), [280, 10, 10]), 2, ids)


@pytest.mark.parametrize(("ids", "n_without"), [("r1 r2 r3 r4 r5 r6", 6), ("a_1 a_2 b_1 b_2 c1 c_2", 1)])
def test_rows_without_the_computed_unit_are_counted(tmp_path, ids, n_without):
    """Without a sign such as _ or -, an id has no prefix."""
    lines = ["id,SMILES,y", *(f"{i},{s},1" for i, s in zip(ids.split(), MOLECULES, strict=True))]
    path = write_small(tmp_path, lines, folds={"kind": "group", "n_folds": 2}, group={"prefix": "id"})
    output, _, _ = divided(path)
    said = f"WARNING: {n_without} of 6 training rows have no prefix of 'id', which defines groups"
    assert said in output


def test_folds_of_the_user_without_a_group_say_what_intervals_assume(tmp_path):
    lines = [f"{row},{cell}" for row, cell in zip(TRAIN, ["fold", *"010101"], strict=True)]
    said = "name what these share in competition.group"
    columns = {"kind": "column", "allow_split_duplicates": True}
    assert said in divided(write_small(tmp_path, lines, folds=columns, fold_column="fold"))[0]
    lines = [f"{row},{cell}" for row, cell in zip(lines, ["plate", *"aabbcc"], strict=True)]
    path = write_small(tmp_path, lines, folds=columns, fold_column="fold", group="plate")
    assert said not in divided(path)[0]


@pytest.mark.parametrize("kind", ["kfold", "scaffold"])
def test_a_group_that_the_kind_of_folds_does_not_keep_together_is_a_warning(tmp_path, kind):
    lines = [f"{row},{cell}" for row, cell in zip(TRAIN, ["plate", *"aabbcc"], strict=True)]
    said = f"groups of competition.group are in several folds of folds.kind {kind}"
    for folds in (kind, "group"):
        path = write_small(tmp_path, lines, folds={"kind": folds, "n_folds": 2}, group="plate")
        assert (said in divided(path)[0]) == (folds == kind)
    whole = write_small(
        tmp_path, lines, folds={"kind": "scaffold", "n_folds": 2}, group={"scaffold": "SMILES"}
    )
    assert "groups of competition.group" not in divided(whole)[0]


@pytest.mark.parametrize(
    ("n_elsewhere", "kind", "is_said"), [(5, "group", True), (6, "group", False), (5, "kfold", False)]
)
def test_a_class_of_which_most_rows_are_in_one_group_is_a_warning(tmp_path, n_elsewhere, kind, is_said):
    """Six rows of "rare" are on plate p0, and one on each of some others; common rows are on all plates."""
    plates = ["p0"] * 6 + [f"p{k}" for k in range(1, 1 + n_elsewhere)] + [f"p{k % 7}" for k in range(70)]
    labels = ["rare"] * (6 + n_elsewhere) + ["common"] * 70
    rows = enumerate(zip(plates, labels, strict=True))
    lines = ["id,SMILES,y,plate", *(f"r{k},C{'N' * k}C,{label},{plate}" for k, (plate, label) in rows)]
    path = write_small(
        tmp_path,
        lines,
        problem_type="binary",
        metric="log_loss",
        group="plate",
        folds={"kind": kind, "n_folds": 3},
    )
    said = "most rows of a class are in one group: 6 of the 11 rows of y 'rare' are in 'p0'. "
    assert (said in divided(path)[0]) == is_said


@pytest.mark.parametrize(("folds", "n_groups"), [([0, 0, 1, 1, 0, 0], 3), ([0, 1, 1, 1, 0, 0], 6)])
def test_groups_are_resampled_with_folds_of_the_user_that_divide_none_of_them(tmp_path, folds, n_groups):
    cells = zip(
        TRAIN,
        ["plate,fold", *(f"{plate},{fold}" for plate, fold in zip("aabbcc", folds, strict=True))],
        strict=True,
    )
    lines = [f"{row},{more}" for row, more in cells]
    path = write_small(tmp_path, lines, folds={"kind": "column"}, group="plate", fold_column="fold")
    _, paths, found = divided(path)
    assert (found, len({*groups_in(paths.train)})) == (folds, n_groups)


@pytest.mark.parametrize("kind", ["file", "column", "mine.py:halves"])
def test_extra_rows_have_the_groups_of_the_competition_with_folds_of_the_user(tmp_path, kind):
    rows = [
        f"{row},{more}" for row, more in zip(TRAIN, ["plate,fold", *["a,0"] * 3, *["b,1"] * 3], strict=True)
    ]
    (tmp_path / "more.csv").write_text("SMILES,y,plate\nCCCCCCBr,1,a\nCCCCCCI,2,b\nCCCCCCF,3,c\n")
    folds = {"kind": kind, **({"file": "folds.csv"} if kind == "file" else {})}
    ids = [row.partition(",")[0] for row in TRAIN[1:]]
    (tmp_path / "folds.csv").write_text(
        "\n".join(["id,fold", *(f"{name},{k // 3}" for k, name in enumerate(ids))])
    )
    (tmp_path / "mine.py").write_text("halves = lambda data: (data.rows['plate'] == 'b').astype(int)")
    settings = {"group": "plate", "extra_train": [{"file": "more.csv"}]}
    if kind == "column":
        settings["fold_column"] = "fold"
    elif kind.startswith("mine"):
        folds["n_folds"] = 2
    _, paths, _ = divided(write_small(tmp_path, rows, folds=folds, **settings))
    groups = groups_in(paths.train)
    assert groups[6] == groups[0] and groups[7] == groups[3] and groups[8] not in groups[:6]


def test_extra_rows_of_two_groups_are_counted(tmp_path):
    """The last one has the plate of the first training row, and the molecule of the last one with a salt."""
    rows = [f"{row},{cell}" for row, cell in zip(TRAIN, ["plate", *"aabbcc"], strict=True)]
    last = TRAIN[-1].split(",")[TRAIN[0].split(",").index("SMILES")]
    (tmp_path / "more.csv").write_text(f"SMILES,y,plate\nCCCCCCBr,1,a\n{last}.Cl,2,a\n")
    settings = {"group": "plate", "extra_train": [{"file": "more.csv"}]}
    lines, _, _ = divided(write_small(tmp_path, rows, folds={"kind": "group", "n_folds": 2}, **settings))
    assert "WARNING: 1 of 2 extra rows are in two groups, and are not trained on" in lines


def test_rows_without_a_molecule_are_in_no_group_by_it(tmp_path):
    """Of six, four have no additive, which is read as argon, and two have the same."""
    rows = [f"{row},{cell}" for row, cell in zip(TRAIN, ["additive", "", "", "O", "", "O", ""], strict=True)]
    test = ["id,SMILES,additive", "t1,CCCC,N", "t2,CCBr,"]
    settings = {"smiles": ["SMILES", "additive"], "empty_smiles": "[Ar]", "group": "additive"}
    _, paths, _ = divided(write_small(tmp_path, rows, test, folds={"kind": "group"}, **settings))
    groups = groups_in(paths.train)
    assert groups[2] == groups[4] and len({*groups}) == 5


def test_another_group_of_the_same_tables_makes_other_folds(tmp_path):
    """Both columns are inputs, so that the prepared tables stay the same."""
    rows = [f"r{k},{k},{k % 3},{k // 4},{k % 5}" for k in range(12)]
    test = ["id,x,a,b", "t1,1,1,1"]
    settings = {"smiles": None, "numeric": ["x", "a", "b"], "folds": {"kind": "group", "n_folds": 3}}
    for name in ("a", "b"):
        path = write_small(tmp_path, ["id,x,a,b,y", *rows], test, ["id,y", "t1,0"], group=name, **settings)
        _, paths, folds = divided(path)
        column = read_table(tmp_path / "train.csv")[name]
        assert len(set(zip(column, folds, strict=True))) == 3


SPLITTERS = """
from pathlib import Path

def split(data):
    per_fold = int(Path(__file__).with_name("size.txt").read_text())
    return [i // per_fold for i in range(len(data.rows))]

def columns(data):
    return [[0, 1]] * len(data.rows)

def first_only(data):
    return [0] * len(data.rows)

def missing(data):
    return [float("nan"), 0, 1, 2, 0, 1]

def pairs(data):
    yield [0, 1, 2], [3, 4, 5]

def divides(data):
    return [0, 1, 2, 0, 1, 2, 1]
"""


@pytest.fixture
def mine(tmp_path):
    """A YAML whose folds are those of a function `split` next to it, which reads a file."""
    (tmp_path / "mine.py").write_text(SPLITTERS)
    (tmp_path / "size.txt").write_text("2")
    return write_small(tmp_path, folds={"kind": "mine.py:split", "n_folds": 3})


def test_the_folds_of_a_function_of_the_users_are_made_again_after_an_edit_of_it_or_of_its_data(mine):
    """Folds are in the training table, which is in the key of every job."""
    output, paths, folds = divided(mine)
    assert folds == [0, 0, 1, 1, 2, 2]
    assert read_json(paths.prepare_report)["opened"] == {"mine.py": {"size.txt": ANY}}
    made = paths.train.stat().st_mtime_ns
    new_process()
    assert divided(mine)[2] == folds
    assert paths.train.stat().st_mtime_ns == made
    mine.with_name("mine.py").write_text(SPLITTERS.replace("i // per_fold", "i % 3"))
    before = divided(mine)[2]
    assert before == [0, 1, 2, 0, 1, 2]
    mine.with_name("mine.py").write_text(SPLITTERS)
    assert divided(mine)[2] == folds
    new_process()
    mine.with_name("size.txt").write_text("3")
    with pytest.raises(ConfigError, match="got 0, 1 in shape"):
        divided(mine)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("columns", r"must return one fold for each of 6 rows: 0 to 2 .* got 0, 1 in shape \(6, 2\)\."),
        ("first_only", r"each at least once, .* got 0 in shape \(6,\)"),
        ("missing", "got 0, 1, 2, nan in shape"),
        ("pairs", r"mine\.py:pairs must return the fold of each row; TypeError"),
        ("absent", r"mine\.py must define split\(data\)"),
    ],
)
def test_what_is_no_fold_of_each_row_is_refused(mine, name, message):
    with pytest.raises(ConfigError, match=message):
        divided(mine, kind=f"{mine.with_name('mine.py')}:{name}")


def test_a_function_of_the_users_that_divides_equal_inputs_is_refused(mine):
    train = mine.with_name("train.csv")
    train.write_text(train.read_text() + "g,OCC,1\n")  # the molecule of a
    with pytest.raises(DataError, match=r"folds\.kind mine\.py:divides must keep .* 'a' in 0, 'g' in 1"):
        divided(mine, kind=f"{mine.with_name('mine.py')}:divides")
