#!/usr/bin/env bash
# Compare what two checkouts submit: benchmarks/compare_checkouts.sh BEFORE AFTER [COMPETITION...]
#
# Runs full for smoke, qm9_orbitals, tweet_sentiment and further competitions (a name, or the absolute path of a YAML),
# in both checkouts in turn. Prints the seconds of both, which tables have the same bytes, and of the others the largest
# difference in standard deviations of a column. Each checkout has its work folder below a temporary folder, which stays.
set -euo pipefail
before=$(cd "$1" && pwd)
after=$(cd "$2" && pwd)
shift 2
folder=$(mktemp -d)
echo "Work folders and logs: $folder"
for competition in smoke qm9_orbitals tweet_sentiment "$@"; do
  name=$(basename "$competition" .yaml)
  line=$name:
  for side in before after; do
    start=$SECONDS
    status=0
    (cd "${!side}" && WORK_DIR=$folder/$side ./run.sh full "$competition") >"$folder/$side.$name.log" 2>&1 || status=$?
    line+=" $side $((SECONDS - start)) s, exit $status;"
  done
  echo "${line%;}"
  python3 - "$folder/before/$name/submissions" "$folder/after/$name/submissions" <<'PYTHON' || true
import csv
import statistics
import sys
from pathlib import Path

latest = [Path(root) / "latest" for root in sys.argv[1:]]
if missing := [str(file.parent) for file in latest if not file.exists()]:
    sys.exit(f"  no submission in {' and in '.join(missing)}; see the logs")
folders = [file.with_name(file.read_text().strip()) for file in latest]


def columns_of(file: Path) -> dict[str, list[str]]:
    header, *rows = csv.reader(file.open(newline=""))
    return dict(zip(header, zip(*sorted(rows)), strict=True))


def difference(old: list[str], new: list[str]) -> float:
    """Return the largest difference in standard deviations; of text, infinity where any cell differs."""
    if old == new:
        return 0.0
    try:
        pairs = [(float(a), float(b)) for a, b in zip(old, new, strict=True) if a != b]
        return max(abs(a - b) for a, b in pairs) / statistics.pstdev(float(a) for a in old if a)
    except (ValueError, ZeroDivisionError):
        return float("inf")


for name in ("submission.csv", "blend.csv", "stack.csv", "oof.csv", "cross_fitted.csv"):
    before, after = (folder / name for folder in folders)
    if not (before.exists() and after.exists()):
        result = "missing in at least one of them"
    elif before.read_bytes() == after.read_bytes():
        result = "same bytes"
    else:
        old, new = columns_of(before), columns_of(after)
        worst = max((difference(old[column], new.get(column, ())), column) for column in old)
        result = f"differs by {worst[0]:.1e} standard deviations (column {worst[1]})"
    print(f"  {name}: {result}")
PYTHON
done
