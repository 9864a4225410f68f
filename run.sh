#!/usr/bin/env bash
# From a competition's train.csv, test.csv and sample_submission.csv to checked submission files with an honest score.
#
#   ./run.sh full [COMPETITION] [--budget 2h]    everything; finished jobs are skipped, so run it again after a crash
#   ./run.sh new NAME --train F --test F --sample F [--preset quick|cpu|gpu] [--oof DIR]    a YAML for your own
#                                competition; --oof blends predictions made elsewhere (docs/stages.md)
#   ./run.sh check [COMPETITION]    settings, data and weights, in seconds
#   ./run.sh folds [COMPETITION]    sizes, targets and similarity of the folds, train against test, and which kind fits
#   ./run.sh smoke                  the same path as full, small: a minute on a laptop
#   ./run.sh train [COMPETITION] [--stage S] [--fold K]    jobs only
#   ./run.sh lr [COMPETITION] STAGE    which learning rate a neural stage can take: a curve and a suggestion
#   ./run.sh compare [COMPETITION] [--with RUN]    all runs: scores, what differs, paired differences
#   ./run.sh predict [COMPETITION] --test F    new rows, with the saved weights
#   ./run.sh test [--all]           lint, types and tests; --all has the long ones too
#   ./run.sh help                   this text; check, new, folds, train, lr, compare and predict have more with --help
#
# full, smoke and train take --seed N, --workers N, --reuse (accept finished jobs of other code) and --budget TIME (2h,
# 90m, 30s: the most that training may take; a stage that does not fit is left out, and a later run goes on with it).
# full takes --holdout 0.2: that share of the training rows is kept out of everything, and the submission scored on it.
#
# COMPETITION is a name in competition/configs/ or a YAML file; without one it is qm9_orbitals.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export PYTHONPATH=$here PYTHONSAFEPATH=1 # our packages from here, not folders of the same name where you stand
. "$here/setup.sh"

help() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$here/run.sh"; }
step() { "$python" -m "$@"; }

full() {
  case " $* " in *" --help "* | *" -h "*) help; return ;; esac
  setup
  case " $* " in *" --holdout"*) step submissions.hold_out "$@" ;; esac # a competition without some training rows
  step submissions.check "$@"    # every section of the YAML, the tables and the weights, before any work
  step competition.prepare "$@"  # raw files           -> clean tables
  step folds.make "$@"           # training rows       -> folds.csv
  step models.train "$@"         # stage, seed, fold   -> weights, out-of-fold and test predictions
  step submissions.blend "$@"    # out-of-fold columns -> blend weights, blend.csv
  step submissions.stack "$@"    # out-of-fold columns -> level-2 model, stack.csv
  step submissions.write "$@"    # the chosen one      -> submission.csv, checked against the sample
  step submissions.report "$@"   # everything          -> the table of scores
}

verb=${1:-help}
shift || true
case "$verb" in
  full)    full "$@" ;;
  smoke)   full smoke "$@" ;;
  check)   setup; step submissions.check "$@" ;;
  new)     setup; step submissions.new "$@" ;;
  folds)   setup; step folds.show "$@" ;;
  train)   setup; step models.train --prepare "$@" ;;
  lr)      setup; step models.lr "$@" ;;
  compare) setup; step submissions.compare "$@" ;;
  predict) setup; step submissions.predict "$@" ;;
  test)    case " $* " in *" --help "* | *" -h "*) help; exit ;; esac; setup "$here/requirements-test.txt"; cd "$here"; step tests.run "$@" ;;
  help | -h | --help) help ;;
  *) echo "run.sh has no verb '$verb'; ./run.sh help lists them." >&2; exit 2 ;;
esac
