"""The report as one HTML file that opens without a network: findings and details as sections.

`page.html` is the frame, `page.css` the style, `page.js` the zoomable plots; all are written into the page, whose
content security policy forbids every request. Colours are Okabe and Ito's, and nothing is said by colour alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from submissions import details, page_rows, page_scores
from submissions.blend import number
from submissions.findings import Findings, with_error
from submissions.markup import Html, element, plus_minus, together

HERE = Path(__file__).parent


def page(found: Findings) -> str:
    """The page of a finished run."""
    points = details.points(found)
    sections = [
        ("Candidates", page_scores.candidates(found)),
        ("Stages", page_scores.stages(found)),
        ("Blend weights", page_scores.weights(found)),
        ("Predictions", page_rows.predictions(found, points)),
        ("Errors between stages", page_rows.correlations(found)),
        ("Learning curves", page_rows.curves(found)),
        ("Folds", page_rows.folds(found)),
        ("Worst rows", page_rows.worst(found)),
        ("Uncertain test rows", page_rows.uncertain(found)),
        ("Tables", page_rows.tables(found)),
        ("Settings and versions", page_rows.settings(found)),
    ]
    filled = [(title, content) for title, content in sections if content]
    names = {title: title.lower().replace(" ", "-") for title, _ in filled}
    links = [element("li", element("a", title, href=f"#{name}")) for title, name in names.items()]
    body = [
        _header(found),
        element("nav", element("ul", *links), aria_label="Sections"),
        element(
            "main",
            *(element("section", element("h2", title), content, id=names[title]) for title, content in filled),
            id="content",
        ),
        element("footer", "Made by ./run.sh full. The same numbers are in report.md, beside this file."),
    ]
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=together([f"{found.run.paths.name}: {found.run.metric.name}"]),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        body=together(body),
        points=json.dumps(points, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def _header(found: Findings) -> Html:
    run, whole = found.run, found.whole
    facts = [
        _fact(
            "cross_fitted_score",
            with_error(whole.cross_fitted_score, whole.standard_error),
            "of the whole procedure, ± its standard error: the score to expect",
            "main",
        ),
        _fact("in_sample_score", number(whole.in_sample_score), f"of {found.chosen}, on the rows it was fitted on"),
        _fact("optimism", number(found.optimism), "by which the in-sample score looks better"),
        *(
            _fact(
                f"gain over {part.name}",
                number(part.gain),
                f"± {number(part.standard_error)} standard error, paired; above 0 is better",
            )
            for part in found.against
        ),
        *(
            _fact(found.answers_name, number(scores[0]), "of the submission, on labels that nothing else has seen")
            for name, scores in found.answers.items()
            if name == found.submission.name
        ),
    ]
    about = f"{run.metric.name}, {found.direction} · run {run.name} · {run.plan.n_folds} folds"
    return element(
        "header",
        element("h1", run.paths.name),
        element("p", about, class_="quiet"),
        element("dl", *facts, class_="facts"),
        element("p", element("code", found.to_submit), f" ({found.chosen})"),
        element("p", found.reason),
    )


def _fact(name: str, value: str, words: str, kind: str | None = None) -> Html:
    return element("div", element("dt", name), element("dd", plus_minus(value), element("small", words)), class_=kind)
