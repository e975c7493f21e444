"""Requests to stop, which a run obeys after the step it is in."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Signals that ask a process to end: Ctrl-C, and what batch systems send first.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class MDInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal, after its state had been saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal has ended: 128 + its number."""
        return 128 + self.signal_number


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def name(self) -> str:
        """Name of the signal."""
        return signal.Signals(self.signal_number or 0).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collect signals to stop inside the block; a second one acts at once, as ever.

    Outside the main thread, where Python allows no handlers, signals act as ever.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            # None: a handler that Python does not know and cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        restore()

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
