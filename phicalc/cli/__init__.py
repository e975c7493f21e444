"""The command line: ``phicalc predict | relax | md | analyse | train | label | …``.

Parsing and printing only; every verb calls one function of the package.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from phicalc.cli.parser import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    That is 0, 2 after an error of the user, 128 + the number of a signal; ``data`` gives 1 if
    something looks wrong.
    """
    options = argparse.Namespace(verb="")
    try:
        make_parser().parse_args(arguments, options)
        # Imported now: neither the version nor the help needs torch.
        code: int = import_module("phicalc.cli.running").run(options)
    except KeyboardInterrupt as error:
        text = str(error) or "interrupted; what was written stays"
        print(f"phicalc {options.verb}: {text}", file=sys.stderr)
        return int(getattr(error, "exit_code", 130))
    return code
