"""What came out of the latest run, on one page: `python -m submissions.report [COMPETITION]`.

Reads: the reports of competition.prepare and of all jobs, the run's folder; and, here alone, the answers where
`competition.answers` names a file that is there.
Writes: report/report.md, which is printed, too, report/index.html, which opens in a browser without a network, and
report/handover.md: how to make the submission again.
"""

import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from competition import command
from competition.errors import DataError
from competition.files import write_atomically
from competition.paths import shown
from submissions.handover import HANDOVER, handover
from submissions.report.findings import gather
from submissions.report.parts import Findings, Table, embedded
from submissions.run import Run, latest_run, table_digests
from submissions.words import table

SUMMARY, PAGE = "report.md", "index.html"


def report(run: Run) -> str:
    """Write report.md, index.html and handover.md of a finished run; returns what stands in the first."""
    found, folder = gather(run), run.paths.report
    summary = markdown(found, folder)
    write_atomically(folder / SUMMARY, summary + "\n")
    write_atomically(folder / PAGE, page(found))
    write_atomically(folder / HANDOVER, handover(run) + "\n")
    return summary


def markdown(found: Findings, folder: Path) -> str:
    """The brief sections for a terminal; `folder` has the page."""
    parts = [f"# {found.title}\n\n{found.about}"]
    for section in found.sections:
        if section.brief:
            parts.append(f"## {section.title}")
            parts += [table(*part) for part in section.parts if isinstance(part, Table)]
            said = [part for part in section.parts if isinstance(part, str)]
            parts.append("\n".join(textwrap.fill(line, 108, break_on_hyphens=False) for line in said))
    written = f"Page: {shown(folder / PAGE)}\nHandover: {shown(folder / HANDOVER)}\n{found.to_submit}"
    return "\n\n".join(filter(None, [*parts, written]))


def page(found: Findings) -> str:
    """All sections as one HTML file that needs no network."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["embedded"] = embedded
    return environment.get_template("page.html").render(found=found)


def main() -> None:
    """Command line."""
    run = latest_run(command.parser(__doc__).parse_args().competition)
    with command.locked(run.paths, wait=True):
        if table_digests(run.paths) != run.stored["tables"]:
            raise DataError(f"The tables or folds have changed since {run.folder} was written. Run ./run.sh full.")
        print(report(run))


if __name__ == "__main__":
    command.run(main)
