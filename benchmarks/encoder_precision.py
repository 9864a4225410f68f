"""A frozen MiniLM in float32, bf16 and int8 on one core of a CPU: seconds, and the score of what reads it.

    python -m benchmarks.encoder_precision --data FOLDER_WITH_COMPETITIONS [--rounds 3]

int8 quantizes the linear layers (torch's dynamic quantization). The rounds alternate between the precisions, and the
medians of the processor time per text are printed. The score is that of `minilm_frozen` of the presets on the test
answers of icwsm_tweets: RMSE of a ridge regression.
"""

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.inputs import frozen_encoders
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.frozen_encoders import embed_texts

CONFIG = EncoderFeature(encoder="minilm")


def embed(model: tuple[Any, Any], precision: str, texts: list[str]) -> np.ndarray:
    """Return the pooled features of texts, (n_texts, width)."""
    is_bf16 = precision == "bf16"
    with (
        mock.patch.object(frozen_encoders, "_load_encoder", lambda settings: model),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16),
    ):
        return embed_texts(CONFIG, texts)[:, 0, :-3].astype(np.float32)


def score(train: np.ndarray, y: pd.Series, test: np.ndarray, answers: pd.Series) -> float:
    """Return the RMSE of a ridge regression."""
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=100.0)).fit(train, y)
    return float(root_mean_squared_error(answers, ridge.predict(test)))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    torch.set_num_threads(1)
    encoder, tokenizer = frozen_encoders._load_encoder(CONFIG.model_dump_json())
    int8 = torch.ao.quantization.quantize_dynamic(copy.deepcopy(encoder), {torch.nn.Linear}, torch.qint8)
    models = {"float32": encoder, "bf16": encoder, "int8": int8}
    folder = args.data / "icwsm_tweets"
    train, test, answers = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test", "answers"))
    text, target = train.columns[1], answers.columns[-1]
    test = test.merge(answers, on=test.columns[0])
    seconds: dict[str, list[float]] = {precision: [] for precision in models}
    for _ in range(args.rounds):
        for precision, model in models.items():
            started = time.process_time()
            embed((model, tokenizer), precision, list(train[text][:500]))
            seconds[precision].append(time.process_time() - started)
    for precision, model in models.items():
        features = [embed((model, tokenizer), precision, list(table[text])) for table in (train, test)]
        result = score(features[0], train[target], features[1], test[target])
        per_text = 1000 * statistics.median(seconds[precision]) / 500
        print(f"{precision:8s} {per_text:.2f} ms per text, score {result:.4f}", flush=True)


if __name__ == "__main__":
    main()
