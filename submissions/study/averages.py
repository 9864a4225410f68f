"""What averaging seeds gives: the score of the mean prediction of the first one, two, three seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.jobs.predictions import read_predictions
from submissions.study.config import Study
from submissions.study.results import Part, finished, labels, place


def averages(parts: list[Part], study: Study) -> pd.DataFrame:
    """A row for each cell, fold and number of seeds: the score of their mean prediction on the held-out fold.

    Seeds are added in the study's order; a fold counts as far as they are finished. Empty for a study of one seed.
    """
    rows = []
    for part in parts if len(study.seeds) > 1 else []:
        labelled, folds = labels(part)
        targets = part.competition.targets
        for cell in part.cells:
            jobs = {(job.fold, job.seed): job for job in finished(part, cell)}
            for fold in sorted({fold for fold, _ in jobs}):
                held_out = labelled.take(folds == fold)
                assert held_out.y is not None
                predictions = []
                for seed in study.seeds:
                    if (fold, seed) not in jobs:
                        break
                    predictions.append(read_predictions(jobs[fold, seed].oof_file, held_out.ids, targets))
                    score = part.metric(held_out.y, np.mean(predictions, axis=0))
                    rows.append({**place(part, cell, study), "fold": fold, "seeds": len(predictions), "score": score})
    return pd.DataFrame(rows)
