"""Raw tables: what is refused, with the row named, and what is cleaned and counted."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from competition.cells import canonical_cells
from competition.config import load_competition
from competition.dataset import INPUT_KEY, TIME, read_prepared, read_rows
from competition.prepare import describe, prepare, prepare_test, write_prepared
from competition.summary import _count_without_common_word
from core.errors import DataError, UserError
from core.files import read_table, write_table
from tests.competition.small import TRAIN, prepared, write_small

TEXT = {"smiles": None, "text": ["SMILES"]}


def third_row(line):
    """The training table with another third row, which is row 4 of the file."""
    return [*TRAIN[:3], line, *TRAIN[4:]]


def of_column(role, *cells):
    """A training table with a column `t` of a role."""
    rows = [f"m{i},{'C' * (i + 1)},{i},{cell}" for i, cell in enumerate(cells)]
    return {"train": ["id,SMILES,y,t", *rows], role: "t"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": "id,y a,1"}, r"train\.csv: missing columns: SMILES; available: id, y"),
        ({"train": "id,SMILES,y"}, r"train\.csv has no row"),
        ({"train": [*TRAIN, "a,CC,1"]}, r"train\.csv: duplicate ids: 'a'"),
        ({"train": third_row(",CC,1")}, r"train\.csv: row 4 has no id"),
        ({"sample": "id,y t1,0 t9,0"}, r"only in the first: 't9'; only in the second: .*'t2'.*Use the files of one"),
        ({"sample": "id,y t1,0"}, "Remove these rows from the test table if they need no prediction"),
        ({"sample": "id,z t1,0 t2,0"}, r"must have the columns id, y; got id, z"),
        ({"train": third_row("c,CCN,high")}, r"'y' has .*: row 4 \(id 'c'\): 'high'\. Rewrite them like 1234.5"),
        ({"train": third_row("\n  \nc,CCN,inf")}, r"row 6 \(id 'c'\): 'inf'"),  # empty rows count
        ({"train": third_row("c,CCN,1e101")}, r"row 4 \(id 'c'\): '1e101'"),
        ({"train": "id,SMILES,y a,bad,1 b,CC,", "unparsable": "drop"}, "no label at all for y"),
        ({"train": "id,SMILES,y a,bad,1", "unparsable": "drop"}, "no row with readable molecules and texts"),
        ({"train": third_row("c,c1ccccc,4")}, r"row 4 \(id 'c'\): 'c1ccccc'.*unparsable: drop"),
        ({"train": third_row("c, ,4")}, r"row 4 .*drop before .*, or empty_smiles: \"\[Ar\]\" where"),
        ({"test": "id,SMILES t1,CC t2,what"}, r"test\.csv: .*row 3 \(id 't2'\): 'what'"),
        ({"empty_smiles": "none"}, r"empty_smiles, 'none', is not a valid SMILES\. Correct it"),
        ({"train": third_row("c, ,4"), **TEXT}, r"has empty texts: row 4 \(id 'c'\)"),
        (of_column("time", "1", "", "3"), r"'t' has times that are neither .*: row 3 \(id 'm1'\): ''\. "),
        (of_column("fold_column", "0", "", "1"), r"'t' has folds that are neither .*: row 3 \(id 'm1'\): ''"),
        (of_column("weight", "1", "0", "1"), r"'t' has weights that are not above 0: row 3 \(id 'm1'\)"),
        ({"train": third_row("c,CCN,-1"), "metric": "rmsle"}, r"at or below -1, where .* row 4 \(id 'c'\): '-1'"),
    ],
)  # fmt: skip
def test_a_broken_table_is_refused_and_the_place_reported(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        prepared(tmp_path, **settings)


@pytest.mark.filterwarnings("error")
def test_hundreds_of_columns_are_cleaned_without_a_warning_of_pandas(tmp_path):
    names = [f"n{column}" for column in range(240)]
    cells = ",".join(["0.5"] * 120 + ["p"] * 120)
    train, test = ([f"id,{','.join(names)}{end}"] for end in (",y", ""))
    train += [f"{name},{cells},{number}" for number, name in enumerate("abcd")]
    test += [f"t{number},{cells}" for number in (1, 2)]
    tables = prepared(tmp_path, train, test, smiles=[], numeric=names[:120], categorical=names[120:])
    assert tables.test[names].iloc[0].tolist() == [0.5] * 120 + ["p"] * 120


@pytest.mark.parametrize(
    ("others", "is_kept"), [({"numeric": ["n"]}, True), ({"text": ["t", "u"]}, True), ({}, False)]
)
def test_an_empty_text_beside_other_inputs_is_a_text(tmp_path, others, is_kept):
    """A row is left out if all that it has are empty texts."""
    train = ["id,t,u,n,y", *(f"{name},word {name},two words,{i},{i}" for i, name in enumerate("abdef"))]
    rows = ["c, ,three words,1,4", "g,,,,2"]
    settings = {"smiles": [], "text": ["t"], "unparsable": "drop", **others}
    tables = prepared(tmp_path, [*train, *rows], "id,t,u,n t1,x,x,1 t2,,x,1", **settings)
    kept = {*tables.train["id"]} & {"c", "g"}
    has_numbers = "numeric" in others
    assert kept == ({"c", "g"} if has_numbers else {"c"} if is_kept else set())
    assert tables.test["id"].tolist() == (["t1", "t2"] if is_kept else ["t1"])
    line = f"{len(kept) + 1} of {5 + len(kept) + 2} texts of t are empty"
    assert (line in describe(tables.report)) == is_kept


@pytest.mark.parametrize("role", ["numeric", "categorical", "text"])
@pytest.mark.parametrize(("in_test", "is_said"), [("", True), ("2", False)])
def test_a_column_that_is_empty_in_all_test_rows_is_warned_of(tmp_path, role, in_test, is_said):
    train = ["id,SMILES,n,y", *(f"m{i},{'C' * (i + 1)},{i},{i}" for i in range(4)), "m4,CO,,1"]
    tables = prepared(tmp_path, train, f"id,SMILES,n t1,CN,{in_test} t2,CCN,", **{role: ["n"]})
    line = "WARNING: n is filled in 4 training rows, and empty in all test rows"
    assert (line in describe(tables.report)) == is_said


def test_labels_may_be_missing_ids_keep_their_zeros_and_texts_their_na(tmp_path):
    labels = ["1.5", "", "NA", "NaN", " null ", "-2e1"]
    train = ["id,SMILES,y", *(f"{i},{'C' * (i + 1)},{y}" for i, y in enumerate(labels))]
    tables = prepared(tmp_path, train)
    np.testing.assert_array_equal(tables.train["y"], [1.5, np.nan, np.nan, np.nan, np.nan, -20.0])
    assert "missing labels: y 4" in describe(tables.report)
    train = ["id,SMILES,y", "007,NA,1", "7,none,2", "1e3,a text,3"]
    tables = prepared(tmp_path, train, "id,SMILES 008,null 8,NaN", "id,y 8,0 008,0", **TEXT)
    assert tables.train["id"].tolist() == ["007", "7", "1e3"]
    assert tables.train["SMILES"].tolist() == ["NA", "none", "a text"]
    assert tables.test["SMILES"].tolist() == ["null", "NaN"]


def test_the_same_input_in_other_words_is_a_duplicate_and_counted_across_tables(tmp_path):
    train = "id,SMILES,y a,OCC,1 b,CCO,2 c,C(O)C,3 d,CCC,4"
    tables = prepared(tmp_path, train, "id,SMILES t1,C(C)O a,CN", "id,y t1,0 a,0")
    keys = tables.train[INPUT_KEY]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert "2 training rows repeat the input" in describe(tables.report)
    assert "1 test rows have an input that is also in the training table" in describe(tables.report)
    lines = ["id,SMILES,y", "a,Good  day,1", "b,good day ,2", "c,\uff47ood\u00a0DAY,3", "d,bad day,4"]
    tables = prepared(tmp_path, lines, **TEXT)
    assert "2 training rows repeat the input" in describe(tables.report)
    assert tables.train["SMILES"].tolist()[:2] == ["Good  day", "good day "]  # as written
    train = "id,SMILES,pH,y a,CCO,1,1 b,OCC,1.0,2 c,CCO,2,3 d,CCO,,4 e,CCO,NA,5"
    keys = prepared(tmp_path, train, "id,SMILES,pH t1,C,1 t2,C,2", numeric=["pH"]).train[INPUT_KEY]
    assert keys[0] == keys[1] != keys[2] != keys[3] == keys[4]


def test_rows_that_cannot_be_read_are_dropped_only_if_configured_and_are_reported(tmp_path):
    test = "id,SMILES t1, t2,CCBr"
    tables = prepared(tmp_path, third_row("c,not,4"), test, unparsable="drop")
    assert (tables.train["id"].tolist(), tables.sample["id"].tolist()) == (list("abdef"), ["t1", "t2"])
    assert (
        "WARNING: 1 of 6 training rows cannot be read and are left out (competition.unparsable): 'c'"
        in describe(tables.report)
    )
    note = "WARNING: 1 test rows cannot be read and get the mean, or the most frequent, label: 't1'"
    assert note in describe(tables.report)
    assert tables.report["dropped_train_ids"] == ["c"]
    train = third_row("c, ,4")
    assert prepared(tmp_path, train, unparsable="drop", **TEXT).train["id"].tolist() == list("abdef")
    for cell in (" ", "nan", "None", "N/A", "-"):
        tables = prepared(tmp_path, third_row(f"c,{cell},4"), empty_smiles="[Ar]")
        assert tables.train["SMILES"].tolist()[1:3] == ["CCC", "[Ar]"]
        assert "1 empty molecules are read as empty_smiles" in describe(tables.report)
    config = load_competition(str(write_small(tmp_path, unparsable="drop")))
    config.train.unlink()  # a new test table is cleaned alike without it
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,OCC\nh2,nothing\n")
    table, raw, dropped = prepare_test(config, tmp_path / "hidden.csv")
    assert (table["SMILES"].tolist(), list(raw["id"]), dropped) == (["CCO"], ["h1", "h2"], ["h2"])


def test_a_class_of_unreadable_rows_alone_can_be_taken_out_of_the_classes(tmp_path):
    train = "id,SMILES,y a,CCO,p b,CCC,q c,nothing,r d,CCN,p"
    settings = {"unparsable": "drop", "problem_type": "multiclass", "metric": "accuracy"}
    with pytest.raises(DataError, match="no row of 'r', .* Remove it there"):
        prepared(tmp_path, train, sample="id,y t1,p t2,p", classes=["p", "q", "r"], **settings)
    tables = prepared(tmp_path, train, sample="id,y t1,p t2,p", classes=["p", "q"], **settings)
    assert tables.train["y"].tolist() == [0, 1, 0]


def test_test_rows_keep_their_group_if_they_have_one(tmp_path):
    config = load_competition(str(write_small(tmp_path, **of_column("group", "1", "2", "3"))))
    (tmp_path / "hidden.csv").write_text("id,SMILES,t\nh1,OCC, 2\nh2,CC,\n")
    assert prepare_test(config, tmp_path / "hidden.csv")[0]["t"].tolist() == ["2", ""]
    (tmp_path / "hidden.csv").write_text("id,SMILES\nh1,OCC\n")
    assert "t" not in prepare_test(config, tmp_path / "hidden.csv")[0]


def test_a_group_is_kept_and_one_that_is_an_input_keeps_its_clean_form(tmp_path):
    assert prepared(tmp_path, **of_column("group", "1", " 1 ", "01")).train["t"].tolist() == ["1", "1", "01"]
    assert prepared(tmp_path, third_row("c,OCC,2"), group="SMILES").train["SMILES"][2] == "CCO"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2020", "3.5", "-1"], [2020.0, 3.5, -1.0]),
        (["1970-01-01", "1970-01-02T00:00:10", "1969-12-31T23:00:00+00:00"], [0.0, 86410.0, -3600.0]),
        (["13/01/1970", "02/01/1970", "1/2/1970"], [12 * 86400.0, 86400.0, 31 * 86400.0]),
        (["01/13/1970", "01/02/1970", "2/1/1970"], [12 * 86400.0, 86400.0, 31 * 86400.0]),
        (["1970-1-2", "1970-2-1", "1970-1-13"], [86400.0, 31 * 86400.0, 12 * 86400.0]),
        (["2 Jan 1970", "1 Feb 1970", "13 Jan 1970"], [86400.0, 31 * 86400.0, 12 * 86400.0]),
    ],
)
def test_times_are_numbers_or_dates(tmp_path, cells, expected):
    assert prepared(tmp_path, **of_column("time", *cells)).train[TIME].tolist() == expected


@pytest.mark.parametrize(
    "cells", [["05/06/2025", "01/02/2025"], ["13/01/2025", "01/13/2025"], ["25-05-13"] * 2]
)
def test_times_whose_days_and_months_are_unclear_are_refused(tmp_path, cells):
    with pytest.raises(DataError, match="nor dates such as 2025-05-31 or 31/05/2025"):
        prepared(tmp_path, **of_column("time", *cells, cells[0]))


def test_constant_columns_and_targets_of_0_and_1_are_reported(tmp_path):
    said = describe(prepared(tmp_path, "id,SMILES,y a,CCO,1 b,OCC,1").report)
    assert "columns with only one value: SMILES, y" in said and "only 0 and 1" not in said
    said = describe(prepared(tmp_path, "id,SMILES,y a,CCO,1 b,CC,0 c,C, d,CN,1.0").report)
    assert "only 0 and 1 in y, which is predicted by regression" in said


def test_a_sample_may_have_the_numbers_of_rows_and_another_separator(tmp_path):
    assert prepared(tmp_path, sample=",id,y 0,t1,0 1,t2,0").sample["id"].tolist() == ["t1", "t2"]
    said = prepared(tmp_path, sample="id;y t1;0 t2;0").report["said"]
    assert any(
        "WARNING: sample.csv is separated by semicolons, and the submission a CSV with commas" in line
        for line in said
    )


def test_what_is_written_reads_back_as_rows(tmp_path):
    sample = "id,SMILES,y t1,CCCC,0 t2,CCBr,0"  # it may repeat columns of the test table
    config = load_competition(str(write_small(tmp_path, "id,SMILES,y 007,OCC,0.1 x,CC,", sample=sample)))
    tables = prepare(config)
    write_prepared(tables, config)
    lines = [
        "2 training rows, 2 test rows",
        "missing labels: y 1",
        "columns with only one value: y",
        "read: train.csv (2 rows), test.csv (2 rows), sample.csv (2 rows)",
    ]
    assert describe(tables.report).splitlines() == lines
    rows = read_rows(config.paths.train, config.columns, labelled=True)
    assert (rows.ids, rows.inputs["SMILES"].tolist()) == (["007", "x"], ["CCO", "CC"])
    np.testing.assert_array_equal(rows.y, [[0.1], [np.nan]])
    assert rows.take(np.array([False, True])).ids == ["x"]
    assert read_rows(config.paths.test, config.columns, labelled=False).y is None
    assert read_table(config.paths.sample)["id"].tolist() == ["t1", "t2"]


def test_a_prepared_table_is_read_anew_after_a_change_and_changes_of_a_copy_stay_in_it(tmp_path):
    file = tmp_path / "train.parquet"
    write_table(file, pd.DataFrame({"x": [1, 2]}))
    copy = read_prepared(file)
    copy.loc[0, "x"] = 9
    copy["y"] = 3
    assert read_prepared(file).to_dict("list") == {"x": [1, 2]}
    write_table(file, pd.DataFrame({"x": [5, 6]}))
    assert read_prepared(file)["x"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "", "1"], "WARNING: 1 of 3 training rows have no 't'"),
        (["1", "NA", "1"], "WARNING: 1 of 3 training rows have no 't'"),
        (["a", "Na", "a"], "WARNING: 1 of 3 training rows have 'Na' in 't', which is read as a group"),
    ],
)
def test_rows_without_a_group_are_counted_and_names_of_groups_that_may_mean_missing(
    tmp_path, cells, expected
):
    path = write_small(tmp_path, **of_column("group", *cells))
    (line,) = [line for line in prepare(load_competition(str(path))).report["said"] if "'t'" in line]
    assert line.startswith(expected)
    assert "Na" in cells or line.endswith("row 3 (id 'm1')")


def test_a_group_is_no_target_and_no_id_but_may_be_the_prefix_of_one(tmp_path):
    assert load_competition(str(write_small(tmp_path, group={"prefix": "id"}))).group_columns == ["id"]
    for group in ("id", "y", ["SMILES", {"cell": ["SMILES", "y"]}]):
        with pytest.raises(UserError, match="must be neither the id nor a target"):
            load_competition(str(write_small(tmp_path, group=group)))
    with pytest.raises(UserError, match="scaffold of 'x' needs a column of molecules"):
        load_competition(str(write_small(tmp_path, group={"scaffold": "x"})))


def test_long_codes_are_not_the_same_for_their_first_digits():
    """A float has 53 bits, so that these would be one number."""
    codes = pd.Series(["90071992547409931", "90071992547409932", "1"])
    assert canonical_cells(codes).nunique() == 3
    assert canonical_cells(pd.Series(["1", "1.0", " 01 ", ""])).tolist() == ["1.0", "1.0", "1.0", ""]


def test_categories_that_differ_only_in_spelling_are_counted(tmp_path):
    """DMSO and dmso, two blanks, and 1 and 1.0, which an empty cell of a table makes; a new value is not among them."""
    train = [
        "id,x,site,plate,y",
        *(f"r{k},{k}.5,{('DMSO', 'site A')[k % 2]},{k % 3}.0,{k}" for k in range(12)),
    ]
    test = ["id,x,site,plate", "t0,1,dmso,1", "t1,2,site  A,2", "t2,3,DMSO,0.0", "t3,4,other,0.0"]
    sample = ["id,y", *(f"t{k},0" for k in range(4))]
    roles = {"smiles": None, "numeric": ["x"], "categorical": ["site", "plate"]}
    lines = prepared(tmp_path, train, test, sample, **roles).report["said"]
    spelled = [line for line in lines if "differ from those of training rows only in case" in line]
    assert [line[:45] for line in spelled] == [
        "WARNING: category site: 2 test cells differ f",
        "WARNING: category plate: 2 test cells differ ",
    ]


@pytest.mark.parametrize(
    ("of_test", "said"),
    [
        ("a a b b c c a b x y", ["2 of 10"]),
        ("a a b b c c a b c x", []),  # one of ten hardly matters
        ("a a b b c c a b - -", []),  # an empty cell is no value
    ],
)
def test_test_rows_with_a_category_that_no_training_row_has_are_a_warning(tmp_path, of_test, said):
    train = ["id,x,site,y", *(f"r{k},{k}.5,{'abc'[k % 3]},{k}" for k in range(12))]
    cells = of_test.replace("-", "").split(" ")
    test = ["id,x,site", *(f"t{k},{k}.1,{cell}" for k, cell in enumerate(cells))]
    sample = ["id,y", *(f"t{k},0" for k in range(10))]
    roles = {"smiles": None, "numeric": ["x"], "categorical": ["site"]}
    lines = prepared(tmp_path, train, test, sample, **roles).report["said"]
    warnings = [line for line in lines if "that no training row has" in line]
    expected = (
        "WARNING: category site: {} test rows have a value that no training row has, so that it tells nothing"
    )
    assert [line.removesuffix(" about them") for line in warnings] == [expected.format(n) for n in said]


def test_words_of_many_texts_are_counted_without_keeping_those_of_each_text():
    """The words of one text take some 100 kB, and those of all texts at once more than 10 MB."""
    texts = pd.Series([" ".join(f"w{k}" for k in range(1000))] * 100 + ["alone"])
    tracemalloc.start()
    n_alone = _count_without_common_word(texts, texts[:0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_alone == 1
    assert peak < 2_000_000


def test_copies_of_a_text_are_counted_beside_equal_inputs(tmp_path):
    """Of 40 training rows one repeats a text and two are copies of one; of four test rows two are copies."""
    texts = [f"this is thing w{k} here" for k in range(37)]
    copies = [
        "This  is thing w0 here",
        "RT @me: this is thing w1 here! https://t.co/a",
        "this is 3 thing w1 here",
    ]
    of_test = [
        "this is thing w2 here",
        "@you this is thing w2 here",
        "this is thing w3 here 55",
        "nothing of w9 here",
    ]
    train = ["id,text,y", *(f"r{k},{text},{k}" for k, text in enumerate([*texts, *copies]))]
    test = ["id,text", *(f"t{k},{text}" for k, text in enumerate(of_test))]
    sample = ["id,y", *(f"t{k},0" for k in range(4))]
    lines = prepared(tmp_path, train, test, sample, smiles=None, text=["text"]).report["said"]
    counts = [
        line for line in lines if " rows repeat " in line or " rows differ " in line or " rows have " in line
    ]
    known = "models train on its label, and the expected score is for new inputs"
    assert [line.split(" (")[0] for line in counts] == [
        "1 training rows repeat the input of another row",
        "2 training rows differ from another row only in links, names of users, numbers or punctuation",
        f"WARNING: 1 test rows have an input that is also in the training table; {known}",
        "WARNING: 2 test rows differ from a training row only in links, names of users, numbers or punctuation; "
        f"{known}",
    ]


def test_a_salt_of_a_training_molecule_in_the_test_table_is_counted_if_it_has_a_label(tmp_path):
    train = "id,SMILES,y a,CCCCC(=O)[O-].[Na+],1 b,CCO,2 c,CCN,3 d,CCCl, e,CCC,5 f,CCCC,6"
    test = "id,SMILES t1,CCCCC(=O)O t2,CCN.Cl t3,OCC t4,CCCl t5,CF"
    lines = prepared(tmp_path, train, test, "id,y t1,0 t2,0 t3,0 t4,0 t5,0").report["said"]
    assert any(line.startswith("WARNING: 1 test rows have an input that is also in") for line in lines)
    assert any(
        line.startswith("WARNING: 2 test rows differ from a training row only in salts") for line in lines
    )


@pytest.mark.parametrize(("repeated", "is_warning"), [(False, True), (True, False)])
def test_numbers_of_training_rows_in_the_test_table_are_a_warning_unless_most_rows_repeat(
    tmp_path, repeated, is_warning
):
    train = ["id,x,y", *(f"r{k},{k % 3 if repeated else k + 0.25},{k}" for k in range(20))]
    test = ["id,x", *(f"t{k},{k if repeated else k + 0.25}" for k in range(3))]
    sample = ["id,y", "t0,0", "t1,0", "t2,0"]
    lines = prepared(tmp_path, train, test, sample, smiles=None, numeric=["x"]).report["said"]
    known = [line for line in lines if "3 test rows have an input that is also in the training table" in line]
    assert [line.startswith("WARNING") for line in known] == [is_warning]


def test_labels_in_the_test_table_are_a_warning_and_one_repeated_value_is_not(tmp_path):
    sample = "id,y t1,0 t2,0"
    lines = prepared(tmp_path, None, "id,SMILES,y t1,CCCC,1.5 t2,CCBr,2", sample).report["said"]
    assert any(
        line.startswith("WARNING: test.csv has labels of 'y' in 2 of 2 rows, which are used neither")
        for line in lines
    )
    lines = prepared(tmp_path, None, "id,SMILES,y t1,CCCC,0 t2,CCBr,0", sample).report["said"]
    assert not any("has labels of" in line for line in lines)
