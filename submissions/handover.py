"""The documentation that competition hosts ask winners for: how to reproduce a submission from the raw files.

It lists the commands for training and prediction, versions, seeds, hardware, time and all outside data, from
the files of the run and its jobs. `submissions.report` writes it to the folder of the report.

Source: Kaggle, "Winning Model Documentation Guidelines".
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from competition.durations import format_duration
from competition.errors import UserError
from competition.files import read_json, sha256_of
from competition.paths import config_folders, display_path
from competition.revision import revision
from competition.user_code import user_code_files
from models.inputs.weights import WEIGHT_SETS, digest_of_weights, weights_of_stage
from models.jobs.plan import REPORT
from submissions.config import load_config
from submissions.formatting import format_with_error
from submissions.left_out import describe_left_out
from submissions.run import SUBMISSION_FILE, Run

HANDOVER = "handover.md"
TEMPLATE = Path(__file__).with_name("handover.md.jinja")


def handover(run: Run) -> str:
    """Return the document, in Markdown."""
    competition = run.config.competition
    reports = {}
    for stage in run.config.stages:
        reports[stage] = [read_json(job.folder / REPORT) for job in run.plan.jobs_of_stage(stage)]
    machines = Counter(_machine(report) for stage_reports in reports.values() for report in stage_reports)
    files = [competition.train, competition.test, competition.sample_submission]
    files += user_code_files(run.stored["config"])
    files += [*(extra.file for extra in competition.extra_train), run.folder / SUBMISSION_FILE]
    return Template(TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined).render(
        run=run,
        left_out=describe_left_out(run.left_out),
        command_argument=_command_argument(run),
        score=format_with_error(*run.expected_score),
        files=[(file.name, sha256_of(file) if file.exists() else "missing") for file in files],
        revision=revision(),
        stages=[_stage(run, stage, stage_reports) for stage, stage_reports in reports.items()],
        machines=machines.most_common(),
        outside=_outside(run),
    )


def _machine(report: dict[str, Any]) -> str:
    """Return the machine of a job."""
    return ", ".join(f"{key} {value}" for key, value in report.get("machine", {}).items()) or "not recorded"


def _command_argument(run: Run) -> str:
    """Return the name or the YAML with which `./run.sh full` repeats the run."""
    name = run.paths.name
    argument = f"{name}.yaml"
    if any((folder / f"{name}.yaml").is_file() for folder in config_folders()):
        argument = name
    with suppress(UserError, OSError):  # the user may have changed or deleted the YAML
        written = load_config(run.paths.owner.read_text(encoding="utf-8").strip())
        if written.model_copy(update={"budget": None}) != run.config.model_copy(update={"budget": None}):
            argument = str(display_path(run.folder / f"{name}.yaml"))  # such as after a budget or --set
    return argument


def _stage(run: Run, name: str, reports: list[Any]) -> list[Any]:
    stage = run.config.stages[name]
    seconds = sum(report["seconds"] for report in reports)
    files = [file for report in reports for file in report["files"].values()]
    size = sum(file["size"] for file in files) / 2**20
    seeds = ", ".join(map(str, sorted(set(stage.seeds))))
    return [name, stage.kind, seeds, len(reports), format_duration(seconds), f"{size:.1f} MiB"]


def _outside(run: Run) -> list[str]:
    """Return lines about pretrained weights and extra training rows."""
    lines = []
    for name, stage in run.config.stages.items():
        for weights in weights_of_stage(stage):
            weight_set = WEIGHT_SETS.get(weights)
            source = "a file of the user"
            if weight_set:
                package = weight_set.package and f"the package {weight_set.package[0]}"
                source = f"{weight_set.hub or weight_set.url or package}, {weight_set.licence}"
            lines.append(
                f"{name}: pretrained weights {weights} ({source}); digest {digest_of_weights(weights)}"
            )
    extra = [f"extra training rows: {table.file.name}" for table in run.config.competition.extra_train]
    return [*lines, *extra]
