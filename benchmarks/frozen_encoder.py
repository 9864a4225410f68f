"""A frozen encoder, `minilm`, against sentence-transformers' `encode` on the same texts, on one thread.

    python -m benchmarks.frozen_encoder --data FOLDER_WITH_COMPETITIONS [--set emotion] [--rounds 3]

Texts to pooled features, the encoder loaded; processor seconds of this process, ours and theirs in turn. It
needs sentence-transformers, which is no dependency of ours.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from models.inputs.encoder_settings import EncoderFeature
from models.inputs.frozen_encoders import embed_texts
from models.inputs.weights import find_weights


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--set", default="emotion", choices=["emotion", "icwsm_tweets"])
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.set_num_threads(1)
    texts = pd.read_csv(args.data / args.set / "train.csv").iloc[:, 1].astype(str).tolist()
    config = EncoderFeature(weights="minilm")
    transformer = Transformer(
        str(find_weights("minilm")["config.json"].parent), max_seq_length=config.max_length
    )
    reference = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())])
    calls = {
        "ours": lambda: embed_texts(config, texts)[:, 0, :-3],
        "sentence-transformers": lambda: reference.encode(texts, batch_size=32, show_progress_bar=False),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    features = {name: call() for name, call in calls.items()}  # and what a first call loads
    for _ in range(args.rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            spent[name].append(time.process_time() - started)
    one, other = (statistics.median(seconds) for seconds in spent.values())
    ratios = [reference_s / pipeline_s for pipeline_s, reference_s in zip(*spent.values(), strict=True)]
    ratio = statistics.median(ratios)
    gap = float(np.abs(np.subtract(*features.values())).max())
    print(
        f"{len(texts)} texts: {one:.1f} and {other:.1f} s, {ratio:.2f} times as fast; features differ by "
        f"{gap:.1g}"
    )


if __name__ == "__main__":
    main()
