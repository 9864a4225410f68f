"""Whether `./run.sh new` takes columns for candidates of which one wins, or for molecules of one role."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from pipeline.new.detect import detect
from pipeline.new.problem_type import choose_problem
from pipeline.new.stage_choices import choose_stages
from pipeline.new.swap import find_swap
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
        ("0,1", "winner", None),  # no and yes
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


FOUR = [["answer_1", "answer_2", "answer_3", "answer_4"]]


@pytest.mark.parametrize(
    ("labels", "columns", "is_swap"),
    [
        ("A,B,C,D", [*"ABCD"], True),
        ("a,b,c,d", ["Text A", "Text B", "Text C", "Text D"], True),
        ("4,3,2,1", ["answer_1", "answer_2", "answer_3", "answer_4"], True),
        ("answer_2,answer_1,answer_4,answer_3", ["answer_1", "answer_2", "answer_3", "answer_4"], True),
        ("0,1,2,3", ["ending0", "ending1", "ending2", "ending3"], True),
        ("0,1,2,3", ["Option 1", "Option 2", "Option 3", "Option 4"], True),
        ("a,b,c,d", ["choice_1", "choice_2", "choice_3", "choice_4"], True),
        ("a,b,c,d", ["answer_1", "answer_2", "answer_3", "answer_4"], False),  # may be kinds of people who answer
        ("0,1,2,3", ["o_1", "o_2", "o_3", "o_4"], False),
        ("a,b,c,d,neither", ["o_a", "o_b", "o_c", "o_d"], True),
        ("a,b,c,d", ["o_1", "o_2", "o_3", "o_4"], False),  # grades of four answers
        ("a,b,c", ["o_a", "o_b", "o_c", "o_d"], False),
        ("a,b,c,d,e", ["o_a", "o_b", "o_c", "o_d"], False),
        ("a,a,a,a,a,a,b,c,d", ["o_a", "o_b", "o_c", "o_d"], False),  # one is six times as frequent as others
        ("0,1,2,3", ["opa", "opb", "opc", "opd"], True),
        ("a,b,d,e", ["o_a", "o_b", "o_d", "o_e"], False),
        ("a,b,c,d,other", ["o_a", "o_b", "o_c", "o_d"], False),
    ],
)  # fmt: skip
def test_three_or_more_texts_that_end_like_the_classes_or_are_named_so_are_options(
    tmp_path, labels, columns, is_swap
):
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(columns)}
    names = labels.split(",")
    sample = {"y": names[0] if names[0].isdigit() else " ".join(names[:3])}  # whole numbers are no levels
    guess = swap_of(tmp_path, labels, sample=sample, prompt=notes(80), **texts)
    winners = sorted({*names})[: len(columns)]
    assert (guess and guess.setting) == ({"columns": [columns], "labels": winners} if is_swap else None)


@pytest.mark.parametrize(("target", "is_swap"), [("y", False), ("winner", True)])
def test_three_numbers_are_options_only_if_the_target_says_so(tmp_path, target, is_swap):
    numbers = {f"n_{mark}": [k / place for k in range(80)] for place, mark in enumerate("abc", start=5)}
    assert (swap_of(tmp_path, "a,b,c", target, **numbers) is not None) == is_swap


def test_classes_that_are_columns_are_in_the_order_of_the_columns(tmp_path):
    """The rarer one of two classes is the last."""
    guess = swap_of(tmp_path, "response_b,response_b,response_a")
    assert guess.setting == {
        "columns": [["response_a", "response_b"]],
        "labels": ["response_a", "response_b"],
    }


@pytest.mark.parametrize(("target", "is_swap"), [("right", True), ("grade", False), ("star_rating", False)])
def test_a_target_that_is_called_a_grade_is_no_choice_among_options(tmp_path, target, is_swap):
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(FOUR[0])}
    assert (swap_of(tmp_path, "1,2,3,4", target, **texts) is not None) == is_swap


@pytest.mark.parametrize("names", [["left", "right"], ["first", "second", "third"]])
def test_classes_that_are_names_of_columns_are_options(tmp_path, names):
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(names)}
    files = write_labels(
        tmp_path, {"y": names * (60 // len(names))}, {"y": names[0]}, prompt=notes(80), **texts
    )
    competition = make(tmp_path, files).competition
    swap = competition.swap
    assert swap.columns == [swap.labels]
    assert sorted(swap.labels) == names
    if len(names) > 2:
        assert sorted(competition.pairs) == [["prompt", name] for name in names]


@pytest.mark.parametrize(
    ("labels", "kind"), [(["left", "right"], "stratified"), (["a", "z"], "stratified_group")]
)
def test_folds_hold_out_the_items_of_all_places_or_are_random(tmp_path, labels, kind):
    """Four rows have the same item on the left, and the four after them have it on the right."""
    items = [" ".join(chr(97 + (7 * k + word) % 26) * 3 for word in range(5)) for k in range(20)]
    left = np.repeat(items, 4)
    right = [*np.roll(left[:60], 4), *np.roll(left[60:], 4)]
    texts = {"left": list(left), "right": right, "prompt": notes(80)}
    config = make(tmp_path, write_labels(tmp_path, {"y": labels * 30}, {"y": labels[0]}, **texts))
    assert config.folds.kind == kind
    reason = " ".join((tmp_path / "mine.yaml").read_text().replace("\n#", "").split())
    assert ("60 of 60 training rows are connected" in reason) == (kind == "stratified")


@pytest.mark.parametrize("names", ["ABC", "abc", "pqr"])
def test_the_sample_may_have_a_column_for_each_option_in_any_order(tmp_path, names):
    """Also one that is called like the option."""
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(names)}
    files = write_labels(tmp_path, {"y": [*"ABC"] * 20}, dict.fromkeys("CAB", 0.3), **texts)
    competition = make(tmp_path, files).competition
    if names != "pqr":
        assert (competition.swap.columns, competition.swap.labels) == ([[*names]], [*"ABC"])
    assert competition.task.classes == competition.submission_columns == [*"ABC"]


def test_whole_numbers_are_levels_unless_there_is_an_option_for_each(tmp_path):
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(FOUR[0])}
    assert swap_of(tmp_path, "1,2,3", sample={"y": "1"}, **texts) is None
    assert swap_of(tmp_path, "1,2,3,4", sample={"y": "1"}, **texts).setting["columns"] == FOUR


def test_all_columns_of_an_option_move_and_the_question_is_compared_with_each_of_them(tmp_path):
    texts = {name: notes(80)[k:] + notes(80)[:k] for k, name in enumerate(FOUR[0])}
    numbers = {f"n_{place}": [k / (place + 4) for k in range(80)] for place in range(1, 5)}
    swap_of(
        tmp_path, "1,2,3,4", sample=dict.fromkeys("1234", 0.25), question=notes(80)[::-1], **texts, **numbers
    )
    config = make(
        tmp_path, [option for file in files_in(tmp_path) for option in (f"--{file.stem}", str(file))]
    )
    assert config.competition.swap.columns == [*FOUR, [*numbers]]
    assert config.competition.swap.labels == [*"1234"]
    assert sorted(config.competition.pairs) == [["question", name] for name in FOUR[0]]


FIRST, SECOND = np.random.default_rng(0).integers(20, size=(2, 80))
EFFECTS = np.random.default_rng(1).normal(size=20)


def swap_of_molecules(folder, effects_of_second=EFFECTS, names=("drug_a", "drug_b"), labels=None, **inputs):
    """The label is the sum of an effect of either molecule; the second one may have an effect of its own."""
    pool = np.array(smiles(20))
    columns = dict(zip(names, (pool[FIRST], pool[SECOND]), strict=True))
    sums = EFFECTS[FIRST] + effects_of_second[SECOND]
    write_labels(folder, {"y": labels or list(sums[:60].round(3))}, {"y": 0}, **columns, **inputs)
    tables = detect(files_in(folder))
    return find_swap(tables, choose_problem(tables))


def test_molecules_of_one_pool_that_have_like_labels_in_either_column_may_change_places(tmp_path):
    doses = {"dose_a": [k / 7 for k in range(80)], "dose_b": [k / 3 for k in range(80)]}
    guess = swap_of_molecules(tmp_path, heat=[k / 5 for k in range(80)], **doses)
    assert guess.setting == {"columns": [["drug_a", "drug_b"], ["dose_a", "dose_b"]]}
    assert guess.reason.startswith("GUESS: the columns have the same molecules, with similar labels in each;")


@pytest.mark.parametrize(
    ("signs", "moves"),
    [
        ([1, 1], True),  # either is more of the same
        ([1, -1], False),
        ([1, 0], False),
        ([0, 0], True),  # nothing tells that they are not what their names say
    ],
)
def test_numbers_that_have_other_effects_stay_where_molecules_change_places(tmp_path, signs, moves):
    numbers = np.random.default_rng(9).normal(size=(2, 80)) * [[0.3], [0.6]]
    effects = EFFECTS[FIRST] + EFFECTS[SECOND] + signs @ numbers
    cells = {"axis_1": list(numbers[0].round(3)), "axis_2": list(numbers[1].round(3))}
    guess = swap_of_molecules(
        tmp_path, names=("drug_1", "drug_2"), labels=list(effects[:60].round(3)), **cells
    )
    assert guess.setting == {"columns": [["drug_1", "drug_2"], *([[*cells]] if moves else [])]}
    assert ("'axis_1', 'axis_2' stay in place" in guess.reason) == (not moves)


def test_classes_of_two_molecules_of_one_role_may_stay_where_their_columns_change_places(tmp_path):
    is_strong = EFFECTS[FIRST] + EFFECTS[SECOND] > 0.2
    labels = list(np.where(is_strong, "strong", "weak")[:60])
    assert swap_of_molecules(tmp_path, labels=labels).setting == {"columns": [["drug_a", "drug_b"]]}


def test_texts_of_two_molecules_of_one_role_are_still_compared(tmp_path):
    swap_of_molecules(tmp_path, note_a=notes(80), note_b=notes(80)[::-1])
    config = make(
        tmp_path, [option for file in files_in(tmp_path) for option in (f"--{file.stem}", str(file))]
    )
    assert config.competition.swap.columns == [["drug_a", "drug_b"], ["note_a", "note_b"]]
    assert config.competition.swap.labels is None
    assert config.competition.pairs == [["note_a", "note_b"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"effects_of_second": -EFFECTS},  # a difference of the two
        {
            "effects_of_second": np.random.default_rng(2).normal(size=20)
        },  # solvents that are solutes elsewhere
        {"names": ("solute", "solvent")},
        {"names": ("drug_a", "solvent_b")},
    ],
)
def test_molecules_of_two_roles_keep_their_places(tmp_path, changes):
    assert swap_of_molecules(tmp_path, **changes) is None


def test_three_molecules_may_change_places_if_each_two_of_them_are_of_one_role(tmp_path):
    third = np.array(smiles(20))[np.random.default_rng(3).integers(20, size=80)]
    assert swap_of_molecules(tmp_path, drug_c=third) is None  # it has no effect
    pool = np.array(smiles(20))
    places = np.random.default_rng(4).integers(20, size=(3, 80))
    columns = dict(zip(("drug_a", "drug_b", "drug_c"), pool[places], strict=True))
    write_labels(tmp_path, {"y": list(EFFECTS[places].sum(axis=0)[:60].round(3))}, {"y": 0}, **columns)
    tables = detect(files_in(tmp_path))
    assert find_swap(tables, choose_problem(tables)).setting == {"columns": [[*columns]]}


def test_molecules_that_are_in_one_of_two_columns_only_keep_their_places(tmp_path):
    inputs = {"drug_a": smiles(80), "drug_b": smiles(160)[80:]}
    write_labels(tmp_path, {"y": [k / 7 for k in range(60)]}, {"y": 0}, **inputs)
    tables = detect(files_in(tmp_path))
    assert find_swap(tables, choose_problem(tables)) is None


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
        {block.name for block in choose_stages("quick", large, problem, n_orders=n_orders)}
        for n_orders in (1, 2)
    )
    assert in_one - in_both == {"gp"}


@pytest.mark.parametrize(("share", "is_swap"), [("x1", False), ("temperature", True)])
def test_molecules_of_which_one_has_a_share_in_the_mixture_do_not_change_places(tmp_path, share, is_swap):
    """Of a mixture of 12 molecules in any order: the label is the mean of theirs, by the share or by halves."""
    rng = np.random.default_rng(0)
    of_molecule = rng.normal(size=12)
    first, second = rng.integers(12, size=(2, 320))
    number = rng.uniform(size=320).round(3)
    x = number if share == "x1" else np.full(320, 0.5)
    y = (x * of_molecule[first] + (1 - x) * of_molecule[second])[:300]
    cells = np.array(smiles(12))
    inputs = {"mol_1": cells[first], "mol_2": cells[second], share: number}
    write_labels(tmp_path, {"y": list(y.round(4).astype(str))}, {"y": "0"}, **inputs)
    tables = detect(files_in(tmp_path))
    guess = find_swap(tables, choose_problem(tables))
    assert (guess is not None) == is_swap
