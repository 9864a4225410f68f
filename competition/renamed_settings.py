"""Settings of a YAML that have been renamed.

The old names are still read. They also stay in the digests that name jobs, folds and runs, so that renaming a
setting trains nothing again.
"""

from collections.abc import Iterator
from typing import Any

NEW_NAMES = {
    "accumulate": "gradient_accumulation_steps",
    "average": "weight_averaging",
    "checkpoint_layers": "gradient_checkpointing",
    "columns_before_head": "use_tabular_columns",
    "cuts": "bin_edges",
    "equal_inputs_may_cross": "allow_split_duplicates",
    "keep": "select_epoch",
    "measures": "extra_metrics",
    "needs": "metric_needs",
    "of": "stages",
    "test_forms": "test_augmentations",
    "tokens": "tokenizer",
    "too_long": "truncation",
    "vocabulary": "vocab_size",
}
"""Old name of a setting -> its name today."""
OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}
NEW_VALUES = {"cut_end": "end", "cut_middle": "middle"}
"""Old value of `truncation` -> its value today."""
OLD_VALUES = {new: old for old, new in NEW_VALUES.items()}
FOR_DIGESTS = {"old_names": True}
"""Context of `model_dump` for a digest: the dump then has the old names."""
FREE_SETTINGS = ("parameters", "settings", "columns")
"""Settings whose keys are names of a library, of user-defined code or of a table."""


def with_new_names(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return settings under their names of today.

    Args:
        values: settings as a YAML has them.
        names: names of all settings of the model.

    Raises:
        ValueError: if a setting is there under both names.
    """
    renamed = {}
    for key, value in values.items():
        name = NEW_NAMES[key] if key not in names and NEW_NAMES.get(key) in names else key
        if name != key and name in values:
            raise ValueError(f"{key} is the old name of {name}; remove one of them")
        renamed[name] = NEW_VALUES.get(value, value) if name == "truncation" else value
    return renamed


def with_old_names(dumped: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the dump of a settings model under the old names, for digests.

    Args:
        names: names of all settings of the model.
    """
    renamed = {}
    for key, value in dumped.items():
        name = OLD_NAMES[key] if key in names and key in OLD_NAMES else key
        renamed[name] = OLD_VALUES.get(value, value) if key == "truncation" else value
    return renamed


def describe_old_names(values: Any, path: str = "") -> Iterator[str]:
    """Yield a note for each setting of a YAML that has its old name.

    Args:
        values: the document, or a part of it.
        path: dotted path of that part.
    """
    if isinstance(values, list):
        for item in values:
            yield from describe_old_names(item, path)
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        key_path = f"{path}.{key}".lstrip(".")
        if key in NEW_NAMES and path != "stages":  # there it is the name of a stage
            yield f"{key_path} is now called {NEW_NAMES[key]}; the old name still works"
        if key not in FREE_SETTINGS:
            yield from describe_old_names(value, key_path)
