"""What a case is, and what its outcome is worth."""

import linecache
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

OK, WARNED, REFUSED, FAILED = "ok", "warned", "refused", "FAILED"

#: Errors that say what to change, if phicalc raises them on purpose.
_CLEAR = (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError)
_HERE = Path(__file__).parent


class Case(NamedTuple):
    """One input and what has to be said about it."""

    kind: str
    """What is odd about it, in one or two words: failures are grouped by it."""
    text: str
    """All of it, for people."""
    run: Callable[[], None]
    """Feed it in; raises what phicalc raises, or `Unsound` for a result that cannot be right."""
    must_refuse: bool = False
    """Whether a result without a warning is a failure, however good it looks."""
    names: tuple[str, ...] = ()
    """An error has to contain one of these words; empty accepts every text."""


class Outcome(NamedTuple):
    """What came of a case."""

    verdict: str
    signature: str = ""
    """Equal for failures of the same kind."""
    detail: str = ""


class Unsound(Exception):
    """A result that cannot be right; may be forgiven if a warning comes with it."""


class Unforgivable(Unsound):
    """The same where no warning helps: an unreadable traceback, say."""


class Refusal(Exception):
    """A clear error that did not arrive as an exception (the command line prints it)."""


class Expired(BaseException):
    """The case took too long; no `except Exception` stops this."""


def examine(case: Case, limit: int) -> Outcome:
    """Run a case for at most `limit` seconds of the processor; return what its answer is worth."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with _time_limit(limit):
                case.run()
        except Expired as error:
            return Outcome(FAILED, f"hang: {case.kind} @ {_place(error)}", f"over {limit} s")
        except Unforgivable as error:
            return Outcome(FAILED, f"{case.kind}: {_skeleton(str(error))}", str(error))
        except Unsound as error:
            if _user_warnings(caught):
                return Outcome(WARNED)
            return Outcome(FAILED, f"{case.kind}: {_skeleton(str(error))}", str(error))
        except (Exception, SystemExit) as error:
            return _of_error(case, error)
    if _user_warnings(caught):
        return Outcome(WARNED)
    if case.must_refuse:
        return Outcome(FAILED, f"accepted in silence: {case.kind}", case.text)
    return Outcome(OK)


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise `Expired` inside the block after so much time of the processor, or thrice of the clock.

    A busy machine makes no case hang, and a case that waits for something makes the clock go on.
    """

    def expire(number: int, frame: FrameType | None) -> None:
        raise Expired

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, 3 * seconds),
    }
    before = {number: signal.signal(number, expire) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit, 1.0)  # again, if a library swallows the first
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def _user_warnings(caught: list[warnings.WarningMessage]) -> bool:
    """Whether phicalc warned (libraries warn of deprecations and of divisions by zero)."""
    return any(issubclass(w.category, UserWarning) for w in caught)


def _of_error(case: Case, error: BaseException) -> Outcome:
    """Tell a clear error from a crash."""
    text = " ".join(str(error).split())
    detail = f"{type(error).__name__}: {text[:300]} @ {_place(error)}"
    if isinstance(error, Refusal) or _on_purpose(error):
        plain = re.sub(r"[-_ ]", "", text.lower())
        wanted = [re.sub(r"[-_ ]", "", name.lower()) for name in case.names]
        if not text:
            return Outcome(FAILED, f"{case.kind}: {type(error).__name__} without a text", detail)
        if wanted and not any(name in plain for name in wanted):
            signature = f"{case.kind}: the error does not name it: {_skeleton(text)}"
            return Outcome(FAILED, signature, f"{detail} [expected one of {case.names}]")
        return Outcome(REFUSED, detail=detail)
    return Outcome(FAILED, f"{type(error).__name__} @ {_place(error)}: {_skeleton(text)}", detail)


def _on_purpose(error: BaseException) -> bool:
    """Whether somebody wrote this error for users: a ``raise`` of phicalc, or Python's binding."""
    if not isinstance(error, _CLEAR):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_phicalc(frame.filename)]
    last = frames[-1]
    if isinstance(error, TypeError) and Path(last.filename).parent == _HERE:
        return True  # an unknown or missing keyword argument
    if not ours:
        return True  # refused by ASE or Python before phicalc saw it
    if isinstance(error, OSError) and error.filename is not None:
        return True
    if type(error).__module__.startswith("ase.calculators"):
        return True
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return _is_phicalc(last.filename) and line.startswith("raise")


def _is_phicalc(filename: str) -> bool:
    return "/phicalc/" in filename and _HERE not in Path(filename).parents


def _place(error: BaseException) -> str:
    """Innermost function of phicalc on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_phicalc(frame.filename)]
    if not ours:
        return "outside phicalc"
    return f"{ours[-1].filename.rpartition('/phicalc/')[2]}:{ours[-1].name}"


def _skeleton(text: str) -> str:
    """Text without what differs from case to case."""
    text = re.sub(r"(/[\w.@-]+)+", "PATH", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]", "…", text)
    return re.sub(r"[-+]?\d[\d.eE+-]*", "#", text)[:70]
