"""Places of submissions in competitions that have ended, by benchmarks/replay.py."""

import json

import pytest

from benchmarks import replay
from core.errors import ConfigError

TEAMS = [0.9, 0.8, 0.8, *[0.5] * 17]
"""Scores of a board of twenty teams, best first, if greater is better."""
YAML = """
source: https://example.org/files
licence: CC BY 4.0
year: 2020
metric: {metric}
board: {{source: https://example.org/board, scores: {scores}}}
"""


def write_replay(folder, name="made", metric="pearson", scores=TEAMS):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(YAML.format(metric=metric, scores=scores))
    return replay.load_replays(folder)


@pytest.mark.parametrize(("score", "place"), [(1.0, 1), (0.9, 1), (0.85, 2), (0.8, 2), (0.7, 4), (0.1, 21)])
def test_the_place_counts_the_teams_with_a_better_score(score, place):
    assert replay.place_on(TEAMS, score, greater_is_better=True) == place


@pytest.mark.parametrize(("score", "place"), [(0.1, 1), (0.2, 1), (0.25, 2), (0.3, 2), (0.4, 4)])
def test_a_lower_error_has_a_better_place(score, place):
    assert replay.place_on([0.2, 0.3, 0.3], score, greater_is_better=False) == place


def test_a_row_of_the_table_has_the_place_the_board_and_whether_the_interval_held(tmp_path):
    replays = write_replay(tmp_path, scores=TEAMS)
    record = {"competition": "made", "try": 1, "score": 0.8, "expected": 0.7, "lower": 0.6, "upper": 0.75}
    (row,) = replay.table_of([record], replays).to_dict("records")
    assert (row["place"], row["of"], row["held"]) == (2, 21, False)
    assert row["quantile"] == pytest.approx(0.95)  # 19 of 20 teams are not better
    assert (row["first"], row["tenth"], row["median"]) == (0.9, 0.5, 0.5)


def test_a_second_try_is_marked_and_the_last_line_counts_first_tries_also_failed_ones(tmp_path, capsys):
    replays = write_replay(tmp_path / "list") | write_replay(tmp_path / "list", "other")
    replay.append_try(tmp_path, "made", {"score": 0.9, "lower": 0.7, "upper": 0.95})
    replay.append_try(tmp_path, "other", {"failure": "ended with status 1"})
    replay.append_try(tmp_path, "made", {"score": 0.95, "lower": 0.96, "upper": 0.99})
    tries = replay.read_tries(tmp_path)
    assert [(one["competition"], one["try"]) for one in tries] == [("made", 1), ("other", 1), ("made", 2)]
    replay.print_tables(tries, replays)
    shown = capsys.readouterr().out
    assert "ended with status 1" in shown and "0.95" in shown
    assert "first tries of 2 competitions: median quantile 0.50, 1 of 1 intervals held" in shown  # 1 and 0


def test_a_competition_without_data_is_named_and_one_with_a_try_is_left_out(tmp_path, monkeypatch, capsys):
    write_replay(tmp_path / "list") | write_replay(tmp_path / "list", "absent")
    (tmp_path / "data" / "made").mkdir(parents=True)
    for table in replay.TABLES:
        (tmp_path / "data" / "made" / f"{table}.csv").touch()
    made = []
    monkeypatch.setattr(replay, "make_submission", lambda *call: made.append(call[2].name) or {"score": 0.8})
    monkeypatch.setattr(replay.load_replays, "__defaults__", (tmp_path / "list",))
    command = ["replay", "--data", str(tmp_path / "data"), "--work", str(tmp_path)]
    for options in ([], [], ["--again"], ["--table"]):
        monkeypatch.setattr("sys.argv", [*command, *options])
        replay.main()
    assert made == ["made_1", "made_2"]
    assert capsys.readouterr().out.count("absent: no data") == 3
    assert len((tmp_path / replay.TRIES).read_text().splitlines()) == 2


def test_the_yaml_is_written_without_the_answers(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(replay.subprocess, "run", lambda call, **_: calls.append(call))
    (competition,) = write_replay(tmp_path / "list", metric="rmse", scores=sorted(TEAMS)).values()
    replay.write_yaml(competition, tmp_path, tmp_path / "made.yaml")
    assert "--metric=rmse" in calls[0] and not any("answers" in word for word in calls[0])


@pytest.mark.parametrize(
    ("metric", "scores", "message"),
    [
        ("pearson", sorted(TEAMS), "best score first"),
        ("rmse", TEAMS, "best score first"),
        ("pearson", TEAMS[:19], "20"),
        ("weighted_f1", TEAMS, "weighted_f1"),
    ],
)
def test_a_board_that_is_not_sorted_or_too_short_is_an_error(tmp_path, metric, scores, message):
    with pytest.raises(ConfigError, match=message):
        write_replay(tmp_path, metric=metric, scores=scores)


def test_the_competitions_of_the_list_load_and_those_that_count_have_a_board():
    replays = replay.load_replays()
    assert {name for name, one in replays.items() if one.developed_with} == {"lcp_phrases", "sts_benchmark"}
    assert len(replays["commonlit_readability"].board.scores) == 3633
    assert all(one.board or one.developed_with for one in replays.values())


def test_a_submission_is_scored_on_answers_that_nothing_else_reads(tmp_path, monkeypatch):
    source, folder = tmp_path / "made", tmp_path / "made_1"
    source.mkdir()
    (source / "train.csv").write_text("id,SMILES,y\n" + "".join(f"{i},C,{i}\n" for i in range(4)))
    (source / "answers.csv").write_text("id,y\na,1\nb,2\nc,4\n")
    (source / "submission.csv").write_text("id,y\nc,3\na,1\nb,2\n")
    (competition,) = write_replay(tmp_path / "list").values()

    def write(replay_, source, yaml_file):
        files = f"train: {source}/train.csv, test: {source}/test.csv, sample_submission: {source}/sample.csv"
        section = f"{{{files}, id: id, targets: [y], smiles: [SMILES], metric: pearson}}"
        yaml_file.write_text(f"competition: {section}\nstages: {{gp: {{kind: gp}}}}\n")

    def full(yaml_file, options, log_file):
        assert options == ["--budget", "5m", "--json"]
        summary = {"submission": str(source / "submission.csv"), "expected_score": 0.9, "interval": None}
        log_file.write_text(f"progress\n{json.dumps(summary)}\n")
        return 12.0

    monkeypatch.setattr(replay, "write_yaml", write)
    monkeypatch.setattr(replay, "full", full)
    measured = replay.make_submission(competition, source, folder, "5m")
    assert measured["score"] == pytest.approx(3 / (2 * 14 / 3) ** 0.5)  # covariance 3, squares 2 and 14/3
    assert (measured["seconds"], measured["expected"], measured["lower"]) == (12.0, 0.9, None)
