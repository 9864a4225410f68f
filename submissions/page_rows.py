"""Sections of the page about rows: predictions, errors, learning curves, folds, the worst rows, tables."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import yaml

from competition.files import read_json
from competition.paths import shown
from submissions import details, pictures
from submissions.blend import number
from submissions.details import WorstRow
from submissions.findings import Findings, with_error
from submissions.markup import Html, element, paragraphs, scrolling, table, together

LARGEST_PICTURES = 2_000_000
"""Bytes of pictures from folds/ that the page holds; others are named."""
LONGEST_TEXT = 1500
"""Characters of a text that the page shows."""


def predictions(found: Findings, points: dict[str, Any]) -> Html:
    """Plots of truth and residuals against predictions; `page.js` draws the points."""
    n, of = len(points["ids"]), points["of"]
    said = f"{n} of {of} rows, drawn at random." if n < of else f"All {of} rows."
    keys = ["+", "-", "0", "arrows", "n", "p"]
    choices = [element("option", name, value=name) for name in points["predictions"]]
    parts = [
        paragraphs(
            f"Out-of-fold predictions against the truth, and what is left. {said} submission: cross-fitted predictions "
            "of the whole procedure."
        ),
        element(
            "p",
            "Drag to move. Click a plot, then zoom with the wheel or the keys ",
            *(together([element("kbd", key), " "]) for key in keys),
            "(next and previous point, largest residual first).",
            class_="quiet",
        ),
        element("noscript", paragraphs("The plots need JavaScript; everything else on this page does not.")),
        element("label", "Predictions of", for_="predictions-of"),
        element("select", *choices, id="predictions-of"),
    ]
    for t, target in enumerate(points["targets"]):
        plots = [_plot(t, "truth", f"{target}: truth against prediction"), _plot(t, "residual", f"{target}: residuals")]
        parts += [element("h3", target), element("div", *plots, class_="pair")]
    return together(parts)


def _plot(target: int, kind: str, words: str) -> Html:
    acts = [("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("reset", "Reset", "Reset the zoom")]
    buttons = [
        element("button", text, type="button", data_act=act, aria_label=f"{name}, {words}") for act, text, name in acts
    ]
    canvas = element("canvas", tabindex="0", role="img", aria_label=f"{words}. Keys: plus, minus, 0, arrows, n, p.")
    return element(
        "figure",
        element("div", element("figcaption", words), element("div", *buttons, class_="zoom"), class_="above"),
        canvas,
        element("output"),
        class_="plot", data_target=str(target), data_kind=kind,
    )  # fmt: skip


def correlations(found: Findings) -> Html:
    """How much the errors of stages have in common, a table for each target."""
    stages = found.columns.names
    if len(stages) < 2:
        return Html("")
    parts = [
        paragraphs("Pearson's correlation of the out-of-fold errors: the lower, the more two stages add to each other.")
    ]
    for t, target in enumerate(found.run.config.competition.targets):
        values = details.error_correlation(found.columns, t)
        rows = [
            element("tr", element("th", name, scope="row"), *(_heat(value) for value in row))
            for name, row in zip(stages, values, strict=True)
        ]
        head = element("tr", *(element("th", name, scope="col") for name in ["", *stages]))
        inside = element("table", element("thead", head), element("tbody", *rows), class_="heat")
        words = f"Correlation of the errors on {target}"
        parts += [element("h3", target), scrolling(inside, words)]
    return together(parts)


def _heat(value: float) -> Html:
    if not np.isfinite(value):
        return element("td", "-")
    return element("td", f"{value:.2f}", style=f"--share:{abs(value):.2f}", class_="negative" if value < 0 else None)


def curves(found: Findings) -> Html:
    """Loss by epoch of each job of the neural stages, beside the schedule of the learning rate."""
    parts = []
    for curve in details.learning_curves(found):
        lines = [pictures.Line(_by_epoch(losses), "one") for losses in curve.losses]
        lines += [pictures.Line(_by_epoch(np.mean(curve.losses, axis=0).tolist()), "mean")]
        lines += [pictures.Line(_by_epoch(losses), "held-out") for losses in curve.held_out]
        said = f"{len(curve.losses)} jobs, thin; their mean, thick" + (
            "; held-out loss, dashed" if curve.held_out else ""
        )
        last = number(float(np.mean([losses[-1] for losses in curve.losses])))
        words = f"Training loss of {curve.stage} by epoch; the mean ends at {last}"
        figures = [_figure(f"Loss: {said}; it ends at {last}.", pictures.chart(lines, "epoch", "loss", words))]
        if curve.rates:
            rates = pictures.chart([pictures.Line(curve.rates, "mean")], "epoch", "learning rate", curve.schedule)
            figures.append(_figure(f"Learning rate: {curve.schedule}.", rates))
        parts += [element("h3", f"{curve.stage}, on {curve.phase}"), element("div", *figures, class_="pair")]
    return together(parts)


def _by_epoch(losses: list[float]) -> list[tuple[float, float]]:
    return [(float(epoch), loss) for epoch, loss in enumerate(losses, start=1)]


def _figure(words: str, picture: Html) -> Html:
    return element("figure", element("figcaption", words), picture)


def folds(found: Findings) -> Html:
    """Size and labels of each fold, and the pictures and facts that `./run.sh folds` left."""
    targets = found.run.config.competition.targets
    rows = [
        [str(fold), str(n), *(with_error(mean, deviation) for mean, deviation in labels)]
        for fold, n, labels in details.fold_rows(found)
    ]
    header = ["fold", "rows", *(f"{target}, mean ± sd" for target in targets)]
    shift = found.run.paths.shift
    parts = [table("Rows and labels of the folds", header, rows)]
    if shift.exists():
        parts.append(_shift(read_json(shift), found.run.stored["tables"]))
    else:
        parts.append(paragraphs("./run.sh folds shows whether held-out rows are like test rows; it has not been run."))
    files, size = sorted(shift.parent.glob("*.png")), 0
    for file in files:
        size += file.stat().st_size
        name = file.stem.replace("_", " ")
        if size > LARGEST_PICTURES:
            parts.append(paragraphs(f"{name}: {shown(file)}, too large for this page."))
            continue
        content = base64.b64encode(file.read_bytes()).decode()
        parts.append(_figure(name, element("img", src=f"data:image/png;base64,{content}", alt=name)))
    return together(parts)


def _shift(stored: dict[str, Any], now: dict[str, str]) -> Html:
    """What `./run.sh folds` found out about train and test."""
    recommended, adversarial = stored["recommended"], stored["adversarial"]
    stale = any(now[file] != sha256 for file, sha256 in stored["made_from"].items())
    parts = [
        element("h3", "Train against test"),
        paragraphs("Of other tables or folds than those of this run: run ./run.sh folds again." if stale else ""),
        paragraphs(f"Recommended folds: {recommended['kind']}: {recommended['reason']}."),
    ]
    for similarity in stored["similarity"]:
        found = {"test rows": similarity["test"]}
        found |= {f"held-out rows, {kind}": values for kind, values in similarity["held_out"].items()}
        keys = {"q10": "10 %", "median": "median", "q90": "90 %", "distance": "distance to test rows"}
        rows = [[name, *(_plain(values.get(key, "")) for key in keys)] for name, values in found.items()]
        words = f"Similarity to the nearest training row ({similarity['measure']})"
        parts += [paragraphs(f"{words}."), table(words, ["", *keys.values()], rows)]
    if adversarial:
        auc = with_error(adversarial["auc"], adversarial["standard_deviation"]).replace("+-", "±")
        keys = {"feature": "feature", "gain": "share of gain", "mean_in_train": "in train", "mean_in_test": "in test"}
        rows = [[_plain(feature[key]) for key in keys] for feature in adversarial["features"]]
        said = f"Adversarial validation: AUC {auc} over folds; at 0.5 train and test cannot be told apart."
        parts += [paragraphs(said), table("Features that tell train from test", list(keys.values()), rows)]
    return together(parts)


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, float) else "-" if value is None else str(value)


def worst(found: Findings) -> Html:
    """The rows with the largest errors, each with its drawn molecules, its text and its numbers."""
    said = (
        "Training rows with the largest error of the whole procedure's out-of-fold prediction, in standard deviations "
        "of the target's labels: wrong labels and unusual inputs are often among them."
    )
    cards = [_card(rank, row, found) for rank, row in enumerate(details.worst_rows(found), start=1)]
    return together([paragraphs(said), element("ol", *cards, class_="cards")])


def _card(rank: int, row: WorstRow, found: Findings) -> Html:
    competition = found.run.config.competition
    parts = [element("h3", f"{rank}. {row.id} ", element("small", f"fold {row.fold}"))]
    for name in competition.smiles:
        parts += [pictures.molecule(row.inputs[name]), element("code", row.inputs[name])]
    for name in competition.text:
        text = row.inputs[name]
        if len(text) > LONGEST_TEXT:
            text = f"{text[:LONGEST_TEXT]} … ({len(text)} characters)"
        parts.append(element("div", text, class_="text", tabindex="0", role="group", aria_label=name))
    values = [f"{name} {_plain(row.inputs[name])}" for name in [*competition.numeric, *competition.categorical]]
    if values:
        parts.append(element("p", ", ".join(values), class_="values"))
    rows = [
        [target, number(truth), number(predicted), f"{residual:+.1f}" if np.isfinite(residual) else "-"]
        for target, (truth, predicted, residual) in row.values.items()
    ]
    parts.append(table(f"Errors of {row.id}", ["target", "truth", "prediction", "residual (sd)"], rows))
    return element("li", *parts)


def uncertain(found: Findings) -> Html:
    """The test rows on which seeds and folds disagree most."""
    rows = [[row_id, *(with_error(y, sd) for y, sd in values)] for row_id, values in details.uncertain_rows(found)]
    if not rows:
        return Html("")
    said = "Test rows on which the models of different seeds and folds disagree most: prediction +- standard deviation."
    header = ["id", *found.run.config.competition.targets]
    return together([paragraphs(said), table("Uncertain test rows", header, rows)])


def tables(found: Findings) -> Html:
    """What was found in the tables, and what was dropped or filled."""
    parts: list[Html] = [element("ul", *(element("li", line) for line in found.tables))]
    for name, ids in details.dropped_ids(found.run).items():
        if ids:
            words = element("summary", f"{len(ids)} {name} rows dropped as unparsable")
            parts.append(element("details", words, element("p", ", ".join(ids))))
            if name == "test":
                parts.append(paragraphs("Dropped test rows have the mean of the training labels in the submission."))
    return together(parts)


def settings(found: Findings) -> Html:
    """The resolved YAML and the versions of packages."""
    manifest = found.run.stored
    written = yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True)
    versions = [[name, version] for name, version in manifest["versions"].items()]
    return together(
        [
            element("details", element("summary", "The resolved YAML"), element("pre", written, tabindex="0")),
            element(
                "details",
                element("summary", "Versions"),
                table("Versions of packages", ["package", "version"], versions),
            ),
        ]
    )
