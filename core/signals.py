"""Signals that a process handles for a while, such as Ctrl-C and the alarm of a time limit."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(handler: Callable[..., Any] | signal.Handlers, *signals: signal.Signals) -> Iterator[bool]:
    """Set the handler of some signals, and yield True; yield False in another thread than the main one.

    Python handles signals in the main thread only, and `fit` may be called in any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    earlier = [(number, signal.signal(number, handler)) for number in signals]
    try:
        yield True
    finally:
        for number, earlier_handler in earlier:
            signal.signal(number, earlier_handler)
