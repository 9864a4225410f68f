"""Sections of the page about scores: candidates, stages, weights."""

from __future__ import annotations

from submissions import pictures
from submissions.blend import number
from submissions.findings import ALL, Compared, Findings, known, spread
from submissions.markup import Html, element, paragraphs, table, tags, together
from submissions.stack import nothing


def candidates(found: Findings) -> Html:
    """Scores of all candidates, post-processing, and scores on the answers."""
    rows, kinds = [], []
    for part in [*found.candidates, found.whole]:
        says = [word for word, name in (("chosen", found.chosen), ("default", found.default)) if part.name == name]
        says += [nothing(part.name)] if part.name in found.same_as_default else []
        in_sample = "" if part is found.whole else number(part.in_sample_score)
        has_gain = part is not found.whole and part.name not in (found.default, *found.same_as_default)
        gain = [number(part.gain), number(part.standard_error)] if has_gain else ["", ""]
        rows.append([part.name, in_sample, number(part.cross_fitted_score), *gain, tags(says)])
        kinds.append("strong" if "chosen" in says else "")
    without = (
        "gain: over the default, above 0 is better. The whole procedure chooses its candidate without the fold that it "
        f"predicts ({found.counts})."
    )
    header = ["candidate", "in_sample_score", "cross_fitted_score", "gain", "standard_error", ""]
    parts = [table("Scores of the candidates", header, rows, kinds), paragraphs(without)]
    if found.kept_steps or found.steps_left_out:
        parts += [element("h3", "Post-processing"), _postprocessing(found)]
    if found.answers:
        targets = found.run.config.competition.targets if found.run.metric.column else []
        rows = [[name, *map(number, scores)] for name, scores in found.answers.items()]
        parts += [
            element("h3", found.answers_name),
            table("Scores on the labels of the test rows", ["file or stage", ALL, *targets], rows),
        ]
    return together(parts)


def _postprocessing(found: Findings) -> Html:
    header = ["target", "step", "score without", "score with"]
    kept = [table("Steps of post-processing", header, found.kept_steps)] if found.kept_steps else []
    return together([*kept, *([paragraphs(found.steps_left_out)] if found.steps_left_out else [])])


def stages(found: Findings) -> Html:
    """Cross-validation of each stage on each target, fold by fold."""
    folds = range(found.run.plan.n_folds)
    ends: dict[str, list[float]] = {}
    for part in found.stages:
        ends.setdefault(part.target, []).extend(score for score in part.fold_scores if known(score))
    rows, kinds = [], []
    for part in found.stages:
        scores = [score for score in part.fold_scores if known(score)]
        low, high = min(ends[part.target], default=0.0), max(ends[part.target], default=0.0)
        of_all = part.seconds is not None
        rows.append(
            [
                together([f"{part.stage} ", tags(part.marks, "tag warning")] if of_all else []),
                part.target,
                number(part.cv_score),
                spread(part.fold_scores),
                pictures.strip(scores, low, high, "fold scores, as in the last columns"),
                f"{part.seconds:.1f}" if part.seconds is not None else "",
                *(number(part.fold_scores[fold]) if part.fold_scores else "-" for fold in folds),
            ]
        )
        kinds.append("" if of_all else "part")
    header = ["stage", "target", "cv_score", "fold_scores", "", "seconds", *(f"fold {fold}" for fold in folds)]
    said = "fold_scores: mean ± standard deviation; the dots are the folds, on one scale for each target."
    remarks = [element("ul", *(element("li", line) for line in found.remarks))] if found.remarks else []
    return together([table("Cross-validation of the stages", header, rows, kinds), paragraphs(said), *remarks])


def weights(found: Findings) -> Html:
    """Weights of the blend, and what each stage adds."""
    found_weights = [part.weight for part in found.stages if part.weight is not None]
    low, high = min([0.0, *found_weights]), max([0.0, *found_weights])
    targets = found.run.config.competition.targets
    of_stage = {
        name: {part.target: part.weight for part in found.stages if part.stage == name}
        for name in found.run.config.stages
    }

    def cells(weight: float | None) -> list[str]:
        return ["-", ""] if weight is None else [f"{weight:.3f}", pictures.bar(weight, low, high)]

    header = ["stage", *(text for target in targets for text in (target, ""))]
    rows = [[name, *(cell for t in targets for cell in cells(of.get(t)))] for name, of in of_stage.items()]
    parts = [
        paragraphs(f"Weights in {found.weights_of}."),
        table("Blend weights of the stages by target", header, rows),
    ]
    if found.drop_one:
        said = (
            f"{found.default}, refitted without one stage. A gain above 0: the stage helps; one within its standard "
            "error of 0: the blend is as good without it."
        )
        parts += [element("h3", "Without one stage"), paragraphs(said), _drop_one(found.drop_one)]
    return together(parts)


def _drop_one(parts: list[Compared]) -> Html:
    gains = [part.gain for part in parts if part.gain is not None]
    low, high = min([0.0, *gains]), max([0.0, *gains])
    rows = [
        [
            part.name,
            number(part.cross_fitted_score),
            number(part.gain),
            number(part.standard_error),
            "" if part.gain is None else pictures.bar(part.gain, low, high),
        ]
        for part in parts
    ]
    return table("Score without each stage", ["stage", "score without it", "gain with it", "standard_error", ""], rows)
