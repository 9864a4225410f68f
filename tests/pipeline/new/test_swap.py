"""Whether `./run.sh new` takes two columns for candidates of which one wins."""

from dataclasses import replace

import pandas as pd
import pytest

from competition.config import load_competition
from pipeline.new.detect import detect
from pipeline.new.problem_type import choose_problem
from pipeline.new.stage_choices import choose_stages
from pipeline.new.swap import find_swap, numbered_pairs
from tests.submissions.made_up import files_in, make, notes, smiles, write_labels

TEXTS = {"response_a": notes(80), "response_b": notes(80)[::-1]}


def swap_of(folder, labels, target="y", sample=None, **inputs):
    columns = labels if isinstance(labels, dict) else {target: labels}
    repeated = {name: (text.split(",") * 60)[:60] for name, text in columns.items()}
    write_labels(folder, repeated, sample or dict.fromkeys(columns, "0"), **(inputs or TEXTS))
    tables = detect(files_in(folder))
    return find_swap(tables, choose_problem(tables))


@pytest.mark.parametrize(
    ("labels", "target", "expected"),
    [
        ("a,b,tie", "y", ["a", "b"]),
        ("model_b,model_a", "winner", ["model_a", "model_b"]),
        ("response_1,response_2,both", "y", ["response_1", "response_2"]),
        ("1,2", "preferred", ["1", "2"]),
        ({"winner_model_a": "0,1,0", "winner_model_b": "1,0,0", "winner_tie": "0,0,1"}, "",
         ["winner_model_a", "winner_model_b"]),
        ("type_a,type_b", "y", None),  # nothing wins
        ("type_a,type_b,none", "y", None),
        ("1,2", "wine", None),
        ("a,b,c", "winner", None),
        ("1,2,3", "winner", None),  # grades
        ("p,q,tie", "winner", None),
    ],
)  # fmt: skip
def test_labels_that_name_the_two_columns_or_a_tie_tell_that_one_wins(tmp_path, labels, target, expected):
    guess = swap_of(tmp_path, labels, target)
    assert (guess.setting if guess else None) == (
        expected and {"columns": [["response_a", "response_b"]], "labels": expected}
    )


def test_all_columns_of_the_candidates_are_named_and_those_of_one_role_belong_together(tmp_path):
    inputs = {"prompt": notes(80), "mol_b": smiles(80), "mol_a": smiles(80)[::-1]}
    inputs |= {"n_a": [k / 7 for k in range(80)], "n_b": [k / 3 for k in range(80)], "note_a": notes(80)}
    assert swap_of(tmp_path, "a,b,tie", **inputs).setting["columns"] == [["mol_a", "mol_b"], ["n_a", "n_b"]]
    assert swap_of(tmp_path, "a,b,tie", prompt=notes(80), n_a=[k / 7 for k in range(80)]) is None


def test_names_of_two_candidates_differ_in_their_last_character():
    assert numbered_pairs(["x_b", "z", "x_a", "y1", "x_1"]) == [["x_a", "x_b"]]
    assert numbered_pairs(["A", "B"]) == [["A", "B"]]


def test_the_yaml_has_the_guess_with_its_reason(tmp_path):
    files = write_labels(tmp_path, {"winner": ["a", "b", "tie"] * 20}, {"a": 0, "b": 0, "tie": 1}, **TEXTS)
    config = make(tmp_path, files)
    assert config.competition.swap.labels == ["a", "b"]
    assert config.competition.pairs == []  # what the candidates have in common does not tell which one wins
    assert (
        "swap: {columns: [[response_a, response_b]], labels: [a, b]}" in (tmp_path / "mine.yaml").read_text()
    )
    assert load_competition(str(tmp_path / "mine.yaml")).swap == config.competition.swap


def test_kernel_methods_are_for_half_as_many_rows_that_are_read_in_both_orders(tmp_path):
    write_labels(tmp_path, {"y": ["a", "b", "tie"] * 20}, {"y": "a"}, s_a=smiles(80), s_b=smiles(80)[::-1])
    tables = detect(files_in(tmp_path))
    problem = choose_problem(tables)
    large = replace(
        tables, train=pd.concat([tables.train] * 100)
    )  # 6,000 rows, the most of a Gaussian process
    in_one, in_both = (
        {block.name for block in choose_stages("quick", large, problem, has_swap=has_swap)}
        for has_swap in (False, True)
    )
    assert in_one - in_both == {"gp"}
