"""Tables as users have them, invented from the README before the code knew of them: nothing is lost in silence."""

import gzip
import json
import re
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from core.errors import UserError
from pipeline import commands
from tests.submissions.made_up import smiles

MOLECULES = smiles(60)
TFIDF = ["--stages", "tfidf", "--budget", "none"]


def write(folder, n_train, labels, answer=0, encoding="utf-8", separator=",", **inputs):
    """Write three tables; the first of the inputs has the ids."""
    table = pd.DataFrame(inputs)
    tables = {
        "train": table[:n_train].assign(**labels),
        "test": table[n_train:],
        "sample": table[n_train:].iloc[:, :1].assign(**dict.fromkeys(labels, answer)),
    }
    for name, part in tables.items():
        part.to_csv(folder / f"{name}.csv", index=False, encoding=encoding, sep=separator)


def edit(folder, file, change):
    """Replace the text of a file."""
    path = folder / file
    path.write_text(change(path.read_text()))


def plain(folder):
    """A good competition of 36 and 12 molecules."""
    ids = [f"S-{i:03d}" for i in range(48)]
    write(folder, 36, {"pKd": np.linspace(4, 9, 36).round(2)}, sample_id=ids, smiles=MOLECULES[:48])


# Texts in any script


def reviews_in_chinese(folder):
    """One sign (very, not) decides, and there is no blank."""
    things = ["试剂", "溶剂", "色谱柱", "硅胶", "催化剂", "滤纸", "手套", "移液枪", "标准品", "缓冲液"]
    facts = ["纯度{}高", "质量{}好", "包装{}好", "发货{}快"]
    good = [(3 * i + i // 10) % 2 for i in range(54)]
    texts = [f"{things[i % 10]}的{facts[i // 10 % 4].format('不很'[good[i]])}" for i in range(40)]
    more = [
        f"{things[i % 10]}的{facts[i // 10 % 4].format('不很'[good[i]])}，下次再看" for i in range(40, 54)
    ]
    write(folder, 40, {"好评": good[:40]}, 0.5, 编号=range(1, 55), 评论=texts + more)


def faces_and_digits(folder):
    """Korean comments: emojis, letters of jamo, faces and single digits decide."""
    stems = ["", "이 게임", "업데이트", "음", "3일차 #겜", "ㅋ", "?!", "@me"]
    pairs = [("😀", "😡"), ("👍👍", "👎"), ("ㅎㅎ", "ㅠㅠ"), ("^^", "-_-"), ("❤️", "💔"), ("5/5", "1/5")]
    bad = [(i + i // 8) % 2 for i in range(48)]
    texts = [f"{stems[i % 8]} {pairs[i // 8][bad[i]]}".strip() for i in range(48)]
    texts += [f"{stems[i % 8]} {pairs[i % 6][i // 8]}~".strip() for i in range(16)]
    labels = {"label": ["negative" if b else "positive" for b in bad]}
    write(folder, 48, labels, "positive", id=[f"c{i:04d}" for i in range(64)], comment=texts)


def codes_of_one_letter(folder):
    """Antibiograms: the third letter decides."""
    profiles = [" ".join("SIR"[(53 * i + 11) % 2187 // 3**k % 3] for k in range(7)) for i in range(42)]
    esbl = [int(profile.split()[2] == "R") for profile in profiles[:30]]
    write(folder, 30, {"esbl": esbl}, 0.5, isolate=[f"KP-{i:03d}" for i in range(42)], profile=profiles)


def tickets_in_japanese(folder):
    """Signs of full and half width; the number of exclamation marks decides."""
    machines = [
        "ポンプＡ",
        "ﾎﾟﾝﾌﾟB",
        "攪拌機１号",
        "冷却塔",
        "ﾎﾞｲﾗｰ２",
        "乾燥機",
        "遠心機",
        "HPLC-3",
        "ＧＣ／ＭＳ",
        "恒温槽",
    ]
    level = [(5 * i + i // 12) % 4 for i in range(48)]
    texts = [f"{machines[i % 10]}が{'停止音温示'[i % 5]}{'！' * level[i] or '。'}" for i in range(48)]
    numbers = [20240101 + i for i in range(48)]
    write(folder, 36, {"緊急度": [x + 1 for x in level[:36]]}, 1, 受付番号=numbers, 本文=texts)


# Roles of columns


def peptides(folder):
    """Sequences, the same in HELM, and six labels beyond the largest dilution."""
    rng = np.random.default_rng(5)
    sequences = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 9 + i % 14)) for i in range(52)]
    helm = ["PEPTIDE1{" + ".".join(sequence) + "}$$$$" for sequence in sequences]
    mic = [">128" if i % 7 == 3 else f"{value:.1f}" for i, value in enumerate(rng.uniform(2, 90, 40))]
    names = [f"AP{i + 100:05d}" for i in range(52)]
    write(folder, 40, {"MIC_ug_ml": mic}, accession=names, sequence=sequences, HELM=helm)


def inchi_and_selfies(folder):
    """Molecules in every notation but SMILES."""
    alcohols = [Chem.MolFromSmiles("C" * i + "O") for i in range(1, 31)]
    key, inchi = map(Chem.MolToInchiKey, alcohols), map(Chem.MolToInchi, alcohols)
    selfies = ["[C]" * i + "[O]" for i in range(1, 31)]
    labels = {"沸点": [65 + 12 * i for i in range(22)]}
    write(folder, 22, labels, InChIKey=list(key), InChI=list(inchi), SELFIES=selfies)


def lots_with_all_roles_named(folder):
    days = [date(2024, 3, 5) + timedelta(days=4 * i) for i in range(48)]
    notes = ["異常なし", "攪拌やや遅い", "原料ロット変更後", "結晶が細かい", "色が薄い", "停電で三十分中断"]
    inputs = {
        "ロット": [f"LOT-{i:04d}" for i in range(48)],
        "製造日": [day.isoformat() for day in days],
        "品番": [[1203, 1204, 1310][(i * 5 + i // 3) % 3] for i in range(48)],
        "温度": np.linspace(58, 72, 48).round(1),
        "備考": [notes[i * 7 % 6] + ("。" if i % 2 else "、継続観察。") for i in range(48)],
    }
    write(folder, 36, {"収率": np.linspace(70, 95, 36).round(2)}, **inputs)


ALL_ROLES = [
    "--id",
    "ロット",
    "--time",
    "製造日",
    "--categorical",
    "品番",
    "--numeric",
    "温度",
    "--text",
    "備考",
]


def polymers(folder):
    """BigSMILES of vinyl polymers."""
    units = [f"{{[$]CC({ring}{'C' * k})[$]}}" for k in range(8) for ring in ("", "N", "O", "S")]
    write(folder, 24, {"Tg_C": range(24)}, polymer_id=[f"P-{i:03d}" for i in range(32)], BigSMILES=units)


def amplicons(folder):
    """DNA of patients with several samples; six letters decide."""
    rng = np.random.default_rng(11)
    resistant = [(i * 5 // 3) % 2 for i in range(54)]
    sides = ["".join(rng.choice(list("ACGT"), 30)) for _ in range(108)]
    sequences = [sides[i] + ("GGTTCC", "GGATCC")[resistant[i]] + sides[-1 - i] for i in range(54)]
    days = [date(2021, 1, 3) + timedelta(days=9 * i) for i in range(54)]
    inputs = {
        "run_id": [2021010300 + i for i in range(54)],
        "patient": [f"TH-{i // 3:02d}" for i in range(54)],
        "sampled": [day.strftime("%d %b %Y") for day in days],
        "seq": sequences,
    }
    write(folder, 42, {"resistant": resistant[:42]}, 0.5, **inputs)


# Losses, and nothing wrong


def export_of_chembl(folder):
    """Three SMILES that cannot be read, and ten labels with a sign in another column, over five orders of magnitude."""
    values = np.exp(np.linspace(np.log(2), np.log(90000), 44)).round(2)
    relation = ["<" if i in (2, 25) else ">" if i % 5 == 0 else "=" for i in range(44)]
    molecules = [*MOLECULES[:41], "c1ccccc", "CC(=O", "CN(C)(C)(C)C(=O)[Xq]", *MOLECULES[41:53]]
    ids = [f"CHEMBL{1000 + 7 * i}" for i in range(56)]
    write(folder, 44, {"IC50_nM": values}, molecule_chembl_id=ids, smiles=molecules)
    train = pd.read_csv(folder / "train.csv").assign(standard_relation=relation)
    train.to_csv(folder / "train.csv", index=False)


def labels_written_otherwise(folder):
    """Four labels in other letters, three texts with both labels, five test texts of the training table."""
    cities = [
        "Seoul",
        "Busan",
        "Osaka",
        "Tokyo",
        "Bangkok",
        "Berlin",
        "Paris",
        "London",
        "Boston",
        "Denver",
        "Dallas",
    ]
    phrases = ["landed in {} on time again", "that gate crew in {} again", "my bags from {} again"]
    texts = [phrases[i // 11].format(cities[i % 11]) for i in range(33)]
    labels = ["negative" if i % 2 else "positive" for i in range(33)]
    for row, label in {4: "Positive", 12: "Positive", 18: "positive ", 25: "NEGATIVE"}.items():
        labels[row] = label
    labels += ["positive", "negative", "negative"]
    test = [texts[i] for i in (2, 6, 14, 22, 30)] + [f"the lounge in {city} today" for city in cities[:9]]
    tweets = [*texts, texts[1], texts[8], texts[20], *test]
    write(folder, 36, {"sentiment": labels}, "positive", id=[f"t{i:03d}" for i in range(50)], tweet=tweets)


def one_of_three_smells(folder):
    """Three columns of which one is 1, and days as in America."""
    kind = [(i * 7 + i // 5) % 3 for i in range(45)]
    days = [f"{12 - i // 15}/{13 + i % 15}/24" for i in range(60)]
    labels = {name: [int(k == j) for k in kind] for j, name in enumerate(["floral", "fruity", "woody"])}
    write(folder, 45, labels, 0.33, id=range(501, 561), smiles=MOLECULES, panel_date=days)


def label_in_the_test_table(folder):
    """The label also stands in the test table, and a long remark in the training table alone."""
    plain(folder)
    table = pd.read_csv(folder / "train.csv")
    remarks = [
        f"run {i}: filtered after {i + 10} minutes, deposit {'seen' if i % 2 else 'not seen'}"
        for i in range(36)
    ]
    table.assign(remark=remarks).to_csv(folder / "train.csv", index=False)
    pd.read_csv(folder / "test.csv").assign(pKd=np.linspace(4, 9, 12)).to_csv(
        folder / "test.csv", index=False
    )


def nothing_wrong_with_numbers(folder):
    """Noise around 0, two enantiomers, and molecules in both solvents."""
    molecules = [*MOLECULES[:34], "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", *MOLECULES[:4], *MOLECULES[34:46]]
    solvents = [("water", "DMSO")[(i + (i >= 36)) % 2] for i in range(52)]
    percent = np.random.default_rng(17).uniform(-5, 98, 40).round(2)
    percent[[3, 7, 11, 20]] = 0.0, 0.02, 0.01, -3.1
    ids = [f"cmpd_{3 * i + 1}" for i in range(52)]
    celsius = [[20.5, 25.0, 30.0, 37.0][i * 3 % 4] for i in range(52)]
    inputs = {"cmpd": ids, "SMILES": molecules, "solvent": solvents, "temp_C": celsius}
    write(folder, 40, {"inhibition_pct": percent}, **inputs)


def nothing_wrong_with_labels(folder):
    """None to three ones in a row."""
    bits = [[i % 2, i // 2 % 2, i // 4 % 2] for i in range(52)]
    people = ["Zoë", "Marcus", "the night shift", "our café", "a new customer", "Priya", "the warehouse"]
    parts = [
        ("can wait", "is urgent"),
        ("likes the prices", "was charged twice"),
        ("and all works", "and it crashes"),
    ]
    texts = [
        f"Ticket from {people[i // 8]}: it " + ", ".join(part[b] for part, b in zip(parts, row, strict=True))
        for i, row in enumerate(bits)
    ]
    labels = {name: [row[j] for row in bits[:40]] for j, name in enumerate(["urgent", "billing", "bug"])}
    write(folder, 40, labels, 0.5, id=[f"m{i:02d}" for i in range(52)], message=texts)


# Forms of files, and messages


def in_utf_16(folder):
    plain(folder)
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text.replace(",", "\t"), encoding="utf-16")


def in_an_older_encoding(folder):
    plain(folder)
    edit(
        folder, "test.csv", lambda text: text.replace("smiles", "smiles,Güte").replace("\n", ',"klar, süß"\n')
    )
    (folder / "test.csv").write_text((folder / "test.csv").read_text(), encoding="cp1252")


def with_semicolons_in_quotes(folder):
    plain(folder)
    edit(
        folder,
        "train.csv",
        lambda text: "".join(f'"{line}"\n' for line in text.replace(",", '";"').split("\n")[:-1]),
    )


def a_web_page(folder):
    plain(folder)
    page = "\n<!DOCTYPE html>\n<html>\n<head><title>Login, please</title></head>\n<body>Sign in</body>\n</html>\n"
    (folder / "train.csv").write_text(page)


def a_pointer(folder):
    plain(folder)
    (folder / "test.csv").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 1234\n"
    )


def a_workbook(folder):
    plain(folder)
    table = pd.read_csv(folder / "train.csv")
    with pd.ExcelWriter(folder / "train.xlsx") as writer:
        for name in ("data", "notes"):
            table.to_excel(writer, sheet_name=name, index=False)
    (folder / "train.xlsx").replace(folder / "train.csv")


def an_archive(folder):
    plain(folder)
    (folder / "train.csv").write_bytes(gzip.compress((folder / "train.csv").read_bytes()))


def lines_of_json(folder):
    plain(folder)
    rows = pd.read_csv(folder / "train.csv").to_dict("records")
    (folder / "train.csv").write_text("".join(json.dumps(row) + "\n" for row in rows))


def labels_in_a_file_of_their_own(folder):
    plain(folder)
    table = pd.read_csv(folder / "train.csv")
    table[["sample_id", "pKd"]].to_csv(folder / "labels.csv", index=False)
    table.drop(columns="pKd").to_csv(folder / "train.csv", index=False)


def a_row_of_the_sample_alone(folder):
    plain(folder)
    edit(folder, "sample.csv", lambda text: text + "S-999,0\n")


def numbers_of_rows_without_a_name(folder):
    plain(folder)
    for file in ("train.csv", "test.csv", "sample.csv"):
        edit(folder, file, lambda text: text.replace("sample_id", ""))


def numbers_with_signs_and_units(folder):
    """Prices, shares, doses and detection limits in other forms; stars repeat, and one label is missing."""
    plain(folder)
    for file, rows in (("train", range(36)), ("test", range(36, 48))):
        table = pd.read_csv(folder / f"{file}.csv")
        table["price"] = [f"${1000 + 7 * row:,}" for row in rows]
        table["purity"] = [f"{90 + row / 7:.2f} %" for row in rows]
        table["dose"] = [f"{3 + row / 7:.2f} mM" for row in rows]
        table["impurity"] = ["<0.1" if row % 4 == 0 else f"{row / 7:.2f}" for row in rows]
        table["stars"] = [f"{row % 5 + 1} stars" for row in rows]
        table["area"] = [f"{20 + row / 7:.1f} m²" for row in rows]
        table["rent"] = [f"1.{100 + 3 * row},5{row % 9} €" for row in rows]
        table["heat"] = [-999 if row % 5 == 0 else row + 10 for row in rows]
        if file == "train":
            table.loc[:2, "pKd"] = -999
        table.to_csv(folder / f"{file}.csv", index=False)


def smells_in_one_cell(folder):
    smells = ["fruity", "sweet", "woody", "fruity sweet", "sweet woody", "fruity sweet woody"] * 6
    write(folder, 36, {"smell": smells}, "sweet", id=range(48), smiles=MOLECULES[:48])


def smells_with_a_column_each(folder):
    smells = ["fruity; sweet", "sweet; woody", "fruity; woody", "fruity; sweet; woody"] * 9
    write(folder, 36, {"smell": smells}, "sweet", id=range(48), smiles=MOLECULES[:48])
    sample = pd.DataFrame({"id": range(36, 48)}).assign(fruity=0, sweet=0, woody=0)
    sample.to_csv(folder / "sample.csv", index=False)


def a_few_labels_are_words(folder):
    """Most labels are numbers or bounds."""
    plain(folder)
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[10:25, "pKd"] = ">9"
    table.loc[2, "pKd"], table.loc[5, "pKd"] = "n.d.", "~1.2"
    table.to_csv(folder / "train.csv", index=False)


def names_in_another_case(folder):
    plain(folder)
    edit(folder, "train.csv", lambda text: text.replace("sample_id", "Sample_ID "))


def a_comment_above_the_header(folder):
    plain(folder)
    edit(folder, "train.csv", lambda text: "# exported in March\n" + text)


def two_columns_of_one_name(folder):
    plain(folder)
    edit(folder, "train.csv", lambda text: text.replace("pKd", "smiles", 1))


WARNED = "(?s)WARNING[^\n]*"
ROWS = [
    # writer, options of `new`, commands after it, exit status, what must be said or written, and what must not
    (reviews_in_chinese, [], TFIDF, 0, ["text: .*评论", r"roc_auc (0\.[89]|1\.000 may not hold)"], ["left out: 评论"]),
    (faces_and_digits, [], TFIDF, 0, ["text: .*comment", r"\w+ (0\.[89]|1\.000 may not hold)"], []),
    (codes_of_one_letter, ["--text", "profile"], TFIDF, 0,
     ["text: .*profile", "id: isolate", WARNED + "not better than 0.5000"], ["WARNING: [^t]"]),
    (tickets_in_japanese, [], [], 0, ["text: .*本文", "id: 受付番号"], ["(?m)^  minilm"]),
    (peptides, [], [], 0, ["text: .*sequence", "left out: HELM: WARNING"], ["(smiles|categorical): .*HELM"]),
    (inchi_and_selfies, [], [], 0,
     ["smiles: .*InChI", "left out: SELFIES: SELFIES, which is not read"],
     [r"smiles: \[[^]]*SELFIES", WARNED + "InChIKey"]),
    (lots_with_all_roles_named, ALL_ROLES, [], 0,
     ["time: 製造日", "categorical: .*品番", "numeric: .*温度", "text: .*備考", "id: ロット", "kind: time"], []),
    (polymers, ["--preset", "cpu"], [], 2, ["BigSMILES: WARNING", "left out: BigSMILES"], ["smiles: .*BigSMILES"]),
    (amplicons, ["--group", "patient"], [], 0,
     ["text: .*seq", "left out: sampled: dates; .*set time: sampled"], ["categorical: .*sampled"]),
    (export_of_chembl, [], [], 0,
     [WARNED + "3 of 44", "WARNING: 10 of 44 rows have a sign", WARNED + "orders of magnitude"], []),
    (labels_written_otherwise, [], [], 0,
     [WARNED + "case or blanks", WARNED + "3 of them with another label", WARNED + "5 test rows"], []),
    (one_of_three_smells, [], [], 0, [WARNED + "exactly one of", "left out: panel_date: .*2025-05-31"], []),
    (label_in_the_test_table, [], [], 0,
     ["WARNING: the test table has labels in pKd", "targets: .*pKd", "left out: remark: only in train"], []),
    (nothing_wrong_with_numbers, [], [], 0,
     ["smiles: .*SMILES", "categorical: .*solvent", "numeric: .*temp_C"], ["WARNING"]),
    (nothing_wrong_with_labels, [], [], 0, ["text: .*message", "urgent, billing, bug"], ["WARNING"]),
    (in_utf_16, [], [], 0, [r"train\.csv \(36 rows, UTF-16, separated by tabs\)"], []),
    (in_an_older_encoding, [], [], 2, [r"test\.csv: row 1 is not in UTF-8"], ["codec"]),
    (with_semicolons_in_quotes, [], [], 0, [r"train\.csv \(36 rows, separated by semicolons\)"], []),
    (a_web_page, [], [], 2, [r"train\.csv is a web page"], []),
    (a_pointer, [], [], 2, [r"test\.csv is a pointer of Git LFS.*git lfs pull"], []),
    (a_workbook, [], [], 0, [r"train\.csv \(36 rows, Excel workbook\)", "only the sheet 'data' .*'notes'"], []),
    (an_archive, [], [], 0, [r"train\.csv \(36 rows, gzip\)"], []),
    (lines_of_json, [], [], 0, [r"train\.csv \(36 rows, JSON lines\)"], []),
    (labels_in_a_file_of_their_own, [], [], 2, ["labels in another file"], []),
    (a_row_of_the_sample_alone, [], [], 2, ["S-999", "remove it from both"], ["files of one competition"]),
    (numbers_of_rows_without_a_name, [], [], 2, ["has no name", "Call it id"], []),
    (numbers_with_signs_and_units, [], [], 0,
     [f"left out: {name}: WARNING: .*rewrite them like 1234.5"
      for name in ("price", "purity", "dose", "impurity", "area", "rent")]
     + ["categorical: .*stars", "heat: numbers; WARNING: 10 cells are -999", "labels of pKd: 3 cells are -999"], []),
    (a_few_labels_are_words, [], [], 2, ["row 4 .*n.d.", "row 7 .*~1.2", "Rewrite them like 1234.5"], []),
    (names_in_another_case, [], [], 2, ["'Sample_ID '", "'sample_id'", "Use one name"], []),
    (smells_with_a_column_each, [], [], 2, ["'smell'", "column of 0 and 1 of each.*fruity, sweet, woody"], ["swapped"]),
    (smells_in_one_cell, [], [], 0, ["WARNING: 3 classes are lists of 3 labels, such as 'fruity sweet'"], []),
    (a_comment_above_the_header, [], [], 2, ["Is its first line the header"], []),
    (two_columns_of_one_name, [], [], 2, ["smiles"], ["Traceback"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("writer", "options", "more", "status", "must", "must_not"),
    ROWS,
    ids=[row[0].__name__ for row in ROWS],
)
def test_a_table_as_users_have_it_is_read_or_refused_in_words(
    tmp_path, monkeypatch, capsys, jobs_in_process,
    writer, options, more, status, must, must_not,
):  # fmt: skip
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    writer(tmp_path)
    path = tmp_path / "mine.yaml"
    files = [
        part for name in ("train", "test", "sample") for part in (f"--{name}", str(tmp_path / f"{name}.csv"))
    ]
    error = ""
    try:
        assert status == 0 or not more
        commands.main(["new", str(path), *files, *options])
        commands.main(["full", str(path), "--workers", "1", *more] if more else ["check", str(path)])
    except UserError as raised:
        error = str(raised)
    said = re.sub("\n +# +", " ", capsys.readouterr().out) + error  # comments of several lines
    assert (2 if error else 0) == status, said
    assert [words for words in must if not re.search(words, said)] == [], said
    assert [words for words in must_not if re.search(words, said)] == [], said
