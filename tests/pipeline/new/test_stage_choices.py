"""What `./run.sh new` chooses for what it finds: folds and stages."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.errors import ConfigError, DataError
from models.registry import make_stage
from pipeline.new import stage_choices
from pipeline.new.detect import DetectedTables, detect
from pipeline.new.problem_type import choose_problem
from pipeline.new.stage_choices import Block, choose_folds, choose_stages, read_presets
from tests.submissions.made_up import RINGS, files_in, notes, smiles, write, write_labels

ONE = {
    "lightgbm",
    "gp",
    "gp_minimol",
    "minimol_svr",
    "svr_maplight",
    "gnn",
    "unimol",
}
TEXT = {"lightgbm", "minilm_frozen", "minilm_svr", "minilm"}
NUMBER = [k / 7 for k in range(80)]


def detected_in(folder: Path, *sizes: int, **inputs: Any) -> DetectedTables:
    write(folder, *sizes, **inputs)
    return detect(files_in(folder))


def stages(detected: DetectedTables, preset: str = "quick") -> dict[str, Block]:
    return {block.name: block for block in choose_stages(preset, detected, choose_problem(detected))}


def columns_of(settings: dict[str, Any]) -> list[str] | None:
    """Those that a language model reads, or an encoder among features; None where they are not named."""
    features = [feature for feature in settings.get("features", []) if isinstance(feature, dict)]
    return (features or [settings])[0].get("columns")


@pytest.mark.parametrize(
    ("inputs", "expected", "columns"),
    [
        ({"s": smiles(80), "ligand": smiles(80)[::-1]}, ONE | {"rxnfp"}, {}),  # all molecule columns
        ({"t": notes(80)}, TEXT, {}),
        ({"s": smiles(80), "t": notes(80)}, ONE | TEXT, {}),
        (
            {"s": smiles(80), "ligand": smiles(80)[::-1], "t": notes(80)}, ONE | TEXT | {"rxnfp"},
            {"rxnfp": ["s", "ligand"]},
        ),
        ({"n": NUMBER, "k": ["p", "q"] * 40}, {"lightgbm", "lightgbm_small"}, {}),
        (
            {"rxn": [f"{s}>>{s}O" for s in smiles(80)], "t": notes(80)}, TEXT | {"rxnfp_reaction"},
            {"rxnfp_reaction": ["rxn"], "minilm": ["t"], "minilm_frozen": ["t"], "minilm_svr": ["t"]},
        ),
    ],
)  # fmt: skip
def test_the_quick_stages_of_each_kind_of_problem(
    tmp_path: Path, inputs: dict[str, Any], expected: set[str], columns: dict[str, list[str]]
) -> None:
    chosen = stages(detected_in(tmp_path, **inputs))
    assert set(chosen) == expected
    columns_by_stage = {name: columns_of(block.settings) for name, block in chosen.items()}
    assert {name: detected for name, detected in columns_by_stage.items() if detected} == columns


@pytest.mark.parametrize("inputs", [{"s": smiles(80)}, {"t": notes(80)}, {"n": NUMBER, "k": ["p", "q"] * 40}])
@pytest.mark.parametrize("preset", ["quick", "cpu", "gpu"])
def test_classes_have_other_stages_and_grades_those_of_numbers(
    tmp_path: Path, inputs: dict[str, Any], preset: str
) -> None:
    labels = {
        "names": (["p", "q", "r"] * 20, "p"),
        "grades": ([1, 2, 3] * 20, 1),
        "numbers": (NUMBER[:60], 0.5),
    }
    blocks = {}
    for what, (cells, cell) in labels.items():
        write_labels(tmp_path, {"y": cells}, {"y": cell}, **inputs)
        blocks[what] = stages(detect(files_in(tmp_path)), preset)
    assert blocks["grades"] == blocks["numbers"] != blocks["names"]
    for learns, of_type in (("multiclass", blocks["names"]), ("regression", blocks["numbers"])):
        for block in of_type.values():
            assert not list(make_stage(block.settings).config_errors(learns))


@pytest.mark.parametrize("preset", ["quick", "cpu", "gpu"])
def test_no_kernel_methods_are_chosen_for_a_table_of_200_000_rows(tmp_path: Path, preset: str) -> None:
    for labels in ({"y": NUMBER[:60]}, {"y": ["p", "q", "r"] * 20}):
        write_labels(tmp_path, labels, {"y": labels["y"][0]}, s=smiles(80), t=notes(80))
        detected = detect(files_in(tmp_path))
        problem = choose_problem(detected)
        small = choose_stages(preset, detected, problem)
        rows = pd.concat([detected.train] * 3334)
        large = choose_stages(preset, replace(detected, train=rows), problem)
        kernels = [
            block
            for block in small
            if "SV" in block.settings.get("estimator", "") or block.settings["kind"] == "gp"
        ]
        assert kernels
        assert large == [block for block in small if block not in kernels]


def test_long_texts_are_distinguished_from_short_ones_by_their_words(tmp_path: Path) -> None:
    longer = stages(detected_in(tmp_path, t=[" ".join([note] * 60) for note in notes(80)]), "gpu")
    assert "batch_size" not in stages(detected_in(tmp_path, t=notes(80)), "gpu")["deberta"].settings
    assert longer["deberta"].settings["batch_size"] == 8


def test_a_user_defined_preset_has_the_stages_that_name_it_and_those_of_all_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "presets.yaml"
    monkeypatch.setattr(stage_choices, "PRESETS", file)
    settings = "{kind: sklearn, estimator: sklearn.linear_model.Ridge}"
    ridge = f"{{name: ridge, presets: [mine], needs: [table], reason: mine, settings: {settings}}}"
    trees = "{name: trees, needs: [table], reason: all, settings: {kind: lightgbm}}"
    file.write_text(
        f"presets: {{mine: {{budget: 3m}}, other: {{budget: 1h}}}}\nstages:\n- {ridge}\n- {trees}\n"
    )
    assert read_presets().presets["mine"].budget == "3m"
    tables = detected_in(tmp_path, n=NUMBER)
    block = Block("ridge", {"kind": "sklearn", "estimator": "sklearn.linear_model.Ridge"}, "mine")
    assert stages(tables, "mine") == {"ridge": block, "trees": Block("trees", {"kind": "lightgbm"}, "all")}
    assert set(stages(tables, "other")) == {"trees"}


def test_a_stage_whose_package_is_not_installed_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "presets.yaml"
    monkeypatch.setattr(stage_choices, "PRESETS", file)
    stage = "{{name: {0}, needs: [table], package: {0}, reason: mine, settings: {{kind: lightgbm}}}}"
    stage_list = "".join(f"- {stage.format(package)}\n" for package in ("numpy", "not_installed"))
    file.write_text(f"presets: {{mine: {{budget: 3m}}}}\nstages:\n{stage_list}")
    assert set(stages(detected_in(tmp_path, n=NUMBER), "mine")) == {"numpy"}
    assert "left out: not_installed, mine; it needs pip install not_installed" in capsys.readouterr().out


GROUP = [f"g{i % 8}" for i in range(80)]
SHIFTED = [*smiles(60, RINGS[:3]), *smiles(20, RINGS[3:])]


@pytest.mark.parametrize(
    ("sizes", "inputs", "group", "kind", "expected"),
    [
        ((60, 20, 2), {"n": NUMBER}, None, None, ("kfold", 10)),
        ((500, 20), {"t": notes(520)}, None, None, ("stratified", 5)),
        ((20, 60), {"n": NUMBER}, None, None, ("stratified", 3)),
        ((60, 20), {"n": NUMBER, "lab": GROUP}, "lab", None, ("group", 8)),
        ((60, 20), {"s": smiles(80)}, None, None, ("stratified", 10)),
        ((60, 20), {"s": smiles(80)}, None, "scaffold", ("scaffold", 6)),
        ((60, 20), {"s": SHIFTED}, None, None, ("scaffold", 3)),
    ],
)
def test_folds_fit_to_targets_group_number_of_rows_and_scaffolds(
    tmp_path: Path,
    sizes: tuple[int, ...],
    inputs: Any,
    group: str | None,
    kind: str | None,
    expected: tuple[str, int],
) -> None:
    detected = detected_in(tmp_path, *sizes, **inputs)
    *folds, reason = choose_folds(detected, choose_problem(detected), group, kind)
    assert tuple(folds) == expected
    assert ("of the test molecules with rings" in reason) is (inputs.get("s") == SHIFTED)


def test_folds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    detected = detected_in(tmp_path, n=NUMBER, lab=["a"] * 80)
    problem = choose_problem(detected)
    for group, kind in ((None, "group"), ("lab", "kfold")):
        with pytest.raises(ConfigError, match="--folds group and --group COL belong together"):
            choose_folds(detected, problem, group, kind)
    with pytest.raises(ConfigError, match="--folds scaffold needs a column of molecules"):
        choose_folds(detected, problem, None, "scaffold")
    with pytest.raises(DataError, match="two groups or distinct inputs; there is 1"):
        choose_folds(detected, problem, "lab", None)
