"""Run a verb: threads, memory, and errors as one line."""

import argparse
import sys

from phicalc.system import keep_freed_memory, thread_count

#: Errors that tell the user what to change; anything else is a defect and shows its traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


def run(options: argparse.Namespace) -> int:
    """Run the verb that was parsed; returns the exit code, 2 after an error of the user."""
    keep_freed_memory()
    try:
        with thread_count(options.threads):
            return options.run(options) or 0
    except USER_ERRORS as error:
        if options.debug:
            raise
        print(f"phicalc {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
