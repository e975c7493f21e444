"""The verb ``validate``."""

import argparse
from collections.abc import Sequence

from ase import Atoms

from phicalc.cli.arguments import COMPILE_MODES
from phicalc.cli.data import json_object
from phicalc.labelling import CalculatorSpec
from phicalc.labelling.calculators import XTB_METHODS
from phicalc.plugins import is_foreign
from phicalc.structures import read_structures
from phicalc.validation import (
    Subject,
    ValidationConfig,
    all_checks,
    subject_of_model,
    subject_of_spec,
    validate,
)


def add_validate(verb: argparse.ArgumentParser) -> None:
    """Check a model, and write its certificate."""
    verb.set_defaults(run=_validate)
    verb.description = (
        "Check a model or any ASE calculator: walls at short distances, symmetries, far fragments, "
        "dynamics, and properties of molecules, crystals and liquids beside experiment. Write "
        "certificate.json and certificate.html beside the model. Start it again to continue. The "
        "exit code is 0 if all checks passed that apply, 1 if not."
    )
    verb.add_argument(
        "model",
        help=f"name or folder of a model or committee, {', '.join(XTB_METHODS)}, or "
        "package.module:Class of an ASE calculator",
    )
    verb.add_argument("--output", help="write into this folder (default: that of the model)")
    verb.add_argument("--overwrite", action="store_true", help="forget what earlier runs found")
    choice = verb.add_argument_group("checks", f"known: {', '.join(all_checks())}")
    choice.add_argument("--quick", action="store_true", help="run only what takes seconds")
    choice.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run these checks")
    choice.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these out")
    choice.add_argument("--limit-minutes", type=float, help="start no check after so long")
    _add_conditions(verb)
    _add_calculator(verb)


def _add_conditions(verb: argparse.ArgumentParser) -> None:
    group, default = verb.add_argument_group("conditions"), ValidationConfig()
    group.add_argument("--structures", help="try structures of this file, too; labels are compared")
    group.add_argument("--reference", metavar="CALCULATOR", help="compare with this calculator")
    for name, text in (
        ("temperature", "K, of dynamics"),
        (
            "highest-temperature",
            "K, of the check of stability (default: of the training data)",
        ),
        ("timestep", "fs, of dynamics"),
    ):
        value = getattr(default, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=float, default=value, help=text)
    group.add_argument("--seed", type=int, default=default.seed, help="of all random numbers")


def _add_calculator(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("calculator")
    group.add_argument("--device", default="auto", help="models: auto, cpu, cuda, …")
    group.add_argument("--dtype", default="float64", help="models: precision but for dynamics")
    group.add_argument(
        "--compile", default="auto", choices=tuple(COMPILE_MODES), help="models: compile them"
    )
    group.add_argument(
        "--elements", nargs="+", default=[], metavar="SYMBOL", help="others: elements to try"
    )
    group.add_argument(
        "--arguments", type=json_object, default={}, metavar="JSON", help="others: arguments"
    )
    group.add_argument("--charge-argument", help="others: the argument that takes the total charge")


def _subject(options: argparse.Namespace, structures: Sequence[Atoms]) -> Subject:
    """Make what is validated."""
    if options.model in XTB_METHODS or is_foreign(options.model):
        spec = CalculatorSpec(options.model, options.arguments, options.charge_argument)
        elements = [symbol for text in options.elements for symbol in text.split(",") if symbol]
        return subject_of_spec(spec, elements, structures)
    return subject_of_model(
        options.model,
        dtype=options.dtype,
        device=options.device,
        compile=COMPILE_MODES[options.compile],
        structures=structures,
    )


def _validate(options: argparse.Namespace) -> int:
    structures = read_structures(options.structures) if options.structures else []
    config = ValidationConfig(
        quick=options.quick,
        only=tuple(options.only),
        skip=tuple(options.skip),
        limit_minutes=options.limit_minutes,
        reference=None if options.reference is None else CalculatorSpec(options.reference),
        temperature=options.temperature,
        highest_temperature=options.highest_temperature,
        timestep=options.timestep,
        seed=options.seed,
    )
    subject = _subject(options, structures)
    found = validate(subject, options.output, config, overwrite=options.overwrite)
    print(f"{subject.name}: {found.summary}")
    folder = subject.folder if options.output is None else options.output
    print(f"written: {folder}/certificate.json, {folder}/certificate.html")
    return 0 if found.passed else 1
