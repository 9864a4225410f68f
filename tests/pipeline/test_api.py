"""`pipeline.api`: DataFrames in and out, by the functions of the commands."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError, DataError, NothingToSubmit
from core.files import PROJECT
from core.paths import generated_yaml
from folds import make
from pipeline import commands
from pipeline.api import fit, load
from submissions.config import load_config
from tests.conftest import WORDS, leave_figures_blank, mixed_tables, run_jobs_in_process

TREES = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}, "nearest": {"kind": "baseline"}}
SMALL = {"stages": TREES, "folds": {"n_folds": 3}, "submissions": {"trials": 4, "stack": False}, "workers": 1}
QUICK = {**SMALL, "stages": {"nearest": {"kind": "baseline"}}}

pytestmark = pytest.mark.usefixtures("jobs_in_process")


def molecules(n=60):
    """Molecules with a number, without a column of ids."""
    return mixed_tables(n)[0][["SMILES", "lumo"]].set_axis([f"row {i}" for i in range(n)])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of `molecules`, what `fit` printed, the work folder, and a copy of it."""
    work = tmp_path_factory.mktemp("fitted") / "work"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setenv("WORK_DIR", str(work))
        leave_figures_blank(patch)
        run_jobs_in_process(patch)
        run = fit(molecules(), targets="lumo", name="alone", **SMALL)
    return run, printed.getvalue(), work, shutil.copytree(work, work.with_name("copy"))


@pytest.fixture
def alone(fitted, monkeypatch):
    """The run of `fitted`, in a work folder as it left it."""
    run, _, work, copy = fitted
    shutil.rmtree(work)
    shutil.copytree(copy, work)
    monkeypatch.setenv("WORK_DIR", str(work))
    return run


@pytest.fixture
def settings_of(monkeypatch):
    """A function with the arguments of `fit` that returns the settings which it writes, and trains nothing."""

    def full(options):
        raise NothingToSubmit("The YAML is written.")

    def written(train, name="untrained", **given):
        with monkeypatch.context() as patch, pytest.raises(NothingToSubmit, match="The YAML is written"):
            patch.setattr(commands, "full", full)
            fit(train, name=name, **given)
        return load_config(str(generated_yaml(name)))

    return written


def texts(n=90):
    """Texts of three moods, which their words give."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"text": [" ".join(rng.choice(WORDS, 5)) for _ in range(n)]})
    is_sad, is_glad = (table["text"].str.contains(word) for word in ("cold", "warm|red"))
    return table.assign(mood=np.select([is_sad, is_glad], ["sad", "glad"], "so so"))


def test_a_training_table_is_enough_and_new_rows_are_predicted_in_any_order_of_rows_and_columns(
    fitted, alone
):
    train, run, printed = molecules(), alone, fitted[1]
    assert "WARNING" not in printed  # that its rows have labels
    assert (
        "60 training rows, which are predicted, since there is no test table\nread: train.csv (60 rows), sample"
        in printed
    )
    oof = run.oof()
    assert list(oof["id"]) == list(train.index)
    np.testing.assert_array_equal(oof["lumo"], train["lumo"])
    assert sorted(oof["fold"].unique()) == [0, 1, 2]
    squares = (oof["lumo"] - oof["submission lumo"]) ** 2
    assert run.choice.submitted.score == pytest.approx(squares.mean() ** 0.5)
    assert run.choice.expected.interval.lower < run.choice.expected.score < run.choice.expected.interval.upper
    predicted = run.predict(train)
    assert list(predicted.columns) == ["lumo"] and predicted.index.equals(train.index)
    np.testing.assert_array_equal(predicted["lumo"], pd.read_csv(run.submission)["lumo"])
    others = train[["lumo", "SMILES"]].sample(7, random_state=0)
    pd.testing.assert_frame_equal(run.predict(others, workers=1), predicted.loc[others.index])


def test_out_of_fold_predictions_have_the_index_of_the_training_table():
    """Rows of two indexes that start at other numbers would be joined with each other's."""
    train = molecules().reset_index(drop=True)
    train = train.assign(id=[f"m{i}" for i in train.index]).set_index(train.index * 3 + 7)
    run = fit(train, targets="lumo", name="indexed", **QUICK)
    oof = run.oof()
    assert oof.index.equals(train.index) and list(oof["id"]) == list(train["id"])
    assert list(load("indexed").oof().index) == list(range(60))
    assert f"<run {run.name} of indexed: expect rmse " in repr(run) and len(repr(run)) < 200
    of_duplicates = pd.concat([train, train[:2]])[["SMILES"]]
    assert run.predict(of_duplicates).index.equals(of_duplicates.index)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "5m"), ({"budget": None}, None), ({"budget": "none"}, None)]
)
def test_the_budget_of_a_preset_can_be_lifted(settings_of, given, expected):
    assert settings_of(molecules(), targets="lumo", **given).budget == expected


def test_extra_rows_are_not_among_the_out_of_fold_predictions(tmp_path):
    molecules(70)[60:].to_csv(tmp_path / "more.csv", index=False)
    run = fit(molecules(), targets="lumo", extra_train=[{"file": str(tmp_path / "more.csv")}], **QUICK)
    assert list(run.oof().index) == list(molecules().index)


def test_an_earlier_run_predicts_with_its_models_and_is_not_scored_by_the_tables_of_a_later_one(alone):
    train = molecules()
    before, expected = alone.predict(train), alone.scores()["score"]
    second = fit(train, targets="lumo", name="alone", seed=1, **{**SMALL, "folds": {"n_folds": 4}})
    with pytest.raises(
        DataError, match=f"have changed since the run {alone.name}: use the result of the last fit"
    ):
        alone.scores()
    assert (second.scores()["score"] != expected).any()
    assert (second.predict(train) != before).any(axis=None)
    pd.testing.assert_frame_equal(alone.predict(train), before)


def test_scores_have_a_row_for_each_stage_and_candidate_the_best_first(alone):
    run = alone
    scores = run.scores()
    assert {*scores.index} == {*TREES, *run.candidates}
    assert scores["score"].is_monotonic_increasing  # rmse
    assert list(scores.index[scores["kind"] == "submission"]) == [run.chosen]
    assert {*scores.index[scores["kind"] == "stage"]} == {*TREES}
    assert (scores.loc[[*TREES], "training_seconds"] > 0).all()
    np.testing.assert_array_equal(scores["score"], scores["target_scores.lumo"])


def test_test_rows_and_the_sample_decide_what_is_submitted_and_commands_work_on_the_run(tmp_path, capsys):
    train, test = mixed_tables()
    sample = test[["id"]].assign(mu=0.0, lumo=0.0)
    run = fit(train, test, sample, name="both", **SMALL)
    assert run.config.competition.targets == ["mu", "lumo"]
    submission = pd.read_csv(run.submission)
    assert list(submission.columns) == ["id", "mu", "lumo"] and list(submission["id"]) == list(test["id"])
    np.testing.assert_array_equal(run.predict(test), submission[["mu", "lumo"]])
    test.to_csv(tmp_path / "new.csv", index=False)
    commands.main(
        ["predict", "both", "--test", str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")]
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), submission)
    capsys.readouterr()
    assert commands.main(["full", "both", "--workers", "1"]) == 0
    assert load("both").name == run.name
    commands.main(["compare", "both"])
    assert "Runs tried: 1" in capsys.readouterr().out


def test_new_rows_and_cells_that_cannot_be_read_cost_no_other_row_its_prediction(capsys):
    """A run itself stops at them, since `unparsable` is `error`."""
    train = molecules().assign(dose=np.linspace(0, 1, 60))
    run = fit(train, targets="lumo", **SMALL)
    assert run.config.competition.unparsable == "error"
    expected = run.predict(train[:6].assign(dose=train["dose"].where(train.index != "row 3")))
    new = train[:6].assign(
        SMILES=["C1CC", *train["SMILES"][1:5], ""],
        dose=[0.0, *train["dose"][1:3], "high", *train["dose"][4:6]],
    )
    capsys.readouterr()
    predicted = run.predict(new)
    printed = capsys.readouterr().out
    pd.testing.assert_frame_equal(predicted[1:5], expected[1:5])
    np.testing.assert_allclose(predicted["lumo"].iloc[[0, 5]], train["lumo"].mean(), rtol=1e-6)
    assert "WARNING: 2 test rows cannot be read and get the mean" in printed
    assert "label: 'row 0', 'row 5'" in printed
    assert "WARNING: 1 cells of 'dose'" in printed and "(id 'row 3'): 'high'" in printed
    with pytest.raises(DataError, match="missing columns: dose"):
        run.predict(new[["SMILES"]])
    with pytest.raises(DataError, match="no row with readable molecules"):
        run.predict(new[:1])


def test_new_empty_texts_get_the_most_frequent_label():
    train = texts()
    run = fit(train, targets="mood", metric="accuracy", **SMALL)
    predicted = run.predict(pd.DataFrame({"text": [" ", train["text"][0], None]}))
    most_frequent = train["mood"].mode()[0]
    assert list(predicted["mood"].iloc[[0, 2]]) == [most_frequent] * 2
    assert predicted["mood"][1] == run.predict(train[:1])["mood"][0]


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_classes_are_labels_or_a_column_of_probabilities_each_as_the_metric_needs(metric):
    train = texts()
    run = fit(train, targets="mood", metric=metric, **SMALL)
    oof = run.oof()
    assert list(oof["mood"]) == list(train["mood"]) and list(oof["id"]) == [str(i) for i in train.index]
    classes = ["glad", "sad", "so so"]
    np.testing.assert_allclose(oof[[f"submission mood={name}" for name in classes]].sum(axis=1), 1)
    predicted = run.predict(train[["text"]][::-1]).loc[train.index]
    if metric == "accuracy":
        assert (predicted["mood"] == train["mood"]).mean() > 0.5
        assert (oof["submitted mood"] == oof["mood"]).mean() == pytest.approx(run.choice.submitted.score)
    else:
        np.testing.assert_allclose(predicted[classes].sum(axis=1), 1)


def test_labels_have_the_type_of_the_training_table_whatever_rows_are_predicted():
    train = texts().assign(
        mood=lambda table: table["mood"].map({"sad": "0", "glad": "1", "so so": "unknown"})
    )
    run = fit(train, targets="mood", metric="accuracy", name="typed", **QUICK)
    of_one_class = run.predict(train[run.predict(train)["mood"] == "0"])
    assert {*of_one_class["mood"]} == {"0"} and {*load("typed").predict(train[:5])["mood"]} <= {
        *train["mood"]
    }
    train["mood"] = train["mood"].map({"0": "0", "1": "1", "unknown": "1"})
    run = fit(train, targets="mood", metric="accuracy", name="typed", **QUICK)
    assert (run.oof()["mood"] == train["mood"]).all() and {*run.predict(train)["mood"]} == {"0", "1"}
    (run.paths.raw / "train.csv").unlink()  # as in a notebook with the work folder only
    assert {*load("typed").predict(train)["mood"]} == {0, 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda train: {"external": {"other": (train, None)}},
            r"external\['other'\] must be a DataFrame; got None",
        ),
        (
            lambda train: {"external": {"other": (train, train[["lumo"]])}},
            r"has no column 'id', as train has",
        ),
        (
            lambda train: {"id": "name", "train": pd.concat([train, train])},
            "train has no column 'name', and its index",
        ),
    ],
)
def test_tables_that_cannot_be_joined_by_ids_are_refused(change, message):
    train = molecules().assign(id=[f"m{i}" for i in range(60)])
    given = {"train": train, "targets": "lumo", **SMALL, **change(train)}
    with pytest.raises(ConfigError, match=message):
        fit(**given)


def test_external_predictions_are_a_stage_in_their_folds():
    train = molecules()
    noise = np.random.default_rng(0).normal(size=len(train))
    oof = train[["lumo"]].assign(lumo=train["lumo"] + 0.1 * noise, fold=np.arange(len(train)) % 4)
    own = {"stages": {"nearest": {"kind": "baseline"}}, "submissions": SMALL["submissions"], "workers": 1}
    run = fit(train, targets="lumo", external={"other": (oof, oof)}, **own)
    table = run.oof().set_index("id")
    np.testing.assert_allclose(table["other lumo"], oof["lumo"])
    np.testing.assert_array_equal(table["fold"], oof["fold"])
    assert run.choice.best_stage == "other"


def test_settings_are_those_of_the_yaml_and_others_are_refused(alone, settings_of):
    train = molecules()
    with pytest.raises(ConfigError, match=r"competition\.metrc: unknown key; try metric"):
        fit(train, targets="lumo", metrc="mae", **SMALL)
    with pytest.raises(ConfigError, match="NAME takes up to 100 letters"):
        fit(train, targets="lumo", name="a/b", **SMALL)
    with pytest.raises(DataError, match="missing columns: logS; available: SMILES, lumo, id"):
        fit(train, targets="logS", **SMALL)
    with pytest.raises(ConfigError, match="--target"):
        fit(train, **SMALL)
    for settings, message in (
        (
            {"metric": np.median},
            "metric is a function; write it into a file, and give '/folder/mine.py:median'",
        ),
        ({"stages": {"net": {"schedule": len}}}, "stages.net.schedule is a function"),
        ({"external": {"other": train}}, r"external\['other'\] must be two DataFrames"),
        ({"external": {"other": (train.assign(fold=0),) * 2}}, "The column fold .* leave out folds"),
        ({"test": "test.csv"}, "test must be a DataFrame; got str"),
        ({"external": {"a/b": (train, train)}}, "'a/b' cannot be the name of a stage"),
        ({"stages": {"a.5": {"kind": "gnn"}}}, r"'a\.5' cannot be the name of a stage"),
        (
            {"external": {"other": (train, train)}, "stages": {"other": {"kind": "gnn"}}},
            "in external and in stages",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(train, targets="lumo", **{**SMALL, **settings})
    config = settings_of(train, targets=["lumo"], metric="MAE", seed=3, smiles="SMILES", **SMALL)
    competition = config.competition
    assert (competition.metric, competition.seed, config.folds.n_folds) == ("mae", 3, 3)
    with pytest.raises(DataError, match="missing columns: SMILES"):
        alone.predict(train[["lumo"]])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({"folds": {"kind": "scaffold", "n_folds": 3}}, "scaffold"), ({"group": "plate"}, "stratified_group")],
)
def test_folds_of_groups_without_a_test_table_say_how_good_new_groups_are_predicted(settings, kind, capsys):
    """Here all rows are training rows, and the folds say what new rows are like."""
    train = molecules().assign(plate=[f"p{i % 12}" for i in range(60)])
    run = fit(train, targets="lumo", **{**QUICK, **settings})
    assert run.config.folds.kind == kind
    assert run.choice.expected.interval is not None
    assert "random split" not in capsys.readouterr().out


def test_measurements_of_one_molecule_share_a_fold_without_a_test_table():
    train = pd.concat([molecules(30).assign(dose=k) for k in range(2)], ignore_index=True)
    run = fit(train, targets="lumo", **SMALL)
    assert (run.config.folds.kind, run.config.competition.group) == ("stratified_group", "SMILES")
    folds = run.oof()["fold"].groupby(train["SMILES"]).nunique()
    assert len(folds) == 30 and folds.max() == 1
    assert run.choice.expected.interval is not None


def test_new_values_of_a_category_are_counted_when_new_rows_are_predicted(capsys):
    train = molecules().assign(solvent=["water", "hexane"] * 30)
    run = fit(train, targets="lumo", categorical=["solvent"], **QUICK)
    capsys.readouterr()
    run.predict(train)
    assert "WARNING" not in capsys.readouterr().out
    run.predict(train.assign(solvent=["Water", "hexane", "ethanol"] * 20))
    printed = capsys.readouterr().out
    assert "category solvent: 20 test cells differ" in printed
    assert "category solvent: 20 of 60 test rows have a value that no training row has" in printed


def test_the_cells_of_the_notebook_run_one_after_the_other(monkeypatch):
    monkeypatch.chdir(PROJECT / "docs")
    monkeypatch.setattr(sys, "path", [*sys.path])
    cells = json.loads((PROJECT / "docs" / "python.ipynb").read_text())["cells"]
    assert len(cells) == 10
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert list(names["run"].predict(names["new"]).index) == ["ethanol", "phenol"]
    assert "length" in names["second"].choice.stages
    pd.testing.assert_series_equal(names["second"].oof()["fold"], names["oof"]["fold"])


def test_classes_come_back_as_they_were_written_and_columns_of_weights_are_no_inputs():
    train = texts().assign(
        mood=lambda table: table["mood"].map({"sad": "001", "glad": "002", "so so": "003"})
    )
    train["w"] = np.linspace(0.5, 1, len(train))
    run = fit(train, targets="mood", metric="accuracy", weight="w", **QUICK)
    assert (run.config.competition.weight, run.config.competition.numeric) == ("w", [])
    assert {*run.oof()["mood"]} == {"001", "002", "003"}
    assert {*run.predict(train)["mood"]} <= {"001", "002", "003"}


@pytest.mark.parametrize("in_train", [True, False])
def test_whole_numbers_of_a_category_are_known_beside_a_missing_one(in_train, capsys):
    """Which makes a column of floats of them."""
    rng = np.random.default_rng(0)
    whole = pd.DataFrame({"g": rng.integers(0, 3, 90), "x": rng.normal(size=90)})
    whole["y"] = 10.0 * whole["g"]
    with_missing = whole.astype({"g": float})
    with_missing.loc[0, "g"] = np.nan
    train, rows = (with_missing, whole) if in_train else (whole, with_missing)
    run = fit(train, targets="y", categorical=["g"], **QUICK)
    capsys.readouterr()
    pd.testing.assert_frame_equal(run.predict(rows[1:6]), run.predict(train[1:6]))
    run.predict(rows[:6])
    assert "category" not in capsys.readouterr().out


def test_columns_of_a_role_are_those_that_are_given_and_none_is_added(settings_of):
    train = molecules().assign(dose=np.arange(60.0), leak=np.arange(60.0))
    competition = settings_of(train, targets="lumo", numeric=["dose"], metric=None, **SMALL).competition
    assert (competition.numeric, competition.smiles) == (["dose"], ["SMILES"])
    assert settings_of(train, targets="lumo", numeric=[], **SMALL).competition.numeric == []


def test_pairs_and_stages_are_guessed_from_the_columns_that_are_given(settings_of):
    words = [f"{a}{b}" for a in "bdfgkl" for b in ("ado", "elin", "oru", "una")]
    rng = np.random.default_rng(0)
    question = [" ".join(rng.choice(words, 6)) for _ in range(60)]
    table = pd.DataFrame({"question": question, "answer": [f"{text} {words[0]}" for text in question]})
    table["y"] = rng.normal(size=60)
    config = settings_of(table, targets="y", text=["question"], **SMALL).competition
    assert (config.text, config.pairs) == (["question"], [])
    assert settings_of(table, targets="y", **SMALL).competition.pairs == [["question", "answer"]]


def test_a_call_without_a_finished_stage_returns_no_run_of_an_earlier_one(alone, monkeypatch):
    def full(options):  # without jobs
        config = load_config(options.competition)
        make.run(config.competition, config.folds)

    monkeypatch.setattr(commands, "full", full)
    with pytest.raises(NothingToSubmit, match="has other tables. Give fit a larger budget"):
        fit(molecules(50), targets="lumo", name="alone", **SMALL)
    (load("alone").paths.raw / "train.csv").write_text("id,SMILES,lumo\nrow 0,CCO,1\n")
    with pytest.raises(DataError, match="training table of alone has changed since the run"):
        load("alone").oof()


def test_a_name_of_another_yaml_is_refused_before_anything_is_written(alone, tmp_path):
    run = alone
    run.paths.owner.write_text(str(tmp_path / "other.yaml"))
    (tmp_path / "other.yaml").write_text("")
    before = (run.paths.raw / "train.csv").read_bytes()
    with pytest.raises(ConfigError, match="was made from"):
        fit(molecules(40), targets="lumo", name="alone", **SMALL)
    assert (run.paths.raw / "train.csv").read_bytes() == before
