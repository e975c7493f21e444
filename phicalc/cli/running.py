"""Run a verb: threads, memory, and errors as one line."""

import argparse
import os
import signal
import sys
import warnings

from phicalc.system import advice_on_threads, keep_freed_memory, thread_count

#: Errors that tell the user what to change; anything else is a defect and shows its traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)
#: Verbs that compute next to nothing.
QUICK = ("analyse", "data", "info", "models", "view")


def run(options: argparse.Namespace) -> int:
    """Run the verb that was parsed; returns the exit code, 2 after an error of the user."""
    keep_freed_memory()
    usual, warnings.formatwarning = warnings.formatwarning, _as_one_line
    try:
        with thread_count(options.threads):
            if options.verb not in QUICK and (advice := advice_on_threads()):
                print(f"phicalc: {advice}", file=sys.stderr)
            code: int = options.run(options) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of `phicalc models | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except USER_ERRORS as error:
        if options.debug:
            raise
        print(f"phicalc {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = usual
    return code


def _as_one_line(message: Warning | str, *_: object, **__: object) -> str:
    """Format a warning for people who do not know the source."""
    return f"phicalc: warning: {' '.join(str(message).split())}\n"
