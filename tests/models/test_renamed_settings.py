"""Settings that were renamed: old names are read, stay in the digests, and `check` names the new ones."""

from typing import Any

import pytest

from competition.renamed_settings import FOR_DIGESTS, describe_old_names
from folds.config import FoldsConfig
from models.config import StagesConfig

OLD: dict[str, dict[str, Any]] = {
    "gnn": {"kind": "gnn", "average": "ema", "accumulate": 4, "columns_before_head": False},
    "unimol": {"kind": "unimol", "checkpoint_layers": True, "keep": "best_on_held_out"},
    "bert": {
        "kind": "bert", "columns": ["SMILES"], "tokens": "smiles", "too_long": "cut_middle", "vocabulary": 200,
        "enumerate_smiles": True, "test_forms": 3,
    },
    "svr": {
        "kind": "sklearn", "estimator": "SVR", "features": [{"encoder": "minilm", "too_long": "cut_end"}],
        "pseudo_labels": {"of": ["gnn"], "weight": 0.5},
    },
}  # fmt: skip
NEW: dict[str, dict[str, Any]] = {
    "gnn": {
        "kind": "gnn", "weight_averaging": "ema", "gradient_accumulation_steps": 4, "use_tabular_columns": False,
    },
    "unimol": {"kind": "unimol", "gradient_checkpointing": True, "select_epoch": "best_on_held_out"},
    "bert": {
        "kind": "bert", "columns": ["SMILES"], "tokenizer": "smiles", "truncation": "middle", "vocab_size": 200,
        "enumerate_smiles": True, "test_augmentations": 3,
    },
    "svr": {
        "kind": "sklearn", "estimator": "SVR", "features": [{"encoder": "minilm", "truncation": "end"}],
        "pseudo_labels": {"stages": ["gnn"], "weight": 0.5},
    },
}  # fmt: skip


def test_old_and_new_names_are_the_same_settings() -> None:
    stages = StagesConfig.model_validate({"stages": NEW})
    assert StagesConfig.model_validate({"stages": OLD}) == stages
    assert stages.model_dump(mode="json", exclude_unset=True)["stages"]["gnn"] == NEW["gnn"]
    assert FoldsConfig.model_validate({"equal_inputs_may_cross": True}).allow_split_duplicates


@pytest.mark.parametrize("stage", OLD)
def test_digests_have_the_old_names(stage: str) -> None:
    dumped = StagesConfig.model_validate({"stages": NEW}).stages[stage].model_dump(context=FOR_DIGESTS)
    assert not {"truncation", "select_epoch", "vocab_size"} & dumped.keys()
    if stage == "svr":
        assert dumped["features"][0]["too_long"] == "cut_end"
        assert dumped["pseudo_labels"] == OLD["svr"]["pseudo_labels"]
    else:
        assert {name: dumped[name] for name in OLD[stage]} == OLD[stage]


def test_a_setting_under_both_names_is_an_error() -> None:
    stage = {"kind": "gnn", "keep": "last", "select_epoch": "last"}
    with pytest.raises(ValueError, match="keep is the old name of select_epoch; remove one of them"):
        StagesConfig.model_validate({"stages": {"gnn": stage}})


def test_each_old_name_in_a_yaml_is_noted_once_with_its_new_name() -> None:
    other = {"kind": "sklearn", "estimator": "SGDRegressor", "parameters": {"average": True}}
    document = {"folds": {"equal_inputs_may_cross": True}, "stages": {**OLD, "keep": other}}
    notes = list(describe_old_names(document))
    assert len(notes) == 12
    assert "stages.bert.too_long is now called truncation; the old name still works" in notes
    assert "stages.svr.pseudo_labels.of is now called stages; the old name still works" in notes
    assert list(describe_old_names({"stages": NEW})) == []
