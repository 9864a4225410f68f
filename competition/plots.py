"""The look of every plot, for the report and the folds."""

import io
from typing import Any

STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9,
    "svg.fonttype": "none", "svg.hashsalt": "plots", "legend.frameon": False,
}  # fmt: skip


def new_figure(
    n_rows: int = 1, n_columns: int = 1, width: float = 6.4, height: float = 3.6
) -> tuple[Any, Any]:
    """A figure of width x height inches and its axes, (n_rows, n_columns); no window is ever opened."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def as_text(name: str) -> str:
    """A name of the user's as it stands, where matplotlib takes what is between two $ for a formula."""
    return name.replace("$", r"\$")


def as_svg(figure: Any) -> str:
    """The figure as an `<svg>` element on a transparent ground; equal figures give equal texts."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    content = buffer.getvalue()
    return content[content.index("<svg") :]
