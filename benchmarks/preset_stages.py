"""What each stage of a preset adds to the blend, and what it costs.

    python -m benchmarks.preset_stages --data FOLDER_WITH_COMPETITIONS --work FOLDER [--preset cpu] [--sets ...] \\
        [--seeds 3] [--stages NAME ...]
    python -m benchmarks.preset_stages --work FOLDER --table
    python -m benchmarks.preset_stages --work FOLDER --base lightgbm svr [--sets ...]

For each set and seed, `full` trains the stages of the preset, or those of --stages, without a budget. FOLDER keeps the
jobs, so a repetition trains only what is missing: a stage that is added to the preset, another seed. The gain of a
stage is how much larger the cross-fitted error of the default blend is without it, in per cent of the error (the
report's table "Ablation"; of scores such as AUC, the error is 1 less the score). No answers are read. Rows go to
FOLDER/preset_stages.csv; the table has the mean over seeds of each set with its standard error (of a single seed that
of the paired bootstrap over rows), the median and the worst over sets, and the seconds of all folds.

--base prints what the cross-fitted error of the default blend of some stages becomes if one other stage, or all
others, are added, in per cent, for the latest run of each set in FOLDER. --without adds groups of stages to the table,
such as gp,gp_minimol: stages that replace each other have no gain one by one; without --data it prints them for these
runs. --order adds the stages one by one to a blend, each time the one with the largest gain (mean over sets) for its
seconds (median over sets).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from competition.files import read_json, read_text_table
from competition.paths import PROJECT, Paths
from competition.task import build_metric
from models.jobs.plan import REPORT
from submissions.blend.candidates import get_candidate
from submissions.config import load_config
from submissions.run import Run, latest_run
from submissions.selection import blend_data, cross_fitted_scored, leave_stages_out, selection_rule

SETS = [
    "esol",
    "photoswitch",
    "biogen_adme",
    "chembl204_ki",
    "chembl218_ec50",
    "chembl287_ki",
    "bace",
    "tox21",
]


def run_stages(name: str, seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the stages on one set with one seed, and return a row for each stage."""
    config = args.work / f"{name}.yaml"
    data = args.data / name
    if not config.exists():
        files = {"train": "train.csv", "test": "test.csv", "sample": "sample_submission.csv"}
        options = [part for option, file in files.items() for part in (f"--{option}", str(data / file))]
        call("submissions.new", str(config), "--preset", args.preset, *options)
    options = ["--budget", "none", "--set", f"competition.seed={seed}", "--set", "submissions.stack=false"]
    if args.stages:
        written = load_config(str(config)).stages
        options += ["--stages", ",".join(stage for stage in args.stages if stage in written)]
    call("submissions.full", str(config), *options)
    return rows_of_run(name, seed, latest_run(Paths.for_competition(str(config)).name), args.without)


def rows_of_run(name: str, seed: int, run: Run, groups: list[str]) -> list[dict[str, Any]]:
    """Return a row for each stage and group of a run: gain and its standard error in per cent, errors and seconds."""
    metric = build_metric(run.config.competition)
    all_stages = run.stored["blend"]["candidates"][run.config.default_blend]["cross_fitted_score"]

    def error(score: float) -> float:
        return 1 - score if metric.greater_is_better else score

    rows = []
    for stage, record in run.stored["blend"]["drop_one"].items():
        gain = 100 * (error(record["cross_fitted_score"]) / error(all_stages) - 1)
        standard_error = 100 * record["standard_error"] / error(all_stages)
        alone = error(run.stored["choice"]["stages"][stage]["cv_score"])
        row = {
            "set": name,
            "seed": seed,
            "stage": stage,
            "gain": gain,
            "standard_error": standard_error,
            "alone": alone,
            "all": error(all_stages),
            "seconds": seconds_of(run, stage),
        }
        rows.append(row)
    for group, (gain, standard_error) in gains_of(groups, run).items():
        seconds = sum(seconds_of(run, stage) for stage in group.split(","))
        row = {"set": name, "seed": seed, "stage": group, "gain": gain, "standard_error": standard_error}
        rows.append({**row, "alone": None, "all": error(all_stages), "seconds": seconds})
    return rows


def call(module: str, *options: str) -> None:
    """Run a command of the project. Exit status 3 is a run without some of its stages."""
    done = subprocess.run([sys.executable, "-m", module, *options], cwd=PROJECT)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{module} {' '.join(options)} ended with status {done.returncode}")


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per stage: gain per set in per cent, median, worst, and seconds."""
    rows = rows.astype({"gain": float, "standard_error": float, "seconds": float}).drop_duplicates(
        ["set", "seed", "stage"], keep="last"
    )
    by_set = rows.groupby(["stage", "set"])["gain"]
    mean = by_set.mean().unstack()
    of_one_run = rows.groupby(["stage", "set"])["standard_error"].mean().unstack()
    error = by_set.sem().unstack().fillna(of_one_run)
    shown = (mean.map("{:.1f}".format) + error.map(" +- {:.1f}".format)).where(mean.notna(), "")
    shown.insert(0, "median", mean.median(axis=1).map("{:.1f}".format))
    shown.insert(1, "worst", mean.min(axis=1).map("{:.1f}".format))
    shown.insert(2, "seconds", rows.groupby("stage")["seconds"].median().map("{:.0f}".format))
    per_minute = mean.median(axis=1) / rows.groupby("stage")["seconds"].median() * 60
    return shown.loc[per_minute.sort_values(ascending=False).index]


def added_to(base: list[str], name: str) -> dict[str, float]:
    """Return what each other stage of the latest run of a set, and all of them, change, in per cent of the error."""
    run = latest_run(name)
    base = [stage for stage in base if stage in run.config.stages]
    others = [stage for stage in run.config.stages if stage not in base]
    added = {stage: [stage] for stage in others} | {"all": others}
    error_of_base = blend_error(run, base)
    return {
        label: 100 * (blend_error(run, base + stages) / error_of_base - 1) for label, stages in added.items()
    }


def gains_of(groups: list[str], run: Run) -> dict[str, tuple[float, float]]:
    """Return the gain of each group of stages in a run, and its standard error, in per cent.

    A stage of a group that the run does not have is ignored.
    """
    rule = selection_rule(run)
    candidate = get_candidate(run.config.default_blend)
    all_stages = cross_fitted_scored(rule, candidate, blend_data(run, run.stage_predictions.oof))
    in_run = {group: [stage for stage in group.split(",") if stage in run.config.stages] for group in groups}
    records = leave_stages_out(run, rule, all_stages, {group: part for group, part in in_run.items() if part})
    score = rule.score(all_stages)
    error = 1 - score if run.metric.greater_is_better else score
    return {
        group: (-100 * rule.gain(record["difference"]) / error, 100 * record["standard_error"] / error)
        for group, record in records.items()
    }


def blend_error(run: Run, stages: list[str]) -> float:
    """Return the cross-fitted error of the default blend of some stages."""
    rule = selection_rule(run)
    is_used = np.any([run.stage_predictions.stage_mask(stage) for stage in stages], axis=0)
    data = blend_data(run, run.stage_predictions.oof[:, is_used])
    score = rule.score(cross_fitted_scored(rule, get_candidate(run.config.default_blend), data))
    return 1 - score if run.metric.greater_is_better else score


def seconds_of(run: Run, stage: str) -> float:
    """Return the seconds of all jobs of a stage."""
    jobs = run.plan.jobs_of_stage(stage) if stage in run.config.stages else []
    return sum(read_json(job.folder / REPORT)["seconds"] for job in jobs)


def order_of(names: list[str]) -> pd.DataFrame:
    """Return the stages that all sets have by their gain for the time, with gains in per cent of the error.

    The first stage has no gain: it has the lowest error of those that take at most twice the shortest time.
    """
    runs = [latest_run(name) for name in names]
    left = [stage for stage in runs[0].config.stages if all(stage in run.config.stages for run in runs)]
    seconds = {stage: float(np.median([seconds_of(run, stage) for run in runs])) for stage in left}
    rows: list[dict[str, Any]] = []
    chosen: list[str] = []
    errors = np.ones(len(runs))
    while left:
        with_stage = {stage: np.array([blend_error(run, [*chosen, stage]) for run in runs]) for stage in left}
        gains = {stage: float(np.log(errors / with_stage[stage]).mean()) for stage in left}
        if chosen:
            best = max(left, key=lambda stage: gains[stage] / seconds[stage])
        else:
            cheap = [stage for stage in left if seconds[stage] <= 2 * min(seconds.values())]
            best = max(cheap, key=lambda stage: gains[stage])
        gain = f"{100 * gains[best]:.1f}" if chosen else ""
        in_sets = zip(names, with_stage[best], strict=True)
        row = {"stage": best, "seconds": f"{seconds[best]:.0f}", "gain": gain}
        rows.append({**row, **{name: f"{error:.4f}" for name, error in in_sets}})
        errors = with_stage[best]
        chosen.append(best)
        left.remove(best)
    return pd.DataFrame(rows).set_index("stage")


def table_of_blends(args: argparse.Namespace) -> pd.DataFrame:
    """Return the table of --order, --without or --base."""
    if args.order:
        return order_of(args.sets)
    if args.without:
        gains = {
            name: {
                group: f"{gain:.1f} +- {error:.1f}"
                for group, (gain, error) in gains_of(args.without, latest_run(name)).items()
            }
            for name in args.sets
        }
        return pd.DataFrame(gains).reindex(args.without).fillna("")
    changes = pd.DataFrame({name: added_to(args.base, name) for name in args.sets})
    return changes.map("{:+.1f}".format).replace("+nan", "")


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of competitions")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stages", nargs="+", help="only these stages")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--base", nargs="+", help="only print what other stages add to these")
    parser.add_argument("--order", action="store_true", help="only print the stages by gain for the time")
    parser.add_argument("--without", nargs="+", default=[], help="gains of groups, such as gp,gp_minimol")
    args = parser.parse_args()
    file = args.work / "preset_stages.csv"
    os.environ["WORK_DIR"] = str(args.work / "work")
    if args.order or args.base or (args.without and not args.data):
        with threadpool_limits(1):
            print(table_of_blends(args).to_string())
        return
    if not args.table:
        args.work.mkdir(parents=True, exist_ok=True)
        for seed in range(args.seeds):
            for name in args.sets:
                rows = pd.DataFrame(run_stages(name, seed, args))
                rows.to_csv(file, mode="a", header=not file.exists(), index=False)
    print(table_of(read_text_table(file)).to_string())


if __name__ == "__main__":
    main()
