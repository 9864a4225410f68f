"""What a column is taken for, and what is not guessed."""

import pandas as pd
import pytest

from core.errors import DataError
from pipeline.new.column_roles import classify, counts_rows, is_reaction
from pipeline.new.detect import detect
from tests.submissions.made_up import files_in


def many(pattern):
    """Twenty cells, of the numbers 1 to 20."""
    return ",".join(pattern.format(i) for i in range(1, 21))


RINGS = ",".join(f"{'C' * k}c1ccccc1" for k in range(20))
ALKANES = ",".join("C" * k for k in range(1, 21))
NUMBERS = many("{}.5")


def column(cells, name="column", test=None):
    """What the cells are taken for, of which there are twenty or, in turn, fewer."""
    values = pd.Series(cells.split(",") * 20)[: max(20, cells.count(",") + 1)]
    return classify(name, values, values[:3] if test is None else pd.Series(test.split(",")))


@pytest.mark.parametrize(
    ("cells", "name", "role"),
    [
        (RINGS, "c", "smiles"),
        ("CCCCCO,CCCCCN,CCCCCC,CCCCCCl", "c", "smiles"),
        (ALKANES, "c", "smiles"),
        ("C,CC,CCC,CCCC", "c", "categorical"),
        ("C,N,CO,O", "solvent_SMILES", "smiles"),
        ("C,N,CO,I", "c", "categorical"),
        (",site A,site B,site B", "c", "categorical"),
        ("007,012,100", "c", "categorical"),
        (many("sample {} looked rather dull today"), "c", "text"),
        (",".join("你好世界今天天气不错" + chr(0x4E00 + i) for i in range(20)), "c", "text"),
        (",".join(f"{ring}>>{ring}O" for ring in RINGS.split(",")), "c", "text"),
        (",".join([many("what does w{} mean in this")] * 9), "question", "text"),
        (",".join(["I agree with this sentence,I do not agree with it"] * 90), "question", "categorical"),
        (NUMBERS, "c", "numeric"),
        ("1.5,NA,,nan,-2e3", "c", "numeric"),
        (many("{}1"), "mass", "numeric"),
        (many("{}1"), "patient_id", "left out"),
        (NUMBERS, "", "left out"),
        (many("{}"), "c", "left out"),
        ("x", "c", "left out"),
        (many("KX{}"), "c", "left out"),
        (many("{:04d}"), "c", "left out"),
        (many("2024-01-{:02d} 10:00"), "measured", "left out"),
        (many("{}-1-1"), "locants", "left out"),
    ],
)
def test_a_column_is_taken_for_what_it_is(cells, name, role):
    assert column(cells, name).role == role, column(cells, name)


@pytest.mark.parametrize(
    ("cells", "test", "role", "words"),
    [
        (f"{RINGS},c1cc,C((", "CC", "smiles", "RDKit parses 21 of 23 distinct values"),
        (NUMBERS, "0.5,?,.", "left out", "2 of 23 cells are not numbers"),
    ],
)
def test_damaged_cells_of_either_table_are_shown(cells, test, role, words):
    detected = column(cells, test=test)
    assert detected.role == role and words in detected.reason


def test_row_numbers_are_consecutive_whole_numbers_in_any_order_over_both_tables():
    train, test = pd.Series(["5", "0", "3"]), pd.Series(["1", "4", "2"])
    assert classify("c", train, test).reason == "counts the rows"
    assert classify("c", train, test.replace("2", "9")).role == "numeric"
    assert not counts_rows(pd.Series(["0", "1", "1"])) and not counts_rows(pd.Series(["0.5", "1.5"]))


def test_reactions_are_three_parts_of_molecules():
    assert is_reaction("CC>>CO") and is_reaction("CC.O>[Pd]>CO")
    assert not any(map(is_reaction, ("CC>CO", "a > b", "x>>y", "C>C>C>C")))


TRAIN = "id,x,y a,.5,1 b,.1,2 c,.7, d,.2,4"
TWO = "id,x,y,z a,.5,1,1 b,.1,2,2 c,.7,,3 d,.2,4,5"
TEST = "id,x e,.5 f,.6"
SAMPLE = "id,y f,0 e,0"
OTHER_NAME = "id,prediction e,0 f,0"


def find(folder, train, test, sample, **options):
    for file, table in zip(files_in(folder), (train, test, sample), strict=True):
        file.write_text("\n".join(table.split()) + "\n")
    return detect(files_in(folder), **options)


@pytest.mark.parametrize(
    ("test", "sample"),
    [
        (TEST, SAMPLE),
        ("id,x,y e,.5, f,.6,", SAMPLE),  # a target is no input even with an empty column
        (TEST, "y,id 0,e 0,f"),  # the id need not be the first column
        (",id,x,s 0,e,.5,p 1,f,.6,q", ",id,y,s 0,f,0,q 1,e,0,p"),  # columns of the test table are no targets
    ],
)
def test_id_targets_and_inputs_of_a_plain_competition(tmp_path, test, sample):
    detected = find(tmp_path, TRAIN, test, sample)
    assert (detected.id, detected.targets, detected.submission_columns) == ("id", ["y"], None)
    assert detected.inputs == detected.with_roles("numeric") == ["x"]
    assert detected.id_reason.startswith("GUESS") == (not sample.startswith("id"))


@pytest.mark.parametrize(
    ("train", "sample", "given", "targets"),
    [
        (TWO, "id,z,y e,0,0 f,0,0", [], ["z", "y"]),  # the order of the sample
        (TWO, "id,z,y e,0,0 f,0,0", ["y", "z"], ["y", "z"]),
        (TWO, OTHER_NAME, ["z"], ["z"]),
        (TWO, "id,first,second e,0,0 f,0,0", [], ["y", "z"]),
        ("id,x,y,,n,cluster,t a,.5,1,0,4,1,p b,.1,2,1,3,1,q c,.7,,2,2,2,p d,.2,4,3,1,2,q", OTHER_NAME, [], ["y"]),
        ("id,x,y,t,u a,.5,1,p,p b,.1,2,q,q c,.7,,p,r d,.2,4,q,s", "id,prediction e,p f,p", [], ["t"]),
        ("id,x,y a,.5,>1.0 b,.1,2.0 c,.7, d,.2,<4.5", OTHER_NAME, [], ["y"]),  # censored numbers
    ],
)  # fmt: skip
def test_targets_are_those_of_the_sample_named_or_guessed_by_order(tmp_path, train, sample, given, targets):
    detected = find(tmp_path, train, TEST, sample, targets=given)
    columns = sample.split()[0].split(",")[1:]
    is_renamed = {*columns} != {*targets}
    assert detected.targets == targets
    assert detected.submission_columns == (columns if is_renamed else None)
    assert detected.targets_reason.startswith("GUESS") == (is_renamed and not given)


@pytest.mark.parametrize(
    ("train", "test", "sample", "given", "words"),
    [
        (TWO, TEST, OTHER_NAME, {}, r"2 label columns are only in the training table \(y, z\).*--target"),
        (TWO, TEST, OTHER_NAME, {"targets": ["w"]}, "--target: 'w' is not in the training table"),
        (TWO, TEST, OTHER_NAME, {"targets": ["y", "z"]}, "needs a column per target .* has prediction"),
        (TRAIN, TEST, "id e f", {}, "needs a column per target .* has none"),
        (TRAIN, TEST, "y 0 0", {}, "no id: 'y', the sample's first column"),
        (TEST, TRAIN, SAMPLE, {}, "are --train and --test swapped"),
        (TRAIN.replace("b,", "a,"), TEST, SAMPLE, {}, r"train\.csv, column 'id' .*: duplicate ids: 'a'"),
        ("key,x,y 1,1,1 2,2,2", TEST, SAMPLE, {}, r"'id' is missing in .*train\.csv \(it "),
        (TRAIN, TEST, SAMPLE, {"id_column": "x"}, "the id column 'x' is missing in "),
        (TRAIN, TEST, SAMPLE, {"group": "absent"}, "--group takes a column of .*'absent'"),
    ],
)  # fmt: skip
def test_what_cannot_be_detected_is_asked_for(tmp_path, train, test, sample, given, words):
    with pytest.raises(DataError, match=words):
        find(tmp_path, train, test, sample, **given)


def test_columns_of_one_table_and_the_group_are_left_out_but_a_molecule_that_groups_is_an_input(
    tmp_path,
):
    train = "id,x,y,cluster,lab,mol a,.5,1,p,r,CCO b,.1,2,p,r,CCO c,.7,3,q,s,CCN d,.2,4,q,s,CCN"
    test = "id,x,later,lab,mol e,.5,1,r,C(=O)N f,.6,2,t,CC=O"
    detected = find(tmp_path, train, test, SAMPLE, group="lab")
    reasons = {column.name: column.reason for column in detected.columns if column.role == "left out"}
    in_train = (
        "only in train; if rows of one cluster belong together, set group: cluster and folds.kind group"
    )
    assert reasons == {"lab": "makes the folds (--group)", "later": "only in test", "cluster": in_train}
    detected = find(tmp_path, train, test, SAMPLE, group="mol")
    assert detected.with_roles("smiles") == ["mol"]
    assert "also makes the folds" in detected.columns[-2].reason


@pytest.mark.parametrize(
    ("labels", "columns", "expected"),
    [
        ("pqpqrr", "r,p,q", "p,q,r"),
        ("pqpqrr", "prob_q,prob_p,prob_r", "prob_p,prob_q,prob_r"),  # p stands in the prefix, too
        ("pqpqrr", "label=q,label=p,label=r", "label=p,label=q,label=r"),
        ("pqpqrr", "P(q),P(p),P(r)", "P(p),P(q),P(r)"),
        ("010122", "class_1,class_0,class_2", "class_0,class_1,class_2"),
        ("ynynyy", "is_y,is_n", "is_n,is_y"),
    ],
)
def test_a_column_for_each_class_is_detected_by_name_with_what_stands_around_all_names(
    tmp_path, labels, columns, expected
):
    rows = " ".join(f"{i},{i * i},{label}" for i, label in enumerate(labels))
    train, test = f"id,x,label {rows}", "id,x 7,9 8,8"
    cells = ",0" * (columns.count(",") + 1)
    detected = find(tmp_path, train, test, f"id,{columns} 7{cells} 8{cells}", targets=["label"])
    assert (detected.targets, ",".join(detected.submission_columns)) == (["label"], expected)


def test_numbers_of_rows_without_a_name_are_no_target(tmp_path):
    detected = find(tmp_path, ",id,x,y 0,a,1,1 1,b,2,2 2,c,3,4", ",id,x 0,e,1 1,f,2", ",id,y 0,e,0 1,f,0")
    assert (detected.id, detected.targets) == ("id", ["y"])


def test_a_column_for_each_class_and_one_more_is_an_error(tmp_path):
    train = "id,x,label 0,1,p 1,4,q 2,9,p 3,16,q"
    message = "has a column for each class of 'label', but they differ .*'other' has no class"
    with pytest.raises(DataError, match=message):
        find(tmp_path, train, "id,x 7,9 8,8", "id,q,p,other 7,0,0,0 8,0,0,0")
