#!/usr/bin/env bash
# Check that this checkout goes on from outputs of an older commit: tests/old_work.sh [COMMIT]
#
# In a copy of the repository, COMMIT (default e82a60d) runs smoke. The copy is then upgraded to this checkout, without
# its untracked files, and predicts, compares, reports and blends from these outputs, and trains nothing again.
# Needs the history of git, and an environment with the requirements: the active one, or .venv. Takes some minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -n "${VIRTUAL_ENV:-}" ] || . "$here/.venv/bin/activate"
upgrade=$(git -C "$here" stash create) # a commit of the current files; empty if everything is committed
upgrade=${upgrade:-$(git -C "$here" rev-parse HEAD)}
folder=$(mktemp -d)
trap 'git -C "$here" worktree remove --force "$folder/project"; rm -rf "$folder"' EXIT
git -C "$here" worktree add --quiet --detach "$folder/project" "${1:-e82a60d}"
cd "$folder/project"
export WORK_DIR=$folder/work PYTHONPATH=$folder/project
test_table=$folder/project/competition/data/smoke/test.csv

try() { # try NAME COMMAND...
  echo "$1 ..."
  "${@:2}" >"$folder/$1.log" 2>&1 || { tail -n 40 "$folder/$1.log"; echo "FAILED: $1" >&2; exit 1; }
}
count_jobs() { find "$WORK_DIR/smoke/models" -name report.json | wc -l; }
submission() { echo "$WORK_DIR/smoke/submissions/$(cat "$WORK_DIR/smoke/submissions/latest")/submission.csv"; }

try old_smoke ./run.sh smoke
try old_predict ./run.sh predict smoke --test "$test_table" --out "$folder/old_predictions.csv"
try old_ledger python -c '
from competition.paths import Paths
from submissions.leaderboard.ledger import Submission, scores_of, write
paths = Paths.of("smoke")
made = scores_of(paths.run(paths.latest_run.read_text().strip()))
write(paths.ledger, Submission(submission="first", time="2026-01-01 00:00", status="scored", public=0.5, **made))'
cp "$(submission)" "$folder/old_submission.csv"
n_jobs=$(count_jobs)

git checkout --quiet --detach "$upgrade"
try predict ./run.sh predict smoke --test "$test_table" --out "$folder/new_predictions.csv"
try compare ./run.sh compare smoke
try ledger ./run.sh ledger smoke
grep -q first "$folder/ledger.log" || { echo "FAILED: ledger lost the submission" >&2; exit 1; }
try report python -m submissions.report smoke --reuse
try full_reuse ./run.sh full smoke --reuse
[ "$(count_jobs)" = "$n_jobs" ] || { echo "FAILED: full --reuse trained jobs again" >&2; exit 1; }
cp "$(submission)" "$folder/new_submission.csv"

for name in predictions submission; do
  try "same_$name" python -c '
import sys
import pandas as pd
old, new = (pd.read_csv(file, index_col=0) for file in sys.argv[1:])
difference = ((new.loc[old.index, old.columns] - old).abs() / old.std()).max().max()
print(f"largest difference in standard deviations: {difference:.1e}")
assert difference < 1e-6 and len(old) == len(new)' "$folder/old_$name.csv" "$folder/new_$name.csv"
  cat "$folder/same_$name.log"
done
echo "All commands work on outputs of ${1:-e82a60d}."
