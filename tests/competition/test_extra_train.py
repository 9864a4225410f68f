"""Extra training rows, weights and auxiliary targets, from CSV to rows; rows that would leak stay out."""

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import REFIT_FOLD, TIME, WEIGHT, Dataset, read_rows, without_extra_rows
from competition.prepare import describe, prepare, write_prepared
from core.errors import DataError, UserError
from core.files import write_table
from folds.kinds import FoldsConfig
from folds.make import make_folds
from folds.training_rows import training_rows
from tests.competition.small import prepared, write_small

NAN = np.nan
N = 12
TRAIN = ["id,SMILES,y", *(f"m{k},{'C' * k}O,{2 * k - 11}" for k in range(N))]
"""Alcohols with the labels -11, -9, ..., 11."""
MORE = "SMILES,y CCF,1 CCO,2 CCCC,3 C(C,4 CCI,"
"""A new molecule, one of the training table, one of the test table, one that does not parse, one without label."""
USED = "2 extra training rows from more.csv; left out: 3 without a usable input or label"


def with_columns(lines, **columns):
    """Append columns to a table given as lines."""
    header, *rows = lines
    cells = [",".join([row, *map(str, added)]) for row, *added in zip(rows, *columns.values(), strict=True)]
    return [",".join([header, *columns]), *cells]


def source(scale, n=N, shift=0):
    """The first training molecules, with labels in other units."""
    return ["SMILES,y", *(f"{'C' * k}O,{scale * (2 * k - 11) + shift}" for k in range(n))]


def with_more(folder, more, train=TRAIN, extra=None, **settings):
    """The clean tables of a competition with a file more.csv of extra rows."""
    (folder / "more.csv").write_text("\n".join(more.split() if isinstance(more, str) else more))
    return prepared(folder, train, **{"extra_train": [{"file": "more.csv", **(extra or {})}], **settings})


def test_extra_rows_train_in_every_fold_and_are_in_none(tmp_path):
    tables = with_more(tmp_path, MORE, extra={"weight": 0.25})
    assert USED in describe(tables.report)
    assert len(without_extra_rows(tables.train)) == N
    config = load_competition(str(tmp_path / "small.yaml"))
    write_table(tmp_path / "train.parquet", make_folds(config, FoldsConfig(n_folds=3), tables).train)
    rows = read_rows(tmp_path / "train.parquet", config.columns, labelled=True)
    assert rows.folds[rows.extra].tolist() == [-1, -1]
    assert rows.folds[~rows.extra].min() == 0
    assert rows.weights.tolist() == [1.0] * N + [0.25] * 2


def test_weights_of_extra_rows_by_the_competitions_column_are_said_to_be_unread(tmp_path):
    train, more = with_columns(TRAIN, trust=["1"] * N), with_columns(MORE.split(), trust=["0.1"] * 5)
    tables = with_more(tmp_path, more, train, weight="trust")
    assert "WARNING: trust of more.csv is not read; set weight of the table in extra_train" in describe(
        tables.report
    )
    assert (tables.train[WEIGHT].tail(2) == 1).all()


def test_what_is_changed_in_a_table_of_extra_rows_is_said(tmp_path):
    more = "SMILES,y,place CCF,1,Orle\u0301ans CCCCF,2,Caen"
    assert "WARNING: 1 cells and names of more.csv have decomposed letters" in describe(
        with_more(tmp_path, more).report
    )


@pytest.mark.parametrize(
    ("fold", "in_time_order", "trained"),
    [
        (0, True, "afg"),
        (0, False, "acdfg"),
        (1, True, "abdef"),
        (1, False, "abdef"),
        (REFIT_FOLD, True, "abcdefg"),
    ],
)
def test_an_extra_row_stays_out_of_the_job_that_holds_its_input_or_group_out_or_earlier_rows(
    fold, in_time_order, trained
):
    """The last four are extra rows: one at a time of its own, one of the group of b, one of no time, and the
    input of c.
    """
    rows = Dataset(
        list("abcdefg"),
        pd.DataFrame({"__input": list("abcdefc")}),
        np.zeros((7, 1)),
        extra=np.array([False] * 3 + [True] * 4),
        folds=np.array([-1, 0, 1, -1, -1, -1, -1]),
        groups=np.array([0, 1, 2, 3, 1, 4, 5]),
        times=np.array([1.0, 2.0, 3.0, 1.5, 0.5, NAN, 0.5]),
    )
    assert "".join(rows.take(training_rows(rows, fold, in_time_order)).ids) == trained


def test_extra_rows_bring_groups_and_times_by_their_names_or_are_reported_without_them(
    tmp_path,
):
    train = with_columns(TRAIN, batch=[f"b{k // 3}" for k in range(N)], day=range(N))
    more = with_columns(MORE.split(), plate=["b0", "", "b1", "b1", "b1"], day=["2.5", "", "1", "1", "1"])
    names, roles = {"SMILES": "structure", "batch": "plate"}, {"group": "batch", "time": "day"}
    more[0] = "structure,y,plate,day"
    tables = with_more(tmp_path, more, train, {"columns": names}, **roles)
    assert tables.train["batch"].tail(2).tolist() == ["b0", ""]
    np.testing.assert_array_equal(tables.train[TIME].tail(2), [2.5, NAN])
    assert "it is unknown" not in describe(tables.report)
    tables = with_more(tmp_path, MORE, train, **roles)
    assert tables.train["batch"].tail(2).tolist() == ["", ""]  # of no group
    for name, relation in (("batch", "share a group with"), ("day", "are later than")):
        line = f"more.csv has no {name!r}, so it is unknown whether its rows {relation} held-out rows"
        assert line in describe(tables.report)


@pytest.mark.parametrize(
    ("more", "extra", "message"),
    [
        (source(1, 5, 1000), {}, "on 5 shared inputs the median difference is 1e.03"),
        ("SMILES,y F,1500 CF,1750 CCF,1800", {}, r"their median is 1\.75e.03, .* from -11 to 11"),
        (source(1 / 27.2), {}, r"deviation is 0\.0368 times that"),
        (source(-0.15), {}, r"their correlation is -1\.00; .* labels are about -6\.67 x more\.csv \+0"),
        ("structure,y CCF,1", {}, "missing columns: SMILES"),
        ("SMILES,LUMO CCF,1", {}, "has none of the targets y; it has SMILES, LUMO. .*{y: THEIR NAME}"),
        (MORE, {"columns": {"Y": "y"}}, "'Y' is neither an input nor a target, group or time"),
    ],
)  # fmt: skip
def test_a_source_in_other_units_or_with_other_columns_is_refused(tmp_path, more, extra, message):
    with pytest.raises(UserError, match=f"extra_train.*{message}"):
        with_more(tmp_path, more, extra=extra)


def test_numbers_beside_classes_are_compared_as_numbers(tmp_path):
    """Every tenth of a unit is another number, and they are no classes."""
    train = with_columns(["id,SMILES,y", *(f"m{k},{'C' * k}O,{k % 2}" for k in range(N))], logp=range(N))
    extra = ["SMILES,logp", *(f"{'C' * k}O,{k + 0.1}" for k in range(N))]
    classes = {"problem_type": "binary", "metric": "roc_auc", "auxiliary_targets": ["logp"]}
    tables = with_more(tmp_path, "\n".join(extra), train, **classes)
    assert "12 inputs with 'logp' are also in the training table" in describe(tables.report)


def test_times_of_extra_rows_are_read_like_those_of_the_training_rows(tmp_path):
    dates = [f"2021-01-{1 + k:02d}" for k in range(N)]
    train = with_columns(TRAIN, day=dates)
    tables = with_more(tmp_path, "SMILES,y,day CCF,1,2021-01-03", train, time="day")
    assert tables.train[TIME].iloc[-1] == tables.train[TIME].iloc[2]
    years = with_more(tmp_path, "SMILES,y,day CCF,1,2022", train, time="day")
    assert years.train[TIME].argmax() == N  # a year among dates is its first day, and not a number
    dropped = [*train, "bad,C1CC,1,unknown"]
    kept = with_more(tmp_path, "SMILES,y,day CCF,1,2022", dropped, time="day", unparsable="drop")
    assert kept.train[TIME].tolist() == years.train[TIME].tolist()
    with pytest.raises(DataError, match=r"more\.csv, with train\.csv: .* row 2 .*'later'"):
        with_more(tmp_path, "SMILES,y,day CCF,1,later", train, time="day")


def test_extra_rows_have_no_times_if_times_are_ids(tmp_path):
    train = ["id,SMILES,y", *(f"{k},{'C' * (k + 1)}O,{k}" for k in range(N))]
    tables = with_more(tmp_path, "SMILES,y CCF,1", train, time="id")
    assert np.isnan(tables.train[TIME].iloc[-1])
    assert "more.csv: its ids are not read, so it is unknown whether its rows are later than" in describe(
        tables.report
    )


def test_labels_of_an_extra_table_must_have_a_score_too(tmp_path):
    with pytest.raises(DataError, match=r"more\.csv.* labels at or below -1, .* rmsle .*row 2"):
        with_more(
            tmp_path,
            "SMILES,y CCF,-1.5",
            with_columns(["id,SMILES", *(f"m{k},{'C' * k}O" for k in range(N))], y=range(N)),
            metric="rmsle",
        )


def test_groups_by_the_id_are_unknown_for_extra_rows(tmp_path):
    tables = with_more(tmp_path, "id,SMILES,y p0_9,CCF,1", group={"prefix": "id"})
    assert "more.csv: its ids are not read" in describe(tables.report)


def test_units_also_of_auxiliary_labels_are_not_checked_where_the_user_says_so(tmp_path):
    with_more(tmp_path, source(1000), extra={"check_units": False})
    heats = np.arange(N) - 5.5
    train, more = with_columns(TRAIN, heat=heats), with_columns(source(1), heat=4.184 * heats)
    with pytest.raises(DataError, match=r"of 'heat' seem .* the column, or set check_units: false"):
        with_more(tmp_path, more, train, auxiliary_targets=["heat"])
    with_more(tmp_path, more, train, {"check_units": False}, auxiliary_targets=["heat"])


def test_the_summary_says_on_which_scale_shared_inputs_are(tmp_path):
    more = [*source(-20, 10, shift=4), "CCI,>3"]
    said = describe(with_more(tmp_path, more, extra={"check_units": False}, censored="bound").report)
    assert (
        "more.csv: 10 inputs with 'y' are also in the training table; training labels are about -0.05 x more.csv +0.2 "
        "(rank correlation -1.00)"
    ) in said
    assert "only train the heads" not in said


CLASSES = {"problem_type": "multiclass", "metric": "mcc", "classes": ["low", "mid", "high"]}
OF_CLASSES = "id,SMILES,y a,C,low b,CC,mid c,CCO,high d,CO,low e,CN,mid f,CF,high"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("CCI,low C,mid CC,high CCO,low CO,low CN,mid", "mean something else.* only 40% of 5 shared inputs"),
        ("C,tiny CC,mid", r"labels that are none of the classes \('low', .*row 2.*'tiny'"),
    ],
)
def test_extra_rows_of_classes_have_the_competitions_classes_and_mostly_its_labels(tmp_path, more, message):
    with pytest.raises(DataError, match=message):
        with_more(tmp_path, f"SMILES,y {more}", OF_CLASSES, **CLASSES)
    half_alike = "SMILES,y C,low CC,mid CCO,high CO,high CN,low CF,low"
    tables = with_more(tmp_path, half_alike, OF_CLASSES, **CLASSES)
    assert tables.train["y"].tolist()[6:] == [0, 1, 2, 2, 0, 0]


def test_weights_and_auxiliary_targets_reach_the_rows(tmp_path):
    train = "id,SMILES,y,trust,logP a,CCO,1,0.5, b,CCC,2,1,7"
    config = load_competition(str(write_small(tmp_path, train, weight="trust", auxiliary_targets=["logP"])))
    write_prepared(prepare(config), config)
    rows = read_rows(config.paths.train, config.columns, labelled=True)
    np.testing.assert_array_equal(rows.auxiliary, [[NAN], [7]])
    assert rows.weights.tolist() == pytest.approx([2 / 3, 4 / 3])  # with the mean 1
    assert "logP" not in rows.inputs


def test_rows_with_auxiliary_labels_only_are_kept_and_counted_even_if_train_csv_lacks_the_column(
    tmp_path,
):
    roles = {"auxiliary_targets": ["logD"]}
    tables = with_more(tmp_path, MORE.replace("y", "logD"), **roles)
    np.testing.assert_array_equal(tables.train[["y", "logD"]].tail(3), [[NAN, 1], [NAN, 2], [NAN, 3]])
    only_heads = (
        "3 extra training rows from more.csv ({} only train the heads of auxiliary_targets); left out: "
    )
    assert only_heads.format(3) in describe(tables.report)
    tables = with_more(tmp_path, "SMILES,y,logD CCF,1, CCO,,2 CCCC,3,3", **roles)
    assert only_heads.format(2) in describe(tables.report)


def test_answers_in_an_extra_table_train_nothing_unless_it_is_allowed_and_other_assays_do(tmp_path):
    """CCCC is a test row; >1 is an answer, too."""
    roles = {"auxiliary_targets": ["logD"], "censored": "bound"}
    others = {"check_units": False}
    said = "WARNING: more.csv has labels of 1 of 2 test rows, which are"
    masked = [
        with_more(tmp_path, f"SMILES,y,logD CCF,1, CCCC,{answer},7", extra=others, **roles)
        for answer in ("3", "5", ">1")
    ]
    for tables in masked:
        assert tables.report["answers"] == [
            f"{said} not trained on; if the rules allow it, set test_molecules: train in extra_train"
        ]
        np.testing.assert_array_equal(tables.train[["y", "logD"]].tail(2), [[1, NAN], [NAN, 7]])
        pd.testing.assert_frame_equal(tables.train, masked[0].train)
    tables = with_more(
        tmp_path, "SMILES,y,logD CCF,1, CCCC,3,7", extra={**others, "test_molecules": "train"}, **roles
    )
    np.testing.assert_array_equal(tables.train[["y", "logD"]].tail(2), [[1, NAN], [3, 7]])
    assert tables.report["answers"][0].startswith(f"{said} trained on (test_molecules: train)")
    assert tables.report["answers"][0] in describe(tables.report)


def test_a_label_of_a_salt_of_a_test_molecule_is_an_answer_too(tmp_path):
    tables = with_more(tmp_path, "SMILES,y CCF,1 CCCC.Cl,3")
    assert tables.report["answers"][0].startswith("WARNING: more.csv has labels of 1 of 2 test rows")
    assert tables.train["SMILES"].tolist()[N:] == ["CCF"]


def test_a_label_of_a_copy_of_a_test_text_is_an_answer_too(tmp_path):
    colours = [
        "red",
        "green",
        "blue",
        "grey",
        "black",
        "white",
        "pink",
        "brown",
        "gold",
        "rose",
        "ruby",
        "lime",
    ]
    texts = [f"a {colour} {noun}" for colour in colours for noun in ("house", "car")]
    train = ["id,text,y", *(f"r{k},{text},{k}" for k, text in enumerate(texts))]
    test, sample = ["id,text", "t1,A cold thing!", "t2,an old thing"], ["id,y", "t1,0", "t2,0"]
    (tmp_path / "more.csv").write_text("text,y\nRT @me: a cold thing https://t.co/x,3\na new thing,4\n")
    roles = {"smiles": None, "text": ["text"], "extra_train": [{"file": "more.csv"}]}
    tables = prepared(tmp_path, train, test, sample, **roles)
    assert tables.report["answers"][0].startswith("WARNING: more.csv has labels of 1 of 2 test rows")
    assert tables.train["text"].tolist()[len(texts) :] == ["a new thing"]


def test_an_auxiliary_target_that_no_table_has_is_reported_with_the_tables(tmp_path):
    message = r"no usable row of \S*train\.csv, \S*more\.csv has a label for logD\. Remove"
    with pytest.raises(DataError, match=message):
        with_more(tmp_path, "SMILES,y,logD CCF,1, CCCC,2,", auxiliary_targets=["logD"])
    with pytest.raises(DataError, match=r"train\.csv: missing columns: logD"):
        with_more(tmp_path, MORE, auxiliary_targets=["logD"], extra_train=[])
