"""Does a multilingual encoder gain beside n-grams in five languages?   python -m benchmarks.languages --work FOLDER

The tables next to this file have 300 rows each, written and labelled by a language model: pairs of sentences and
their similarity from 0 to 5 (zh, de), and reviews with one to five stars (ja, ar, ru). `new --preset quick` writes
the stages; a ridge on n-grams is added, and the fine-tuned English encoder is left out. The first run has the stages
without an encoder, the second one all; `compare` prints the gain of the blend with its standard error.
"""

import argparse
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

TABLES = Path(__file__).with_suffix("")
RIDGE = {
    "kind": "sklearn",
    "features": [],
    "estimator": "sklearn.linear_model.Ridge",
    "parameters": {"alpha": 1.0},
}
TARGETS = {"zh": "similarity", "de": "similarity", "ja": "stars", "ar": "stars", "ru": "stars"}
METRICS = {"similarity": "pearson", "stars": "rmse"}


def run(work: Path, *arguments: Any) -> None:
    """Run a command of the project."""
    environment = {**os.environ, "WORK_DIR": str(work)}
    subprocess.run(["./run.sh", *map(str, arguments)], check=True, env=environment)


def main() -> None:
    """Run both sets of stages for each language, and print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=list(TARGETS))
    options = parser.parse_args()
    for language in options.languages:
        target = TARGETS[language]
        file = options.work / f"{language}.yaml"
        tables = ["--train", TABLES / f"{language}.csv", "--target", target, "--metric", METRICS[target]]
        run(options.work, "new", file, *tables, "--preset", "quick")
        config = yaml.safe_load(file.read_text())
        config["stages"].pop("minilm", None)
        config["stages"]["tfidf"] = RIDGE
        file.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
        ngrams = [name for name, stage in config["stages"].items() if "encoder" not in str(stage)]
        run(options.work, "full", file, "--budget", "none", "--stages", ",".join(ngrams))
        run(options.work, "full", file, "--budget", "none")
        run(options.work, "compare", file)


if __name__ == "__main__":
    main()
