"""Pairs of texts that are compared: what they have in common, in the prepared tables."""

from math import nan

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import FEATURE
from competition.pairs import NAMES, common_shares, compare_texts, with_pair_features
from competition.prepare import prepare, prepare_test
from core.errors import ConfigError

RED = "Red  cats: 3 cats."
CATS = "3 old cats"


def numbers(first, second):
    return dict(zip(NAMES, compare_texts(first, second), strict=True))


def test_the_words_trigrams_and_numbers_of_two_texts_are_compared_as_by_hand():
    found = numbers(RED, CATS)
    # red, cats, 3 and 3, old, cats
    assert (found["common words"], found["common words of the shorter"]) == (2 / 4, 2 / 3)
    # " red cats: 3 cats. " has 17 trigrams, 14 distinct ones, and " 3 old cats " has 10. Both have " 3 ", "d c", " ca",
    # "cat" and "ats".
    shares = found["common trigrams"], found["common trigrams of the shorter"]
    assert shares == (5 / (14 + 10 - 5), 5 / 10)
    assert found["common numbers"] == 1
    assert found["difference in words"] == 4 - 3
    assert found["ratio of lengths"] == (10 + 1) / (17 + 1)
    assert found["equal"] == 0
    assert numbers(" A b", "a  B ")["equal"] == 1


def test_the_other_order_of_two_texts_changes_nothing_but_the_sign_of_the_difference():
    one, other = numbers(RED, "5 dogs"), numbers("5 dogs", RED)
    assert one.pop("difference in words") == -other.pop("difference in words") == 2
    assert one == other


def test_what_neither_text_has_is_missing_and_what_one_has_is_not_in_common():
    assert np.isnan(numbers("a cat", "a dog")["common numbers"])
    assert numbers("a cat", "2 dogs")["common numbers"] == 0
    assert common_shares(set(), set()) == pytest.approx((nan, nan), nan_ok=True)
    empty = numbers("", "a cat")
    assert (empty["common words"], empty["ratio of lengths"]) == (0, 1 / 6)
    assert np.isnan(empty["common words of the shorter"])


def test_chinese_characters_are_words():
    assert numbers("\u6211\u7231\u732b", "\u6211\u6709\u732b")["common words"] == 2 / 4


def test_each_pair_has_its_columns_in_the_order_of_the_rows():
    table = pd.DataFrame({"a": ["x", "y z"], "b": ["x", "y"], "c": ["q", "y z"]})
    extended = with_pair_features(table, [["a", "b"], ["a", "c"]])
    assert list(extended)[:3] == ["a", "b", "c"]
    assert len(extended.columns) == 3 + 2 * len(NAMES)
    assert extended[f"{FEATURE}a and b: equal"].tolist() == [1, 0]
    assert extended[f"{FEATURE}a and c: equal"].tolist() == [0, 1]


def competition(folder, **settings):
    train = pd.DataFrame(
        {"id": ["a", "b", "c"], "s1": ["one", "two", "3"], "s2": ["one", "six", "3"], "y": [1, 2, 3]}
    )
    test = pd.DataFrame({"id": ["d"], "s1": ["ten"], "s2": ["ten"]})
    for name, table in {"train": train, "test": test, "sample": test[["id"]].assign(y=0)}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    lines = [
        "competition:",
        "  train: train.csv",
        "  test: test.csv",
        "  sample_submission: sample.csv",
        "  id: id",
    ]
    lines += ["  targets: [y]", "  text: [s1, s2]", "  metric: rmse"]
    lines += [f"  {name}: {value}" for name, value in settings.items()]
    (folder / "compared.yaml").write_text("\n".join(lines))
    return load_competition(str(folder / "compared.yaml"))


def test_the_prepared_tables_of_training_test_and_new_rows_have_what_pairs_have_in_common(tmp_path):
    config = competition(tmp_path, pairs="[[s1, s2]]")
    prepared = prepare(config)
    name = f"{FEATURE}s1 and s2: equal"
    assert prepared.train[name].tolist() == [1, 0, 1]
    assert prepared.test[name].tolist() == prepare_test(config, config.test)[0][name].tolist() == [1]
    assert name not in prepare(competition(tmp_path)).train


@pytest.mark.parametrize(
    "pairs", ["[[s1, s3]]", "[[s1, s1]]", "[[s1]]", "[[s1, id]]", "[[s1, s2], [s1, s2]]"]
)
def test_a_pair_is_two_columns_of_text_and_named_once(tmp_path, pairs):
    with pytest.raises(ConfigError, match="pairs"):
        competition(tmp_path, pairs=pairs)
