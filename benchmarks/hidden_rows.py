"""Memory and time of predicting a long hidden test table with a finished run.

    python -m benchmarks.hidden_rows COMPETITION [--rows 50000]

Needs a finished run of a competition with one molecule column and nothing else. Makes rows of distinct molecules (those
of its tables behind chains), predicts them as `./run.sh predict` does, and prints seconds and the
largest memory of all its processes together (resident; pages that processes share are counted in each).
"""

import argparse
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import pandas as pd
import psutil
from rdkit import Chem, RDLogger

from competition.config import load_competition


def molecules(known: list[str], n: int) -> list[str]:
    """`n` distinct molecules: the known ones behind chains."""
    RDLogger.DisableLog("rdApp.*")
    found: dict[str, None] = {}
    for a, middle, b in product(range(1, 12), "ONS", range(12)):
        for text in known:
            parsed = Chem.MolFromSmiles("C" * a + middle + "C" * b + text)
            if parsed is not None:
                found[Chem.MolToSmiles(parsed)] = None
            if len(found) == n:
                return list(found)
    raise SystemExit(f"only {len(found)} molecules")


def peak_of(command: list[str]) -> tuple[float, float]:
    """Seconds and GiB of a command and all that it starts."""
    started, peak = time.monotonic(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        total = 0
        for part in [process, *process.children(recursive=True)]:
            try:
                total += part.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)
        time.sleep(0.2)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - started, peak / 2**30


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("competition")
    options.add_argument("--rows", type=int, default=50_000)
    args = options.parse_args()
    competition = load_competition(args.competition)
    (column,) = competition.inputs
    known = [text for file in (competition.train, competition.test) for text in pd.read_csv(file)[column]]
    smiles = molecules(known, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "hidden.csv"
        pd.DataFrame({competition.id: [f"h{i}" for i in range(len(smiles))], column: smiles}).to_csv(table, index=False)
        seconds, gib = peak_of(
            [
                sys.executable,
                "-m",
                "submissions.predict",
                args.competition,
                "--test",
                str(table),
                "--out",
                f"{folder}/s.csv",
            ]
        )
        print(f"{len(pd.read_csv(f'{folder}/s.csv'))} rows: {seconds:.0f} s, {gib:.2f} GiB at most")


if __name__ == "__main__":
    main()
