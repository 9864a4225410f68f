"""docs/code.md: the files that a molecule passes, in the order in which a run enters them."""

import re
import sys

from core.files import PROJECT
from pipeline import commands, last_submission
from tests.conftest import mixed_tables, write_competition
from tests.models.jobs.common import GNN


def test_a_run_enters_the_listed_files_first_in_the_listed_order(tmp_path, monkeypatch, jobs_in_process):
    page = (PROJECT / "docs" / "code.md").read_text().split("## One molecule")[1].split("\n## ")[0]
    listed = re.findall(r"^\d+\. `([\w/]+\.py)`", page, re.MULTILINE)
    stages = {"gnn": {**GNN, "epochs": 1}}
    path = write_competition(
        tmp_path, *mixed_tables(30, 10), stages=stages, folds={"n_folds": 2}, submissions={"trials": 2}
    )
    # The comparison of tables reads predictions before the blends do, if the tables differ.
    monkeypatch.setattr(last_submission, "compare_tables_in_worker", lambda *given: None)
    waiting, entered = {str(PROJECT / file): file for file in listed}, []

    def record(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename in waiting:
            is_body = code.co_name.startswith("<") or code.co_name[0].isupper()  # of a module or a class
            if not is_body:
                entered.append(waiting.pop(code.co_filename))

    sys.setprofile(record)
    try:
        assert commands.main(["full", str(path)]) == 0
    finally:
        sys.setprofile(None)
    assert len(listed) == 20
    assert entered == listed
