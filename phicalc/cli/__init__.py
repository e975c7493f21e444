"""The command line: ``phicalc predict | relax | md | analyse | train | label | …``.

Parsing and printing only; every verb calls one function of the package.
"""

import argparse
import sys
from collections.abc import Sequence

from phicalc import __version__
from phicalc.cli.data import add_data, add_label
from phicalc.cli.dynamics import add_analyse, add_md
from phicalc.cli.engines import add_serve
from phicalc.cli.models import add_doctor, add_evaluate, add_info, add_models, add_train
from phicalc.cli.properties import add_elastic, add_eos, add_phonons, add_vibrations
from phicalc.cli.structures import add_predict, add_relax
from phicalc.md import MDInterrupted
from phicalc.system import keep_freed_memory, thread_count

#: What adds a verb to the parser and returns it, in the order of the help.
ADD_VERBS = (
    add_predict,
    add_relax,
    add_eos,
    add_elastic,
    add_phonons,
    add_vibrations,
    add_md,
    add_analyse,
    add_serve,
    add_label,
    add_data,
    add_train,
    add_evaluate,
    add_models,
    add_info,
    add_doctor,
)

#: Errors that tell the user what to change; anything else is a defect and shows its traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    That is 0, 2 after an error of the user, 128 + the number of a signal; ``data`` gives 1 if
    something looks wrong.
    """
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        with thread_count(options.threads):
            code: int = options.run(options) or 0
    except USER_ERRORS as error:
        if options.debug:
            raise
        print(f"phicalc {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MDInterrupted as error:
        print(f"phicalc {options.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"phicalc {options.verb}: interrupted; what was written stays", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    """Build the parser; every module of this package adds its verbs."""
    parser = argparse.ArgumentParser(
        prog="phicalc", description="Electrostatics-aware neural network potentials."
    )
    parser.add_argument("--version", action="version", version=f"phicalc {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in ADD_VERBS:
        verb = add(verbs)
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.add_argument("--threads", type=int, help="threads of torch (default: torch's choice)")
    return parser
