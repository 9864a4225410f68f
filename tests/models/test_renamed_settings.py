"""Settings that were renamed: old names are read, stay in the digests, and `check` names the new ones."""

from pathlib import Path
from typing import Any

import pytest

from competition.renamed_settings import FOR_DIGESTS
from folds.config import FoldsConfig
from models.base_config import EncoderFeature
from models.config import StagesConfig
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition

OLD: dict[str, dict[str, Any]] = {
    "gnn": {"kind": "gnn", "average": "ema", "accumulate": 4, "columns_before_head": False},
    "unimol": {"kind": "unimol", "checkpoint_layers": True},
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
    "unimol": {"kind": "unimol", "gradient_checkpointing": True},
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
    assert not {"truncation", "vocab_size"} & dumped.keys()
    if stage == "svr":
        assert dumped["features"][0]["too_long"] == "cut_end"
        assert dumped["pseudo_labels"] == OLD["svr"]["pseudo_labels"]
    else:
        assert {name: dumped[name] for name in OLD[stage]} == OLD[stage]


def test_a_setting_under_both_names_is_an_error() -> None:
    stage = {"kind": "gnn", "average": "ema", "weight_averaging": "ema"}
    with pytest.raises(ValueError, match="average is the old name of weight_averaging; remove one of them"):
        StagesConfig.model_validate({"stages": {"gnn": stage}})


def test_check_notes_each_old_name_once_and_leaves_names_of_stages_and_parameters_alone(
    tmp_path: Path,
) -> None:
    other = {"kind": "sklearn", "estimator": "SGDRegressor", "parameters": {"average": True}}
    second = {"kind": "gnn", "average": "none"}
    path = write_competition(tmp_path, *mixed_tables(), stages={**OLD, "keep": other, "second": second})
    notes = set[str]()
    config = load_config(str(path), notes=notes)
    assert config.stages["keep"].parameters == {"average": True}
    assert sorted(notes) == [
        f"{old} is now called {new}; the old name still works"
        for old, new in [
            ("accumulate", "gradient_accumulation_steps"), ("average", "weight_averaging"),
            ("checkpoint_layers", "gradient_checkpointing"), ("columns_before_head", "use_tabular_columns"),
            ("of", "stages"), ("test_forms", "test_augmentations"),
            ("tokens", "tokenizer"), ("too_long", "truncation"), ("vocabulary", "vocab_size"),
        ]
    ]  # fmt: skip


def test_settings_of_the_same_name_in_other_sections_keep_it_in_digests(tmp_path: Path) -> None:
    """`stages` is a new name in pseudo_labels only, not the section of the YAML."""
    path = write_competition(tmp_path, *mixed_tables(), stages=NEW)
    dumped = load_config(str(path)).model_dump(context=FOR_DIGESTS)
    assert list(dumped["stages"]) == list(NEW)
    assert dumped["stages"]["svr"]["pseudo_labels"] == {"of": ["gnn"], "weight": 0.5}


def test_a_setting_that_was_added_is_in_digests_only_if_it_differs_from_its_default() -> None:
    encoder = EncoderFeature(encoder="minilm")  # type: ignore[call-arg]
    assert "pca" not in encoder.model_dump(context=FOR_DIGESTS)
    assert "pca" in encoder.model_dump()
    assert encoder.model_copy(update={"pca": 8}).model_dump(context=FOR_DIGESTS)["pca"] == 8
