"""Pictures of rates: a range test, the schedule of a stage, all schedules."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from competition.files import write_atomically
from models.settings import NeuralStage
from models.training.schedules import SCHEDULES, with_warmup

BLUE, ORANGE, GREY = "#1f5fa8", "#c2410c", "#6b7280"


def draw_range_test(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    chosen: float,
    config: NeuralStage,
    n_steps: int,
    file: Path,
) -> None:
    """The curve of a range test, and beside it the schedule of the stage over its real steps."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rates, losses, color=BLUE)
    left.axvline(chosen, color=ORANGE, label=f"suggestion {chosen:.1e}")
    left.axvline(config.learning_rate, color=GREY, linestyle="--", label=f"the YAML's {config.learning_rate:.1e}")
    left.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title="range test")
    left.set_ylim(top=min(float(losses.max()), 2 * float(losses[: max(len(losses) // 10, 1)].max())))
    left.legend(frameon=False)
    rate = with_warmup(config.schedule, config.warmup, n_steps, config.cycles, config.decay)
    right.plot([config.learning_rate * rate(step) for step in range(n_steps)], color=BLUE)
    right.set(xlabel="step", ylabel="learning rate", title=f"{config.schedule}, {n_steps} steps")
    _save(figure, file)


def draw_schedules(file: Path, n_steps: int = 300) -> None:
    """Every schedule over the steps of an optimizer, with a warm-up of a tenth."""
    import torch

    figure = Figure(figsize=(13, 5.4), layout="constrained")
    axes = list(figure.subplots(2, 4, sharex=True, sharey=True).flat)
    for axis in axes[len(SCHEDULES) :]:
        axis.remove()
    for name, axis in zip(SCHEDULES, axes, strict=False):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, with_warmup(name, 0.1, n_steps))
        rates = []
        for _ in range(n_steps):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        axis.plot(rates, color=BLUE)
        axis.set(title=name, xlabel="step", ylim=(0, 1.05))
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(file, buffer.getvalue())
