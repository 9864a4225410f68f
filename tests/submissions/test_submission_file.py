"""Submission files: ids, order, columns and cells are those that the sample and the metric need."""

from typing import Any

import numpy as np
import pytest

from competition.task import Task
from core.errors import SubmissionError
from core.user_tables import read_text_table
from submissions.submission_file import check_submission, write_submission

SAMPLE = 'id,y\n01,0\n"b,c",0\n" d",0\n'
IDS = ["01", "b,c", " d"]
NUMBERS = Task(["target"], ["y"])
CLASSES: dict[str, Any] = {"problem_type": "multiclass", "classes": ["a", "b", "c"]}
PROBABILITIES, LABELS = Task(["y"], **CLASSES), Task(["y"], **CLASSES, scores_labels=True)
TWO_OF_THREE = Task(["y"], **CLASSES, top_k=2)


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        (NUMBERS, 'id,y\n1,1\n"b,c",2\n d,3\n', r"1 are missing \['01'\] and 1 are not in the sample \['1'\]"),
        (NUMBERS, 'id,y\n"b,c",1\n01,2\n d,3\n', "in its order.* 0 are missing"),
        (NUMBERS, 'id,y\n01,1\n"b,c",2\n d,3\n d,3\n', "4 rows for 3 ids"),
        (NUMBERS, 'id,z\n01,1\n"b,c",2\n d,3\n', "must have the columns id, y"),
        (NUMBERS, 'y,id\n1,01\n2,"b,c"\n3, d\n', "in this order; got y, id"),
        (NUMBERS, 'id,y\n01,1\n"b,c",\n d,3\n', "id 'b,c'"),
        (NUMBERS, 'id,y\n01,1\n"b,c",2\n d,many\n', "'many'"),
        (
            PROBABILITIES, 'id,y\n01,0.2\n"b,c",1.0\n d,1.0000001\n',
            "'y' must have probabilities from 0 to 1; 1 row.*id ' d' with '1.0000001'",
        ),
        (PROBABILITIES, 'id,y\n01,-1e-09\n"b,c",0.5\n d,\n', "2 row.*id '01' with '-1e-09'"),
        (
            LABELS, 'id,y\n01,a\n"b,c",d\n d,c\n',
            "'y' must have one of the classes a, b, c; 1 row.*id 'b,c' with 'd'",
        ),
        (
            TWO_OF_THREE, 'id,y\n01,a\n"b,c",b c\n d,b b\n',
            "up to 2 different classes, .* 1 row.*id ' d' with 'b b'",
        ),
        (TWO_OF_THREE, 'id,y\n01,a d\n"b,c",a b c\n d,\n', "3 row"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_the_sample_is_refused(tmp_path, task, text, message):
    sample, file = tmp_path / "sample.csv", tmp_path / "blend.csv"
    sample.write_text(SAMPLE)
    file.write_text(text)
    with pytest.raises(SubmissionError, match=message):
        check_submission(file, read_text_table(sample), "id", task)


def written(folder, task, scored, means, ids, sample=SAMPLE):
    """The text of a submission; the ids of `scored` are in another order than those of the sample."""
    (folder / "sample.csv").write_text(sample)
    file, table = folder / "blend.csv", read_text_table(folder / "sample.csv")
    write_submission(file, table, "id", task, ids, np.array(scored), means)
    return file.read_text()


def test_a_submission_has_seven_digits_and_the_mean_of_a_missing_row_and_is_removed_if_it_does_not_fit(
    tmp_path,
):
    two = [" d", "01"]
    text = written(tmp_path, NUMBERS, [[200 / 3], [1.23456789e-300]], [7.0], two)
    assert text == 'id,y\n01,1.234568e-300\n"b,c",7.0\n d,66.666667\n'
    repeated = 'id,y,SMILES\n01,0,C\n"b,c",0,N\n d,0,not a molecule\n'
    text = written(tmp_path, NUMBERS, [[3.0], [1.0]], [2.0], two, repeated)
    assert text == 'id,y,SMILES\n01,1.0,C\n"b,c",2.0,N\n d,3.0,not a molecule\n'
    with pytest.raises(SubmissionError, match="id ' d'"):
        written(tmp_path, NUMBERS, [[np.inf], [1.0]], [7.0], two)
    assert not (tmp_path / "blend.csv").exists()


def test_probabilities_have_seven_digits_and_labels_their_names_in_a_submission(tmp_path):
    """The columns of the sample are in another order than the classes."""
    binary = Task(["y"], ["p0", "p1"], "binary", ["no", "yes"])
    sample = 'id,p1,p0\n01,0,0\n"b,c",0,0\n d,0,0\n'
    text = written(tmp_path, binary, [[1 - 2**-40], [2 / 3], [1 / 7e9]], [0.5], IDS, sample)
    assert text == ('id,p1,p0\n01,1.0,9.094947e-13\n"b,c",0.66666667,0.33333333\n d,1.428571e-10,1.0\n')
    text = written(tmp_path, LABELS, [[0.0], [2.0]], [0.2, 0.5, 0.3], [" d", "01"])
    assert text == 'id,y\n01,c\n"b,c",b\n d,a\n'
