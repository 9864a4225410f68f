"""What neural stages share, on message passing of width 16: columns before the head, extra rows, several molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from competition.files import read_json
from competition.tables import Rows
from competition.task import Task
from models.config import GnnStage
from models.stage import Context
from models.stages.gnn import Gnn
from models.training.batches import Batches
from models.training.neural import PerColumn, side_by_side

SMILES = ["CCO", "CCN", "CCC", "CCCl", "CCF", "CCCO", "CCCN", "CCCC", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "CC#N"]


def stage(context: Context | None = None, **changes: Any) -> Gnn:
    small = {"width": 16, "hidden_width": 16, "epochs": 60, "batch_size": 8, "learning_rate": 5e-3}
    config = GnnStage.model_validate({"kind": "gnn", **small, **changes})
    return Gnn(config, context or Context(["s"], [], ["x"], ["k"], Task(["y"]), 1, Path("unused")))


def rows(n: int = 48, seed: int = 0) -> Rows:
    """The target is a number of the table and an effect of its category; the molecule says nothing."""
    rng = np.random.default_rng(seed)
    x, k = rng.normal(300, 20, n), rng.choice(["a", "b"], n)
    y = (x - 300) / 20 + np.where(k == "a", 2.0, -2.0)
    inputs = pd.DataFrame({"s": rng.choice(SMILES, n), "x": x, "k": k})
    return Rows([f"r{i}" for i in range(n)], inputs, y[:, None])


def test_numbers_and_categories_reach_the_head(tmp_path: Path) -> None:
    train, test = rows(), rows(seed=1)
    errors = []
    for i, before_head in enumerate((True, False)):
        folder = tmp_path / str(i)
        folder.mkdir()
        one = stage(columns_before_head=before_head)
        one.fit(train, None, folder)
        assert test.y is not None
        errors.append(((one.predict(test, folder) - test.y) ** 2).mean() / test.y.var())
    assert errors[0] < 0.2
    assert errors[1] > 0.8


def test_a_missing_number_and_an_unseen_category_are_legal(tmp_path: Path) -> None:
    train, test = rows(), rows(seed=1)
    train.inputs.loc[3, "x"] = np.nan
    test.inputs.loc[0, ["x", "k"]] = [np.nan, "never seen"]
    one = stage(epochs=2)
    one.fit(train, None, tmp_path)
    assert np.isfinite(one.predict(test, tmp_path)).all()
    columns = read_json(tmp_path / "columns.json")
    assert columns["gaps"] == [True]
    assert columns["categories"] == {"k": ["a", "b"]}


def test_extra_rows_come_first_and_alone_where_the_stage_says_so(tmp_path: Path) -> None:
    own, more = rows(), rows(seed=5)
    both = Rows(
        [*own.ids, *(f"e{i}" for i in more.ids)], pd.concat([own.inputs, more.inputs], ignore_index=True),
        np.concatenate([own.y, more.y + 100]), extra=np.repeat([False, True], len(own)),
    )  # fmt: skip
    trained = {}
    for how in ("train", "pretrain"):
        folder = tmp_path / how
        folder.mkdir()
        one = stage(extra_rows=how, epochs=3)
        one.fit(both, None, folder)
        trained[how] = read_json(folder / "training.json")
    assert trained["train"]["mean"][0] == pytest.approx(50, abs=5)
    assert trained["pretrain"]["mean"][0] == pytest.approx(0, abs=1)  # scaled by the competition's own rows
    assert len(trained["pretrain"]["pretrain_history"]) == 3
    assert "pretrain_history" not in trained["train"]


def test_weights_of_rows_decide_between_labels_that_contradict(tmp_path: Path) -> None:
    train = rows()
    train.inputs["x"] = 0.0
    train.inputs["k"] = "a"
    up = np.arange(len(train)) % 2 == 0
    weighted = Rows(train.ids, train.inputs, np.where(up, 1.0, 0.0)[:, None], np.where(up, 1.0, 0.02))
    one = stage()
    one.fit(weighted, None, tmp_path)
    assert one.predict(weighted, tmp_path).mean() > 0.85


def test_several_molecule_columns_share_one_backbone(tmp_path: Path) -> None:
    train = rows()
    both = Rows(train.ids, train.inputs.assign(t=train.inputs["s"][::-1].to_numpy()), train.y)
    one = stage(Context(["s", "t"], [], [], [], Task(["y"]), 1, tmp_path), epochs=2)
    one.fit(both, None, tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert sum(name.endswith("W_i.weight") for name in weights) == 1
    assert weights["join.0.weight"].shape == (16, 32)
    assert weights["head.linear.weight"].shape == (1, 16)
    swapped = Rows(both.ids, both.inputs.rename(columns={"s": "t", "t": "s"}), None)
    assert not np.allclose(one.predict(swapped, tmp_path), one.predict(both, tmp_path))
    named = stage(Context(["s", "t"], [], [], [], Task(["y"]), 1, tmp_path), columns=["t"])
    assert named.columns == ["t"]


def test_what_a_molecule_does_may_depend_on_its_partner(tmp_path: Path) -> None:
    pairs = [(one, two) for one in ("CCO", "c1ccccc1") for two in ("CC#N", "CCCl")] * 8
    y = np.array([1.0 if pair == ("CCO", "CCCl") else 0.0 for pair in pairs])  # a sum of two effects misses by .25
    both = Rows([f"r{i}" for i in range(len(y))], pd.DataFrame(pairs, columns=["s", "t"]), y[:, None])
    one = stage(Context(["s", "t"], [], [], [], Task(["y"]), 1, tmp_path))
    one.fit(both, None, tmp_path)
    assert np.abs(one.predict(both, tmp_path)[:, 0] - y).max() < 0.15


def test_several_columns_of_equal_length_batches_are_equal_in_each() -> None:
    def column(lengths: list[int]) -> Batches:
        return Batches(lengths, np.array(lengths), lambda items: {"x": torch.tensor(items)}, equal_lengths=True)

    joined = side_by_side([column([3, 3, 4, 3]), column([5, 6, 5, 5])], once=True)
    assert joined.lengths[0] == joined.lengths[3]
    assert len(set(joined.lengths)) == 3
    assert joined.collate([joined.items[1]])["1_x"].tolist() == [6]


class Echo(torch.nn.Module):
    """The numbers it is given; remembers how many."""

    width = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return x[:, None]


@pytest.mark.parametrize("once", [True, False])
def test_features_of_columns_stand_side_by_side_and_a_molecule_is_encoded_once(once: bool) -> None:
    one, two = [float(1)], [float(2)]  # a list: the same object where it is the same molecule
    columns = [
        Batches(items, np.ones(3, dtype=np.int64), lambda part: {"x": torch.tensor([value for (value,) in part])})
        for items in ([one, two, one], [two, two, two])
    ]
    joined = side_by_side(columns, once=once)
    net = PerColumn(Echo(), 2)
    found = net(**joined.collate(joined.items))
    assert found.tolist() == [[1.0, 2.0], [2.0, 2.0], [1.0, 2.0]]
    assert net.backbone.seen == ([2, 1] if once else [3, 3])
    assert net.width == 2
