"""Lines that say what takes so long, and for how long it has taken."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two lines.
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
