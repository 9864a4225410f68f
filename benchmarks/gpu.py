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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from competition.dataset import Dataset
from competition.molecules import canonical_smiles
from competition.task import Task
from core.files import PROJECT
from core.yaml_files import dump_yaml
from models import targets
from models.context import Context
from models.registry import make_stage
from models.stage import read_notes
from models.training import checkpoint, neural
from models.training.hardware import free_gpu_memory, visible_cards

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
DECODER = {**BERT, "weights": "decoder", "pooling": "last", "max_length": 64}
DECODERS: dict[str, dict[str, Any]] = {
    "decoder, LoRA": {**DECODER, "lora": {}},
    "decoder, LoRA, checkpointing": {**DECODER, "lora": {}, "gradient_checkpointing": True},
    "decoder, LoRA, NF4": {**DECODER, "lora": {}, "quantization": "nf4"},
    "decoder, all weights": DECODER,
}
"""Networks whose weights are written by `publish_decoder`."""
TINY: dict[str, dict[str, Any]] = {
    "gnn": {"width": 16, "hidden_width": 16},
    "unimol": {"architecture": "compact", "layers": 1, "width": 16, "heads": 2},
    "bert": {"layers": 1, "width": 16, "heads": 2},
}
"""Changes by kind that make a network small."""
HEAD = {"kind": "multi_sample", "samples": 3, "dropout": 0.2}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "gnn": ("regression", {"kind": "gnn", "weight_averaging": "ema", "aggregation": ["mean", "sum", "norm"]}),
    "gnn, classes": ("multiclass", {"kind": "gnn", "head": HEAD}),
    "gnn, fp16": ("regression", {"kind": "gnn", "precision": "fp16", "backbone_dropout": 0.1}),
    "unimol": ("regression", {"kind": "unimol", "conformers": 2, "layer_decay": 0.9}),
    "unimol, labels": ("multilabel", {"kind": "unimol", "gradient_accumulation_steps": 2}),
    "bert": ("regression", {"kind": "bert", "r_drop": 0.5, "pooler_dropout": 0.1}),
    "bert, classes": ("multiclass", {"kind": "bert", "class_weights": "balanced", "gradient_checkpointing": True}),
    "bert, labels": ("multilabel", {"kind": "bert", "label_smoothing": 0.1, "schedule": "one_cycle"}),
}  # fmt: skip
"""Name -> type of the targets, and settings."""
DECODER_SIZE = {
    "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
"""Settings of the configuration of Qwen/Qwen3-0.6B."""
TINY_DECODER_SIZE = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
LIMITS = {"auto": 1e-3, "float32": 1e-3, "fp16": 2e-2, "bf16": 2e-2}
"""Precision -> largest difference of predictions on the card and on the cores, in their standard deviations."""
WARM_UP, N_PROFILED = 10, 6
"""Steps before the clock starts, and steps in which kernels are timed after it has stopped."""
GIB = 2**30


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

    folder: of the caches and of the decoder's weights.
    tiny: whether it is small.
    """

    settings: dict[str, Any]
    folder: Path
    tiny: bool = False
    problem_type: Any = "regression"
    n_rows: int = 512

    def rows(self) -> tuple[Dataset, Context]:
        """Training rows, and what the stage is told; for classes, the labels are those of thirds or halves."""
        table = TWEETS if self.settings["kind"] == "bert" else MOLECULES
        rows, context = read_rows(*table, 60 if self.tiny else self.n_rows)
        context = replace(context, cache=self.folder / "cache")
        if self.problem_type == "multiclass":
            thirds = np.searchsorted(np.quantile(rows.y, [1 / 3, 2 / 3]), rows.y).astype(float)
            return replace(rows, y=thirds), replace(
                context, task=Task(["y"], problem_type="multiclass", classes=["a", "b", "c"])
            )
        if self.problem_type == "multilabel":
            halves = np.hstack([rows.y > np.median(rows.y), rows.y > np.quantile(rows.y, 0.8)]).astype(float)
            halves[::7, 1] = np.nan
            return replace(rows, y=halves), replace(
                context, task=Task(["y", "z"], problem_type="multilabel", classes=["0", "1"])
            )
        return rows, context

    def stage(self, **changes: Any) -> Any:
        """The stage with its settings and changes of them."""
        settings = {**self.settings, **changes}
        if "weights" in settings:
            settings["weights"] = str(publish_decoder(self.folder / "decoder", self.tiny))
        elif self.tiny:
            settings |= TINY.get(settings["kind"], {})
        return make_stage(settings)

    def fit(self, folder: Path, **changes: Any) -> None:
        """Train and keep the weights."""
        rows, context = self.rows()
        targets.fit(self.stage(**{"epochs": 2, **changes}), rows, folder, context)

    def predict(self, folder: Path, **changes: Any) -> Any:
        """Predictions of the last rows by the weights in the folder, (n_rows, n_outputs)."""
        rows, context = self.rows()
        last = rows.take(np.arange(len(rows))[-128:]).without_labels()
        return targets.predict(self.stage(**changes), last, folder, context)


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


class TimedError(Exception):
    """Ends a training that has been timed."""


class Stopwatch:
    """Times the steps of a training that calls it after each of them, counts kernels of some more, and ends it.

    seconds: how long steps are timed.
    begin: time of the clock at which all jobs start to be timed.
    """

    def __init__(self, seconds: float, begin: float = 0.0) -> None:
        self.seconds = seconds
        self.begin = begin
        self.first = self.last = 0
        self.step_seconds = 0.0
        self.kernel_seconds = float("nan")
        self.profile: Any = None

    def __call__(self, step: int, total: int) -> None:
        if not self.first and step >= WARM_UP:
            synchronize()
            time.sleep(max(0.0, self.begin - time.time()))
            self.first, self.started = step, time.perf_counter()
        elif self.first and not self.last and time.perf_counter() - self.started > self.seconds:
            synchronize()
            self.last, self.step_seconds = step, (time.perf_counter() - self.started) / (step - self.first)
            kernels = torch.profiler.ProfilerActivity.CUDA
            if kernels not in torch.profiler.supported_activities():
                raise TimedError
            self.profile = torch.profiler.profile(activities=[kernels])
            self.profile.__enter__()
        elif self.last and step - self.last >= N_PROFILED:
            synchronize()
            self.profile.__exit__(None, None, None)
            events = self.profile.key_averages()
            self.kernel_seconds = sum(event.self_device_time_total for event in events) / 1e6 / N_PROFILED
            raise TimedError


def synchronize() -> None:
    """Wait until the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_training(case: Case, watch: Stopwatch, **changes: Any) -> tuple[float, str]:
    """Rows a second, and these with the time of a step, the share of kernels and the peak of memory as text."""
    free_gpu_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    (rows, context), stage = case.rows(), case.stage(epochs=10_000, **changes)
    context = replace(context, progress=watch)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimedError):
        network, encoded = neural.prepare(stage, rows, Path(folder), context)
        neural.make_trainer(stage, network, Path(folder), context).fit(encoded)
    rows_per_second = len(rows) / -(-len(rows) // stage.batch_size) / watch.step_seconds
    memory = torch.cuda.max_memory_reserved() / GIB if torch.cuda.is_available() else float("nan")
    busy = 100 * watch.kernel_seconds / watch.step_seconds
    step = f"a step {1e3 * watch.step_seconds:.1f} ms, {busy:.0f} % of it kernels"
    return rows_per_second, f"{rows_per_second:.0f} rows/s, {step}, {memory:.2f} GiB"


def time_job(case: Case, seconds: float, begin: float) -> float:
    """In a process beside others: rows a second."""
    return time_training(case, Stopwatch(seconds, begin))[0]


def fit_with_checkpoints(case: Case, folder: Path, epochs: int) -> None:
    """In a process that may be killed: a fit that writes checkpoints all the time."""
    checkpoint.SECONDS_BETWEEN, checkpoint.WRITES_BETWEEN = 0.2, 1
    case.fit(folder, epochs=epochs)


def hide_cards() -> None:
    """First thing in the worker that predicts on the cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


class Checks:
    """The checks, in the order in which they run: a method each."""

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.folder = folder
        self.tiny = tiny
        self.spawn = multiprocessing.get_context("spawn")
        self.n_failed = 0
        self.n_folders = 0

    @cached_property
    def on_cores(self) -> ProcessPoolExecutor:
        """A worker that sees no card."""
        return ProcessPoolExecutor(1, self.spawn, hide_cards)

    def result(self, passed: bool, line: str) -> None:
        """Print the line of a check."""
        self.n_failed += not passed
        print(f"{'PASS' if passed else 'FAIL'} {line}", flush=True)

    def info(self, line: str) -> None:
        """Print a measurement."""
        print(f"INFO {line}", flush=True)

    def case(self, settings: dict[str, Any], tiny: bool = False, **more: Any) -> Case:
        """A network and its rows."""
        return Case(settings, self.folder, tiny or self.tiny, **more)

    def new_folder(self) -> Path:
        """An empty folder."""
        self.n_folders += 1
        folder = self.folder / str(self.n_folders)
        folder.mkdir()
        return folder

    def networks(self) -> dict[str, Case]:
        """The networks of real size."""
        kinds = ["gnn", "unimol", "bert"] if self.tiny else ["gnn", "unimol", "unimol2", "bert"]
        return {name: self.case(each) for name, each in NETWORKS.items() if each["kind"] in kinds}

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
            case, folder = self.case(settings, tiny=True, problem_type=problem_type), self.new_folder()
            if not torch.cuda.is_available():
                case = replace(case, settings={**settings, "precision": "auto"})
            case.fit(folder)
            distance = self.distance(case, folder)
            limit = LIMITS[case.settings.get("precision", "auto")]
            self.result(distance < limit, f"small {name}: card against cores {distance:.1e}")

    def real(self) -> None:
        for name, case in self.networks().items():
            folders = [self.new_folder(), self.new_folder()]
            for folder in folders:
                case.fit(folder)
            one, other = (case.predict(folder) for folder in folders)
            bf16 = (
                difference(case.predict(folders[0], precision="bf16"), one)
                if torch.cuda.is_available()
                else 0
            )
            distance = self.distance(case, folders[0])
            self.result(
                distance < LIMITS["auto"],
                f"{name}: card against cores {distance:.1e}, bf16 {bf16:.1e}; two fits {difference(one, other):.1e}",
            )

    def memory(self) -> None:
        if not torch.cuda.is_available():
            return
        free_gpu_memory()
        before, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
        gib = 0.002 if self.tiny else 0.75
        torch.cuda.set_per_process_memory_fraction((before + gib * GIB) / total)
        folder = self.new_folder()
        try:
            self.case(MINILM).fit(folder, epochs=1, batch_size=512)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        notes = [note for note in read_notes(folder) if "too small for batches" in note]
        self.result(
            bool(notes), f"batches of 512 in {gib:g} GiB: {', '.join(notes) or 'none became smaller'}"
        )
        left = torch.cuda.memory_allocated() - before
        self.result(left < 2**20, f"{left / 2**20:.1f} MiB stay on the card after a fit")

    def speed(self) -> None:
        for name, case in self.networks().items():
            for factor in (1, 8):
                size = factor * case.stage().batch_size
                _, text = time_training(case, Stopwatch(0.1 if self.tiny else 2.0), batch_size=size)
                self.info(f"{name}, batches of {size}: {text}")

    def jobs(self) -> None:
        seconds, start = (0.1, 15) if self.tiny else (4.0, 20)  # all processes have started by then
        for name in ("gnn", "unimol, compact", "bert of MiniLM's size"):
            rates = {}
            for n in (1, 2) if self.tiny else (1, 2, 4):
                with ProcessPoolExecutor(n, self.spawn) as pool:
                    begin = time.time() + start
                    case = self.networks()[name]
                    futures = [pool.submit(time_job, case, seconds, begin) for _ in range(n)]
                    rates[n] = sum(future.result() for future in futures)
            self.info(
                f"{name}, rows/s of all jobs: {', '.join(f'{n}: {rate:.0f}' for n, rate in rates.items())}"
            )

    def pipeline(self) -> None:
        folder, tables = self.new_folder(), DATA / "smoke"
        stages = {
            "quarter": {"kind": "gnn", "epochs": 10, "gpu": 0.25},
            "half": {"kind": "unimol", "epochs": 4, "gpu": 0.5},
            "cores": {"kind": "gnn", "epochs": 1, "width": 16, "hidden_width": 16, "gpu": False},
        }
        competition: dict[str, Any] = {
            "id": "id",
            "targets": ["homo_eV", "lumo_eV", "mu_D"],
            "smiles": ["SMILES"],
            "metric": "r2",
        }
        competition |= {name: str(tables / f"{name}.csv") for name in ("train", "test", "sample_submission")}
        sections = {"competition": competition, "folds": {"n_folds": 4}, "stages": stages}
        (folder / "card.yaml").write_text(dump_yaml(sections))
        call = [sys.executable, "-m", "pipeline", "full", str(folder / "card.yaml")]
        path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "WORK_DIR": str(folder / "work"), "PYTHONPATH": path}
        del environment["OMP_NUM_THREADS"]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        files = folder.glob("work/card/models/*/*/seed_*/fold_*/report.json")
        reports = [json.loads(file.read_text()) for file in files]
        on_card = sorted(report["stage"]["gpu"] for report in reports if "gpu" in report["machine"])
        expected = [0.25] * 4 + [0.5] * 4 if torch.cuda.is_available() else []
        passed = done.returncode == 0 and on_card == expected
        self.result(
            passed, f"full: status {done.returncode}, {len(reports)} jobs, shares of the card {on_card}"
        )
        if not passed:
            print(done.stdout[-2000:] + done.stderr[-2000:], flush=True)

    def resume(self) -> None:
        epochs = {"gnn": 100, "unimol, compact": 20}
        for name in ("gnn", "unimol, compact"):
            case, predictions, was_killed = self.networks()[name], [], False
            for kills in (False, False, True):
                folder = self.new_folder()
                for _ in range(1 + kills):
                    process = self.spawn.Process(
                        target=fit_with_checkpoints, args=(case, folder, epochs[name])
                    )
                    process.start()
                    while kills and not was_killed and process.is_alive():
                        time.sleep(0.05)
                        if list(folder.glob("checkpoint_*")):
                            process.kill()
                            was_killed = True
                    process.join()
                predictions.append(case.predict(folder))
            noise, distance = (difference(predictions[i], predictions[0]) for i in (1, 2))
            passed = was_killed and distance <= max(3 * noise, LIMITS["auto"])
            self.result(passed, f"{name}, killed and continued: {distance:.1e}; two whole fits {noise:.1e}")

    def decoders(self) -> None:
        for name, settings in DECODERS.items():
            if "quantization" in settings and importlib.util.find_spec("bitsandbytes") is None:
                self.info(f"{name}: bitsandbytes is not installed")
                continue
            for length in (64, 512) if "lora" in settings and not self.tiny else (64,):
                watch = Stopwatch(0.1 if self.tiny else 3.0)
                _, text = time_training(self.case(settings), watch, max_length=length)
                self.info(f"{name}, at most {length} tokens: {text}")
        case, folder = self.case(DECODERS["decoder, LoRA"], n_rows=64), self.new_folder()
        case.fit(folder, epochs=1)
        distance = self.distance(case, folder)
        self.result(distance < LIMITS["auto"], f"decoder, LoRA: card against cores {distance:.1e}")


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
