#!/usr/bin/env bash
# From a competition's train.csv, test.csv and sample_submission.csv to checked submission files with an honest score.
#
#   ./run.sh full [COMPETITION] [--budget 2h]    everything, in that time; finished jobs are skipped, so run it again
#                                after a crash
#   ./run.sh new NAME --train F --test F --sample F [--preset quick|cpu|gpu] [--oof DIR]    a YAML for your own
#                                competition; --oof blends predictions made elsewhere (docs/stages.md)
#   ./run.sh check [COMPETITION]    settings, data and weights, in seconds
#   ./run.sh folds [COMPETITION]    sizes, targets and similarity of the folds, train against test, and which kind fits
#   ./run.sh smoke                  the same path as full, small: a minute on a laptop
#   ./run.sh train [COMPETITION] [--stage S] [--fold K]    jobs only
#   ./run.sh compare [COMPETITION] [--with RUN]    all runs: scores, what differs, paired differences
#   ./run.sh predict [COMPETITION] --test F    new rows, with the saved weights
#   ./run.sh submit [COMPETITION] [-m MESSAGE]    the submission to Kaggle, checked, asked for, waited for
#   ./run.sh ledger [COMPETITION]   every submission with its scores, and whether CV can be trusted
#   ./run.sh kernel [COMPETITION] [--try] [--push]    an offline notebook with the saved weights: made, proved, uploaded
#   ./run.sh kernel [COMPETITION] --training [--push]    an offline notebook that trains, with all that this needs
#   ./run.sh study [NAME] [--quick|--short]   what a default rests on, measured again (docs/evidence.md); no NAME lists them
#   ./run.sh test [--all]           lint, types and tests; --all has the long ones too; other words go to pytest
#   ./run.sh help                   this text; all but test have more with --help
#
# full, smoke and train take --seed N, --workers N, --reuse (accept finished jobs of other code) and --retrain (do not).
# With --from FOLDER they go on from an earlier run's products, such as an attached notebook output.
# A job that fails is left out: --job-timeout 2h fails one that hangs, --skip-failed leaves out what failed before,
# --fail-fast stops at the first failure.
# With --tracker tensorboard|wandb|mlflow they show losses while neural stages train (docs/stages.md).
# Several machines on one WORK_DIR share the jobs: train --shard I/N on each and then full on one, or on one of a Ray
# cluster full --executor ray [--ray-address HOST:PORT] (docs/scale.md).
# full takes --holdout 0.2: that share of the training rows is kept out of everything, and the submission scored on it.
# Exit status of full: 0 everything, 3 a valid submission without something that failed, 2 a mistake to correct or a full
# disk, 1 nothing to submit, 130 Ctrl-C.
#
# COMPETITION is a name in competition/configs/ or a YAML file; without one it is qm9_orbitals.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export PYTHONPATH=$here PYTHONSAFEPATH=1 # our packages from here, not folders of the same name where you stand
. "$here/setup.sh"

help() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$here/run.sh"; }
step() { "$python" -m "$@"; }
ready() { case " $* " in *" --executor ray "* | *" --executor=ray "*) setup requirements-ray.txt ;; *) setup ;; esac; }

full() {
  export RUN_STARTED # what --budget counts from
  RUN_STARTED=$(date +%s)
  ready "$@"
  step submissions.full "$@"
}

run_tests() {
  local files=(requirements-test.txt requirements-kaggle.txt) marks="not slow" workers
  case "${1:-}" in
    --help | -h) help; return ;;
    --all) files+=(requirements-ray.txt) marks=""; shift ;;
  esac
  setup "${files[@]}"
  cd "$here"
  step ruff check .
  step ruff format --check .
  step mypy
  workers=$("$python" -c 'import loky; print(min(loky.cpu_count(), 8))') # each has its own copy of torch in memory
  step pytest -q -n "$workers" --dist loadfile --no-loadscope-reorder -m "$marks" --durations=10 "$@"
}

verb=${1:-help}
shift || true
case "$verb" in
  full)    full "$@" ;;
  smoke)   full smoke "$@" ;;
  check)   ready "$@"; step submissions.check "$@" ;;
  new)     case " $* " in *" --kaggle"*) setup requirements-kaggle.txt ;; *) setup ;; esac; step submissions.new "$@" ;;
  folds)   setup; step folds.diagnose "$@" ;;
  train)   ready "$@"; step models.jobs.train --prepare "$@" ;;
  study)   ready "$@"; step studies "$@" ;;
  compare) setup; step submissions.compare "$@" ;;
  predict) setup; step submissions.predict "$@" ;;
  submit)  setup requirements-kaggle.txt; step submissions.leaderboard.submit "$@" ;;
  ledger)  setup; step submissions.leaderboard.ledger_report "$@" ;;
  kernel)  setup requirements-kaggle.txt; step submissions.kernel "$@" ;;
  test)    run_tests "$@" ;;
  help | -h | --help) help ;;
  *) echo "run.sh has no verb '$verb'; ./run.sh help lists them." >&2; exit 2 ;;
esac
