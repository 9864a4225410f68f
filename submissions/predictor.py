"""The model of a submission, read from the folder of a finished run; it predicts new rows from those of the stages."""

from core.files import read_json
from core.user_code import short_ref
from submissions.blend.selection import Fitted
from submissions.blend.serialization import from_json, to_json
from submissions.run import Run, fitted_file

PARTS = ("predictor", "lowest", "decision")


def as_parts(fitted: Fitted) -> dict[str, object]:
    """Return a fitted candidate as JSON, from which `load_candidate` restores it."""
    return {part: to_json(getattr(fitted, part)) for part in PARTS}


def load_candidate(run: Run, name: str) -> Fitted:
    """Return a candidate of a finished run; a DataError if its file has changed."""
    run.verify(fitted_file(name))
    code_refs = {short_ref(blend): blend for blend in run.config.blends}
    stored = read_json(run.folder / fitted_file(name), *PARTS)
    # The blend in a stack is the default one.
    code_ref = code_refs.get(name, run.config.default_blend)
    parts = {part: from_json(stored[part], code_ref) for part in PARTS}
    return Fitted(**parts, postprocess=run.config.submissions.postprocess or "")


def load_model(run: Run) -> Fitted:
    """Return the candidate that a finished run has submitted."""
    return load_candidate(run, run.choice["chosen"])
