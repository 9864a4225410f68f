"""Reading and writing YAML with the numbers and booleans of YAML 1.2.

PyYAML reads YAML 1.1, in which 1e-3 is text, 010 is eight and 1_0 is ten.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError

TAG = "tag:yaml.org,2002:"
PATTERNS = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
"""Type -> what it looks like in the core schema of YAML 1.2.2, section 10.3.2."""


class _Loader(yaml.SafeLoader):
    """PyYAML silently keeps the last of two equal keys; here a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        previous = set()
        for key in keys:
            if key.value in previous:
                message = f"key {key.value!r} is repeated"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            previous.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Return the integer of a node; leading zeros do not make it octal."""
        digits = self.construct_scalar(node)
        has_base = digits[1:2] in ("o", "x")
        return int(digits, 0 if has_base else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 reads as something else."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{TAG}null", f"{TAG}merge")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern in PATTERNS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"{TAG}{_name}", re.compile(rf"(?:{_pattern})$"), list("tTfF+-.0123456789")
        )
_Loader.add_constructor(f"{TAG}int", _Loader.construct_int)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """Return the document in `text` as a dictionary; errors name the file `path`."""
    try:
        document = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} needs the sections competition and stages (folds, submissions and budget are optional); "
            "it has none."
        )
    return document


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the document in a file as a dictionary."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from None
    return parse_yaml(text, path)


def dump_yaml(value: Any, **options: Any) -> str:
    """Return `value` as YAML that `load_yaml` reads back as the same value."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))
