"""Progress of a run: a bar on terminals, lines elsewhere, and none where nobody can read them."""

import sys
from time import perf_counter

from tqdm import tqdm

#: Seconds between lines where there is no terminal.
LINE_INTERVAL = 30.0


class Progress:
    """Shows how far a run is.

    Parameters
    ----------
    first, last
        Steps from which and to which it runs.
    timestep
        In fs.
    shown
        Whether to show anything.
    """

    def __init__(self, first: int, last: int, timestep: float, *, shown: bool) -> None:
        self._first, self._last, self._timestep = first, last, timestep
        self._start = self._said = perf_counter()
        self._note = ""
        terminal = sys.stderr.isatty()
        self._lines = shown and not terminal
        try:
            self._bar = tqdm(
                total=last, initial=first, unit="step", disable=not (shown and terminal)
            )
        except OSError:  # the terminal has been closed
            self._bar = tqdm(disable=True)

    def update(self, step: int) -> None:
        """Show that a step is done."""
        try:
            self._bar.update(step - self._bar.n)
            if self._lines and perf_counter() - self._said >= LINE_INTERVAL:
                self._said = perf_counter()
                print(f"step {step} of {self._last}{self._note}", file=sys.stderr, flush=True)
        except (OSError, ValueError):  # the terminal has been closed: the run has not
            self._lines, self._bar.disable = False, True

    def note(self, step: int, temperature: float) -> None:
        """Note temperature (K) and speed (ns/day), to be shown with the next steps."""
        speed = ns_per_day(step - self._first, self._timestep, perf_counter() - self._start)
        text = f"{temperature:.0f} K, {speed:.2f} ns/day"
        self._note = f": {text}"
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        try:
            self._bar.close()
        except (OSError, ValueError):
            self._bar.disable = True


def ns_per_day(steps: int, timestep: float, seconds: float) -> float:
    """Return simulated nanoseconds per day of wall time; `timestep` in fs."""
    return steps * timestep * 1e-6 / max(seconds, 1e-9) * 86400
