#!/usr/bin/env bash
# A night of training in twenty minutes, for a machine with a card: what has to hold before the preset gpu can be trusted.
#
#   benchmarks/gpu_night.sh [--preset gpu] [--budget 20m] [--kill-after 120] [--without "unimol chemberta"]
#                           [--folder DIR] [--data NAME] [--without-card]
#
# `new --preset gpu` on the embedded molecules (--data tweet_sentiment: texts), one more stage that fails on purpose in
# fold 2, `full --budget`, SIGKILL to all of its processes so many seconds after the first finished job, the same
# command again, and `predict` on the cores. Each step is a line with PASS or FAIL; the exit status is 0 where all
# passed. --without leaves out stages, such as those with weights of the hub on a machine without internet.
# --without-card runs it all on the cores.
set -euo pipefail
project=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
preset=gpu budget=20m kill_after=120 without="" folder="" data=qm9_orbitals needs_card=yes
while [ $# -gt 0 ]; do
  case "$1" in
    --preset) preset=$2; shift ;;
    --budget) budget=$2; shift ;;
    --kill-after) kill_after=$2; shift ;;
    --without) without=$2; shift ;;
    --folder) folder=$2; shift ;;
    --data) data=$2; shift ;;
    --without-card) needs_card="" ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2 ;;
  esac
  shift
done
cd "$project"
folder=${folder:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
data=$project/competition/data/$data
night=$folder/night.yaml
export WORK_DIR=$folder/work
failures=0

result() { # result STATUS SENTENCE: a line for a step, which passed where STATUS is 0
  if [ "$1" = 0 ]; then echo "PASS  $2"; else echo "FAIL  $2"; failures=$((failures + 1)); fi
}
holds() { if "$@" >/dev/null 2>&1; then echo 0; else echo 1; fi; }
finished_jobs() { { find "$WORK_DIR/night/models" -name report.json "$@" 2>/dev/null || true; } | wc -l; }

. "$project/setup.sh"
here=$project setup
if [ -n "$needs_card" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch sees no card on this machine, so there is nothing to test; --without-card runs the steps on the cores."
  exit 0
fi
touch "$folder/started"

./run.sh new "$night" --train "$data/train.csv" --test "$data/test.csv" --sample "$data/sample_submission.csv" \
  --preset "$preset" --force >"$folder/new.log" 2>&1 && status=0 || status=$?
result $status "new --preset $preset writes a YAML ($folder/new.log)"
cat >"$folder/fails.py" <<'CODE'
import numpy as np
from models.api import Stage, read_json, write_json


class Fails(Stage):
    """Predicts the mean of the training labels; raises an error in fold 2."""

    def fit(self, train, folder, context):
        if 2 not in context.fold_ids:
            raise RuntimeError("this stage fails on purpose")
        write_json(folder / "mean.json", np.nanmean(train.y, axis=0).tolist())

    def predict(self, rows, folder, context):
        return np.tile(read_json(folder / "mean.json"), (len(rows), 1))
CODE
"$python" - "$night" $without <<'CODE'
import sys
from pathlib import Path

import yaml

path, without = Path(sys.argv[1]), sys.argv[2:]
document = yaml.safe_load(path.read_text())
stages = {name: stage for name, stage in document["stages"].items() if name not in without}
document["stages"] = {"fails": {"kind": "fails.py:Fails"}, **stages}
path.write_text(yaml.safe_dump(document, sort_keys=False))
print("stages:", ", ".join(document["stages"]))
CODE

setsid ./run.sh full "$night" --budget "$budget" >"$folder/killed.log" 2>&1 &
group=$!
while kill -0 $group 2>/dev/null && [ "$(finished_jobs)" = 0 ]; do sleep 1; done
for _ in $(seq "$kill_after"); do kill -0 $group 2>/dev/null && sleep 1; done
before=$(finished_jobs)
if kill -KILL -- -$group 2>/dev/null; then status=0; else status=1; fi
wait $group 2>/dev/null || true
touch "$folder/killed"
result $status "full was killed in the middle, with $before finished jobs ($folder/killed.log)"

./run.sh full "$night" --budget "$budget" >"$folder/resumed.log" 2>&1 && status=0 || status=$?
result "$(holds [ $status = 3 ])" "the same command again ends with exit code 3, got $status ($folder/resumed.log)"
kept=$(finished_jobs ! -newer "$folder/killed")
result "$(holds [ "$kept" = "$before" ])" "jobs that were finished before the kill are not trained again: $kept of $before"
result "$(holds grep -q "^Left out.* fails" <(tail -n 10 "$folder/resumed.log"))" "the last lines name the stage that failed"
submission=$WORK_DIR/night/submissions/$(cat "$WORK_DIR/night/submissions/latest" 2>/dev/null || true)/submission.csv
result "$(holds [ -f "$submission" ])" "there is a submission: $submission"
if [ -n "$needs_card" ]; then
  result "$(holds grep -rqs '"gpu": "' --include=report.json "$WORK_DIR/night/models")" "a job was trained on the card"
fi

# Other rows than the test table's, or the stored predictions would be read and nothing computed.
"$python" -c 'import sys, pandas; pandas.read_csv(sys.argv[1]).iloc[:0:-1].to_csv(sys.argv[2], index=False)' \
  "$data/test.csv" "$folder/test.csv"
CUDA_VISIBLE_DEVICES="" ./run.sh predict "$night" --test "$folder/test.csv" --out "$folder/cores.csv" \
  >"$folder/predict.log" 2>&1 && status=0 || status=$?
result $status "predict without a card ($folder/predict.log)"
"$python" - "$submission" "$folder/cores.csv" 2>/dev/null <<'CODE' && status=0 || status=$?
import sys

import pandas as pd

submission, cores = (pd.read_csv(path, index_col=0) for path in sys.argv[1:])
difference = ((cores - submission.loc[cores.index]).abs().max() / submission.std()).max()
print(f"largest difference: {difference:.1e} standard deviations of the submission")
sys.exit(not (difference <= 1e-3 and submission.nunique().min() > 1))  # a constant would equal itself anywhere
CODE
result $status "predictions on the cores equal the submission to 1e-3 of the standard deviation"

hub=${HF_HUB_CACHE:-${HF_HOME:-$HOME/.cache/huggingface}/hub}
echo "Downloaded from the hub (bytes, file):"
find -L "$hub" -path '*/snapshots/*' -type f -newer "$folder/started" -printf '  %s %P\n' 2>/dev/null || true
echo "Revisions:"
cat "$WORK_DIR/cache/hub_revisions.json" 2>/dev/null || echo "  none"
echo
echo "$failures steps failed; products are in $folder"
[ "$failures" = 0 ]
