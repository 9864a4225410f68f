"""Which place would one submission have taken in competitions that have ended?

    python -m benchmarks.replay --data FOLDER_WITH_COMPETITIONS --work FOLDER [--sets ...] [--budget 1h] [--again]
    python -m benchmarks.replay --work FOLDER --table

Each file of `benchmarks/replays/` is a competition with public answers and a public board. `./run.sh new --preset cpu`
writes its YAML without the answers, with no option but those that a competitor reads on the page of the task, and
`./run.sh full --budget` makes one submission. Then the answers are opened, once, and the try is appended to
FOLDER/tries.jsonl, also one that failed. A competition with a try is left out, unless --again makes another one, which
has its number in the table. A run that was interrupted is no try, and is made again from the start. DATA/NAME has
train.csv, test.csv, sample_submission.csv and answers.csv. A competition without them is named.

The table has all tries. `place` counts the teams with a better score, so that a score like that of a team takes its
place, and `of` counts the submission too. `quantile` is the share of teams with no better score: 1 is the first place.
`held` says whether the interval of the expected score, `lower` to `upper`, has the score. The last line is about first
tries. Competitions that this project was developed with have a table of their own, without a place in that line.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from benchmarks.budget import answers_and_predictions, commit_of, full, parse, parser_of
from competition.config import load_competition, validate
from competition.metrics import get_metric
from core.files import PROJECT
from core.settings import StrictModel
from core.types import ProblemType
from core.yaml_files import load_yaml

REPLAYS = Path(__file__).with_name("replays")
TRIES = "tries.jsonl"
"""File in the folder of all outputs with a line of JSON for each try."""
TABLES = ("train", "test", "sample_submission", "answers")
MIN_TEAMS = 20
COLUMNS = [
    "competition", "year", "try", "commit", "budget", "score", "place", "of", "quantile", "first", "tenth", "median",
    "expected", "lower", "upper", "held", "seconds", "failure",
]  # fmt: skip


class Board(StrictModel):
    """The final scores of all teams, best first, and the page that has them."""

    source: str
    scores: list[float] = Field(min_length=MIN_TEAMS)


class Replay(StrictModel):
    """A competition that has ended."""

    source: str
    """Public page with the files and the answers."""
    licence: str
    year: int
    metric: str
    problem_type: ProblemType | None = None
    options: list[str] = []
    """Other options of `new` that the page of the task gives away."""
    note: str = ""
    """What was set up, and how the board differs from the answers."""
    developed_with: bool = False
    """Whether this project was developed with it, so that its place is not counted."""
    board: Board | None = None
    """Only a competition that is not counted may have none."""

    @model_validator(mode="after")
    def _check_board(self) -> Self:
        if get_metric(self.metric) is None:
            raise ValueError(f"metric must be one of this project; got {self.metric!r}")
        if self.board is None:
            if not self.developed_with:
                raise ValueError("board is missing")
        elif self.board.scores != sorted(self.board.scores, reverse=self.greater_is_better):
            raise ValueError("board.scores must have the best score first")
        return self

    @property
    def greater_is_better(self) -> bool:
        """Whether the metric of the competition is better if it is greater."""
        metric = get_metric(self.metric)
        return metric is not None and metric.greater_is_better


def load_replays(folder: Path = REPLAYS) -> dict[str, Replay]:
    """Return the competitions of a folder by the names of their files."""
    files = sorted(folder.glob("*.yaml"))
    return {file.stem: validate(Replay, load_yaml(file), file) for file in files}


def place_on(board: list[float], score: float, greater_is_better: bool) -> int:
    """Return the place of a score, 1 for the best: teams with the same score take the same place."""
    is_better = np.array(board) > score if greater_is_better else np.array(board) < score
    return 1 + int(is_better.sum())


def read_tries(work: Path) -> list[dict[str, Any]]:
    """Return all tries in the order in which they were made."""
    file = work / TRIES
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def next_number(work: Path, name: str) -> int:
    """Return the number of the next try of a competition, 1 for the first one."""
    return 1 + sum(record["competition"] == name for record in read_tries(work))


def append_try(work: Path, name: str, measured: dict[str, Any]) -> None:
    """Append a try of a competition with its number."""
    record = {"competition": name, "try": next_number(work, name), **measured}
    with (work / TRIES).open("a") as file:
        file.write(json.dumps(record) + "\n")


def write_yaml(replay: Replay, source: Path, yaml_file: Path) -> None:
    """Write the YAML of the tables in a folder, without their answers."""
    tables = [f"--{name}={source}/{name}.csv" for name in ("train", "test")]
    options = [f"--sample={source}/sample_submission.csv", f"--metric={replay.metric}", "--preset=cpu"]
    if replay.problem_type:
        options.append(f"--problem-type={replay.problem_type}")
    call = ["./run.sh", "new", str(yaml_file), *tables, *options, *replay.options]
    subprocess.run(call, check=True, cwd=PROJECT)


def make_submission(replay: Replay, source: Path, folder: Path, budget: str) -> dict[str, Any]:
    """Make a submission in an empty folder, score it on the answers, and return what was measured."""
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    folder.mkdir(parents=True)
    os.environ["WORK_DIR"] = str(folder / "work")
    yaml_file = folder / f"{source.name}.yaml"
    measured: dict[str, Any] = {"commit": commit_of(PROJECT), "budget": budget}
    try:
        write_yaml(replay, source, yaml_file)
        measured["seconds"] = full(yaml_file, ["--budget", budget, "--json"], folder / "full.log")
    except (subprocess.CalledProcessError, RuntimeError) as error:
        return {**measured, "failure": str(error)}
    lines = (folder / "full.log").read_text().splitlines()
    summary = json.loads([line for line in lines if line.startswith("{")][-1])
    competition = load_competition(str(yaml_file)).model_copy(update={"answers": source / "answers.csv"})
    score = competition.scorer(*answers_and_predictions(competition, Path(summary["submission"])))
    if not np.isfinite(score):
        return {**measured, "failure": "the score is not defined"}
    interval = summary["interval"] or {}
    ends = {name: interval.get(name) for name in ("lower", "upper")}
    return {**measured, "score": score, "expected": summary["expected_score"], **ends}


def table_of(tries: list[dict[str, Any]], replays: dict[str, Replay]) -> pd.DataFrame:
    """Return a row for each try of some competitions, with its place."""
    rows = []
    for record in tries:
        replay = replays[record["competition"]]
        row = {**record, "year": replay.year}
        score, lower, upper = (record.get(name) for name in ("score", "lower", "upper"))
        if score is not None and lower is not None:
            row["held"] = lower <= score <= upper
        if replay.board:
            board = replay.board.scores
            row |= {"of": len(board) + 1, "first": board[0], "tenth": board[9], "median": np.median(board)}
            if score is not None:
                row["place"] = place_on(board, score, replay.greater_is_better)
                row["quantile"] = (len(board) + 1 - row["place"]) / len(board)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def summary_of_first_tries(table: pd.DataFrame) -> str:
    """Return a line on the places and intervals of the first tries; a failed one has the quantile 0."""
    first = table[table["try"] == 1]
    quantiles, held = first["quantile"].astype(float).fillna(0), first["held"].dropna()
    return (
        f"first tries of {len(first)} competitions: median quantile {quantiles.median():.2f}, "
        f"{int(held.astype(bool).sum())} of {len(held)} intervals held"
    )


def print_tables(tries: list[dict[str, Any]], replays: dict[str, Replay]) -> None:
    """Print the table of competitions that count, and then that of those that the project was developed with."""
    for developed_with in (False, True):
        title = "competitions that the project was developed with" if developed_with else "competitions"
        part = [one for one in tries if replays[one["competition"]].developed_with == developed_with]
        if not part:
            print(f"{title}: no tries")
            continue
        table = table_of(part, replays)
        text = table.dropna(axis=1, how="all").to_string(
            index=False, na_rep="-", float_format="{:.4g}".format
        )
        print(f"{title}\n{text}")
        if not developed_with:
            print(summary_of_first_tries(table))


def main() -> None:
    replays = load_replays()
    parser = parser_of(__doc__)
    parser.set_defaults(sets=list(replays))
    parser.add_argument("--budget", default="1h")
    parser.add_argument("--again", action="store_true", help="make another try of competitions that have one")
    parser.add_argument("--table", action="store_true", help="only print the tables of all tries")
    args = parse(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    for name in [] if args.table else args.sets:
        number, source = next_number(args.work, name), args.data / name
        if not all((source / f"{table}.csv").exists() for table in TABLES):
            print(f"{name}: no data", flush=True)
        elif args.again or number == 1:
            folder = args.work / f"{name}_{number}"
            append_try(args.work, name, make_submission(replays[name], source, folder, args.budget))
    print_tables(read_tries(args.work), replays)


if __name__ == "__main__":
    main()
