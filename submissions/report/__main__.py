"""Write the report of the latest run: `python -m submissions.report [COMPETITION]`.

Reads: the reports of competition.prepare and of all jobs, the folder of the run; and, only here, the answers if
`competition.answers` is an existing file. Writes: report/report.md, which is also printed, and report/index.html,
which opens in a browser without a network.
"""

import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from core import cli
from core.errors import DataError
from core.files import write_atomically
from core.paths import display_path
from core.text import format_table
from submissions.report.elements import Report, Table, data_url
from submissions.report.sections import build_report
from submissions.run import Run, latest_run, table_digests

SUMMARY = "report.md"
PAGE = "index.html"


def report(run: Run) -> str:
    """Write report.md and index.html of a finished run; return the text of report.md."""
    content = build_report(run)
    folder = run.paths.report
    summary = markdown(content, folder)
    write_atomically(folder / SUMMARY, summary + "\n")
    write_atomically(folder / PAGE, page(content))
    return summary


def markdown(content: Report, folder: Path) -> str:
    """Return the brief sections for a terminal.

    Args:
        folder: folder of the page.
    """
    facts = [f"{name}: {value}, {explanation}." for name, (value, explanation) in content.facts.items()]
    blocks = [f"# {content.title}\n\n{content.subtitle}", _wrapped([content.summary, *facts])]
    for section in content.sections:
        if section.brief:
            blocks.append(f"## {section.title}")
            blocks += [format_table(*element) for element in section.elements if isinstance(element, Table)]
            blocks.append(_wrapped([element for element in section.elements if isinstance(element, str)]))
    closing = [f"Page: {display_path(folder / PAGE)}", *content.closing]
    return "\n\n".join(filter(None, [*blocks, "\n".join(closing)]))


def _wrapped(sentences: list[str]) -> str:
    return "\n".join(textwrap.fill(sentence, 108, break_on_hyphens=False) for sentence in sentences)


def page(content: Report) -> str:
    """Return all sections as one HTML file that needs no network."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["embedded"] = data_url
    return environment.get_template("page.html").render(report=content)


def main() -> None:
    """Parse the command line and run the command."""
    run = latest_run(cli.parser(__doc__).parse_args().competition)
    with cli.locked(run.paths, wait=True):
        if table_digests(run.paths) != run.stored["tables"]:
            raise DataError(
                f"The tables or folds have changed since {run.folder} was written. Run ./run.sh full."
            )
        print(report(run))


if __name__ == "__main__":
    cli.run(main)
