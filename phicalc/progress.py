"""Lines that show how far a long task has got, and for how long it has run."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two lines of `saying_how_long`.
INTERVAL = 30.0


@contextmanager
def saying_how_long(
    what: str, say: Callable[[str], object], interval: float | None = None
) -> Iterator[None]:
    """Say every half minute how long the block has run so far, and at its end how long it took.

    A block that ends before the first of these lines is due says nothing.

    Parameters
    ----------
    what
        What the block does: "compiling the network".
    say
        Receives the lines, from another thread.
    interval
        Seconds between two lines; by default `INTERVAL`.
    """
    start, done, period = time.monotonic(), threading.Event(), interval or INTERVAL

    def watch() -> None:
        while not done.wait(period):
            say(f"still {what}: {time.monotonic() - start:.0f} s so far")

    watcher = threading.Thread(target=watch, name="phicalc-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        if time.monotonic() - start > period:
            say(f"finished {what} after {time.monotonic() - start:.0f} s")


#: Seconds before the first line of `Progress`, and the longest time between two of them.
FIRST, LONGEST = 10.0, 300.0


class Progress:
    """Prints some of the lines it is given: the first after 10 s, later ones more and more rarely.

    They go to the standard error.

    Parameters
    ----------
    label
        Begins every line.
    """

    def __init__(self, label: str):
        self.label = label
        self._start = time.monotonic()
        self._pause = FIRST
        self._next = self._start + FIRST

    def __call__(self, text: str) -> bool:
        """Print a line if it is time for one; returns whether it was."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._pause = min(self._pause * 1.5, LONGEST)
        self._next = now + self._pause
        line = f"{self.label}: {text} ({now - self._start:.0f} s)"
        print(line, file=sys.stderr, flush=True)
        return True
