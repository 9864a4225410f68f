"""A kind of folds that a contributor adds: a function in a file and an entry of the registry."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from competition.dataset import FOLD, GROUP
from competition.prepare import Prepared
from folds.kinds import FOLD_KINDS, FoldKind, FoldsConfig
from folds.make import make_folds
from tests.folds.made import competition
from tests.folds.test_splitters import molecules

CODE = """
import numpy as np


def alternating(data):
    return data.groups % data.n_folds


def one_length(rows, competition, similarity, n_in_folds):
    return rows["smiles"].str.len().astype(str)
"""


def test_a_new_kind_of_folds_is_a_function_and_an_entry_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alternating.py").write_text(CODE)
    spec = importlib.util.spec_from_file_location("alternating", tmp_path / "alternating.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = FoldKind(module.alternating, module.one_length, needs="smiles")
    monkeypatch.setitem(FOLD_KINDS, "alternating", kind)
    table = molecules()
    config = FoldsConfig.model_validate({"kind": "alternating", "n_folds": 2})
    tables = make_folds(competition(smiles=["smiles"]), config, Prepared(table, table, table, {}))
    folds, groups = tables.train[FOLD].to_numpy(), tables.train[GROUP].to_numpy()
    lengths = table["smiles"].str.len().to_numpy()
    assert set(folds) == {0, 1}
    assert (folds == groups % 2).all()
    assert all(len(np.unique(groups[lengths == length])) == 1 for length in set(lengths))
    assert tables.report["folds"]["time_ordered"] is False


def test_an_unknown_kind_is_an_error_that_lists_all_kinds() -> None:
    with pytest.raises(ValueError, match="must be one of kfold, .*, file"):
        FoldsConfig.model_validate({"kind": "alternating"})
