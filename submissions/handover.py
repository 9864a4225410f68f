"""What a winner hands over: how to make the submission again, from the raw files, and on what it was made.

Competition hosts ask winners for it: training and prediction apart, exact versions, seeds, hardware and time,
all outside data (Kaggle, "Winning Model Documentation Guidelines"). Written into the report's folder by
`submissions.report`, from what the run and its jobs wrote down; nothing has to be remembered.
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
from submissions.run import CHOICE, SUBMISSION_FILE, Run, describe_left_out

HANDOVER = "handover.md"
TEMPLATE = Path(__file__).with_name("handover.md.jinja")


def handover(run: Run) -> str:
    """The document, in Markdown."""
    choice, name, competition = run.stored[CHOICE], run.paths.name, run.config.competition
    reports = {
        stage: [read_json(job.folder / REPORT) for job in run.plan.jobs_of_stage(stage)]
        for stage in run.config.stages
    }
    machines = Counter(
        ", ".join(f"{name} {value}" for name, value in report.get("machine", {}).items()) or "not written down"
        for found in reports.values() for report in found
    )  # fmt: skip
    code = user_code_files(run.stored["config"])
    files = [competition.train, competition.test, competition.sample_submission, *code]
    files += [*(extra.file for extra in competition.extra_train), run.folder / SUBMISSION_FILE]
    named = (
        name if any((folder / f"{name}.yaml").is_file() for folder in config_folders()) else f"{name}.yaml"
    )
    with suppress(UserError, OSError):  # the YAML that the user edits may be gone or wrong by now
        written = load_config(run.paths.owner.read_text(encoding="utf-8").strip())
        if written.model_copy(update={"budget": None}) != run.config.model_copy(update={"budget": None}):
            named = str(display_path(run.folder / f"{name}.yaml"))  # such as after a budget or --set
    return Template(TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined).render(
        run=run,
        left_out=describe_left_out(run.left_out),
        named=named,
        score=format_with_error(
            choice["procedure"]["cross_fitted_score"], choice["procedure"]["standard_error"]
        ),
        files=[(file.name, sha256_of(file) if file.exists() else "not there any more") for file in files],
        revision=revision(),
        stages=[_stage(run, *found) for found in reports.items()],
        machines=machines.most_common(),
        outside=_outside(run),
    )


def _stage(run: Run, name: str, reports: list[Any]) -> list[Any]:
    stage, seconds = run.config.stages[name], sum(report["seconds"] for report in reports)
    size = sum(file["size"] for report in reports for file in report["files"].values()) / 2**20
    seeds = ", ".join(map(str, sorted(set(stage.seeds))))
    return [name, stage.kind, seeds, len(reports), format_duration(seconds), f"{size:.1f} MiB"]


def _outside(run: Run) -> list[str]:
    """Pretrained weights and more training rows."""
    lines = []
    for name, stage in run.config.stages.items():
        for weights in weights_of_stage(stage):
            known, source = WEIGHT_SETS.get(weights), "a file of ours"
            if known:
                package = known.package and f"the package {known.package[0]}"
                source = f"{known.hub or known.url or package}, {known.licence}"
            lines.append(
                f"{name}: pretrained weights {weights} ({source}); digest {digest_of_weights(weights)}"
            )
    return [
        *lines,
        *(f"more training rows: {extra.file.name}" for extra in run.config.competition.extra_train),
    ]
