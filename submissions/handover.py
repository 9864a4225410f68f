"""What a winner hands over: how to make the submission again, from the raw files, and on what it was made.

Competition hosts ask winners for it: training and prediction apart, exact versions, seeds, hardware and time, all
outside data (Kaggle, "Winning Model Documentation Guidelines"). Written into the report's folder by
`submissions.report`, from what the run and its jobs wrote down; nothing has to be remembered.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from competition.durations import in_words
from competition.files import read_json, sha256_of
from competition.paths import config_folders
from competition.revision import revision
from models.inputs.weights import WEIGHT_SETS, digest_of_weights
from models.jobs.plan import REPORT
from submissions.run import CHOICE, SUBMISSION_FILE, Run
from submissions.words import number

HANDOVER = "handover.md"
TEMPLATE = Path(__file__).with_name("handover.md.jinja")


def handover(run: Run) -> str:
    """The document, in Markdown."""
    choice, name = run.part(CHOICE), run.paths.name
    reports = {job.folder: read_json(job.folder / REPORT) for job in run.plan.jobs}
    expected = choice["procedure"]
    is_ours = any((folder / f"{name}.yaml").is_file() for folder in config_folders())
    return Template(TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined).render(
        run=run,
        name=name,
        named=name if is_ours else f"{name}.yaml",
        chosen=choice["chosen"],
        score=f"{number(expected['cross_fitted_score'])} (standard error {number(expected['standard_error'])})",
        files=[(file.name, sha256_of(file) if file.exists() else "not there any more") for file in _files(run)],
        revision=revision(),
        kaggle=run.config.competition.kaggle,
        stages=[_stage(run, stage, reports) for stage in sorted(run.config.stages)],
        machines=Counter(_described(report.get("machine")) for report in reports.values()).most_common(),
        outside=_outside(run),
        versions=run.stored["versions"],
    )


def _files(run: Run) -> list[Path]:
    """The raw tables, the user's own code, and what came out."""
    competition = run.config.competition
    tables = [competition.train, competition.test, competition.sample_submission]
    tables += [extra.file for extra in competition.extra_train]
    own = [competition.features, competition.metric, *(getattr(s, "code", None) for s in run.config.stages.values())]
    code = [Path(named.rpartition(":")[0]) for named in dict.fromkeys(own) if named and ":" in named]
    return [*tables, *code, run.folder / SUBMISSION_FILE]


def _stage(run: Run, name: str, reports: dict[Path, Any]) -> list[Any]:
    stage, done = run.config.stages[name], [reports[job.folder] for job in run.plan.of(name)]
    seeds, seconds = ", ".join(map(str, sorted(set(stage.seeds)))), sum(report["seconds"] for report in done)
    size = sum(file["size"] for report in done for file in report["files"].values()) / 2**20
    return [name, stage.kind, seeds, len(done), in_words(seconds), f"{size:.1f} MiB"]


def _described(machine: dict[str, Any] | None) -> str:
    """What a job ran on."""
    if machine is None:
        return "not written down (jobs of earlier code)"
    gpu = machine.get("gpu", "no GPU")
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpu}"


def _outside(run: Run) -> list[str]:
    """Pretrained weights and more training rows."""
    lines = []
    for name, stage in sorted(run.config.stages.items()):
        if weights := getattr(stage, "weights", None):
            known = WEIGHT_SETS.get(weights)
            place = (known.hub or known.url or f"the package {known.package and known.package[0]}") if known else ""
            source = f"{place}, {known.licence}" if known else "a file of ours"
            lines.append(f"{name}: pretrained weights {weights} ({source}); digest {digest_of_weights(weights)}")
    return [*lines, *(f"more training rows: {extra.file.name}" for extra in run.config.competition.extra_train)]
