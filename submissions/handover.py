"""What a winner hands over: how to make the submission again, from the raw files, and on what it was made.

Competition hosts ask winners for it: training and prediction apart, exact versions, seeds, hardware and time, all
outside data (Kaggle, "Winning Model Documentation Guidelines"). Written into the report's folder by
`submissions.report`, from what the run and its jobs wrote down; nothing has to be remembered.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from competition.durations import in_words
from competition.files import read_json, sha256_of
from competition.paths import config_folders
from competition.revision import revision
from models.inputs.weights import WEIGHT_SETS, WeightSet, digest_of_weights
from models.jobs.plan import REPORT, Job
from submissions.findings import Findings, with_error
from submissions.run import SUBMISSION_FILE, Run

HANDOVER = "handover.md"


def handover(found: Findings) -> str:
    """The document, in Markdown."""
    run = found.run
    reports = {job.folder: read_json(job.folder / REPORT) for job in run.plan.jobs}
    parts = [
        f"# {run.paths.name}: how to make the submission again",
        f"Run {run.name}: {found.chosen}, {run.metric.name} {_score(found)} expected. The last of these files from the "
        "others:",
        _table(["file", "sha256"], _files(run)),
        "## Steps",
        _steps(run),
        "## Stages",
        _table(
            ["stage", "kind", "seeds", "jobs", "training time", "size"], [_stage(run, n, reports) for n in _names(run)]
        ),
        f"{run.plan.n_folds} folds (`{run.paths.folds.name}`). Every random number follows from `competition.seed` "
        f"= {run.config.competition.seed} and the names of stage, seed and fold.",
        "## Machines",
        "\n".join(f"- {line}" for line in _machines(list(reports.values()))),
        "## Outside data",
        "\n".join(f"- {line}" for line in _outside(run)) or "None.",
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in run.stored["versions"].items()),
    ]
    return "\n\n".join(parts)


def _score(found: Findings) -> str:
    return with_error(found.whole.cross_fitted_score, found.whole.standard_error)


def _names(run: Run) -> list[str]:
    return sorted(run.config.stages)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _files(run: Run) -> list[list[str]]:
    """The raw tables, the user's own code, and what came out."""
    competition = run.config.competition
    files = [competition.train, competition.test, competition.sample_submission]
    files += [extra.file for extra in competition.extra_train]
    own = [competition.features, competition.metric, *(getattr(s, "code", None) for s in run.config.stages.values())]
    files += [Path(named.rpartition(":")[0]) for named in dict.fromkeys(own) if named and ":" in named]
    named = [*files, run.folder / SUBMISSION_FILE]
    return [[f"`{file.name}`", sha256_of(file) if file.exists() else "not there any more"] for file in named]


def _steps(run: Run) -> str:
    """Commands from the raw files to the submission, training and prediction apart."""
    name, yaml = run.paths.name, f"{run.paths.name}.yaml"
    named = name if any((folder / yaml).is_file() for folder in config_folders()) else yaml
    python = run.stored["versions"]["python"]
    cut = "".join(f"\n- {line}" for line in run.left_out)
    first = f"\n\nFirst take out of `{yaml}` what this run left out:\n{cut}" if cut else ""
    slug = run.config.competition.kaggle
    where = f", from https://www.kaggle.com/competitions/{slug}/data" if slug else ""
    return f"""With Python {python}, this code (revision {revision()}), its `requirements.txt` and
`requirements-weights.txt`, and `{yaml}` beside the files that it names{where}:{first}

```
./run.sh train {named}                      # training alone: prepared tables, folds, every job
./run.sh full {named}                       # blend, stack, submission, report
./run.sh predict {named} --test test.csv    # prediction alone, with the saved weights of the run
./run.sh kernel {named} --try               # the same in an empty environment without a network
```

On the same type of machine, with the same versions and one thread per worker (which is the default), the submission
is the same to the byte; on a GPU to a tolerance."""


def _stage(run: Run, name: str, reports: dict[Path, Any]) -> list[str]:
    jobs, stage = run.plan.of(name), run.config.stages[name]
    seconds = sum(reports[job.folder]["seconds"] for job in jobs)
    size = sum(_size(job, reports[job.folder]) for job in jobs) / 2**20
    return [
        name,
        stage.kind,
        ", ".join(map(str, sorted(set(stage.seeds)))),
        str(len(jobs)),
        in_words(seconds),
        f"{size:.1f} MiB",
    ]


def _size(job: Job, report: Any) -> int:
    return sum(file["size"] for file in report["files"].values())


def _machines(reports: list[Any]) -> list[str]:
    """What the jobs ran on, the most used first; jobs of code that did not write it down are counted apart."""
    counted = Counter(_described(report.get("machine")) for report in reports)
    return [f"{n} jobs: {name}" for name, n in counted.most_common()]


def _described(machine: dict[str, Any] | None) -> str:
    if machine is None:
        return "not written down (jobs of earlier code)"
    gpu = f", {machine['gpu']}" if "gpu" in machine else ", no GPU"
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB{gpu}"


def _outside(run: Run) -> list[str]:
    """Pretrained weights and more training rows."""
    lines = []
    for name in _names(run):
        weights = getattr(run.config.stages[name], "weights", None)
        if weights:
            known = WEIGHT_SETS.get(weights)
            source = f"{_source(known)}, {known.licence}" if known else "a file of ours"
            lines.append(f"{name}: pretrained weights {weights} ({source}); digest {digest_of_weights(weights)}")
    return [*lines, *(f"more training rows: {extra.file.name}" for extra in run.config.competition.extra_train)]


def _source(known: WeightSet) -> str:
    return known.hub or known.url or f"the package {known.package[0] if known.package else ''}"
