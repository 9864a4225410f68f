"""When to leave the default blend: margins of the choice, post-processing and stacks, judged on holdouts.

    python -m benchmarks.switches --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

What was measured of a set and draw is kept in --cache as switches_*.json (`oof_matrices.cached_lines`).

Plan of the analysis, written before the first full run

Data: all targets of twelve sets, ten stages of at
most 800 training rows (`oof_matrices.draw_of`); a pair of draws that swap training rows and holdout. Targets
with fewer than 75 labels on a side, or 15 of a class, are left out. The metric is RMSE in units of each
target's standard deviation, ROC-AUC (bace, tox21) or log loss (emotion: its F1 is decided after the blend).
Probabilities have no steps.

Error: of the columns averaged over the five folds' models, as a submission has it, on the holdout; measured
as the logarithm of its ratio to the default blend's, mean over targets and draws of a set (tox21's labels are
one set). The result is the mean over sets with its 95 % interval by a bootstrap over sets, and the worst set.

(a) Choice: what the rule submits with 0, .5, 1, 2 and 3 standard errors, among the blends that every run
compares, and among these and the stacks. The margin to take gains on average and loses no more than .5 % on
any set; of several, that with the largest gain. (b) Post-processing of the default blend: each step always,
and where it gains by the same margins. A step stays a default, or a setting, only where it does not lose. (c)
The LightGBM stack. What it sees: the columns of its own target; those of all targets, too; features of the
rows, too. How it learns, with own columns and with features: as few trees as are not clearly worse than the
best number of them (the default when this was planned), and with this rule fewer and more leaves, a lower
rate, less and more shrinkage; as many trees as have the least error; and the freest of all this together. How
many rows it has: a quarter, a half or all of the out-of-fold rows, with the default blend of the same. All of
it always taken where it corrects anything, and as chosen against the default by each margin. A setting
becomes the default where its interval lies below
0. (Columns of all targets were first measured with few trees alone; the least error came after nine sets were
seen. The first runs had two steps, a stack and features of the rows as well, of which docs/benchmarks.md has
the figures and which were then taken out.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks import oof_matrices
from benchmarks.oof_matrices import arguments, cached_lines, draw_of, in_per_cent, over_sets
from competition.metrics import METRICS
from competition.task import Task
from competition.types import Array
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES, Candidate
from submissions.blend.cross_fitting import CrossFitted, cross_fitted
from submissions.blend.logits import Link, logits
from submissions.blend.postprocess import STEPS, apply_all, choose_steps, fit_steps
from submissions.blend.selection_rule import SelectionRule, apply_rule, score_per_target, select_candidate
from submissions.blend.stacks import LIGHTGBM_STACK, StackCandidate
from submissions.blend.weight_problem import NO_FOLDS, BlendData
from submissions.selection import candidates_of

CHOICES = (0.0, 0.5, 1.0, 2.0, 3.0)
FEW_TREES, LOW_ERROR, FREEST = "fewest trees", "trees of least error", "least error, 7 leaves"
SETTINGS: dict[str, dict[str, Any]] = {
    FEW_TREES: {}, LOW_ERROR: {},
    "2 leaves": {"num_leaves": 2}, "7 leaves": {"num_leaves": 7}, "rate .02": {"learning_rate": 0.02},
    "shrunk a quarter": {"lambda_l2": 5.0}, "shrunk 4 times": {"lambda_l2": 80.0},
    FREEST: {"num_leaves": 7, "lambda_l2": 5.0},
}  # fmt: skip
SHARES = {"a quarter of the rows": 4, "half of the rows": 2}
ALL_COLUMNS, TARGET_COLUMNS = "columns of all targets", "own columns"
Lines = Iterator[tuple[str, str, float]]
"""Part and variant, and the logarithm of the error over the default's, mean over targets."""


@dataclass(frozen=True)
class Draw:
    """A draw of a set: what blends are fitted on, the rule, and the holdout's columns and labels."""

    m: BlendData
    rule: SelectionRule
    columns: Array
    y: Array

    @property
    def default(self) -> Candidate:
        return CANDIDATES[self.rule.default]

    def error(self, y_pred: Array, against: Array | None = None) -> float:
        """Logarithm of the ratio of errors on the holdout, mean over targets; `against` the default, if not
        given.
        """
        against = self.default.fit(self.m).predict(self.columns) if against is None else against
        one, other = (
            np.array(score_per_target(self.rule.metric, self.y, each)) for each in (y_pred, against)
        )
        ratios = (1 - one) / (1 - other) if self.rule.metric.greater_is_better else one / other
        return float(np.log(ratios).mean())


def read(parts: dict[str, Any]) -> Draw:
    """The targets with enough labels, numbers in units of their standard deviation."""
    problem, classes, y, y_holdout = (
        str(parts["problem"]),
        list(parts["classes"]),
        parts["y"],
        parts["y_holdout"],
    )
    P, columns = parts["oof"], parts["holdout"].mean(axis=0)
    if classes:
        each_class = [(half == c).sum(axis=0) for half in (y, y_holdout) for c in range(len(classes))]
        has_rows = np.min(each_class, axis=0) >= oof_matrices.MIN_CLASS_ROWS
    else:
        has_rows = (
            np.min([np.isfinite(half).sum(axis=0) for half in (y, y_holdout)], axis=0)
            >= oof_matrices.MIN_ROWS
        )
        units = np.nanstd(y, axis=0)
        y, y_holdout, P, columns = (each / units for each in (y, y_holdout, P, columns))
    y, y_holdout = y[:, has_rows], y_holdout[:, has_rows]
    if problem != "multiclass":
        P, columns = P[:, :, has_rows], columns[:, :, has_rows]
    task_metric = METRICS[{"regression": "rmse", "multiclass": "log_loss"}.get(problem, "roc_auc")]
    m = BlendData(P, y, parts["folds"], task_metric, has_probabilities=bool(classes))
    task = Task(list(parts["targets"][has_rows]), None, cast(Any, problem), classes)
    default = "shrunk_logits" if classes else "shrunk_ridge"
    rule = SelectionRule(task_metric, task, y, m.folds, np.arange(len(y)), default, 1.0, 1000, 0)
    return Draw(m, rule, columns, y_holdout)


def made(candidate: Candidate, m: BlendData) -> CrossFitted:
    """What the rule compares; nothing is chosen without a fold here."""
    fitted = candidate.fit(m)
    return CrossFitted(
        fitted.predict(m.preds[m.rows_outside(NO_FOLDS)]), cross_fitted(candidate, m), np.empty(0), fitted
    )


def chosen(draw: Draw, predictions: dict[str, CrossFitted]) -> Iterator[tuple[str, str]]:
    """Which candidate the rule takes at each margin."""
    result = select_candidate(draw.rule, predictions)
    comparisons = {
        name: each for name, each in result.comparisons.items() if name not in result.same_as_default
    }
    for margin in CHOICES:
        yield f"margin {margin:g}", apply_rule(replace(draw.rule, margin=margin), comparisons)[0]


def of_choices(draw: Draw) -> Lines:
    """Blends and stacks as a run compares them."""
    run: Any = SimpleNamespace(config=SimpleNamespace(blends=[draw.rule.default]))
    blends = {name: made(CANDIDATES[name], draw.m) for name in candidates_of(run, draw.m)}
    every = blends | {LIGHTGBM_STACK: made(StackCandidate(draw.default), draw.m)}
    errors = {name: draw.error(each.fitted.predict(draw.columns)) for name, each in every.items()}
    yield from (("always", name, error) for name, error in errors.items())
    for part, group in (("blends", blends), ("blends and stacks", every)):
        yield from ((part, margin, errors[name]) for margin, name in chosen(draw, group))


def simplest(losses: Array) -> int:
    """Which row of losses (n_models, n_folds), simple ones first, is not clearly worse than the best one.

    Not worse by more than a standard error of the difference, paired over the folds.
    Source: the one-standard-error rule, Breiman et al., CART, 1984, section 3.4.3.
    """
    worse = losses - losses[np.argmin(losses.mean(axis=1))]
    return int(np.argmax(worse.mean(axis=1) <= worse.std(axis=1, ddof=1) / np.sqrt(losses.shape[1])))


def of_stacks(draw: Draw) -> Lines:
    """The LightGBM stack by what it sees, how it learns and its rows."""
    default, stack = made(draw.default, draw.m), StackCandidate(draw.default)

    def columns_of_target(P: Array, order: list[int], target_columns: slice, link: Link) -> Array:
        return logits(P[:, order, target_columns], link).reshape(len(P), -1)

    for seen, columns_of in ((ALL_COLUMNS, stacks.tree_features), (TARGET_COLUMNS, columns_of_target)):
        for label, settings in (
            SETTINGS.items() if seen != ALL_COLUMNS else [(LOW_ERROR, {}), (FEW_TREES, {})]
        ):
            of_classes = stacks.CLASSIFICATION_LAMBDA_L2 * settings.get("lambda_l2", 20.0) / 20.0
            with (
                mock.patch.dict(stacks.PARAMETERS, settings),
                mock.patch.object(stacks, "CLASSIFICATION_LAMBDA_L2", of_classes),
                mock.patch.object(
                    stacks, "best_n_trees", stacks.best_n_trees if "least" in label else simplest
                ),
                mock.patch.object(stacks, "tree_features", columns_of),
            ):
                fitted_stack = made(stack, draw.m)
                error = draw.error(fitted_stack.fitted.predict(draw.columns))
            yield f"stack, {seen}, {label}", "always", error
            for margin, name in chosen(draw, {draw.rule.default: default, LIGHTGBM_STACK: fitted_stack}):
                yield f"stack, {seen}, {label}", margin, error if name == LIGHTGBM_STACK else 0.0
    for label, part in SHARES.items():
        fitted = stack.fit(
            replace(draw.m, folds=np.where(np.arange(len(draw.m.y)) % part == 0, draw.m.folds, -1))
        )
        error = draw.error(fitted.predict(draw.columns), fitted.base.predict(draw.columns))
        yield f"stack, {ALL_COLUMNS}, {label}", "always", error


def of_steps(draw: Draw) -> Lines:
    """Post-processing of the default blend."""
    y_pred, columns = cross_fitted(draw.default, draw.m), draw.default.fit(draw.m).predict(draw.columns)
    for step in STEPS:
        always = [fit_steps([step], *pair) for pair in zip(y_pred.T, draw.rule.y.T, strict=True)]
        yield step, "always", draw.error(apply_all(always, columns))
        for margin in CHOICES:
            rule = replace(draw.rule, margin=margin)
            chain = choose_steps(rule, [step], y_pred)
            yield step, f"margin {margin:g}", draw.error(chain.apply(columns))


def main() -> None:
    """Parse the command line and print the tables."""
    args = arguments(__doc__, oof_matrices.ALL_SETS, 2)

    def lines_of(name: str, draw: int) -> list[tuple[str, str, str, float]]:
        parts = draw_of(name, draw, args.data, args.cache)
        drawn = read(parts)
        lines = [*of_choices(drawn), *of_stacks(drawn)]
        if not drawn.m.has_probabilities:
            lines += of_steps(drawn)
        return [(name, *line) for line in lines]

    lines = cached_lines("switches", lines_of, args)
    table = pd.DataFrame(lines, columns=["set", "part", "variant", "error"])
    for (part, variant), rows in table.groupby(["part", "variant"], sort=False):
        of_set, interval = over_sets(rows["error"], rows["set"])
        worst = f"worst {of_set.idxmax()} {100 * np.expm1(of_set.max()):+.2f} %"
        lower = f"{(of_set < 0).sum()} lower and {(of_set > 0).sum()} higher of {len(of_set)}"
        print(f"{part:60s} {variant:12s} {in_per_cent(interval, 2):30s} {worst}, {lower}")


if __name__ == "__main__":
    main()
