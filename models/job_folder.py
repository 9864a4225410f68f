"""The files in the folder of a job, work/NAME/models/STAGE/KEY/seed_S/fold_K/, and the notes of its stage.

Written by every job:

    oof.parquet               predictions of the held-out fold; none for a refit (fold_all)
    test/<test key>.parquet   predictions of a test table
    *_std.parquet             standard deviations of these predictions, if the stage has `predict_std`
    notes.json                messages of the stage for the user
    report.json               written last: seconds, machine, settings, code and libraries, files that
                              user code opened, sha256 of all files

By gp, sklearn, baseline and networks with columns: scaling.npz (how numbers and categories are scaled).
By `target_transform`: target_transform.skops, transformed_range.json. By frozen encoders: encoders.json
(digests of their weights), encoders.npz (means and principal components).

By networks:

    weights.safetensors       the weights
    training.json             mean and scale of the labels, dropout rates, precision, seed
    losses.csv                loss, learning rate and held-out score while it trains
    message_passing.json, vocabulary.json    shape of a gnn; token ids of Uni-Mol
    config.json, tokenizer.json, tokenizer_config.json, base_model.json    of bert; the last one of an adapter

By other stages:

    training.json             mean and scale of the labels, and the choices of each target
    target_<t>.txt            the model of a target, of lightgbm
    target_<t>.skops          the same of scikit-learn; target_<t>.npz of other packages: the training rows
    target_<t>.npz, baseline.npz    of baseline: coefficients; edges of bins, frequencies of n-grams
    blocks.json, ngrams.skops    n-grams and categories
    gp.skops                  the Gaussian process
    their_oof.csv, their_test.csv    external predictions

While a job trains, or after it failed, the folder is called .fold_K and may also have:

    checkpoint_<seed>.pt      network, optimizer, schedule and random generators
    progress.json             finished steps, all steps and seconds
    failed.json, traceback.txt    how it failed
"""

from pathlib import Path

from core.files import read_json, write_json

OOF = "oof.parquet"
TEST_FOLDER = "test"
NOTES = "notes.json"
REPORT = "report.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training.json"
LOSSES = "losses.csv"
PROGRESS = "progress.json"
CHECKPOINTS = "checkpoint*.pt"
FAILURE = "failed.json"
TRACEBACK = "traceback.txt"


def write_notes(folder: Path, notes: list[str]) -> None:
    """Add messages for the user to a job's folder, which are printed and reported once per stage.

    A stage calls it in `fit`. Messages that the file already contains, for example from an
    interrupted fit, are not repeated.
    """
    write_json(folder / NOTES, list(dict.fromkeys([*read_notes(folder), *notes])))


def read_notes(folder: Path) -> list[str]:
    """Return the messages of a job; empty if it wrote none."""
    return list(read_json(folder / NOTES)) if (folder / NOTES).exists() else []
