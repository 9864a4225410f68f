#!/usr/bin/env bash
# Competition pipeline for molecules and text: train.csv, test.csv and sample_submission.csv -> a checked submission.
#
#   ./run.sh full [COMPETITION]     train all stages, blend them, write the submission and the report
#   ./run.sh smoke                  do the same for a tiny competition, in a minute
#   ./run.sh new NAME --train F --test F --sample F    write the YAML of your competition
#   ./run.sh check [COMPETITION]    check settings, tables and weights, in seconds
#   ./run.sh folds [COMPETITION]    compare held-out rows with test rows, and recommend a kind of folds
#   ./run.sh train [COMPETITION]    train only: [--stages S] [--fold K] [--shard I/N]
#   ./run.sh compare [COMPETITION]  compare all runs: scores, settings, paired differences
#   ./run.sh predict [COMPETITION] --test F    predict new rows with the saved weights
#   ./run.sh submit [COMPETITION]   send the submission to Kaggle and wait for its score
#   ./run.sh ledger [COMPETITION]   fetch scores and list all submissions with them
#   ./run.sh kernel [COMPETITION]   write an offline notebook: [--training] [--verify] [--push]
#   ./run.sh study NAME             repeat the experiment behind a default (docs/evidence.md)
#   ./run.sh test [--all] [PATH]    lint, types and tests; --all adds the slow tests; those of PATH come before lint
#   ./run.sh help                   print this text; every command but test has --help
#
# COMPETITION is a name in competition/configs/ or a YAML file (default: qm9_orbitals).
#
# Options of full, smoke and train:
#   --set KEY=VALUE      replace a setting of the YAML: --set stages.gnn.epochs=100; may be repeated
#   --stages A,B         use only these stages, with a budget in this order
#   --budget 2h          of full: take at most this time; none lifts the budget of the YAML
#   --holdout 0.2        of full: keep 20 % of the training rows out of everything, and score the submission on them
#   --workers N, --executor ray, --tracker tensorboard|wandb|mlflow
#   --reuse              keep finished jobs whose code or libraries have changed; check lists them
#   --from FOLDER        continue from the outputs of an earlier run
#   --job-timeout 2h     fail a job that hangs
#
# The same command continues after a crash, Ctrl-C or SIGTERM: finished jobs are skipped.
#
# Exit status of full: 0 everything was done, or everything that fits the budget; 3 the submission is valid but
# something failed, or only some folds are in it; 2 a mistake to correct, or a full disk; 1 nothing to submit;
# 130 Ctrl-C or SIGTERM.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export PYTHONHASHSEED=0 # a function of the user that hashes texts gives the same numbers in every process
export PYTHONPATH=$here PYTHONSAFEPATH=1 # our packages from here, not folders of the same name where you stand
. "$here/setup.sh"

help() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$here/run.sh"; }
step() { "$python" -m "$@"; }
last_step() { exec "$python" -m "$@"; } # signals, such as those of batch systems, then reach the command itself
ready() { case " $* " in *" --executor ray "* | *" --executor=ray "*) setup requirements-ray.txt ;; *) setup ;; esac; }

full() {
  export RUN_STARTED # what --budget counts from
  RUN_STARTED=$(date +%s)
  ready "$@"
  last_step pipeline full "$@"
}

check_style() {
  step ruff check .
  step ruff format --check .
  step mypy
}

run_tests() {
  local files=(requirements-test.txt requirements-kaggle.txt) marks="not slow" workers
  case "${1:-}" in
    --help | -h) help; return ;;
    --all) files+=(requirements-ray.txt) marks=""; shift ;;
  esac
  setup "${files[@]}"
  cd "$here"
  if (($# == 0)); then check_style; fi
  workers=$("$python" -c 'import loky; print(min(loky.cpu_count(), 8))') # each has its own copy of torch in memory
  step pytest -q -n "$workers" --dist worksteal -m "$marks" --durations=10 "$@"
  if (($#)); then check_style; fi
}

verb=${1:-help}
shift || true
case "$verb" in
  full)    full "$@" ;;
  smoke)   full smoke "$@" ;;
  check | train) ready "$@"; last_step pipeline "$verb" "$@" ;;
  new)     case " $* " in *" --kaggle"*) setup requirements-kaggle.txt ;; *) setup ;; esac; last_step pipeline new "$@" ;;
  folds | compare | predict) setup; last_step pipeline "$verb" "$@" ;;
  submit | ledger | kernel) setup requirements-kaggle.txt; last_step pipeline "$verb" "$@" ;;
  study)   ready "$@"; last_step studies.run "$@" ;;
  test)    run_tests "$@" ;;
  help | -h | --help) help ;;
  *) echo "run.sh has no command '$verb'; ./run.sh help lists them." >&2; exit 2 ;;
esac
