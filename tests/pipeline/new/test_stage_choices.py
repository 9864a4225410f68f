"""What `./run.sh new` chooses for what it finds: folds and stages."""

from dataclasses import replace

import pandas as pd
import pytest

from core.errors import UserError
from models.inputs import weights
from models.registry import make_stage
from pipeline.new import stage_choices
from pipeline.new.detect import detect
from pipeline.new.problem_type import choose_problem
from pipeline.new.stage_choices import Block, choose_folds, choose_stages, read_presets
from tests.submissions.made_up import RINGS, files_in, notes, smiles, write, write_labels

NUMBER = [k / 7 for k in range(80)]
INPUTS = {
    "molecules": {"s": smiles(80)},
    "text": {"t": notes(80)},
    "both": {"s": smiles(80), "ligand": smiles(80)[::-1], "t": notes(80)},
    "table": {"n": NUMBER, "k": ["p", "q"] * 40},
    "reactions": {"rxn": [f"{s}>>{s}O" for s in smiles(80)], "t": notes(80)},
}


def detected_in(folder, *sizes, **inputs):
    write(folder, *sizes, **inputs)
    return detect(files_in(folder))


def stages(detected, preset="quick"):
    return {block.name: block for block in choose_stages(preset, detected, choose_problem(detected))}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("molecules", {"gp_minimol": None, "gnn": None, "unimol": None}),
        ("text", {"minilm": None, "lightgbm": None}),
        ("both", {"gp_minimol": None, "minilm": None, "rxnfp": ["s", "ligand"]}),
        ("table", {"bayesian_ridge": None, "lightgbm": None, "lightgbm_small": None}),
        ("reactions", {"rxnfp_reaction": ["rxn"], "minilm": ["t"], "minilm_frozen": ["t"]}),
    ],
)
def test_the_quick_stages_of_each_kind_of_problem_read_the_columns_that_are_for_them(
    tmp_path, inputs, expected
):
    columns = {}
    for name, block in stages(detected_in(tmp_path, **INPUTS[inputs])).items():
        encoders = [feature for feature in block.settings.get("features", []) if isinstance(feature, dict)]
        columns[name] = (encoders or [block.settings])[0].get("columns")
    assert expected.items() <= columns.items()
    for name in ("gp_minimol", "minilm"):
        assert (name in columns) == (name in expected)


@pytest.mark.parametrize(("labels", "kind"), [(NUMBER[:60], "svr"), (["p", "q"] * 30, "svc")])
def test_a_linear_model_on_the_embedding_of_an_svm_comes_before_it_and_also_in_large_tables(
    tmp_path, labels, kind
):
    """So that a budget gives neither up after the embeddings are made."""
    write_labels(tmp_path, {"y": labels}, {"y": labels[0]}, t=notes(80))
    detected = detect(files_in(tmp_path))
    chosen = stages(detected)
    assert [*chosen].index("minilm_frozen") < [*chosen].index(f"minilm_{kind}")
    assert chosen["minilm_frozen"].settings["features"] == chosen[f"minilm_{kind}"].settings["features"]
    large = stages(replace(detected, train=pd.concat([detected.train] * 600)))  # 36,000 rows
    assert chosen.keys() - large.keys() == {f"minilm_{kind}", "use_svm"}
    assert "minilm_frozen" in large


def test_targets_that_are_numbers_get_a_linear_model_before_trees_in_a_table_of_numbers(tmp_path):
    write_labels(tmp_path, {"y": NUMBER[:60]}, {"y": 0.5}, n=NUMBER, k=["p", "q"] * 40)
    _, linear, *trees = stages(detect(files_in(tmp_path))).values()
    assert linear.settings["estimator"] == "sklearn.linear_model.BayesianRidge"
    assert "lightgbm" in [block.name for block in trees]


def test_encoders_of_texts_read_no_long_sequences(tmp_path, capsys):
    tables = detected_in(tmp_path, t=notes(80))
    assert "minilm" in stages(tables)
    columns = [replace(column, is_sequence=column.name == "t") for column in tables.columns]
    assert {*stages(replace(tables, columns=columns))} == {"baseline", "lightgbm"}
    assert (
        "left out: encoders of texts for 't', whose long words are unknown tokens" in capsys.readouterr().out
    )


@pytest.mark.parametrize("inputs", ["molecules", "text", "table"])
@pytest.mark.parametrize("preset", ["quick", "cpu", "gpu"])
def test_classes_have_other_stages_grades_those_of_numbers_and_large_tables_no_kernel_methods(
    tmp_path, inputs, preset
):
    chosen = {}
    for what, labels in {
        "numbers": NUMBER[:60],
        "grades": [1, 2, 3] * 20,
        "names": ["p", "q", "r"] * 20,
    }.items():
        write_labels(tmp_path, {"y": labels}, {"y": labels[0]}, **INPUTS[inputs])
        detected = detect(files_in(tmp_path))
        problem = choose_problem(detected)
        chosen[what] = choose_stages(preset, detected, problem)
        learns = "multiclass" if what == "names" else "regression"
        for block in chosen[what]:
            assert not list(make_stage(block.settings).config_errors(learns))
        kernels = [
            block
            for block in chosen[what]
            if "SV" in block.settings.get("estimator", "") or block.settings["kind"] == "gp"
        ]
        large = replace(detected, train=pd.concat([detected.train] * 3334))  # 200,000 rows
        assert bool(kernels) == (inputs != "table")
        of_large = choose_stages(preset, large, problem)
        fast = {"lightgbm_fast": inputs == "molecules", "ridge": inputs == "text" and what != "names"}
        added = [name for name, is_for_inputs in fast.items() if is_for_inputs and preset != "gpu"]
        assert [block.name for block in of_large if block.name in fast] == added
        others = [block for block in of_large if block.name not in fast]
        assert others == [block for block in chosen[what] if block not in kernels]
    assert chosen["grades"] == chosen["numbers"] != chosen["names"]


@pytest.mark.parametrize(
    ("target", "is_adme"),
    [
        ("log_HLM_CLint", True), ("Caco-2 Permeability Papp A>B", True), ("LogD", True), ("hppb", True), ("KSOL", True),
        ("MLM", True), ("logS", False), ("pKi", False), ("dipole", False), ("helmet", False), ("gap_eV", False),
    ],
)  # fmt: skip
def test_the_encoder_that_was_trained_on_adme_is_for_targets_that_are_called_so(tmp_path, target, is_adme):
    write_labels(tmp_path, {target: NUMBER[:60]}, {target: 0}, s=smiles(80))
    readers = [name for name, block in stages(detect(files_in(tmp_path))).items() if "admet" in str(block)]
    assert readers == (["admet_svr", "gp_admet"] if is_adme else [])


@pytest.mark.parametrize(("n_repeats", "batch_size"), [(1, None), (60, 8)])
def test_long_texts_are_distinguished_from_short_ones_by_their_words(tmp_path, n_repeats, batch_size):
    texts = [" ".join([note] * n_repeats) for note in notes(80)]
    assert stages(detected_in(tmp_path, t=texts), "gpu")["deberta"].settings.get("batch_size") == batch_size


@pytest.mark.parametrize(
    ("word", "encoder"), [("caf\u00e9", "deberta"), ("\u0447\u0430\u0439", "xlm_roberta")]
)
def test_the_encoder_follows_the_script_of_the_texts(tmp_path, word, encoder):
    texts = [f"{word} {k} {word * 3} :)" for k in range(80)]
    names = {*stages(detected_in(tmp_path, t=texts), "gpu")}
    assert names & {"deberta", "xlm_roberta"} == {encoder}


@pytest.mark.parametrize(
    ("preset", "labels", "name"),
    [("quick", NUMBER[:60], None), ("cpu", NUMBER[:60], "mpnet_svr"), ("gpu", ["p", "q"] * 30, "mpnet_svc")],
)
def test_the_larger_sentence_encoder_is_written_where_its_weights_are(
    tmp_path, monkeypatch, capsys, preset, labels, name
):
    monkeypatch.setattr(weights, "weight_folders", lambda: [tmp_path / "weights"])
    write_labels(tmp_path, {"y": labels}, {"y": labels[0]}, t=notes(80))
    detected = detect(files_in(tmp_path))
    without = {*stages(detected, preset)}
    assert ("requirements-mpnet.txt says how" in capsys.readouterr().out) == bool(name)
    (tmp_path / "weights" / "mpnet").mkdir(parents=True)
    for file in weights.WEIGHT_SETS["mpnet"].files:
        (tmp_path / "weights" / "mpnet" / file).touch()
    assert {*stages(detected, preset)} - without == {*filter(None, [name])}


PRESETS = """
presets: {mine: {budget: 3m}, other: {budget: 1h}}
stages:
- {name: ridge, presets: [mine], needs: [table], reason: mine, settings: {kind: sklearn}}
- {name: trees, needs: [table], reason: all, settings: {kind: lightgbm}}
- {name: absent, needs: [table], package: not_installed, reason: mine, settings: {kind: lightgbm}}
"""


def test_a_user_defined_preset_has_the_installed_stages_that_name_it_and_those_of_all_presets(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(stage_choices, "PRESETS", tmp_path / "presets.yaml")
    stage_choices.PRESETS.write_text(PRESETS)
    assert read_presets().presets["mine"].budget == "3m"
    tables = detected_in(tmp_path, n=NUMBER)
    ridge, trees = Block("ridge", {"kind": "sklearn"}, "mine"), Block("trees", {"kind": "lightgbm"}, "all")
    assert stages(tables, "mine") == {"ridge": ridge, "trees": trees}
    assert stages(tables, "other") == {"trees": trees}
    assert "left out: absent, mine; it needs a package: " in capsys.readouterr().out


SHIFTED = [*smiles(60, RINGS[:3]), *smiles(20, RINGS[3:])]
PLATES = [f"p{k // 4}" for k in range(80)]


@pytest.mark.parametrize(
    ("sizes", "inputs", "options", "expected"),
    [
        ((60, 20, 2), {"n": NUMBER}, {}, ("kfold", 10)),
        ((500, 20), {"t": notes(520)}, {}, ("stratified", 5)),
        ((20, 60), {"n": NUMBER}, {}, ("stratified", 3)),
        (
            (60, 20), {"n": NUMBER, "lab": [f"g{i % 8}" for i in range(80)]}, {"group": "lab"},
            ("stratified_group", 8),
        ),
        ((60, 20), {"s": smiles(80)}, {}, ("stratified", 10)),
        ((60, 20), {"s": smiles(80)}, {"kind": "scaffold"}, ("scaffold", 6)),
        ((60, 20), {"s": SHIFTED}, {}, ("scaffold", 3)),
        ((60, 20), {"n": NUMBER, "plate": PLATES}, {}, ("stratified_group", 10)),
        ((60, 20, 3), {"n": NUMBER, "plate": PLATES}, {}, ("group", 5)),
        ((60, 20), {"n": NUMBER, "year": [2000 + k // 5 for k in range(80)]}, {}, ("time", 10)),
        ((60, 20), {"n": NUMBER, "year": [2000 + k // 20 for k in range(80)]}, {}, ("time", 2)),
        ((60, 20), {"n": NUMBER, "year": NUMBER}, {"time": "year"}, ("time", 10)),
    ],
)  # fmt: skip
def test_folds_fit_to_targets_number_of_rows_and_what_the_test_table_holds_out(
    tmp_path, sizes, inputs, options, expected
):
    detected = detected_in(tmp_path, *sizes, **inputs)
    choice = choose_folds(detected, choose_problem(detected), **options)
    assert (choice.kind, choice.n_folds) == expected
    assert choice.time == ("year" if choice.kind == "time" else None)


def test_the_reason_of_the_folds_has_the_two_numbers(tmp_path):
    detected = detected_in(tmp_path, n=NUMBER, plate=PLATES)
    choice = choose_folds(detected, choose_problem(detected))
    assert choice.reason.startswith(
        "0 test rows share 'plate' with a training row, and 20 would in a random split"
    )
    assert [unit.setting for unit in choice.units] == ["plate"]
    assert detected.without_groups(choice.units, choice.time).inputs == [
        "n"
    ]  # the plates of the test rows are new


def test_a_column_of_dates_that_makes_the_folds_is_not_advised_to(tmp_path):
    detected = detected_in(
        tmp_path, n=NUMBER, day=[f"2024-{1 + k // 28:02d}-{1 + k % 28:02d}" for k in range(80)]
    )
    choice = choose_folds(detected, choose_problem(detected))
    assert (choice.kind, choice.time) == ("time", "day")
    columns = detected.without_groups(choice.units, choice.time).columns
    assert {column.name: column.reason for column in columns}["day"] == "makes the folds (time)"


def test_what_folds_cannot_hold_out_is_said(tmp_path):
    """Of three sites one is the test table; and plates that equal inputs connect."""
    detected = detected_in(tmp_path, n=NUMBER, site=[f"s{k // 20 // 2}" for k in range(60)] + ["s2"] * 20)
    choice = choose_folds(detected, choose_problem(detected))
    assert choice.kind == "stratified" and choice.units == []
    assert "only 2 values, so the error of the test rows is not known" in choice.reason
    detected = detected_in(
        tmp_path, n=[k % 3 for k in range(80)], day=[f"d{k // 4:02d}-{k}" for k in range(80)]
    )
    choice = choose_folds(detected, choose_problem(detected))
    assert choice.kind == "stratified" and choice.units == []
    assert "60 of 60 training rows are connected" in choice.reason


@pytest.mark.parametrize(
    ("inputs", "kind", "group"),
    [
        ({"s": [smiles(30)[k % 30] for k in range(80)], "n": NUMBER}, "stratified_group", ["s"]),
        ({"t": [notes(30)[k % 30] for k in range(80)], "n": NUMBER}, "stratified_group", ["t"]),
        ({"s": smiles(80), "n": NUMBER}, "stratified", []),
        ({"s": smiles(80), "n": NUMBER, "k": ["p", "q"] * 40}, "stratified", []),
    ],
)
def test_without_a_test_table_folds_keep_the_rows_of_a_molecule_or_text_together(
    tmp_path, inputs, kind, group
):
    detected = detected_in(tmp_path, **inputs)
    detected = replace(detected, test=detected.test.head(0))
    choice = choose_folds(detected, choose_problem(detected))
    assert (choice.kind, [unit.setting for unit in choice.units]) == (kind, group)
    said = "GUESS: there is no test table, and 60 of 60 rows share"
    assert choice.reason.startswith(
        f"{said} '{group[0]}' (30 values)" if group else "similar labels in every fold"
    )
    assert choose_folds(detected, choose_problem(detected), kind="kfold").units == []


@pytest.mark.parametrize(
    ("group", "kind", "words"),
    [
        (None, "group", "--folds group and --group COL belong together"),
        ("lab", "kfold", "--folds group and --group COL belong together"),
        (None, "scaffold", "--folds scaffold needs a column of molecules"),
        ("lab", None, "two groups or distinct inputs; there is 1"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path, group, kind, words):
    detected = detected_in(tmp_path, n=NUMBER, lab=["a"] * 80)
    with pytest.raises(UserError, match=words):
        choose_folds(detected, choose_problem(detected), group, kind)


@pytest.mark.parametrize("day", ["", "05/06/2025"])
def test_times_that_cannot_be_read_are_refused_with_their_row(tmp_path, day):
    detected = detected_in(tmp_path, n=NUMBER, day=[day, *(["2025-05-31", "2025-06-01"] * 40)[1:]])
    with pytest.raises(UserError, match="times that are neither numbers nor dates .*row 2"):
        choose_folds(detected, choose_problem(detected), time="day")


def test_with_folds_in_time_a_model_of_all_rows_predicts_the_test_table(tmp_path):
    detected = detected_in(tmp_path, **INPUTS["both"])
    blocks = choose_stages("quick", detected, choose_problem(detected), in_time=True)
    assert {make_stage(block.settings).final_fit for block in blocks} == {"refit"}
    assert {make_stage(block.settings).final_fit for block in stages(detected).values()} == {"folds"}


@pytest.mark.parametrize(
    ("word", "encoders"),
    [
        ("caf\u00e9", {"minilm", "use_multilingual"}),
        ("\u0447\u0430\u0439", {"use_multilingual"}),
        ("\u304a\u8336", {"use_multilingual"}),
        ("\u03c4\u03c3\u03ac\u03b9", set()),
        ("\U0001f600", {"use_multilingual"}),  # of minilm most emojis are the same unknown token
    ],
)
def test_pairs_of_texts_come_before_slow_stages_and_have_an_encoder_that_knows_their_letters(
    tmp_path, word, encoders
):
    detected = detected_in(tmp_path, t=[f"{word} {k} {word * 3} :)" for k in range(80)])
    problem = choose_problem(detected)
    without = choose_stages("quick", detected, problem)
    with_pairs = choose_stages("quick", detected, problem, compared=["t"])
    ordered = {
        "lightgbm_pairs": True, "svr_pairs": bool(encoders),
        "minilm_frozen": "minilm" in encoders, "minilm_svr": "minilm" in encoders,
        "use_svm": "use_multilingual" in encoders,
    }  # fmt: skip
    first = [name for name, is_there in ordered.items() if is_there]
    assert [block.name for block in with_pairs[1 : 1 + len(first)]] == first
    assert {name for name in ("minilm", "use_multilingual") if name in str(with_pairs)} == encoders
    features = [
        feature for block in with_pairs if "_pairs" in block.name for feature in block.settings["features"]
    ]
    assert {feature["encoder"] for feature in features} == encoders
    assert [block for block in with_pairs if block.name not in first] == [
        block for block in without if block.name not in first
    ]


def test_encoders_of_pairs_are_chosen_by_the_compared_texts_and_not_by_others(tmp_path):
    greek = "\u03ba\u03b1\u03bb\u03ae \u03bc\u03ad\u03c1\u03b1 "
    detected = detected_in(
        tmp_path, t=[f"the tea is warm {k}" for k in range(80)], u=[f"{greek * 20} {k}" for k in range(80)]
    )
    blocks = choose_stages("quick", detected, choose_problem(detected), compared=["t"])
    (svm,) = [block for block in blocks if block.name == "svr_pairs"]
    assert {"encoder": "minilm", "pca": 16, "columns": ["t"]} in svm.settings["features"]


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [
        ("Der Zug ist nicht gekommen und die Leute warten", True),
        ("Le train est en retard et les gens attendent", True),
        ("The train is late, and la dolce vita is not for me", False),
        ("aspirin 5 mg", False),
    ],
)
def test_texts_in_another_language_are_a_warning_and_have_a_network_for_them(
    tmp_path, capsys, text, is_foreign
):
    detected = detected_in(tmp_path, t=[f"{text} {k}" for k in range(80)])
    names = {block.name for block in choose_stages("gpu", detected, choose_problem(detected))}
    assert ("WARNING: many texts do not look English" in capsys.readouterr().out) == is_foreign
    assert names & {"deberta", "xlm_roberta"} == {"xlm_roberta" if is_foreign else "deberta"}


@pytest.mark.parametrize(("n_train", "n_test", "is_foreign"), [(0, 20, True), (15, 5, True), (5, 1, False)])
def test_a_fifth_of_the_rows_in_other_languages_also_of_the_test_table_is_not_english(
    tmp_path, capsys, n_train, n_test, is_foreign
):
    german, english = "der Zug ist nicht da", "the train is not there"
    texts = [f"{german if k < n_train or 80 - n_test <= k else english} {k}" for k in range(80)]
    detected = detected_in(tmp_path, t=texts)
    assert len(detected.test) == 20
    names = {block.name for block in choose_stages("gpu", detected, choose_problem(detected))}
    assert ("WARNING: many texts do not look English" in capsys.readouterr().out) == is_foreign
    assert names & {"deberta", "xlm_roberta"} == {"xlm_roberta" if is_foreign else "deberta"}
    assert {"minilm", "minilm_svr"} <= names  # most letters are Latin
