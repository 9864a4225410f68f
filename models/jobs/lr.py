"""Learning-rate range test of a neural stage: `./run.sh lr [COMPETITION] STAGE`.

The rate grows from a thousandth to a thousand times that of the YAML while the stage trains on the training rows of
its first fold; a tenth of the rate at which its loss is smallest is a good peak for its schedule. Held-out rows take
no part. Source: Smith, Cyclical Learning Rates, WACV 2017; the tenth is fastai's rule.

Reads: prepared/train.parquet, folds/folds.csv. Writes: report/lr_<stage>.png. Weights of the test are thrown away.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from competition import command, prepare
from competition.config import find_config, load_competition
from competition.errors import ConfigError
from competition.files import derive_seed
from competition.paths import DEFAULT_COMPETITION, Paths, shown
from competition.plots import new_figure, save_figure
from competition.tables import Rows
from competition.types import Array
from folds import make
from folds.table import time_ordered
from models.config import load_stages
from models.jobs.plan import Plan, plan
from models.jobs.prefill import cache_items
from models.jobs.work import context_of, read_tables, training_rows
from models.jobs.workers import Workers
from models.registry import build_stage
from models.settings import NeuralStage

STEPS = 120
RANGE = 1e3
"""From the YAML's rate divided by this to the rate times this."""
DIVERGED = 4.0
"""Times the smallest smoothed loss, at which the test ends."""
FELL = 0.8
"""Share of the loss of the first tenth of the steps, below which the smoothed loss has fallen."""


def smoothed(losses: list[float]) -> Array:
    """Moving average of losses, in which each step weighs nine tenths of the next."""
    return pd.Series(losses).ewm(alpha=0.1).mean().to_numpy()


def suggested(rates: Array, losses: Array) -> tuple[float, bool]:
    """A tenth of the rate with the smallest smoothed loss, and whether that is well below the loss of the first steps.

    The first tenth of the steps is left out, where the average is of a few batches.
    """
    first = len(losses) // 10
    best = first + int(np.argmin(losses[first:]))
    return float(rates[best]) / 10, bool(losses.min() < FELL * losses[: STEPS // 10].mean())


def range_test(stage: Any, rows: Rows) -> tuple[Array, Array]:
    """Rates and smoothed losses; `stage` is a `Neural`."""
    from torch.optim.lr_scheduler import LambdaLR  # here, since it takes seconds

    from models.training.optimizer import make_optimizer

    config, losses, factors = stage.config, list[float](), np.geomspace(1 / RANGE, RANGE, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        network, sample = stage.ready(rows, Path(folder))
        training = stage.trainer_of(network, Path(folder))
        labels = training.prepare(sample)
        optimizer = make_optimizer(network, config)
        schedule = LambdaLR(optimizer, lambda step: factors[min(step, STEPS - 1)])
        optimizer = training.accelerator.prepare(optimizer)
        device = training.accelerator.device
        epochs = (sample.encoded(n + 1).steps(labels, config, stage.context.seed, n, device) for n in itertools.count())
        steps = itertools.islice(itertools.chain.from_iterable(epochs), STEPS)
        network.train()
        for step in tqdm(steps, "range test", STEPS, leave=False, disable=None):
            losses.append(float(training.take_step(step, optimizer)))
            schedule.step()
            curve = smoothed(losses)
            if not np.isfinite(losses[-1]) or curve[-1] > DIVERGED * curve.min():
                break
    finite = np.isfinite(losses)
    return (config.learning_rate * factors[: len(losses)])[finite], curve[finite]


def suggest(todo: Plan, name: str, n_workers: int | None) -> tuple[float, bool, Path]:
    """Run the test of a stage and draw it; returns the suggested rate, whether the loss fell, and the plot."""
    stage, paths, (rows, _, folds) = todo.stages[name], todo.paths, read_tables(todo)
    train = rows.take(training_rows(rows, folds, 0, stage.extra_rows, time_ordered(paths.folds_report)))
    with Workers(n_workers) as workers:
        workers.run(cache_items(todo, name, [train], set())[0], "molecules")
    seed = derive_seed(todo.competition.seed, "range test")
    plain = stage.model_copy(update={"target_transform": "none"})
    fitted: Any = build_stage(plain, context_of(todo, seed, train))
    if stage.ordinal == "cumulative":
        fitted, train = fitted.stage, fitted.exceeded(train)
    rates, losses = range_test(fitted, train)
    chosen, fell = suggested(rates, losses)
    figure, ((axis,),) = new_figure()
    axis.plot(rates, losses)
    axis.axvline(chosen, color="C1", label=f"suggestion {chosen:.1e}")
    axis.axvline(stage.learning_rate, color="grey", linestyle="--", label=f"the YAML's {stage.learning_rate:.1e}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title="range test")
    axis.legend()
    file = paths.report / f"lr_{name}.png"
    save_figure(figure, file)
    return chosen, fell, file


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, takes=("seed", "workers", "holdout"))
    options.add_argument("stage", nargs="?", help="neural stage of the YAML; its weights are not changed")
    args = options.parse_args()
    name, stage_name = (args.competition, args.stage) if args.stage else (DEFAULT_COMPETITION, args.competition)
    paths = Paths.of(name)
    neural = {own: stage for own, stage in load_stages(name).items() if isinstance(stage, NeuralStage)}
    if stage_name not in neural:
        known = ", ".join(neural) or "it has none"
        raise ConfigError(f"{stage_name!r} is none of the neural stages of {paths.name} ({known}).")
    competition = load_competition(name, args.seed)
    with command.locked(paths):
        prepare.run(competition, paths, find_config(name))
        make.run(competition, make.load_folds_config(name), paths)
        stage = neural[stage_name].model_copy(update={"pseudo_labels": None})
        chosen, fell, file = suggest(plan(competition, {stage_name: stage}, paths), stage_name, args.workers)
    print(f"stage {stage_name}  suggested learning_rate: {chosen:.1e} (the YAML has {stage.learning_rate:.1e})")
    if not fell:
        print(f"WARNING: the loss hardly fell in {STEPS} steps, so this says little; look at the curve")
    print(f"Written: {shown(file)}")


if __name__ == "__main__":
    command.run(main)
