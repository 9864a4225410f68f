"""Ten minutes of checks on a machine with a card, one line each: PASS, FAIL or INFO. Exit status 1 after a FAIL.

    python -m benchmarks.gpu [--minutes 9] [--only real speed ...] [--tiny]

env       the cards that the project can use, and a product of matrices in each precision
small     small networks of each kind and type of target: a fit on the card, predictions on the card and on the cores
real      networks of real size: the same, in bf16 too, and how much two fits with the same seed differ
memory    too little memory: batches become smaller, and nothing stays on the card
speed     rows a second, share of kernels in a step, and GiB, in batches of the default size and 8 times as large
jobs      rows a second of 1, 2 and 4 jobs that share the card
pipeline  `full` with stages that share the card, and one on the cores
resume    a fit that is killed after a checkpoint and continued
decoders  a decoder of the shape of Qwen3-0.6B: LoRA, checkpointing, NF4, all weights

A check that raises an error is a FAIL, and the next one starts; none starts after the minutes. All weights start at
random, so nothing is downloaded; the rows are embedded molecules and tweets. Without a card it says so, with status 0.
--tiny makes networks small, for a test of this script on a machine without a card.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from competition.dataset import Dataset
from competition.molecules import canonical_smiles
from competition.task import Task
from core.files import PROJECT, read_json
from models import targets
from models.context import Context
from models.hardware import free_gpu_memory, peak_gpu_gib, visible_cards
from models.job_folder import read_notes
from models.registry import make_stage
from models.training import neural, trainer

DATA = PROJECT / "competition" / "data"
MOLECULES = ("qm9_orbitals", "SMILES", "homo_eV")
TWEETS = ("tweet_sentiment", "text", "sentiment")
"""Embedded tables: folder, column and target."""
BERT = {"kind": "bert", "learning_rate": 1e-4}
MINILM = {**BERT, "layers": 6, "width": 384, "heads": 12}
NETWORKS: dict[str, dict[str, Any]] = {
    "gnn": {"kind": "gnn"},
    "unimol, compact": {"kind": "unimol"},
    "unimol, official size": {"kind": "unimol", "architecture": "molecule", "batch_size": 32, "learning_rate": 1e-4},
    "unimol2, 84m": {"kind": "unimol2", "learning_rate": 1e-4},
    "bert of MiniLM's size": MINILM,
    "bert of DeBERTa-v3-base's size": {**BERT, "layers": 12, "width": 768, "heads": 12},
}  # fmt: skip
DECODERS: dict[str, dict[str, Any]] = {
    "decoder, LoRA": {"lora": {}},
    "decoder, LoRA, checkpointing": {"lora": {}, "gradient_checkpointing": True},
    "decoder, LoRA, NF4": {"lora": {}, "quantization": "nf4"},
    "decoder, all weights": {},
}
"""Settings besides those that all decoders share."""
TINY: dict[str, dict[str, Any]] = {
    "gnn": {"width": 16, "hidden_width": 16},
    "unimol": {"architecture": "compact", "layers": 1, "width": 16, "heads": 2},
    "bert": {"layers": 1, "width": 16, "heads": 2},
}
"""Changes by kind that make a network small."""
HEAD = {"kind": "multi_sample", "samples": 3, "dropout": 0.2}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "gnn": ("regression", {"kind": "gnn", "aggregation": ["mean", "sum", "norm"]}),
    "gnn, classes": ("multiclass", {"kind": "gnn", "head": HEAD}),
    "gnn, fp16": ("regression", {"kind": "gnn", "precision": "fp16", "backbone_dropout": 0.1}),
    "unimol": ("regression", {"kind": "unimol", "conformers": 2, "layer_decay": 0.9}),
    "unimol, labels": ("multilabel", {"kind": "unimol", "gradient_accumulation_steps": 2}),
    "bert": ("regression", {"kind": "bert", "r_drop": 0.5, "pooler_dropout": 0.1}),
    "bert, classes": ("multiclass", {"kind": "bert", "gradient_checkpointing": True}),
    "bert, labels": ("multilabel", {"kind": "bert", "schedule": "one_cycle"}),
}  # fmt: skip
"""Name -> type of the targets, and settings."""
DECODER_SIZE = {
    "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
"""Settings of the configuration of Qwen/Qwen3-0.6B."""
TINY_DECODER_SIZE = {**DECODER_SIZE, "hidden_size": 16, "num_hidden_layers": 2}
LIMIT, FP16_LIMIT = 1e-3, 2e-2
"""Largest difference of predictions on the card and on the cores, in their standard deviations."""
WARM_UP, N_PROFILED = 10, 6
"""Steps before the clock starts, and steps in which kernels are timed after it has stopped."""
START = 20.0
"""Seconds after which all processes that share the card have started."""
SPAWN = multiprocessing.get_context("spawn")


def read_rows(name: str, column: str, target: str, n_rows: int) -> tuple[Dataset, Context]:
    """Return the first labelled rows of an embedded table, and a context of one column and target."""
    table = pd.read_csv(DATA / name / "train.csv").dropna(subset=[target])[:n_rows].reset_index(drop=True)
    roles: tuple[list[str], list[str]] = ([], [column])
    if column == "SMILES":
        table[column] = table[column].map(canonical_smiles)
        roles = ([column], [])
    context = Context(*roles, [], [], Task([target]), seed=0, cache=Path("unused"))
    return Dataset([str(i) for i in table.index], table[[column]], table[[target]].to_numpy()), context


@dataclass(frozen=True)
class Case:
    """A network and its rows.

    folder: of the caches.
    """

    settings: dict[str, Any]
    folder: Path
    n_rows: int = 512
    problem_type: Any = "regression"

    def rows(self) -> tuple[Dataset, Context]:
        """Training rows, and what the stage is told; for classes, the labels are those of thirds or halves."""
        table = TWEETS if self.settings["kind"] == "bert" else MOLECULES
        rows, context = read_rows(*table, self.n_rows)
        y, task = rows.y, context.task
        if self.problem_type == "multiclass":
            y = np.searchsorted(np.quantile(y, [1 / 3, 2 / 3]), y).astype(float)
            task = Task(["y"], problem_type="multiclass", classes=["a", "b", "c"])
        elif self.problem_type == "multilabel":
            y = np.hstack([y > np.median(y), y > np.quantile(y, 0.8)]).astype(float)
            y[::7, 1] = np.nan
            task = Task(["y", "z"], problem_type="multilabel", classes=["0", "1"])
        return replace(rows, y=y), replace(context, task=task, cache=self.folder / "cache")

    def stage(self, **changes: Any) -> Any:
        """The stage with its settings and changes of them."""
        return make_stage({**self.settings, **changes})

    def fit(self, folder: Path, epochs: int = 2, **changes: Any) -> None:
        """Train and keep the weights."""
        rows, context = self.rows()
        targets.fit(self.stage(epochs=epochs, **changes), rows, folder, context)

    def predict(self, folder: Path, **changes: Any) -> Any:
        """Predictions of the last rows by the weights in the folder, (n_rows, n_outputs)."""
        rows, context = self.rows()
        last = rows.take(np.arange(len(rows))[-128:]).without_labels()
        return targets.predict(self.stage(**changes), last, folder, context)


def tiny_case(settings: dict[str, Any], folder: Path, problem_type: str = "regression") -> Case:
    """A network of a small size, and a few rows."""
    return Case({**settings, **TINY[settings["kind"]]}, folder, 60, problem_type)


def publish_decoder(folder: Path, size: dict[str, int]) -> None:
    """Write a decoder of Qwen3's architecture with random weights in bfloat16, whose tokens are bytes."""
    import tokenizers
    import transformers

    end = "<|im_end|>"
    symbols = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), end]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({symbol: i for i, symbol in enumerate(symbols)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
    config = transformers.Qwen3Config(**size, tie_word_embeddings=True)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


class TimedError(Exception):
    """Ends a training that has been timed."""


def synchronize() -> None:
    """Wait until the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_training(case: Case, seconds: float, begin: float = 0.0, **changes: Any) -> tuple[float, str]:
    """Rows a second, and these with the time of a step, the share of kernels and the peak of memory as text.

    seconds: how long steps are timed.
    begin: time of the clock at which all jobs start to be timed.
    """
    step_seconds = busy = float("nan")

    def watch() -> Iterator[None]:
        """Goes on after each step: times some steps, then the kernels of some more, and ends the training."""
        nonlocal step_seconds, busy
        for _ in range(WARM_UP):
            yield
        synchronize()
        time.sleep(max(0.0, begin - time.time()))
        started, n_steps = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            yield
            n_steps += 1
        synchronize()
        step_seconds = (time.perf_counter() - started) / n_steps
        if torch.cuda.is_available():
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                for _ in range(N_PROFILED):
                    yield
                synchronize()
            kernel_seconds = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
            busy = kernel_seconds / N_PROFILED / step_seconds
        raise TimedError

    free_gpu_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    rows, context = case.rows()
    stage = case.stage(epochs=10_000, **changes)
    steps = watch()
    context = replace(context, progress=lambda done, total: next(steps))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimedError):
        network, encoded = neural.prepare(stage, rows, Path(folder), context)
        neural.make_trainer(stage, network, Path(folder), context).fit(encoded)
    rows_per_second = len(rows) / -(-len(rows) // stage.batch_size) / step_seconds
    step = f"a step {1e3 * step_seconds:.1f} ms, {busy:.0%} of it kernels"
    return rows_per_second, f"{rows_per_second:.0f} rows/s, {step}, {peak_gpu_gib():.2f} GiB"


def fit_with_checkpoints(case: Case, folder: Path, epochs: int) -> None:
    """In a process that may be killed: a fit that writes checkpoints all the time."""
    trainer.SECONDS_BETWEEN_CHECKPOINTS, trainer.WRITES_BETWEEN = 0.2, 1
    case.fit(folder, epochs=epochs)


def hide_cards() -> None:
    """First thing in the worker that predicts on the cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


class Checks:
    """The checks, in the order in which they run: a method each."""

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.folder = folder
        self.tiny = tiny
        self.seconds = 0.1 if tiny else 3.0  # of training that are timed
        self.n_failed = 0
        self.on_cores = ProcessPoolExecutor(1, SPAWN, hide_cards)  # a worker that sees no card
        self.networks = {}
        for name, settings in NETWORKS.items():
            if not tiny:
                self.networks[name] = Case(settings, folder)
            elif settings["kind"] in TINY:
                self.networks[name] = tiny_case(settings, folder)

    def result(self, passed: bool, line: str) -> None:
        """Print the line of a check."""
        self.n_failed += not passed
        print(f"{'PASS' if passed else 'FAIL'} {line}", flush=True)

    def info(self, line: str) -> None:
        """Print a measurement."""
        print(f"INFO {line}", flush=True)

    def new_folder(self) -> Path:
        """An empty folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def distance(self, case: Case, folder: Path) -> float:
        """The largest difference of predictions on the card and on the cores, in standard deviations."""
        cores = self.on_cores.submit(case.predict, folder).result()
        return difference(case.predict(folder), cores)

    def env(self) -> None:
        cards, reason = visible_cards()
        has_card = any(not card.fault for card in cards) or self.tiny
        self.result(has_card, f"torch {torch.__version__}, {os.cpu_count()} cores, cards {cards or reason}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x = torch.randn(64, 64, dtype=dtype)
            largest = float(((x.to(device) @ x.to(device)).cpu() - x @ x).abs().max())
            self.result(
                largest < 1, f"a product of matrices in {dtype} differs from the cores by {largest:.1e}"
            )

    def small(self) -> None:
        for name, (problem_type, settings) in SMALL.items():
            if not torch.cuda.is_available():
                settings = {**settings, "precision": "auto"}
            case, folder = tiny_case(settings, self.folder, problem_type), self.new_folder()
            case.fit(folder)
            distance = self.distance(case, folder)
            limit = FP16_LIMIT if settings.get("precision") == "fp16" else LIMIT
            self.result(distance < limit, f"small {name}: card against cores {distance:.1e}")

    def real(self) -> None:
        for name, case in self.networks.items():
            folders = [self.new_folder(), self.new_folder()]
            for folder in folders:
                case.fit(folder)
            one, other = (case.predict(folder) for folder in folders)
            bf16 = 0.0
            if torch.cuda.is_available():
                bf16 = difference(case.predict(folders[0], precision="bf16"), one)
            distance = self.distance(case, folders[0])
            self.result(
                distance < LIMIT,
                f"{name}: card against cores {distance:.1e}, bf16 {bf16:.1e}; two fits {difference(one, other):.1e}",
            )

    def memory(self) -> None:
        if not torch.cuda.is_available():
            return
        free_gpu_memory()
        before, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
        gib = 0.75
        torch.cuda.set_per_process_memory_fraction((before + gib * 2**30) / total)
        folder = self.new_folder()
        try:
            Case(MINILM, self.folder).fit(folder, epochs=1, batch_size=512)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        notes = [note for note in read_notes(folder) if "too small for batches" in note]
        self.result(bool(notes), f"batches of 512 in {gib} GiB: {', '.join(notes) or 'none became smaller'}")
        left = torch.cuda.memory_allocated() - before
        self.result(left < 2**20, f"{left / 2**20:.1f} MiB stay on the card after a fit")

    def speed(self) -> None:
        for name, case in self.networks.items():
            for factor in (1, 8):
                size = factor * case.stage().batch_size
                _, text = time_training(case, self.seconds, batch_size=size)
                self.info(f"{name}, batches of {size}: {text}")

    def jobs(self) -> None:
        for name in ("gnn", "unimol, compact", "bert of MiniLM's size"):
            rates = []
            for n in (1, 2, 4):
                arguments = (self.networks[name], self.seconds, time.time() + START)
                with ProcessPoolExecutor(n, SPAWN) as pool:
                    futures = [pool.submit(time_training, *arguments) for _ in range(n)]
                    rates.append(f"{n}: {sum(future.result()[0] for future in futures):.0f}")
            self.info(f"{name}, rows/s of all jobs: {', '.join(rates)}")

    def pipeline(self) -> None:
        folder = self.new_folder()
        stages = {
            "quarter": {"kind": "gnn", "epochs": 10, "gpu": 0.25},
            "half": {"kind": "unimol", "epochs": 4, "gpu": 0.5},
            "cores": {"kind": "gnn", "epochs": 1, "width": 16, "hidden_width": 16, "gpu": False},
        }
        call = [sys.executable, "-m", "pipeline", "full", "smoke", "--set", f"stages={json.dumps(stages)}"]
        environment = {**os.environ, "WORK_DIR": str(folder)}
        del environment["OMP_NUM_THREADS"]
        done = subprocess.run(call, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
        reports = [read_json(file) for file in folder.glob("smoke/models/*/*/seed_*/fold_*/report.json")]
        on_card = sorted(report["stage"]["gpu"] for report in reports if "gpu" in report["machine"])
        expected = [0.25] * 3 + [0.5] * 3 if torch.cuda.is_available() else []
        passed = done.returncode == 0 and on_card == expected
        self.result(
            passed, f"full: status {done.returncode}, {len(reports)} jobs, shares of the card {on_card}"
        )
        if not passed:
            print(done.stdout[-2000:] + done.stderr[-2000:], flush=True)

    def resume(self) -> None:
        for name, epochs in {"gnn": 100, "unimol, compact": 20}.items():
            case = self.networks[name]
            folders = [self.new_folder() for _ in range(3)]
            process = SPAWN.Process(target=fit_with_checkpoints, args=(case, folders[2], epochs))
            process.start()
            while process.is_alive() and not list(folders[2].glob("checkpoint_*.pt")):
                time.sleep(0.05)
            was_killed = process.is_alive()
            process.kill()
            process.join()
            for folder in folders:
                case.fit(folder, epochs)
            whole, other, continued = (case.predict(folder) for folder in folders)
            noise, distance = difference(other, whole), difference(continued, whole)
            passed = was_killed and distance <= max(3 * noise, LIMIT)
            self.result(passed, f"{name}, killed and continued: {distance:.1e}; two whole fits {noise:.1e}")

    def decoders(self) -> None:
        weights = self.new_folder()
        publish_decoder(weights, TINY_DECODER_SIZE if self.tiny else DECODER_SIZE)
        shared = {**BERT, "weights": str(weights), "pooling": "last", "max_length": 64}
        cases = {name: Case({**shared, **settings}, self.folder) for name, settings in DECODERS.items()}
        for name, case in cases.items():
            if "quantization" in case.settings and importlib.util.find_spec("bitsandbytes") is None:
                self.info(f"{name}: bitsandbytes is not installed")
                continue
            for length in (64, 512) if "lora" in case.settings else (64,):
                _, text = time_training(case, self.seconds, max_length=length)
                self.info(f"{name}, at most {length} tokens: {text}")
        case, folder = replace(cases["decoder, LoRA"], n_rows=64), self.new_folder()
        case.fit(folder, epochs=1)
        distance = self.distance(case, folder)
        self.result(distance < LIMIT, f"decoder, LoRA: card against cores {distance:.1e}")


CHECKS = ("env", "small", "real", "memory", "speed", "jobs", "pipeline", "resume", "decoders")


def difference(one: Any, other: Any) -> float:
    """The largest difference of two predictions, in standard deviations of the second."""
    return float((np.abs(one - other).max(axis=0) / other.std(axis=0)).max())


def run(checks: Checks, names: list[str], end: float) -> list[str]:
    """Run the checks for which there is time; return the others."""
    left_out = []
    for name in names:
        if time.monotonic() > end:
            left_out.append(name)
            continue
        try:
            getattr(checks, name)()
        except Exception as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            checks.result(False, f"{name}: {message[:300]}")
    return left_out


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=9.0, help="no check starts after them")
    options.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS)
    options.add_argument("--tiny", action="store_true", help="small networks, for a test of this script")
    args = options.parse_args(arguments)
    if not torch.cuda.is_available() and not args.tiny:
        print("torch sees no card on this machine, so there is nothing to check.")
        return 0
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(Path(folder), args.tiny)
        left_out = run(checks, list(args.only), end)
        checks.on_cores.shutdown()
    print(f"{checks.n_failed} failed; left out for time: {', '.join(left_out) or 'nothing'}")
    return 1 if checks.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
