"""What came out of the latest run, on one page: `python -m submissions.report [COMPETITION]`.

Reads: the reports of competition.prepare and of all jobs, the run's folder; and, here alone, the answers
where `competition.answers` names a file that is there. Writes: report/report.md, which is printed, too,
report/index.html, which opens in a browser without a network, and report/handover.md: how to make the
submission again.
"""

import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from competition import cli
from competition.errors import DataError
from competition.files import write_atomically
from competition.paths import display_path
from submissions.formatting import format_table
from submissions.handover import HANDOVER, handover
from submissions.report.elements import Report, Table, data_url
from submissions.report.sections import build_report
from submissions.run import Run, latest_run, table_digests

SUMMARY, PAGE = "report.md", "index.html"


def report(run: Run) -> str:
    """Write report.md, index.html and handover.md of a finished run; returns what stands in the first."""
    found, folder = build_report(run), run.paths.report
    summary = markdown(found, folder)
    write_atomically(folder / SUMMARY, summary + "\n")
    write_atomically(folder / PAGE, page(found))
    write_atomically(folder / HANDOVER, handover(run) + "\n")
    return summary


def markdown(found: Report, folder: Path) -> str:
    """The brief sections for a terminal; `folder` has the page."""
    parts = [f"# {found.title}\n\n{found.about}"]
    for section in found.sections:
        if section.brief:
            parts.append(f"## {section.title}")
            parts += [format_table(*part) for part in section.parts if isinstance(part, Table)]
            said = [part for part in section.parts if isinstance(part, str)]
            parts.append("\n".join(textwrap.fill(line, 108, break_on_hyphens=False) for line in said))
    written = (
        f"Page: {display_path(folder / PAGE)}\nHandover: {display_path(folder / HANDOVER)}\n{found.to_submit}"
    )
    return "\n\n".join(filter(None, [*parts, written]))


def page(found: Report) -> str:
    """All sections as one HTML file that needs no network."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["embedded"] = data_url
    return environment.get_template("page.html").render(found=found)


def main() -> None:
    """Command line."""
    run = latest_run(cli.parser(__doc__).parse_args().competition)
    with cli.locked(run.paths, wait=True):
        if table_digests(run.paths) != run.stored["tables"]:
            raise DataError(
                f"The tables or folds have changed since {run.folder} was written. Run ./run.sh full."
            )
        print(report(run))


if __name__ == "__main__":
    cli.run(main)
