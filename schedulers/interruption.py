"""Ctrl-C, SIGTERM, a deadline: end a sweep with everything saved."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ctrl_c_at_once() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt meanwhile, whoever notes it else."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interruption:
    """Notes the first SIGINT or SIGTERM to the driver; the second one is left to whoever handled it before.

    Attributes:
        wanted: Why the sweep should stop now, saving what runs; empty as long as it should not.
    """

    def __init__(self) -> None:
        self.wanted = ""
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Begin to listen; outside of the main thread signals cannot be listened to, and nothing is done."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def remove(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def want(self, why: str) -> None:
        """Let the sweep stop for this reason, unless it is stopping already."""
        if not self.wanted:
            self.wanted = why
            logger.warning("stopping, as %s: running trials finish their batch and are saved", why)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.want("it was told to stop")
        logger.warning("the same signal again stops at once")
        self.remove()
