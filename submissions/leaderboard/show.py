"""Every submission of a competition, and whether CV can be trusted: `./run.sh ledger [COMPETITION]`.

--public and --private add a score by hand, where `./run.sh submit` did not wait for it or the platform is another one.
--select notes which submissions you selected on the platform.

Reads: ledger.csv and the submitted files. Writes: report/ledger.png and, where asked, rows of ledger.csv.
"""

from __future__ import annotations

import math
import shutil
import textwrap
from pathlib import Path

from competition import command
from competition.config import load_competition
from competition.errors import ConfigError
from competition.metrics import load_metric
from competition.paths import Paths, shown
from submissions.blend import number
from submissions.leaderboard.choose import choose, correlation_of_files, looking_back
from submissions.leaderboard.ledger import Event, Submission, append, now, read, submissions, torn_rows
from submissions.leaderboard.picture import draw
from submissions.leaderboard.trust import distinct, judge
from submissions.report import table

WIDTHS = (100, 118, 160)
"""Characters per line: at least, in a log, at most."""
PICTURE = "ledger.png"


def add_score(path: Path, public: float | None, private: float | None, name: str | None = None) -> Submission:
    """Write a score that a person has read.

    Args:
        path: the log.
        public, private: at least one of them.
        name: the submission; None for the latest one that has not failed and has none of these scores yet.

    Returns:
        The submission, as it was before.

    Raises:
        ConfigError: if a score is not finite, or there is no such submission.
    """
    given = {board: score for board, score in (("public", public), ("private", private)) if score is not None}
    for board, score in given.items():
        if not math.isfinite(score):
            raise ConfigError(f"--{board} must be a finite number; found {score}.")
    known = submissions(read(path))
    if name is not None:
        (one,) = _named([name], known)
    else:
        without = [s for s in known if s.status != "failed" and all(getattr(s, board) is None for board in given)]
        if not without:
            raise ConfigError(
                f"there must be a submission without a {' or '.join(given)} score, and there is none among "
                f"{len(known)}; name the one to correct with --submission, or make one with ./run.sh submit."
            )
        one = without[-1]
    append(path, Event(now(), "scored", one.submission, public=public, private=private))
    return one


def select(path: Path, names: list[str]) -> None:
    """Note the submissions that were selected on the platform; they replace those noted before.

    Raises:
        ConfigError: if one of them is not known or has failed.
    """
    for one in _named(names, submissions(read(path))):
        if one.status == "failed":
            raise ConfigError(f"a selected submission must have reached the platform; {one.submission} failed.")
    append(path, Event(now(), "selected", " ".join(names)))


def page(competition: str) -> str:
    """The table and what was found, for a terminal; draws the picture where a submission has both scores."""
    config, paths = load_competition(competition), Paths.of(competition)
    metric = load_metric(config.metric, config.greater_is_better)
    known, torn = submissions(read(paths.ledger)), torn_rows(paths.ledger)
    cut_off = [f"{shown(paths.ledger)}, {row}: cut off while it was written, left out." for row in torn]
    if not known:
        none = f"No submissions of {paths.name} yet: ./run.sh submit {paths.name} makes one and writes it down."
        return "\n".join([none, *cut_off])
    better = metric.greater_is_better
    trust = judge(known, better, paths.name)
    picks = choose(known, trust, better, correlation_of_files(paths.root, config.id))
    picked = [f"{pick.submission.submission}: {pick.reason}" for pick in picks]
    if len(picks) == 1:
        picked.append("A second one needs another file.")
    said = {
        "Can CV be trusted?": trust.sentences,
        "Outliers": [f"{name}: {outlier.words}" for name, outlier in trust.outliers.items()],
        "To select at the end": picked,
        "Private scores": looking_back(known, picks, trust, better),
        "To look at": [*_to_look_at(known, paths.name), *cut_off],
    }
    direction = "greater is better" if better else "less is better"
    parts = [f"# Submissions of {paths.name}: {metric.name}, {direction}", _table(known, set(trust.outliers))]
    parts += [f"## {title}\n\n{_listed(lines)}" for title, lines in said.items() if lines]
    if trust.scored:
        draw(trust, picks, metric.name, better, paths.report / PICTURE)
        parts.append(f"Picture: {shown(paths.report / PICTURE)}")
    return "\n\n".join(parts)


def _named(names: list[str], known: list[Submission]) -> list[Submission]:
    by_name = {one.submission: one for one in known}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"a submission must be one of {', '.join(by_name) or 'none yet'}; found {name!r}.")
    return [by_name[name] for name in names]


def _width() -> int:
    least, in_a_log, most = WIDTHS
    return min(max(shutil.get_terminal_size((in_a_log, 0)).columns, least), most)


def _table(known: list[Submission], outliers: set[str]) -> str:
    """A row per submission; columns in which nothing stands are left out, messages are cut to what room there is."""
    columns: dict[str, list[str]] = {
        "id": [one.submission for one in known],
        "time": [one.time[5:16].replace("T", " ") for one in known],
        "run": [one.run[:8] or _cut(Path(one.file).name, 16) for one in known],
        "chosen": [_cut(one.chosen, 12) for one in known],
        "cv_score": [_score(one.cv_score) for one in known],
        "cross_fitted": [_score(one.cross_fitted_score) for one in known],
        "public": [_score(one.public) for one in known],
        "private": [_score(one.private) for one in known],
        "marks": [_marks(one, outliers) for one in known],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    taken = sum(max(map(len, [name, *cells])) + 3 for name, cells in columns.items()) + 4
    columns["message"] = [_cut(_message(one), max(8, _width() - taken)) for one in known]
    padded = {}
    for name, cells in columns.items():
        width = max(map(len, [name, *cells])) if name in ("run", "message") else 0  # texts, though they have digits
        padded[name.ljust(width)] = [cell.ljust(width) for cell in cells]
    return table(list(padded), [list(row) for row in zip(*padded.values(), strict=True)])


def _marks(one: Submission, outliers: set[str]) -> str:
    states = {"submitting": "in doubt", "failed": "failed"}
    marks = [states.get(one.status), one.submission in outliers and "outlier", one.selected and "selected"]
    return ", ".join(mark for mark in marks if mark)


def _score(value: float | None) -> str:
    return "" if value is None else number(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _message(one: Submission) -> str:
    """What a person wrote; the message that is made where there is none repeats the row."""
    return "" if one.run and one.message.startswith(f"run {one.run}, ") else one.message


def _to_look_at(known: list[Submission], competition: str) -> list[str]:
    """Uploads that failed or may have, and copies of one file that are told to have different scores."""
    doubt = f"its upload began and its end is not known; ask with ./run.sh submit {competition} --fetch."
    words = {"submitting": doubt, "failed": "failed"}
    said = [
        f"{one.submission}: {words[one.status]}{f': {one.message}' if one.status == 'failed' and one.message else ''}"
        for one in known
        if one.status in words
    ]
    used = {one.file_digest: one for one in distinct(known) if one.file_digest}
    for one in known:
        same = used.get(one.file_digest, one)
        for board in ("public", "private"):
            score, other = getattr(one, board), getattr(same, board)
            if None not in (score, other) and score != other:
                said.append(
                    f"{one.submission} is the same file as {same.submission}, and has {board} {number(score)} where "
                    f"that has {number(other)}; only that of {same.submission} is used. Correct the wrong one with "
                    "--submission."
                )
    return said


def _listed(lines: list[str]) -> str:
    return "\n".join(
        textwrap.fill(line, _width(), initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for line in lines
    )


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, "ledger", ())
    options.add_argument("--public", type=float, metavar="SCORE", help="a score on the public leaderboard to add")
    options.add_argument("--private", type=float, metavar="SCORE", help="a score on the private leaderboard to add")
    options.add_argument("--submission", metavar="ID", help="of which --public and --private are (default: the latest)")
    options.add_argument("--select", nargs="+", metavar="ID", help="what you selected on the platform, to mark it here")
    args = options.parse_args()
    load_competition(args.competition)  # a misspelt name gets no log
    path = Paths.of(args.competition).ledger
    if args.public is not None or args.private is not None:
        one = add_score(path, args.public, args.private, args.submission)
        about = f", {one.message}" if one.message else ""
        print(f"Added to {one.submission} of {one.time[:16].replace('T', ' ')}{about}.")
        for board in ("public", "private"):
            if getattr(args, board) is not None and getattr(one, board) is not None:
                print(f"Its {board} score was {number(getattr(one, board))} before.")
        print()
    elif args.submission:
        raise ConfigError("--submission must come with the --public or --private score to add, and has none.")
    if args.select:
        select(path, args.select)
        print("Noted here; select them on the platform's page, too, since this does not.\n")
    print(page(args.competition))


if __name__ == "__main__":
    command.run(main)
