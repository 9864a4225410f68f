"""Style and output of all plots."""

import io
from typing import Any

STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "plots", "legend.frameon": False,
}  # fmt: skip


def new_figure(
    n_rows: int = 1, n_columns: int = 1, width: float = 6.4, height: float = 3.6
) -> tuple[Any, Any]:
    """Return a figure of width x height inches and its axes, (n_rows, n_columns); it opens no window."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def as_text(name: str) -> str:
    """Return a name with escaped $, since matplotlib renders text between two $ as a formula."""
    return name.replace("$", r"\$")


def as_svg(figure: Any) -> str:
    """Return the figure as a transparent `<svg>` element; equal figures give equal text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    content = buffer.getvalue()
    return content[content.index("<svg") :]
