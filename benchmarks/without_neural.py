"""What the neural stages are worth: the error on the answers without them, against the submission.

    ./run.sh full && .venv/bin/python -m benchmarks.without_neural [COMPETITION]

Prints the ratio of mean RMSE (each target in units of its spread) of the blend of the other stages alone to that of
submission.csv, with a 95 % interval by a paired bootstrap over test rows.
"""

import sys

import numpy as np
import pandas as pd

from submissions.run import open_run

DRAWS = 2000


def main() -> None:
    run = open_run(sys.argv[1] if len(sys.argv) > 1 else "qm9_orbitals")
    competition, columns = run.config.competition, run.columns
    names = [name for name in columns.names if run.config.stages[name].kind == "lightgbm"]
    answers = pd.read_csv(competition.answers, dtype={competition.id: str}).set_index(competition.id)
    submission = pd.read_csv(run.folder / "submission.csv", dtype={competition.id: str}).set_index(competition.id)
    y = answers.loc[columns.test_ids, competition.columns_in_sample].to_numpy()
    ours = submission.loc[columns.test_ids, competition.columns_in_sample].to_numpy()
    if len(names) > 1:
        sys.exit(f"this comparison is for competitions with one stage of trees; found {', '.join(names)}")
    alone = columns.test_of(names[0])
    spread = np.nanstd(columns.y, axis=0)

    def mean_rmse(y_pred: np.ndarray, rows: np.ndarray) -> float:
        return float((np.sqrt(np.nanmean((y_pred[rows] - y[rows]) ** 2, axis=0)) / spread).mean())

    everything = np.arange(len(y))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(y), len(y)) for _ in range(DRAWS)]
    ratios = [mean_rmse(alone, rows) / mean_rmse(ours, rows) for rows in draws]
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = mean_rmse(alone, everything) / mean_rmse(ours, everything)
    print(f"mean RMSE / spread: submission {mean_rmse(ours, everything):.4f}, {names[0]} alone ", end="")
    print(f"{mean_rmse(alone, everything):.4f}; ratio {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
