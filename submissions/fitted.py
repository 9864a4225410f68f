"""The candidates of a run: what they are fitted on, how they are kept, and what they predict for new rows."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from competition.files import derive_seed, read_json, read_table, write_json, write_table
from competition.tables import INPUT_KEY
from competition.types import Array
from competition.user_code import label
from submissions.blend.candidates import Blend, Candidate
from submissions.blend.crossfit import CrossFitted, Rule, cross_fit, decide, labelled, scores
from submissions.blend.postprocess import apply_all, stored_steps
from submissions.blend.problem import Matrices
from submissions.blend.stacks import LIGHTGBM_STACK, Stack
from submissions.blend.stored import from_json, to_json
from submissions.columns import jobs_of_columns
from submissions.run import BLEND, CHOICE, STACK, Run
from submissions.words import number

KNOWN_LABELS = "known_labels.csv"


def matrices_of(run: Run, P: Array) -> Matrices:
    """What the candidates are fitted on: columns P (n_rows, n_columns, n_outputs) with their labels."""
    settings, columns, seed = run.config.submissions, run.columns, run.config.competition.seed
    seeds = tuple(derive_seed(seed, "blend", name) for name in run.task.targets)
    tuned = settings.trials, settings.weight_trials, seeds
    rows = P, columns.y, columns.folds
    return Matrices(*rows, run.metric, settings.weights, *tuned, run.task.has_probabilities)


def rule_of(run: Run) -> Rule:
    """The rule of selection as the YAML sets it."""
    settings, columns = run.config.submissions, run.columns
    rows, default = (columns.y, columns.folds, columns.groups), label(run.config.default_blend)
    drawn = settings.bootstrap, run.config.competition.seed
    return Rule(run.metric, run.task, *rows, default, settings.margin, *drawn)


def fitted_file(name: str) -> str:
    """A fitted candidate, relative to the run's folder."""
    return f"fitted/{name.replace(':', '.')}.json"


def cross_fitted_file(name: str, labels: bool = False) -> str:
    """The predictions of a candidate for the training rows, or their labels, relative to the run's folder."""
    return f"{'labels' if labels else 'cross_fitted'}/{name.replace(':', '.')}.parquet"


def read_cross_fitted(run: Run, name: str, scored: bool = False) -> CrossFitted:
    """The predictions of a candidate for the training rows, or what the metric scores of them."""
    table = read_table(run.folder / cross_fitted_file(name, scored and run.task.decides))
    return CrossFitted.of(table, run.columns.ids, len(run.task.scored if scored else run.task.outputs))


def fit_all(run: Run, file: str, candidates: dict[str, Candidate], m: Matrices) -> tuple[dict[str, Any], list[str]]:
    """Fit blends, or the stack on the default blend, keep each with its predictions, and submit one to `file`.

    That is the blend chosen by the rule of selection, or the stack.

    Returns:
        The part of run.json, and the files that were written.
    """
    rule, task, ids, files = rule_of(run), run.task, run.columns.ids, [file]
    fitted, found, judged = dict[str, Any](), dict[str, dict[str, Any]](), dict[str, CrossFitted]()
    if rule.default not in candidates:
        default, judged[rule.default] = (read_cross_fitted(run, rule.default, scored) for scored in (False, True))
    for name, candidate in candidates.items():
        rows = cross_fit(candidate, m)
        if isinstance(rows.fitted, Stack):  # a correction that no held-out row has tried has no score of its own
            tried = (rows.cross_fitted != default.cross_fitted)[rule.scored].any(axis=0)
            in_sample = np.where(tried, rows.in_sample, default.in_sample)
            rows = replace(rows, in_sample=in_sample, fitted=rows.fitted.only(tried))
        decision, judged[name] = rule.decision(rows.cross_fitted, rule.scored), rule.judged(rows)
        fitted[name] = rows.fitted, decision
        write_json(run.folder / fitted_file(name), to_json(rows.fitted))
        tables = {cross_fitted_file(name): rows.table(ids, task.outputs)}
        tables[cross_fitted_file(name, task.decides)] = judged[name].table(ids, task.scored)
        for path, table in tables.items():
            write_table(run.folder / path, table)
        files += [fitted_file(name), *tables]
        base = getattr(rows.fitted, "base", rows.fitted)
        of_outputs = zip(task.outputs, base.weights.T.tolist(), strict=True) if isinstance(base, Blend) else []
        weights = {output: dict(zip(run.columns.names, row, strict=True)) for output, row in of_outputs}
        found[name] = {"weights": weights, "decision": to_json(decision), **scores(rule, judged[name])}
    chosen, _, compared, same = decide(rule, judged)
    if chosen not in fitted:
        (chosen,) = fitted  # the stack has its file whatever the rule says
    one, decision = fitted[chosen]
    run.write_submission(file, labelled(decision, one.predict(run.columns.test)))
    described = {name: {**part, **asdict(compared[name])} for name, part in found.items()}
    return {"candidates": described, "default": rule.default, "chosen": chosen, "same_as_default": same}, files


def describe(file: str, part: dict[str, Any]) -> str:
    """What a file holds and the cross-fitted scores of what `fit_all` compared, in one line."""
    scores = ", ".join(f"{name} {number(each['cross_fitted_score'])}" for name, each in part["candidates"].items())
    same = f"; correct nothing: {', '.join(part['same_as_default'])}" if part["same_as_default"] else ""
    return f"{file}: {part['chosen']}; cross_fitted_score: {scores}{same}"


def candidate_of(run: Run, name: str) -> Callable[[Array], Array]:
    """What predicts (n_rows, n_outputs) by a candidate of the run from its columns; see `submission_of`."""
    run.part(STACK if name == LIGHTGBM_STACK else BLEND)
    names, named = run.stored["columns"], {label(each): each for each in run.config.blends}
    predictor = from_json(read_json(run.folder / fitted_file(name)), named.get(name, run.config.default_blend))
    there = [names.index(column) for column in jobs_of_columns(run.config, run.plan)]

    def predict(P: Array) -> Array:
        whole = np.zeros((len(P), len(names), P.shape[2]))  # a bundle brings no column without weight
        whole[:, there] = P
        return predictor.predict(whole)

    return predict


def submission_of(run: Run, decided: bool = True) -> Callable[[Array, list[str]], Array]:
    """What predicts new rows: the chosen candidate with the post-processing that was kept and, last, its decision.

    Args:
        decided: False for predictions, (n_rows, n_outputs), where the metric scores labels.

    Returns:
        A function of P (n_rows, n_columns, n_outputs), each column the mean of its jobs, and of n_rows names of the
        rows' whole inputs (`INPUT_KEY`).
    """
    choice, task = run.part(CHOICE), run.task
    named = {label(step): step for step in run.config.postprocess}
    steps = [stored_steps(choice["postprocessing"][target], named) for target in task.targets]
    chosen, known = candidate_of(run, choice["chosen"]), None
    decision = from_json(run.candidates[choice["chosen"]]["decision"]) if decided else None
    if KNOWN_LABELS in choice["files"] and (decided or not task.decides):
        known = read_table(run.folder / KNOWN_LABELS, [INPUT_KEY]).set_index(INPUT_KEY)[task.scored]

    def predict(P: Array, inputs: list[str]) -> Array:
        scored = labelled(decision, apply_all(steps, chosen(P)))
        if known is None:
            return scored
        labels = known.reindex(index=inputs).to_numpy()
        return np.where(np.isnan(labels), scored, labels)

    return predict
