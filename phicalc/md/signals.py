"""Requests to stop, which a run obeys after the current step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Signals that ask a process to end: Ctrl-C, those that batch systems send first, and the one that
#: a terminal sends when it is closed (which Windows does not have).
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


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
    """Collect signals to stop inside the block; a second one acts at once, as before.

    Signals that the process ignores, as SIGHUP under ``nohup``, stay ignored. Outside the main
    thread, where Python allows no handlers, signals act as before.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            # None: a handler that Python does not know and cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
