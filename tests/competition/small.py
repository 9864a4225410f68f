"""A competition of a few rows, to be broken in one place by each test."""

import yaml

from competition.config import load_competition
from competition.prepare import prepare

TRAIN = [
    "id,SMILES,y",
    "a,CCO,1.0",
    "b,CCC,2.0",
    "c,CCN,3.0",
    "d,c1ccccc1,4.0",
    "e,CC(=O)O,5.0",
    "f,CCCl,6.0",
]
TEST = ["id,SMILES", "t1,CCCC", "t2,CCBr"]
SAMPLE = ["id,y", "t1,0", "t2,0"]


def write_small(
    folder, train = None, test = None, sample = None, *, folds = None, stages = None,
    **competition,
):  # fmt: skip
    """Three CSV files and a YAML in `folder`; a setting of None is left out of the YAML.

    Tables are lists of lines, or a text of lines without blanks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("train", train or TRAIN), ("test", test or TEST), ("sample", sample or SAMPLE)):
        lines = lines.split() if isinstance(lines, str) else lines
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {"train": "train.csv", "test": "test.csv", "sample_submission": "sample.csv"}
    settings = {**files, "id": "id", "targets": ["y"], "smiles": ["SMILES"], "metric": "rmse", **competition}
    section = {key: value for key, value in settings.items() if value is not None}
    others = {"folds": folds or {"n_folds": 3}, "stages": stages or {"trees": {"kind": "lightgbm"}}}
    path = folder / "small.yaml"
    text = yaml.safe_dump({"competition": section, **others}, allow_unicode=True, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def prepared(folder, *tables, **settings):
    """The clean tables of `write_small`."""
    return prepare(load_competition(str(write_small(folder, *tables, **settings))))
