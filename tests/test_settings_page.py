"""docs/settings.md: it is that of the classes, and says of each setting what it means."""

import re

from core.files import PROJECT
from tests.settings_page import settings_page

WITHOUT_MEANING = ["kind", "kind"]
"""The kinds of heads."""


def test_the_page_of_settings_is_made_from_the_classes():
    """After a change of a setting: python -m tests.settings_page > docs/settings.md."""
    assert (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_each_setting_has_a_meaning():
    items = re.split(r"^- ", settings_page(), flags=re.MULTILINE)[1:]
    without = [item for item in items if not re.search(r"\)\s*:\s", item)]
    assert [re.findall(r"\*\*`(\w+)`\*\*", item)[0] for item in without] == WITHOUT_MEANING
