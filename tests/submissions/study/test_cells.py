"""The cells of a study, and what is wrong with one before any work."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from competition.errors import ConfigError
from submissions.study.cells import cells_of
from submissions.study.config import STUDIES
from submissions.study.load import load_study

STUDY: dict[str, Any] = {
    "claim": "Bigger trees are better.",
    "data": {"smoke": "smoke", "orbitals": "qm9_orbitals"},
    "stages": {
        "trees": {"kind": "lightgbm", "max_trees": 20},
        "graph": {"data": ["orbitals"], "kind": "gnn"},
    },
    "axes": {
        "leaves": {"stages": ["trees"], "key": "num_leaves", "values": [4, 31]},
        "rate": {"key": "learning_rate", "values": [0.01, 0.1, 0.2]},
    },
    "baseline": {"leaves": 4, "rate": 0.1},
    "seeds": [0, 1],
    "quick": {"axes": {"rate": [0.1]}, "rows": 50, "seeds": [0], "stages": {"trees": {"max_trees": 3}, "graph": None}},
}


def written(folder: Path, **changes: Any) -> Path:
    """STUDY with some changes, each by its dotted path with underscores twice; None removes."""
    document = deepcopy(STUDY)
    for path, value in changes.items():
        *above, last = path.split("__")
        block = document
        for key in above:
            block = block[key]
        block[last] = value
    file = folder / "bigger.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def test_a_cell_is_a_combination_of_the_axes_of_its_stage_and_the_baseline_comes_first(tmp_path: Path) -> None:
    study = load_study(written(tmp_path), "full")
    assert [cell.name for cell in cells_of(study, "smoke")] == [
        "trees__leaves=4,rate=0.1",
        "trees__leaves=4,rate=0.01",
        "trees__leaves=4,rate=0.2",
        "trees__leaves=31,rate=0.01",
        "trees__leaves=31,rate=0.1",
        "trees__leaves=31,rate=0.2",
    ]
    assert [cell.name for cell in cells_of(study, "orbitals")[6:]] == [
        "graph__rate=0.1", "graph__rate=0.01", "graph__rate=0.2",
    ]  # fmt: skip
    last = cells_of(study, "smoke")[-1]
    assert last.block == {
        "kind": "lightgbm", "max_trees": 20, "num_leaves": 31, "learning_rate": 0.2, "seeds": [0, 1],
    }  # fmt: skip
    assert [cell.is_baseline for cell in cells_of(study, "smoke")] == [True, *[False] * 5]


def test_listed_cells_take_the_baseline_s_value_where_they_name_none(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, cells=[{"rate": 0.2}, {"leaves": 31}]), "full")
    names = [cell.name for cell in cells_of(study, "orbitals")]
    assert names == [
        "trees__leaves=4,rate=0.1", "trees__leaves=4,rate=0.2", "trees__leaves=31,rate=0.1",
        "graph__rate=0.1", "graph__rate=0.2",
    ]  # fmt: skip


def test_a_value_may_set_several_settings_and_make_mappings_on_the_way(tmp_path: Path) -> None:
    heads = {"plain": {}, "masks": {"head.kind": "multi_sample", "head.samples": 3, "width": 64}}
    axes = {"head": {"values": heads}}
    stages = {"graph": {"kind": "gnn"}}
    study = load_study(
        written(tmp_path, axes=axes, stages=stages, baseline={"head": "plain"}, quick={}, data={"smoke": "smoke"}),
        "full",
    )
    plain, masks = cells_of(study, "smoke")
    assert plain.block == {"kind": "gnn", "seeds": [0, 1]}
    assert masks.block == {
        "kind": "gnn", "head": {"kind": "multi_sample", "samples": 3}, "width": 64, "seeds": [0, 1],
    }  # fmt: skip


def test_the_quick_version_changes_what_it_names(tmp_path: Path) -> None:
    study = load_study(written(tmp_path), "quick")
    assert [cell.name for cell in cells_of(study, "orbitals")] == [
        "trees__leaves=4,rate=0.1",
        "trees__leaves=31,rate=0.1",
    ]
    assert all(cell.block["max_trees"] == 3 for cell in cells_of(study, "smoke"))
    assert study.seeds == [0]
    assert {data.rows for data in study.data.values() if not isinstance(data, str)} == {50}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes__rate__key": "learning_rat"}, "axes.rate: must set what stage trees .* has: .*found 'learning_rat'"),
        ({"axes__rate__key": "head.dropout"}, "axes.rate: must set what stage trees"),
        ({"axes__rate__values": []}, "axes.rate.values"),
        ({"axes__rate__values": [0.1, 0.1]}, "each value must stand once"),
        ({"axes__rate__key": None}, "without a key"),
        ({"axes__rate__values": [0.1, -1]}, "stages.trees__leaves=4,rate=-1.learning_rate: .*greater than 0"),
        ({"axes__rate__stages": ["forest"]}, "axes.rate.stages: must be one of trees, graph .found 'forest'"),
        ({"axes__seed": {"key": "num_leaves", "values": [3]}}, "axes.seed: no axis may have the name"),
        ({"baseline": {"leaves": 4}}, "baseline: must be a cell, .* .missing: rate"),
        ({"baseline__rate": 0.5}, "baseline.rate: must be one of 0.01, 0.1, 0.2 .found '0.5'"),
        ({"cells": [{"depth": 3}]}, "cells.0: must be one of leaves, rate .found 'depth'"),
        ({"equal": [[{"leaves": 5}]]}, "equal.0.leaves: must be one of 4, 31"),
        ({"seeds": [0], "folds": [1]}, "at least two pairs of seed and fold .found seed 0 and fold 1"),
        ({"seeds": [0, 0]}, "each seed must be named once"),
        ({"stages__graph__data": ["tweets"]}, "stages.graph.data: must be one of smoke, orbitals .found 'tweets'"),
        ({"stages__trees__leavs": 3}, "leavs: this key is not known"),
        ({"quick__axes": {"rate": [0.2]}}, "quick: baseline.rate: must be one of 0.2 .found '0.1'"),
        ({"short": {"stages": {"forest": None}}}, "short.stages: must be one of trees, graph"),
        ({"claims": "x"}, "claims: this key is not known"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_any_work(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        for version in ("full", "quick"):
            study = load_study(written(tmp_path, **changes), version)  # type: ignore[arg-type]
            for data in study.data:
                cells_of(study, data)


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_version_of_every_study_has_possible_cells(file: Path) -> None:
    for version in ("full", "short", "quick"):
        study = load_study(file, version)  # type: ignore[arg-type]
        assert sum(len(cells_of(study, data)) for data in study.data) > 1
