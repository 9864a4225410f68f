"""Section of the report about the tables of `competition.extra_train`."""

from competition.dataset import EXTRA
from core.files import read_json, read_table
from models.jobs.compute import UNUSED_LABELS
from models.jobs.plan import REPORT
from submissions.report.elements import Element, make_table
from submissions.run import Run


def extra_train_section(run: Run) -> list[Element]:
    """Return rows, weight and calibration of each table, and the folds that do not use one."""
    tables = run.config.competition.extra_train
    if not tables:
        return []
    source_of_row = read_table(run.paths.train)[EXTRA]
    rows = []
    for number, extra in enumerate(tables, start=1):
        n_rows = (source_of_row == number).sum()
        rows.append([extra.file.name, f"{n_rows:,}", f"{extra.weight:g}", extra.calibrate])
    elements: list[Element] = [make_table(["table", "rows", "weight", "calibrate"], rows)]
    unused: dict[str, None] = {}
    for job in run.plan.jobs:
        for message in read_json(job.folder / REPORT).get(UNUSED_LABELS, []):
            unused[f"In {job.folder.name} {message}."] = None  # once for all stages and seeds
    elements += unused
    return elements
