"""What `./run.sh new` chooses for what it finds: metric, folds, stages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from competition.errors import ConfigError, DataError
from competition.files import write_table
from tests.submissions.made_up import RINGS, kinds, make, notes, smiles, write


def test_the_quick_stages_of_each_kind_of_problem(tmp_path: Path) -> None:
    number = [k / 7 for k in range(80)]
    one = make(tmp_path, write(tmp_path, s=smiles(80)))
    assert kinds(one) == {"lightgbm": "lightgbm", "svr": "sklearn", "gnn": "gnn", "rxnfp": "bert", "unimol": "unimol"}
    several = make(tmp_path, write(tmp_path, s=smiles(80), ligand=smiles(80)[::-1]))
    assert kinds(several) == {**kinds(one), "mlp": "sklearn"}
    assert all(several.stages[name].columns == [] for name in ("gnn", "rxnfp", "unimol"))  # all molecule columns
    text = make(tmp_path, write(tmp_path, t=notes(80)))
    assert kinds(text) == {"lightgbm": "lightgbm", "minilm": "bert"}
    both = make(tmp_path, write(tmp_path, s=smiles(80), t=notes(80)))
    assert kinds(both) == {**kinds(one), "minilm": "bert"}
    assert both.stages["rxnfp"].columns == ["s"]
    assert both.stages["minilm"].columns == []  # all text columns
    table = make(tmp_path, write(tmp_path, n=number, k=["p", "q"] * 40))
    assert set(kinds(table).values()) == {"lightgbm"}
    assert len({stage.num_leaves for stage in table.stages.values()}) == 2


def test_reactions_go_to_the_language_model_that_knows_them(tmp_path: Path) -> None:
    config = make(tmp_path, write(tmp_path, rxn=[f"{s}>>{s}O" for s in smiles(80)], t=notes(80)))
    assert config.stages["rxnfp_reaction"].columns == ["rxn"]
    assert config.stages["minilm"].columns == ["t"]


def test_the_presets_differ_in_time_and_seeds(tmp_path: Path) -> None:
    files = write(tmp_path, s=smiles(80))
    quick, cpu, gpu = (make(tmp_path, files, "--preset", preset) for preset in ("quick", "cpu", "gpu"))
    assert (quick.stages["gnn"].epochs, cpu.stages["gnn"].epochs) == (30, 50)
    assert (quick.stages["unimol"].epochs, cpu.stages["unimol"].epochs) == (15, 30)
    assert (quick.stages["rxnfp"].epochs, cpu.stages["rxnfp"].epochs) == (4, 10)
    assert cpu.stages["gnn"].seeds == [0, 1]
    assert cpu.stages["rxnfp"].enumerate_smiles
    assert kinds(cpu) == {**kinds(quick), "catboost": "catboost"}
    assert all(stage.seeds == [0, 1, 2] for name, stage in gpu.stages.items() if name != "svr")
    unimol = gpu.stages["unimol"]
    assert (unimol.architecture, unimol.weights, unimol.batch_size) == ("molecule", "unimol_all_h", 32)
    assert (unimol.schedule, unimol.learning_rate, unimol.warmup) == ("linear", 1e-4, 0.06)
    assert all(stage.precision == "auto" for name, stage in gpu.stages.items() if name in ("gnn", "rxnfp"))
    text = make(tmp_path, write(tmp_path, t=notes(80)), "--preset", "gpu").stages["deberta"]
    assert (text.weights, text.learning_rate, text.epochs) == ("microsoft/deberta-v3-base", 2e-5, 4)


def test_quick_stays_quick_with_at_least_a_third_of_the_epochs_or_without_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = smiles(360, [f"{a}C{b}" for a in RINGS for b in RINGS]) * 6
    config = make(tmp_path, write(tmp_path, 2140, 20, s=larger))
    assert config.stages["unimol"].epochs == 10
    assert config.stages["gnn"].epochs == 30
    assert "10 epochs instead of 15, for the time" in (tmp_path / "mine.yaml").read_text()
    config = make(tmp_path, write(tmp_path, 80_000, 20, t=notes(80_020)))
    assert kinds(config) == {"lightgbm": "lightgbm"}
    assert "\n  # minilm: {kind: bert, weights: minilm" in (tmp_path / "mine.yaml").read_text()
    assert "remove the # to train it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("n_targets", "scale", "metric"), [(1, 10.0, "rmse"), (2, 1.0, "rmse"), (2, 1.9, "rmse"), (2, 2.1, "r2")]
)
def test_the_guessed_metric_follows_the_spread_of_the_targets(
    tmp_path: Path, n_targets: int, scale: float, metric: str
) -> None:
    files = write(tmp_path, n_targets=n_targets, s=smiles(80))
    train = pd.read_csv(tmp_path / "train.csv")
    if n_targets == 2:
        train["y1"] = train["y0"] * scale
        write_table(tmp_path / "train.csv", train)
    assert make(tmp_path, files).competition.metric == metric
    assert "# GUESS, " in (tmp_path / "mine.yaml").read_text()


def test_folds_fit_to_the_targets_the_group_and_the_number_of_rows(tmp_path: Path) -> None:
    group = [f"g{i % 8}" for i in range(80)]
    assert make(tmp_path, write(tmp_path, t=notes(80))).folds.model_dump(include={"kind", "n_folds"}) == {
        "kind": "stratified", "n_folds": 10,
    }  # fmt: skip
    assert make(tmp_path, write(tmp_path, n_targets=2, t=notes(80))).folds.kind == "kfold"
    assert make(tmp_path, write(tmp_path, 500, 20, t=notes(520))).folds.n_folds == 5
    assert make(tmp_path, write(tmp_path, 20, 20, t=notes(40))).folds.n_folds == 3
    assert make(tmp_path, write(tmp_path, 2, 20, t=notes(22))).folds.n_folds == 2
    grouped = make(tmp_path, write(tmp_path, t=notes(80), lab=group), "--group", "lab")
    assert (grouped.folds.kind, grouped.folds.n_folds, grouped.competition.group) == ("group", 8, "lab")
    assert make(tmp_path, write(tmp_path, s=smiles(80)), "--folds", "scaffold").folds.n_folds == 6
    for options in (["--folds", "group"], ["--folds", "kfold", "--group", "lab"]):
        with pytest.raises(ConfigError, match="--folds group and --group COL must be given together"):
            make(tmp_path, write(tmp_path, t=notes(80), lab=group), *options)
    with pytest.raises(ConfigError, match="--folds scaffold must have a column of molecules"):
        make(tmp_path, write(tmp_path, t=notes(80)), "--folds", "scaffold")
    with pytest.raises(DataError, match="two groups or distinct inputs"):
        make(tmp_path, write(tmp_path, t=notes(80), lab=["a"] * 80), "--group", "lab")


def test_folds_hold_out_scaffolds_where_the_test_table_does(tmp_path: Path) -> None:
    shifted = [*smiles(60, RINGS[:3]), *smiles(20, RINGS[3:])]
    config = make(tmp_path, write(tmp_path, s=shifted))
    assert config.folds.kind == "scaffold"
    assert "0% of the test molecules with rings" in (tmp_path / "mine.yaml").read_text()
    assert make(tmp_path, write(tmp_path, s=smiles(80))).folds.kind == "stratified"
