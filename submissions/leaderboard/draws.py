"""What chance alone does to scores on a leaderboard, and which two files to select.

Public and private parts of the real sizes are drawn from the training rows with their out-of-fold predictions, group by
group. All files are scored on the same draws, so their differences are paired.

More than a hundred competitions show little fitting to the leaderboard (Roelofs et al., NeurIPS 2019): what is lost or
won between public and private scores is mostly the draw of the rows. A gain within its noise is not evidence (Blum and
Hardt, "The Ladder", ICML 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from competition.files import derive_seed
from submissions.compare import Labels, common_ids, drawn_scores


@dataclass(frozen=True)
class Draws:
    """Scores on drawn parts, (n_draws, n_files), a column per file.

    n_rows: training rows that are drawn from.
    sizes: rows of the public and of the private part.
    """

    public: pd.DataFrame
    private: pd.DataFrame
    n_rows: int
    sizes: tuple[int, int]


def draw(oof: dict[str, pd.DataFrame], labels: Labels, sizes: tuple[int, int]) -> Draws | None:
    """Draw parts of a test table; None where no two rows are predicted by all files.

    Args:
        oof: file -> out-of-fold predictions, by id.
        sizes: rows of the public and of the private part.
    """
    ids = common_ids(labels, list(oof.values()))
    if not oof or len(ids) < 2:
        return None
    public, private = (
        drawn_scores(labels, oof, ids, derive_seed(labels.seed, f"part {i}"), n) for i, n in enumerate(sizes)
    )
    return Draws(public, private, len(ids), sizes)


def usual_spearman(part: pd.DataFrame, cv: pd.Series) -> tuple[float, float]:
    """Between which rank correlations of CV and a part's scores 90 % of the draws lie, though CV is right in all."""
    low, high = part[cv.index].T.corrwith(cv, method="spearman").quantile([0.05, 0.95])
    return float(low), float(high)


def best_pair(private: pd.DataFrame, greater_is_better: bool) -> tuple[list[str], float]:
    """The two files whose better one has the best score to expect, and that score; of one file itself.

    Such files are close in their means, and as little correlated as can be.
    """
    best = "max" if greater_is_better else "min"
    pairs = [list(pair) for pair in combinations(map(str, private), min(2, private.shape[1]))]
    expected = pd.Series([private[pair].agg(best, axis=1).mean() for pair in pairs])
    place = int(expected.agg(f"idx{best}"))
    return pairs[place], float(expected[place])
