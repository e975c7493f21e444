"""The parser of the command line: all verbs by name, the module of a verb only when it is used."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from phicalc._version import __version__

#: Module of this package and one line of help for each verb, in the order of the help. The module
#: offers ``add_VERB(parser)``, which adds the arguments and sets ``run``.
VERBS = {
    "predict": ("structures", "Compute energies, forces, stresses and charges."),
    "relax": ("structures", "Relax positions, and the cell if asked."),
    "eos": ("properties", "Compute equilibrium volume and bulk modulus (Birch–Murnaghan)."),
    "elastic": ("properties", "Compute elastic constants, bulk and shear modulus."),
    "phonons": ("properties", "Compute phonon bands and density of states (phonopy)."),
    "vibrations": ("properties", "Compute frequencies and infrared intensities of a molecule."),
    "md": ("dynamics", "Run molecular dynamics: NVE, NVT or NPT."),
    "analyse": ("dynamics", "Analyze a finished run: averages, structure, dynamics, spectra."),
    "view": ("view", "Show structures or a run in 3D, with charges."),
    "serve": ("engines", "Compute forces for i-PI or another socket server."),
    "label": ("data", "Label structures with any ASE calculator."),
    "data": ("data", "Check labeled structures for mistakes."),
    "train": ("models", "Train a model as a YAML file describes."),
    "evaluate": ("models", "Measure the errors of a model on labeled structures."),
    "validate": ("validation", "Check a model or any calculator, and write its certificate."),
    "improve": ("improvement", "Label, train and validate until the certificate is passed."),
    "uncertainty": ("models", "Add error bars to a model that was trained without."),
    "models": ("models", "List the shipped and registered models."),
    "info": ("models", "Show versions and devices, or the card of a model."),
    "doctor": ("models", "Check the installation, and models against reference values."),
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not "(default: None)"."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Verb(argparse.ArgumentParser):
    """The parser of one verb; it gets its arguments when it is used.

    Options may stand anywhere, also among positional arguments.
    """

    fill: Callable[[argparse.ArgumentParser], None]
    _is_filled = _is_parsing = False

    def parse_known_args(  # type: ignore[override]  # of two overloads, the one that argparse calls
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments as ``argparse`` does, after adding what the verb understands."""
        if self._is_parsing:  # parsing of mixed arguments asks for plain parsing in turn
            return super().parse_known_args(args, namespace)
        self.complete()
        self._is_parsing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_parsing = False
        if unknown:  # said here, with the usage of the verb
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def complete(self) -> None:
        """Add the arguments of the verb."""
        if not self._is_filled:
            self._is_filled = True
            self.fill(self)
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")
            self.add_argument("--threads", type=int, help="use so many threads (default: torch's)")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="phicalc", description="Electrostatics-aware neural network potentials."
    )
    parser.add_argument("--version", action="version", version=f"phicalc {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="VERB", parser_class=Verb, title="verbs"
    )
    for name, (_, text) in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
        verb.fill = _filler(name)
    return parser


def _filler(name: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return what adds the arguments of a verb, and imports its module for that."""

    def fill(parser: argparse.ArgumentParser) -> None:
        module = import_module(f"phicalc.cli.{VERBS[name][0]}")
        getattr(module, f"add_{name}")(parser)

    return fill
