"""What a column is taken for, and what is not guessed."""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from core.errors import DataError
from pipeline.new.column_roles import are_words, classify, counts_rows, is_reaction
from pipeline.new.detect import detect
from tests.submissions.made_up import files_in, smiles, write, write_tables


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
        (many("{}1"), "Compound_ID", "left out"),
        (many("{}1"), "PUBCHEM_CID", "left out"),
        (many("{}1"), "ACID", "numeric"),
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


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("[0.{}]", "lists of numbers such as '[0.1]'; make a column of each number"),
        ("[{}.5 -1e-3\n 7.]", "lists of numbers"),  # as NumPy writes them
        ("({}, nan)", "lists of numbers"),
        ("[C][Branch{}][13CH1][=O]", "SELFIES"),
    ],
)
def test_numbers_in_brackets_are_lists_and_no_selfies(cell, words):
    cells = pd.Series([cell.format(i) for i in range(1, 21)])
    detected = classify("c", cells, cells[:3])
    assert detected.role == "left out" and words in detected.reason
    assert detected.reason.startswith("WARNING: lists") == (not detected.notation)


def test_lists_of_words_are_neither_numbers_nor_selfies():
    cells = pd.Series([f"['cat {i}', 'a dog of {i} years']" for i in range(20)])
    assert classify("c", cells, cells[:3]).role == "text"
    in_json = pd.Series([f'["cat {i}", null, "a dog\\nof {i} years"]' for i in range(20)])
    detected = classify("c", in_json, in_json[:3])
    assert detected.role == "text" and detected.reason.startswith("WARNING: lists of texts in JSON")


@pytest.mark.parametrize(("n_letters", "is_sequence"), [(90, False), (120, True)])
def test_words_that_tokenizers_do_not_read_are_sequences(n_letters, is_sequence):
    rng = np.random.default_rng(0)
    cells = pd.Series(["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), n_letters)) for _ in range(60)])
    detected = classify("chain", cells, cells[:20])
    assert (detected.role, detected.is_sequence) == ("text", is_sequence)


CODES = {
    "plates": "plate_1,plate_2,plate_10,plate_11",
    "letters": "Batch A,Batch B,Batch C,Batch D",
    "patients": "P017,P018,P123,P999",
    "wells": "A01,B02,H12,C03",
    "positions": "B-12,B-13,C-1,D-99",
    "hexadecimal": "3fa9be,00ff1c,deadbe,9a8b7c,f00baa",
    "identifiers": "0a4f55a8-6c0e-11ee-b962,1b5e66b9-7d1f-22ff-ca73,2c6f77ca-8e20-3300-db84",
    "genes": "BRCA1,TP53,EGFR,KRAS,MYC,PTEN,ALK,BRAF,NOTCH1,VEGFA",
    "genes of mice": "Trp53,Brca1,Egfr,Kras,Myc,Pten,Alk,Braf,Notch1,Vegfa",
    "registry": "64-17-5,67-56-1,71-43-2,108-88-3",
    "barcodes": "4006381333931,5901234123457,9780201379624",
    "barcodes of DNA": "ACGTTGCA,TTGACCAG,GGATCCAA,CATGCATG",
    "two letters": "DE,FR,US,GB,IT,ES",
    "three letters": "DEU,FRA,USA,GBR,ITA,ESP",
    "airports": "JFK,LHR,CDG,MUC,NRT,ATL",
    "compounds": "GSK1234567,SB-203580,BAY-876,CHEMBL25,AZD9291",
    "cells": "HeLa,HEK293,A549,MCF-7,HCT116,K562,PC3",
    "proteins": "P04637,Q9Y6K9,O15111,P00533",
    "solvents": "THF,DMF,DMSO,MeCN,DCM,NMP",
    "orders": "00817-kemi-55021,29930-lora-18277,77102-pudo-90812,40118-fabe-66120,91927-tisu-33871",
    "at random": "xqkzptvw,mbdrwqlk,tzvkkspo,qwhjxnfa,plmkjnbh",
}
WORDS = {
    "towns": "Berlin,München,Frankfurt am Main,Bad Homburg,Ulm,St. Pölten,Zürich",
    "capitals": "BERLIN,MUNICH,HAMBURG,COLOGNE,ESSEN,LEIPZIG",
    "small": "berlin,paris,london,madrid,vienna,prague",
    "German": "Straße,Übung,Schmerz,Bahnhof,Angst,Freude,Haus,Strumpf,Herz,Apfel",
    "English": "happy,sad,angry,rhythm,strength,through,light,apple",
    "Polish": "Szczecin,Gdańsk,Wrocław,Kraków,Przemyśl",
    "Russian": "Москва,Казань,Самара,Омск",
    "Chinese": "北京,上海,广州,深圳",
    "Arabic": "القاهرة,دمشق,بغداد",
    "drugs": "aspirin,ibuprofen,imatinib,warfarin,metformin",
    "chemicals": "2-propanol;1,4-dioxane;ethanol;2-methyltetrahydrofuran;N,N-dimethylformamide;toluene",
    "months": "January,February,March,April,August,October",
    "short months": "Jan,Feb,Mar,Apr,May,Jun,Jul,Aug,Sep,Oct,Nov,Dec",
    "countries": "Germany,France,United States,Sri Lanka,Peru,Chad",
    "names": "Smith,Johnson,Garcia,Rodriguez,Wright,Schmidt,Lynch",
    "species": "Homo sapiens,Mus musculus,Danio rerio",
    "joined": "salt_lake,sour_cream,green_tea,black_bean",
    "tags": "#love,#happy,#monday,#sunset",
}


@pytest.mark.parametrize("kind", [*CODES, *WORDS])
def test_words_of_a_language_are_told_from_codes(kind):
    values = {**CODES, **WORDS}[kind]
    assert are_words(values.split(";" if ";" in values else ",")) == (kind in WORDS)


NAMES = [
    "apple", "bread", "cheese", "dates", "egg", "figs", "grapes",
    "honey", "ice", "juice", "kale", "lemon", "melon", "noodle", "onion",
]  # fmt: skip
SITES = [f"S{k:02d}" for k in range(15)]


def roles_of(folder, cells, n_new, others=lambda k: f"{k}.5", **options):
    """The columns of 60 training rows with twelve values, and of 30 test rows, `n_new` of which have three others."""
    names = dict(zip(SITES, cells, strict=True))
    train = [f"r{k},{names[SITES[k % 12]]},{others(k)},{k % 7}" for k in range(60)]
    new = [names[SITES[12 + k % 3]] if k < n_new else names[SITES[k % 12]] for k in range(30)]
    test = [f"t{k},{cell},{others(60 + k)}" for k, cell in enumerate(new)]
    sample = [f"t{k},0" for k in range(30)]
    tables = ("id,site,x,y", *train), ("id,site,x", *test), ("id,y", *sample)
    detected = find(folder, *map(" ".join, tables), **options).without_groups([], time=None)
    return {column.name: column for column in detected.columns}


@pytest.mark.parametrize(
    ("cells", "n_new", "role", "words"),
    [
        (
            SITES,
            30,
            "left out",
            "30 of 30 test values are new, so that it only names a group; group: site keeps its",
        ),
        (SITES, 27, "left out", "27 of 30 test values are new"),
        (SITES, 26, "categorical", "15 distinct values in 90 cells"),
        (NAMES, 30, "text", "words; 30 of 30 test values are new"),
        (NAMES, 16, "text", "words; 16 of 30 test values are new"),
        (NAMES, 15, "categorical", ""),
        (
            NAMES[:10] + NAMES[:2] + NAMES[10:13],
            30,
            "left out",
            "30 of 30 test values are new",
        ),  # ten: too few
        (NAMES[:11] + NAMES[:1] + NAMES[11:14], 30, "text", "words; 30 of 30 test values are new"),
        ([f"{name}{name}" for name in NAMES], 30, "text", "sequences of 10 letters"),
        ([f"{k}.25" for k in range(15)], 30, "numeric", "numbers"),
    ],
)
def test_a_column_whose_test_values_are_new_is_text_or_names_a_group_and_no_category(
    tmp_path, cells, n_new, role, words
):
    column = roles_of(tmp_path, cells, n_new)["site"]
    assert column.role == role and words in column.reason


def test_links_are_no_text_though_they_have_words():
    links = pd.Series([f"https://en.wikipedia.org/wiki/{a}_{b}" for a in NAMES for b in NAMES])
    column = classify("url", links[:150], links[150:])
    assert column.role == "left out" and "links; if they are informative, --text url" in column.reason
    assert classify("url", links[:150].str[8:], links[150:].str[8:]).role == "text"


def test_a_column_of_new_codes_stays_if_the_user_says_so_or_if_there_is_no_other_input(tmp_path):
    assert roles_of(tmp_path, SITES, 30, roles={"site": "categorical"})["site"].role == "categorical"
    assert roles_of(tmp_path, SITES, 30, others=lambda k: "same")["site"].role == "categorical"


def test_a_name_in_each_row_is_text_unless_there_are_molecules(tmp_path):
    letters = "aeioubdfgklmnprst"
    names = [f"{letters[k % 17]}{letters[k // 17]}mon{'ae'[k % 2]}" for k in range(90)]
    beside_numbers, beside_molecules = (
        find(
            tmp_path,
            " ".join(["id,name,x,y", *(f"r{k},{names[k]},{other(k)},{k % 7}" for k in range(60))]),
            " ".join(["id,name,x", *(f"t{k},{names[60 + k]},{other(60 + k)}" for k in range(30))]),
            " ".join(["id,y", *(f"t{k},0" for k in range(30))]),
        )
        for other in (lambda k: f"{k}.5", lambda k: "C" * (k + 3) + "O")
    )
    assert beside_numbers.with_roles("text") == ["name"]
    assert beside_molecules.inputs == ["x"]
    assert (
        "like names of the molecules; if they are informative, --text name"
        in beside_molecules.columns[0].reason
    )


def test_row_numbers_are_consecutive_whole_numbers_in_any_order_over_both_tables():
    train, test = pd.Series(["5", "0", "3"]), pd.Series(["1", "4", "2"])
    assert classify("c", train, test).reason == "consecutive row numbers"
    assert classify("c", train, test.replace("2", "9")).role == "numeric"
    assert not counts_rows(pd.Series(["0", "1", "1"])) and not counts_rows(pd.Series(["0.5", "1.5"]))


def test_codes_of_the_rows_are_left_out_also_without_a_test_table():
    codes = pd.Series([f"M{k:04}" for k in range(150)])
    assert classify("mol_code", codes, codes).role == "left out"
    sites = "lab " + codes.str[-1]
    assert classify("site", sites, sites).role == "categorical"


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


def test_columns_of_the_sample_that_contain_the_names_of_targets_are_matched_by_name(tmp_path):
    train = "id,x,y,z,w a,.5,1,1,9 b,.1,2,2,8 c,.7,,3,7 d,.2,4,5,6"
    sample = "id,pred_z,pred_y e,0,0 f,0,0"
    for table in (train, TWO.replace("y", "LogD").replace("z", "KSOL")):
        names = table.split()[0].split(",")[2:4]
        detected = find(
            tmp_path, table, TEST, sample.replace("pred_z", f"pred_{names[1]}").replace("_y", f"_{names[0]}")
        )
        assert detected.targets == names[::-1]
        assert detected.targets_reason.startswith(
            f"GUESS, by name: in the sample pred_{names[1]} is {names[1]}"
        )


@pytest.mark.parametrize(
    ("train", "test", "sample", "given", "words"),
    [
        (TWO, TEST, OTHER_NAME, {}, r"2 label columns are only in the training table \(y, z\).*--target"),
        (TWO, TEST, OTHER_NAME, {"targets": ["w"]}, "--target: 'w' is not in the training table"),
        (TWO, TEST, OTHER_NAME, {"targets": ["y", "z"]}, "needs a column per target .* has prediction"),
        (TRAIN, TEST, "id e f", {}, "needs a column per target .* has none"),
        (TRAIN, TEST, "y 0 0", {}, "no id: 'y', the sample's first column"),
        (TWO, TEST, "key,value e|y,0 e|z,0 f|y,0 f|z,0", {}, "2 rows for each test row, .*Leave out --sample"),
        (TWO, TEST, "id,value e|y,0 e|z,0 f|y,0 f|z,0", {}, "2 rows for each test row, .*Leave out --sample"),
        (TEST, TRAIN, SAMPLE, {}, "are --train and --test swapped"),
        (TRAIN.replace("b,", "a,"), TEST, SAMPLE, {},
         r"train\.csv: 2 of 4 rows share their id with another row \('a'\), .* keep them: .* --group id_group"),
        (TRAIN, "id,x e,.5 e,.6", SAMPLE, {}, r"test\.csv, column 'id' .*: duplicate ids: 'e'. Give every row"),
        ("u,i,y a,p,1 a,q,2 b,p,3", "u,i a,r b,r", "u,i,y a,r,0 b,r,0", {},
         "but 'u', 'i' together do.* --id row_id"),
        ("u,i,t,y a,p,0,1 a,p,1,2 a,q,0,3 b,p,0,3", "u,i,t a,q,1 b,q,1 b,q,0", "u,i,t,y a,q,1,0 b,q,1,0 b,q,0,0", {},
         "but 'u', 'i', 't' together do"),
        ("key,x,y 1,1,1 2,2,2", TEST, SAMPLE, {}, r"'id' is missing in .*train\.csv \(it "),
        (TRAIN, TEST, SAMPLE, {"id_column": "x"}, "the id column 'x' is missing in "),
        ("id,x,c,m a,.1,p,q b,.2,p,r c,.3,s,q", TEST, "id,c:m e,p:q", {},
         "expects 'c:m': join the cells of 'c', 'm' with ':' in a new column of the training table"),
        ("id,x,y a,.1,1 a,.2,1 b,.3,2 b,.4,2", "id,x e,.1 e,.2", "id,y e,0", {}, "make tables of one row each"),
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


def test_a_number_that_the_sample_repeats_is_an_input_beside_a_label(tmp_path):
    train, test = "id,x,t,y a,.1,300,5 b,.2,310,7 c,.3,320,6", "id,x,t e,.1,305 f,.2,315"
    detected = find(tmp_path, train, test, "id,t,y e,305,0 f,315,0")
    assert (detected.targets, detected.inputs) == (["y"], ["x", "t"])


def test_classes_in_the_training_table_may_be_the_label_instead_of_a_number_and_weights_are_named(tmp_path):
    train = "id,x,label,confidence a,1,p,.5 b,2,q,.7 c,3,p,.9 d,4,q,.5"
    detected = find(tmp_path, train, "id,x e,1 f,2", "id,score e,0 f,0")
    assert (
        "score is confidence; WARNING: 'label' may be the label instead: --target label"
        in detected.targets_reason
    )
    given = find(tmp_path, train, "id,x e,1 f,2", "id,score e,0 f,0", targets=["label"])
    reasons = {column.name: column.reason for column in given.columns}
    assert reasons["confidence"] == "only in train; to weight rows by it in training, set weight: confidence"


def test_a_name_that_only_the_training_table_has_is_a_warning_if_it_may_divide_the_tables(tmp_path):
    train = " ".join(["id,x,y,patient,lab", *(f"r{k},{k}.5,{k % 7},p{k % 12},l{k % 3}" for k in range(48))])
    detected = find(tmp_path, train, "id,x e,1.5 f,2.5", "id,y e,0 f,0")
    reasons = {column.name: column.reason for column in detected.columns}
    assert reasons["patient"] == (
        "only in train; WARNING: it has 12 values that repeat; if test rows have others, the expected score is too "
        "optimistic without --group patient"
    )
    assert reasons["lab"] == "only in train"


def test_a_column_for_each_class_and_one_more_is_an_error(tmp_path):
    train = "id,x,label 0,1,p 1,4,q 2,9,p 3,16,q"
    message = "has a column for each class of 'label', but they differ .*'other' has no class"
    with pytest.raises(DataError, match=message):
        find(tmp_path, train, "id,x 7,9 8,8", "id,q,p,other 7,0,0,0 8,0,0,0")


def test_molecules_of_rdkit_in_a_table_are_left_out():
    cells = pd.Series([f"<rdkit.Chem.rdchem.Mol object at 0x7f8A{k:04x}>" for k in range(20)])
    detected = classify("mol", cells, cells[:3])
    assert detected.role == "left out" and detected.reason == "an RDKit object, which is not read"


def test_another_notation_of_the_same_molecules_is_left_out(tmp_path):
    """As InChI, or without stereochemistry, beside another molecule."""
    isomeric = [cell.replace("C", "F[C@H](Cl)", 1) for cell in smiles(80)]
    molecules = [Chem.MolFromSmiles(cell) for cell in isomeric]
    inchi = [Chem.MolToInchi(molecule) for molecule in molecules]
    flat = [Chem.MolToSmiles(molecule, isomericSmiles=False) for molecule in molecules]
    mirrored = [cell.replace("@", "@@") for cell in isomeric]
    others = {"solvent": smiles(80)[::-1], "enantiomer": mirrored}
    write(tmp_path, inchi=inchi, flat_smiles=flat, smiles=isomeric, **others)
    tables = detect(files_in(tmp_path))
    assert tables.with_roles("smiles") == ["smiles", "solvent", "enantiomer"]
    assert {column.reason for column in tables.columns if column.role == "left out"} == {
        "the same molecules as 'smiles'"
    }


@pytest.mark.parametrize("given", [None, "SMILES"])
def test_molecules_are_no_ids(tmp_path, given):
    write_tables(
        tmp_path,
        pd.DataFrame({"SMILES": smiles(60), "logP": range(60), "y": range(60)}),
        pd.DataFrame({"SMILES": smiles(80)[60:], "logP": range(20)}),
        pd.DataFrame({"SMILES": smiles(80)[60:], "y": 0}),
    )
    with pytest.raises(
        DataError, match="'SMILES' has molecules, which cannot be the ids, too. Add a column id"
    ):
        detect(files_in(tmp_path), given)
