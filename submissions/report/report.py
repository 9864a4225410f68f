"""The report of a run.

report.md, which is also printed, has the brief sections; index.html, which opens in a browser without a
network, has all. To add something, add an element (`elements.py`) to a section, or a section to
`build_report`.

It reads the reports of the tables and of all jobs, and the folder of the run; and, only here, the
answers if `competition.answers` is an existing file.
"""

import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from competition.dataset import REFIT_FOLD
from competition.prepare import describe as describe_tables
from core.errors import join_first
from core.files import read_json, write_atomically
from core.paths import display_path
from core.text import format_duration, format_number, format_table, format_with_error
from submissions.manifest import (
    LEFT_OUT_HEADER,
    NOT_EXAMINED,
    SUBMISSION_FILE,
    describe_expected,
    left_out_notes,
)
from submissions.report.elements import Element, Report, Section, Table, data_url
from submissions.report.importances import column_importances, feature_importances
from submissions.report.predictions import (
    error_correlation,
    folds_and_shift,
    largest_errors,
    learning_curve_section,
    prediction_section,
)
from submissions.report.scores import (
    class_section,
    fold_section,
    gain,
    load_answers,
    score_overview,
    score_section,
    seconds_of_stage,
    stages_without_weight,
    target_section,
    time_line,
    weight_notes,
)
from submissions.run import Run

SUMMARY = "report.md"
PAGE = "index.html"
MAX_BRIEF_OUTPUTS = 24
"""Number of classes or targets up to which report.md has their scores."""


def report(run: Run) -> str:
    """Write report.md and index.html of a finished run; return the text of report.md."""
    content = build_report(run)
    folder = run.paths.report
    summary = markdown(content, folder)
    write_atomically(folder / SUMMARY, summary + "\n")
    html = page(content).replace(f"{display_path(run.paths.root)}/", "../")  # also if its folder is moved
    write_atomically(folder / PAGE, html)
    return summary


def markdown(content: Report, folder: Path) -> str:
    """Return the brief sections for a terminal.

    Args:
        folder: folder of the page.
    """
    facts = [f"{name}: {value}, {explanation}." for name, (value, explanation) in content.facts.items()]
    blocks = [
        f"# {content.title}\n\n{content.subtitle}",
        _wrapped([content.summary, *content.warnings, *facts]),
    ]
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
    from jinja2 import Environment, FileSystemLoader  # here, since most commands write no page

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["embedded"] = data_url
    return environment.get_template("page.html").render(report=content)


def build_report(run: Run) -> Report:
    """Return the report of a finished run; only this function reads the answers."""
    answers = load_answers(run)
    facts = _facts(run)
    holdout_of = run.config.competition.holdout_of
    if answers.scores:
        title = f"holdout_score on rows of {holdout_of}" if holdout_of else "test_score"
        score = answers.score(run.choice.submitted.file)
        note = "on labels used nowhere else"
        interval = run.choice.expected.interval
        if interval is not None and score is not None:
            note += f", {'inside' if interval.holds(score) else 'outside'} the expected interval"
        facts[title] = (format_number(score), note)
    closing = _closing(run)
    task = run.task
    brief = len(task.outputs) <= MAX_BRIEF_OUTPUTS
    errors_title = "Most confident mistakes" if task.has_probabilities else "Largest errors"
    prediction_title = "Probabilities" if task.has_probabilities else "Predictions"
    sections = [
        Section("Stages and blends", _safely(run, lambda run: score_overview(run, answers))),
        Section("What next", [*closing[1:]]),
        Section("Left out", _left_out(run), brief=True, wide=True),
        Section("Scores", score_section(run, answers), brief=True, wide=True),
        Section("Scores by target", target_section(run, answers)),
        Section("Scores by fold", _safely(run, fold_section)),
        Section("Tables", _tables(run), brief=True),
        Section("Scores by class", _safely(run, class_section) if task.classes else [], brief=brief),
        Section(prediction_title, _safely(run, prediction_section), wide=True),
        Section("Time line", _safely(run, time_line)),
        Section("Learning curves", _safely(run, learning_curve_section), wide=True),
        Section(
            "Importances", [*_safely(run, feature_importances), *_safely(run, column_importances)], wide=True
        ),
        Section("Error correlation", _safely(run, error_correlation)),
        Section("Folds and shift", _safely(run, folds_and_shift), wide=True),
        Section(errors_title, _safely(run, largest_errors), wide=True),
        Section("Pretrained weights", weight_notes(run), brief=True, wide=True),
    ]
    folds = f"{run.plan.n_folds} folds ({run.config.folds.title})"
    n_groups = run.columns.n_groups
    n_rows = run.columns.has_fold.sum()
    resampled = "rows" if n_groups == n_rows else f"{n_groups:,} groups of {n_rows:,} rows"
    return Report(
        title=f"{run.paths.name}: {run.metric.name}, {run.metric.direction}",
        subtitle=f"run {run.name}, {folds}; +- is a standard error (bootstrap over {resampled})",
        summary=_summary(run),
        warnings=[*run.incomplete, *run.choice.expected.warnings],
        facts=facts,
        closing=closing,
        sections=[section for section in sections if section.elements],
    )


def _safely(run: Run, section: Callable[[Run], list[Element]]) -> list[Element]:
    """Return the elements of a section, or a note on its error: a figure must not end a run."""
    try:
        return section(run)
    except Exception as error:
        print(f"report: a section could not be made ({type(error).__name__}: {error})", file=sys.stderr)
        return [f"This section could not be made ({type(error).__name__}: {error})."]


def _summary(run: Run) -> str:
    """Return what to expect, what was chosen, and how many models it averages."""
    idle = stages_without_weight(run)
    stages = ", ".join(stage for stage in run.config.stages if stage not in idle)
    folds = [job.fold for job in run.plan.jobs if job.predicts_test and job.stage not in idle]
    n_refits = folds.count(REFIT_FOLD)
    kinds = "models (folds and seeds)" if not n_refits else "models (folds, refits and seeds)"
    expected = run.choice.expected
    sentences = [expected.shift.sentence] if expected.shift else []
    like_them = ""
    if expected.shift and expected.shift.factor is not None:
        factor = f"{expected.shift.factor:.2f}"
        like_them = f": the error of the test rows is expected to be {factor} times the cross-fitted one"
    if expected.score is None:
        sentences.append(f"The score is not known. {expected.unknown}")
    elif expected.interval is None:
        score = format_number(expected.score)
        sentences.append(
            f"The error of the test rows is not known, and {run.metric.name} {score} may not hold{like_them}."
        )
        sentences.append(expected.unknown)
    else:
        sentences.append(f"Expect {run.metric.name} {expected.text}{like_them}.")
        if run.manifest.shift is None and run.config.competition.has_test_table:
            sentences.append(NOT_EXAMINED)
    prepared = read_json(run.paths.prepare_report)
    sentences += [f"{line}." for line in prepared["answers"]]
    n_censored = prepared["n_censored"]
    if n_censored:
        sentences.append(
            f"{n_censored:,} censored training labels are not scored; "
            "a leaderboard that scores them will differ."
        )
    sentences.append(f"Submitted: {run.chosen} of {stages}; a test prediction uses {len(folds)} {kinds}.")
    return " ".join(sentences)


def _closing(run: Run) -> list[str]:
    """Return where the submission is, and a line for each thing that could be better, or be done now."""
    holdout_of = run.config.competition.holdout_of
    if holdout_of:
        first = (
            f"Nothing to submit: these are training rows of {holdout_of}. "
            "The same command without --holdout predicts the test rows."
        )
    else:
        of_run = display_path(run.folder / SUBMISSION_FILE)
        first = f"Submission: {display_path(run.paths.submission)}, a copy of {of_run}"
    name = run.paths.on_command_line
    lines = [first]
    if run.left_out:
        names = ", ".join(dict.fromkeys(each.stage for each in run.left_out))
        lines.append(f"Left out, at least in part: {names}; the reasons are under Left out")
    idle = stages_without_weight(run)
    if idle:
        seconds = format_duration(sum(map(partial(seconds_of_stage, run), idle)))
        lines.append(f"Without weight in the submission: {', '.join(idle)}, which took {seconds}")
    if run.choice.expected.shift:
        lines.append(f"Test rows differ: ./run.sh folds {name} recommends a kind of folds")
    unused = read_json(run.paths.prepare_report)["unused_columns"]
    if unused:
        columns = [each or "(no name)" for each in unused]
        lines.append(f"Columns of both tables that no setting reads: {join_first(columns)}")
    if not holdout_of:
        steps = [
            f"edit the YAML, then ./run.sh full {name} and ./run.sh compare {name}",
            f"for new rows ./run.sh predict {name} --test NEW.csv",
        ]
        if run.config.competition.kaggle:
            steps.insert(0, f"./run.sh submit {name}")
        lines.append(f"Next: {'; '.join(steps)}")
    return lines


def _facts(run: Run) -> dict[str, tuple[str, str]]:
    """Return name -> value and explanation."""
    choice = run.choice
    expected = choice.expected
    facts = {"expected_score": describe_expected(expected.score, expected.interval)}
    best_stage = choice.best_stage
    compared = choice.stages[best_stage]
    improvement = gain(run, 0.0, compared.difference)
    if improvement is not None and len(choice.stages) > 1:
        of_all = " for all targets" if len(run.task.targets) > 1 else ""
        facts[f"gain over the best stage{of_all}, {best_stage}"] = (
            format_with_error(improvement, compared.standard_error),
            "paired; above 0 is better",
        )
    return facts


def _left_out(run: Run) -> list[Element]:
    """Return the stages and seeds that are not in the submission, with the reasons."""
    if not run.left_out:
        return []
    return [Table(LEFT_OUT_HEADER, [each.row for each in run.left_out]), *left_out_notes(run.left_out)]


def _tables(run: Run) -> list[Element]:
    """Return the results of the checks of the tables."""
    lines = describe_tables(read_json(run.paths.prepare_report)).splitlines()
    return list(filter(None, lines))
