"""Small pictures for the page, as SVG that takes its colours from the style sheet."""

from __future__ import annotations

from dataclasses import dataclass

from submissions.markup import Html, element, together


@dataclass(frozen=True)
class Line:
    """A line of a chart; `kind` is its class in the style sheet."""

    points: list[tuple[float, float]]
    kind: str


def strip(values: list[float], low: float, high: float, words: str) -> Html:
    """Dots for the values on a line from `low` to `high`."""
    width, height = 120.0, 16.0

    def place(value: float) -> float:
        return 5 + (width - 10) * (value - low) / (high - low) if high > low else width / 2

    axis = element("line", x1="5", x2=f"{width - 5:g}", y1=f"{height / 2:g}", y2=f"{height / 2:g}", class_="axis")
    dots = [element("circle", cx=f"{place(v):.1f}", cy=f"{height / 2:g}", r="3.5", class_="dot") for v in values]
    return _svg(width, height, words, [axis, *dots], "strip")


def bar(value: float, low: float, high: float) -> Html:
    """A bar from 0 to `value` on a line from `low`, at most 0, to `high`; the number stands beside it."""
    width, height = 90.0, 12.0
    zero, end = (width * (v - low) / (high - low) if high > low else 0.0 for v in (0.0, value))
    kind = "bar" if value >= 0 else "bar negative"
    box = element("rect", x=f"{min(zero, end):.1f}", y="1", width=f"{abs(end - zero):.1f}", height="10", class_=kind)
    axis = element("line", x1=f"{zero:.1f}", x2=f"{zero:.1f}", y1="0", y2=f"{height:g}", class_="axis")
    return _svg(width, height, None, [box, axis], "bar")


def chart(lines: list[Line], x_label: str, y_label: str, words: str) -> Html:
    """Lines over labelled axes; `words` say to those who do not see it what it shows."""
    from matplotlib.ticker import MaxNLocator

    width, height, left, bottom, top, right = 420.0, 230.0, 62.0, 40.0, 14.0, 12.0
    xs, ys = ([point[i] for line in lines for point in line.points] for i in (0, 1))
    y_ticks = [float(tick) for tick in MaxNLocator(5).tick_values(min(ys), max(ys))]
    x_low, x_high, y_low, y_high = min(xs), max(xs), y_ticks[0], y_ticks[-1]
    x_low -= x_low == x_high  # of a single epoch
    x_ticks = [
        float(tick) for tick in MaxNLocator(6, integer=True).tick_values(x_low, x_high) if x_low <= tick <= x_high
    ]

    def x_of(value: float) -> float:
        return left + (width - left - right) * (value - x_low) / (x_high - x_low)

    def y_of(value: float) -> float:
        return height - bottom - (height - bottom - top) * (value - y_low) / (y_high - y_low)

    parts = []
    for tick in y_ticks:
        at = f"{y_of(tick):.1f}"
        parts.append(element("line", x1=f"{left:g}", x2=f"{width - right:g}", y1=at, y2=at, class_="grid"))
        parts.append(element("text", f"{tick:.4g}", x=f"{left - 6:g}", y=at, class_="tick y"))
    for tick in x_ticks:
        parts.append(
            element("text", f"{tick:g}", x=f"{x_of(tick):.1f}", y=f"{height - bottom + 16:g}", class_="tick x")
        )
    for line in lines:
        written = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        parts.append(element("polyline", points=written, class_=f"line {line.kind}"))
        if len(line.points) == 1:
            x, y = line.points[0]
            parts.append(element("circle", cx=f"{x_of(x):.1f}", cy=f"{y_of(y):.1f}", r="3", class_="dot"))
    parts.append(element("text", x_label, x=f"{(left + width - right) / 2:g}", y=f"{height - 6:g}", class_="label x"))
    parts.append(element("text", y_label, x=f"{left:g}", y="9", class_="label"))
    return _svg(width, height, words, parts, "chart")


def molecule(smiles: str) -> Html:
    """RDKit's drawing of a molecule in the colour of the text, so that it reads on light and dark."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    width, height = 260, 180
    drawing = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = drawing.drawOptions()
    options.clearBackground = False
    options.useBWAtomPalette()
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    text = drawing.GetDrawingText()
    inside = text[text.index("<!-- END OF HEADER -->") + 22 : text.rindex("</svg>")]
    return _svg(width, height, smiles, [Html(inside.replace("#000000", "currentColor"))], "molecule")


def _svg(width: float, height: float, words: str | None, parts: list[Html], kind: str) -> Html:
    about = {"role": "img", "aria_label": words} if words else {"aria_hidden": "true"}
    box = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return element("svg", together(parts), class_=kind, **box, **about)
