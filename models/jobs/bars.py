"""The bar of a run on a terminal, and lines above it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from competition.durations import BAR


class Bars:
    """One bar over all tasks; a task that reports its steps counts by its share of them. A log gets no bar.

    Args:
        noun: what the tasks are.
        messages: queue of (index of a task, share of its steps).
    """

    def __init__(self, n_tasks: int, noun: str, messages: Any) -> None:
        self.shares, self.said = [0.0] * n_tasks, ""
        self.bar = tqdm(
            total=float(n_tasks),
            desc=noun,
            disable=not sys.stderr.isatty(),
            bar_format=BAR,
            leave=False,
        )
        self.messages = messages
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while (message := self.messages.get()) is not None:
            index, share = message
            with self.lock:
                self.shares[index] = max(self.shares[index], share)
                self.bar.n = sum(self.shares)
                self.bar.refresh()

    def finished(self, index: int, speak: Callable[[], None]) -> None:
        """Count a finished task and print what it says, above the bar."""
        with self.lock:
            self.shares[index] = 1.0
            self.bar.clear()
            speak()
            sys.stdout.flush()
            self.bar.refresh()

    def say(self, words: str) -> None:
        """Print words above the bar, if they are not those of the last time."""
        if words != self.said:
            with self.lock:
                self.bar.clear()
                print(words, flush=True)
                self.bar.refresh()
            self.said = words

    def close(self) -> None:
        """Take the bar away."""
        self.messages.put(None)
        self.thread.join()
        self.bar.close()
