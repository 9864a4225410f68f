"""Import unimol_tools without what its import does beside: a folder logs/, an open root logger, silenced warnings."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Leave the working folder, the root logger and the filter of warnings as they were."""
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        yield
    logging.root.setLevel(level)
    logging.getLogger("Uni-Mol Tools").handlers.clear()
