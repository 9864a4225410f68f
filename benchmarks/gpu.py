"""How well one card is used by the networks of this project: one table in under ten minutes, for any machine
with one.

    python -m benchmarks.gpu [--seconds 6] [--minutes 9]

For each network, at 1, 2 and 4 jobs on the card (a process each): rows that all jobs together train on in a
second, and the peak of memory of one job. Below it, the largest difference
between predictions on the card and on the cores with the same weights, in standard deviations of the predictions: as
the project predicts, and in bf16. Last, one job with a decoder in the shape of Qwen3-0.6B: full fine-tuning, LoRA,
LoRA with gradient checkpointing, LoRA on NF4. All weights start at random, so nothing is downloaded; the rows are the
embedded molecules and tweets. Trees are not imported.
Without a card it says so and ends with status 0.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import contextlib
import gc
import multiprocessing
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from competition.dataset import Dataset
from competition.molecules import canonical_smiles
from competition.task import Task
from core.files import PROJECT
from models import targets
from models.context import Context
from models.registry import make_stage
from models.training import neural

DATA = PROJECT / "competition" / "data"
MOLECULES = ("qm9_orbitals", "SMILES", "homo_eV")
TWEETS = ("tweet_sentiment", "text", "sentiment")
"""Embedded tables: folder, column and target."""
NETWORKS: dict[str, dict[str, Any]] = {
    "gnn": {"kind": "gnn"},
    "Uni-Mol, compact": {"kind": "unimol"},
    "Uni-Mol, official size": {"kind": "unimol", "architecture": "molecule", "batch_size": 32},
    "BERT of MiniLM's size": {"kind": "bert", "layers": 6, "width": 384, "heads": 12},
    "BERT of DeBERTa-v3-base's size": {"kind": "bert", "layers": 12, "width": 768, "heads": 12},
}
DECODER = {"kind": "bert", "pooling": "last", "max_length": 64}
DECODERS: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B's shape": DECODER,
    "the same, LoRA": {**DECODER, "lora": {}},
    "the same, LoRA, checkpointing": {**DECODER, "lora": {}, "gradient_checkpointing": True},
    "the same, LoRA, NF4": {**DECODER, "lora": {}, "quantization": "nf4"},
}
"""Networks whose weights are written by `publish_decoder`."""
DECODER_SIZE = {
    "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
"""Settings of the configuration of Qwen/Qwen3-0.6B."""
TINY_DECODER_SIZE = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "gnn": {"width": 8, "hidden_width": 8},
    "unimol": {"architecture": "compact", "layers": 1, "width": 16, "heads": 2},
    "bert": {"layers": 1, "width": 16, "heads": 2},
}
"""Changes by kind, for a test of this script on the cores."""
JOBS = (1, 2, 4)
WARM_UP = 10
"""Steps before the clock starts."""
LONGEST_WAIT = 120.0
"""Seconds that a job waits for the others before all of them are timed."""
HEADER = "| network | jobs | rows/s | GiB a job |\n|---|---|---|---|"


def read_rows(name: str, column: str, target: str, n_rows: int) -> tuple[Dataset, Context]:
    """Return the first labelled rows of an embedded table, and a context of one column and target."""
    table = pd.read_csv(DATA / name / "train.csv").dropna(subset=[target])[:n_rows].reset_index(drop=True)
    is_molecule = column == "SMILES"
    if is_molecule:
        table[column] = [canonical_smiles(text) for text in table[column]]
    roles = ([column], []) if is_molecule else ([], [column])
    context = Context(*roles, [], [], Task([target]), seed=0, cache=Path("unused"), retry_failed_fit=False)
    return Dataset([str(i) for i in table.index], table[[column]], table[[target]].to_numpy()), context


@dataclass(frozen=True)
class Case:
    """A network and its rows.

    cache: folder of the conformers.
    tiny: whether it is made small, for the cores.
    """

    name: str
    cache: Path
    tiny: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Settings without weights, epochs and precision."""
        return (NETWORKS | DECODERS)[self.name]

    def rows(self) -> tuple[Dataset, Context]:
        """Training rows, and what the stage is told."""
        n_rows = 60 if self.tiny else 1500
        table = TWEETS if self.settings["kind"] == "bert" else MOLECULES
        rows, context = read_rows(*table, n_rows)
        return rows, replace(context, cache=self.cache)

    def config(self, epochs: int, precision: str = "auto") -> Any:
        """Return the settings of the stage."""
        settings = self.settings | {"learning_rate": 1e-4, "epochs": epochs, "precision": precision}
        if self.name in DECODERS:
            settings["weights"] = str(publish_decoder(self.cache / "decoder", self.tiny))
        elif self.tiny:
            settings |= TINY[settings["kind"]]
        return make_stage(settings)


def publish_decoder(folder: Path, tiny: bool) -> Path:
    """Write a decoder of Qwen3's architecture with random weights in bfloat16, whose tokens are bytes."""
    if (folder / "config.json").exists():
        return folder
    import tokenizers
    import transformers

    end = "<|im_end|>"
    symbols = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), end]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({symbol: i for i, symbol in enumerate(symbols)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
    size = TINY_DECODER_SIZE if tiny else DECODER_SIZE
    config = transformers.Qwen3Config(**size, tie_word_embeddings=True)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


class TimeIsUpError(Exception):
    """Ends a training that has been timed."""


class Stopwatch:
    """Times the steps of a training that calls it after each of them, and ends it.

    seconds: how long steps are timed.
    barrier: where all jobs on the card wait for each other.
    """

    def __init__(self, seconds: float, barrier: Any) -> None:
        self.seconds = seconds
        self.barrier = barrier
        self.started: float | None = None
        self.steps_per_second = 0.0

    def __call__(self, step: int, total: int) -> None:
        if self.started is None and step >= WARM_UP:
            synchronize()
            self.barrier.wait(LONGEST_WAIT)
            self.started = time.monotonic()
        elif self.started is not None and time.monotonic() - self.started > self.seconds:
            synchronize()
            self.steps_per_second = (step - WARM_UP) / (time.monotonic() - self.started)
            raise TimeIsUpError


def synchronize() -> None:
    """Wait until the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_training(case: Case, seconds: float, barrier: Any) -> dict[str, float]:
    """In a worker: rows a second, and the peak of this job's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    (rows, context), config = case.rows(), case.config(epochs=10_000)
    watch = Stopwatch(seconds, barrier)
    context = replace(context, progress=watch)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimeIsUpError):
        network, sample = neural.prepare(config, rows, Path(folder), context)
        neural.make_trainer(config, network, Path(folder), context).fit(sample)
    steps_per_epoch = -(-len(rows) // config.batch_size)
    memory = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else float("nan")
    return {"rows": watch.steps_per_second * len(rows) / steps_per_epoch, "memory": memory}


def fit(case: Case, folder: Path) -> None:
    """In a worker: a short training whose weights are kept."""
    rows, context = case.rows()
    targets.fit(case.config(epochs=2), rows.take(np.arange(min(256, len(rows)))), folder, context)


def predict(case: Case, folder: Path, precision: str) -> Any:
    """In a worker: predictions of the last rows by the weights in the folder."""
    rows, context = case.rows()
    last = rows.take(np.arange(len(rows))[-128:]).without_labels()
    return targets.predict(case.config(2, precision), last, folder, context)[:, 0]


def hide_cards() -> None:
    """First thing in the worker that predicts on the cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


class Bench:
    """Worker processes that share the card, one that sees none, and the time that is left."""

    def __init__(self, stack: contextlib.ExitStack, end: float, seconds: float, tiny: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.slots = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(max(JOBS))]
        self.on_cores = stack.enter_context(ProcessPoolExecutor(1, context, hide_cards))
        self.manager = stack.enter_context(context.Manager())
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.end = end
        self.seconds = seconds
        self.cases = [Case(name, self.folder / "cache", tiny) for name in NETWORKS]
        self.decoders = [Case(name, self.folder / "cache", tiny) for name in DECODERS]

    def wait_for(self, future: "Future[Any]") -> Any:
        """What a worker gives; TimeoutError when the time is over."""
        return future.result(timeout=max(0.0, self.end - time.monotonic()))

    def line(self, case: Case, n_jobs: int) -> str:
        """A line of the table."""
        barrier = self.manager.Barrier(n_jobs)
        futures = [self.slots[i].submit(time_training, case, self.seconds, barrier) for i in range(n_jobs)]
        start = f"| {case.name} | {n_jobs} |"
        results, errors = [], []
        for future in futures:
            try:
                results.append(self.wait_for(future))
            except TimeoutError:
                raise
            except Exception as error:  # memory that ran out is a result
                errors.append(" ".join(f"{type(error).__name__}: {error}".split())[:80])
        if errors:
            return f"{start} failed: {errors[0]} | |"
        rows = sum(result["rows"] for result in results)
        memory = max(result["memory"] for result in results)
        return f"{start} {rows:.0f} | {memory:.2f} |"

    def difference(self, case: Case) -> str:
        """The largest difference of predictions on the card and on the cores, a line."""
        folder = self.folder / case.name
        folder.mkdir()
        self.wait_for(self.slots[0].submit(fit, case, folder))
        cores = self.wait_for(self.on_cores.submit(predict, case, folder, "auto"))

        def largest(precision: str) -> float:
            card = self.wait_for(self.slots[0].submit(predict, case, folder, precision))
            return float(np.abs(card - cores).max() / cores.std())

        return f"| {case.name} | {largest('auto'):.1e} | {largest('bf16'):.1e} |"


def say(line: str) -> None:
    print(line, flush=True)


def run(bench: Bench) -> None:
    """All lines; what may not work everywhere comes last."""
    rows, context = bench.cases[1].rows()
    for cache, keys in bench.cases[1].config(1).caches(context, [rows]):
        cache.load(keys)
    say(HEADER)
    for case in bench.cases:
        for n_jobs in JOBS:
            say(bench.line(case, n_jobs))
    say("\n| network | largest difference, as predicted | in bf16 |\n|---|---|---|")
    for case in bench.cases:
        say(bench.difference(case))
    say(f"\n{HEADER}")
    for case in bench.decoders:
        say(bench.line(case, 1))


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seconds", type=float, default=6.0, help="that each training is timed")
    options.add_argument("--minutes", type=float, default=9.0, help="after which nothing more is measured")
    options.add_argument(
        "--tiny", action="store_true", help="small networks on the cores: a test of this script"
    )
    args = options.parse_args(arguments)
    end = time.monotonic() + 60 * args.minutes
    if not torch.cuda.is_available() and not args.tiny:
        print("torch sees no card on this machine, so there is nothing to measure.")
        return
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, {os.cpu_count()} cores")
    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(stack, end, args.seconds, args.tiny)
            try:
                run(bench)
            except TimeoutError:
                print(f"The {args.minutes:g} minutes are over; the rest was not measured.")
                for process in multiprocessing.active_children():
                    process.kill()
    except BrokenProcessPool:
        pass


if __name__ == "__main__":
    main()
