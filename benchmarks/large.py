"""Seconds and memory of `new`, `check` and `full` on large tables that are made up.

    python -m benchmarks.large --work FOLDER --data FOLDER_WITH_COMPETITIONS --sets molecules texts

molecules: 80,000 molecules of pretrain/molecules.csv.gz with four targets, random sums of descriptors with noise, of
which one is 1 for the largest .24 %. texts: 110,000 of 5 to 19 words, drawn from the texts of emotion; the target is
the mean value of the words with noise. Of both, 10,000 rows are the test table, and the preset is cpu. The memory is
the largest sum of the proportional set sizes of all processes of a command, once a second (Linux).
"""

import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors, CalcTPSA
from sklearn.preprocessing import scale

from benchmarks.budget import parse, parser_of
from core.files import PROJECT


def molecules(data: Path) -> pd.DataFrame:
    """Return molecules and four targets."""
    table = pd.read_csv(data / "pretrain" / "molecules.csv.gz")[["SMILES"]].sample(n=80_000, random_state=0)
    x = scale([(*CalcCrippenDescriptors(m), CalcTPSA(m)) for m in map(MolFromSmiles, table["SMILES"])])
    rng = np.random.default_rng(0)
    table[["a", "b", "c", "active"]] = x @ rng.normal(size=(3, 4)) + rng.normal(0, 0.5, (len(x), 4))
    return table.assign(active=(table["active"] > table["active"].quantile(0.9976)).astype(int))


def texts(data: Path) -> pd.DataFrame:
    """Return texts and a target."""
    words = np.array(" ".join(pd.read_csv(data / "emotion" / "train.csv")["text"]).split())
    rng = np.random.default_rng(0)
    values = dict(zip(words, rng.normal(size=len(words)), strict=True))
    rows = [rng.choice(words, n_words) for n_words in rng.integers(5, 20, 110_000)]
    scores = [3 * np.mean([values[word] for word in row]) + rng.normal(0, 0.3) for row in rows]
    return pd.DataFrame({"text": map(" ".join, rows), "score": scores})


def write_tables(table: pd.DataFrame, folder: Path) -> list[str]:
    """Write the three tables of a competition; return the options of `new`."""
    folder.mkdir(parents=True, exist_ok=True)
    table.insert(0, "id", range(len(table)))
    train, test = table[10_000:], table[:10_000]
    sample = test.drop(columns=table.columns[1]).assign(**dict.fromkeys(table.columns[2:], 0.0))
    tables = {"train": train, "test": test.iloc[:, :2], "sample": sample}
    for name, part in tables.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    return [f"--{name}={folder}/{name}.csv" for name in tables]


def memory(session: int) -> float:
    """Return the GB that the processes of a session have in memory."""
    kilobytes = 0
    for file in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with suppress(OSError):  # the process has ended
            if os.getsid(int(file.parent.name)) == session:
                kilobytes += int(re.findall(r"(?m)^Pss: +(\d+)", file.read_text())[0])
    return kilobytes / 1e6


def measure(command: str, yaml_file: Path, *options: str) -> None:
    """Run a command of `run.sh`, and print its seconds and its memory."""
    started, most = time.monotonic(), 0.0
    call = ["./run.sh", command, str(yaml_file), *options]
    with yaml_file.with_name(f"{command}.log").open("w") as log:
        process = subprocess.Popen(call, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None:
            most = max(most, memory(process.pid))
            time.sleep(1)
    seconds = round(time.monotonic() - started)
    print(f"{yaml_file.stem} {command}: status {process.returncode}, {seconds} s, {most:.1f} GB", flush=True)


def main() -> None:
    args = parse(parser_of(__doc__))
    os.environ["WORK_DIR"] = str(args.work / "work")
    for name in args.sets:
        yaml_file = args.work / name / f"{name}.yaml"
        table = {"molecules": molecules, "texts": texts}[name](args.data)
        measure("new", yaml_file, *write_tables(table, yaml_file.parent), "--preset=cpu")
        measure("check", yaml_file)
        measure("full", yaml_file, "--budget=30m")


if __name__ == "__main__":
    main()
