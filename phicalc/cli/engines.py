"""Verbs that work for other programs: ``serve``."""

import argparse

from phicalc.cli.arguments import add_structure, calculator_of
from phicalc.integrations.ipi import serve
from phicalc.structures import read_structures


def add_serve(verb: argparse.ArgumentParser) -> None:
    """Work for i-PI and other servers of structures."""
    verb.set_defaults(run=_serve)
    add_structure(verb, "-1")
    verb.add_argument("--unixsocket", help="name (/tmp/ipi_NAME) or path of a UNIX socket")
    verb.add_argument("--host", default="localhost", help="where the server listens")
    verb.add_argument("--port", type=int, help="TCP port (31415 without --unixsocket)")
    verb.add_argument("--wait", type=float, default=60.0, help="seconds for the server to appear")


def _serve(options: argparse.Namespace) -> None:
    atoms = read_structures(options.input, options.index)[-1]
    atoms.calc = calculator_of(options)
    served = serve(
        atoms,
        host=options.host,
        port=options.port,
        unixsocket=options.unixsocket,
        wait=options.wait,
    )
    end = "the server is done" if served.finished else "the server closed the connection"
    print(f"{served.structures} structures computed; {end}")
