"""Verbs about data to train on: ``label``, ``data``."""

import argparse
import json
import sys
from typing import Any

from phicalc.calculators.committee import is_committee
from phicalc.cli.keys import add_keys, keys_of
from phicalc.data.inspection_page import inspect_files
from phicalc.labelling import CalculatorSpec, label
from phicalc.labelling.calculators import XTB_METHODS
from phicalc.labelling.samplers import SAMPLERS, Sampler
from phicalc.structures import read_structures


def add_label(verb: argparse.ArgumentParser) -> None:
    """Labels from any ASE calculator."""
    verb.set_defaults(run=_label)
    verb.description = (
        "Compute energies, forces, charges, dipoles and stresses with any ASE calculator, for the "
        "structures of a file or for structures sampled from them. Start it again to continue."
    )
    verb.add_argument("input", help="structure file: extxyz, CIF, POSCAR, …")
    verb.add_argument("--index", default=":", help="which structures of the file, as in ASE")
    verb.add_argument("--output", default="labelled.extxyz", help="extended XYZ file")
    verb.add_argument("--overwrite", action="store_true", help="replace the file of another run")
    verb.add_argument("--charge", type=float, help="total charge in e (default: of the file, or 0)")
    verb.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    verb.add_argument(
        "--max-force", type=float, default=100.0, help="eV/Å: frames with more count as failed"
    )
    verb.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="fail a frame that takes longer or whose calculator crashes, and go on",
    )
    _add_calculator(verb)
    _add_sampling(verb)


def _add_calculator(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("calculator")
    group.add_argument(
        "--calculator",
        help=f"{', '.join(XTB_METHODS)} (default: {CalculatorSpec.name}), or package.module:Class "
        "of an ASE calculator",
    )
    group.add_argument("--model", help="label with this model of phicalc: its name, or its folder")
    group.add_argument(
        "--strict", action="store_true", help="with --model: fail frames outside of its domain"
    )
    group.add_argument(
        "--arguments", type=json_object, default={}, metavar="JSON", help="keyword arguments"
    )
    group.add_argument(
        "--charge-argument",
        help="keyword argument for the total charge (package.module:Class), or info: it reads it",
    )
    group.add_argument(
        "--dipole-origin",
        choices=("coordinates", "centre_of_mass"),
        help="what the dipoles of ions refer to (package.module:Class that gives some)",
    )


def _add_sampling(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("sampling")
    group.add_argument(
        "--sample",
        default="none",
        choices=tuple(SAMPLERS),
        help="none: take the structures; md: run Langevin dynamics with the same calculator; "
        "rattle: displace atoms and strain cells; relax: distort and relax; modes: displace along "
        "normal modes; torsions: turn about bonds; pairs: bring two atoms together; dissociation: "
        "pull molecules apart; compressed: scale cells or molecules",
    )
    group.add_argument(
        "--temperatures", type=float, nargs="+", help="md: run at these temperatures in K (300)"
    )
    for name, kind, text in _SAMPLING:
        group.add_argument(f"--{name}", type=kind, help=text)
    group.add_argument(
        "--relaxed", action="store_const", const=True, help="torsions: relax all else"
    )
    group.add_argument(
        "--rigid", action="store_const", const=True, help="compressed: keep shapes of molecules"
    )


#: Numbers that samplers take where they have a field of this name: name, type, help with defaults.
_SAMPLING: tuple[tuple[str, type, str], ...] = (
    ("frames", int, "frames of each trajectory: md (50), relax (4)"),
    ("interval", int, "steps between frames: md (20), relax (5)"),
    ("timestep", float, "md: time step in fs (0.5)"),
    ("thermostat-time", float, "md: 1/friction in fs (100)"),
    (
        "copies",
        int,
        "md: trajectories at each temperature (1); rattle: frames (20); relax: starts (2); pairs: "
        "of two elements (2); torsions: bonds at most (20); dissociation: cuts at most (10)",
    ),
    (
        "points",
        int,
        "steps of a scan: torsions (12), pairs (8), dissociation (12), compressed (9), modes (1)",
    ),
    (
        "displacement",
        float,
        "standard deviation in Å: rattle (0.05), relax (0.1), compressed (0.02)",
    ),
    ("strain", float, "rattle: standard deviation of components (0.02)"),
    (
        "smallest",
        float,
        "pairs: first distance in sums of covalent radii (0.5); compressed: first factor (0.85)",
    ),
    (
        "largest",
        float,
        "pairs, compressed: last one (1.5, 1.05); dissociation, modes: in Å (6, 0.3)",
    ),
    ("temperature", float, "modes: of the amplitudes, in K (300)"),
    ("delta", float, "modes: displacement for force constants in Å (0.01)"),
    ("steps", int, "torsions --relaxed: steps at most (20)"),
    ("fmax", float, "torsions --relaxed: largest force at the end in eV/Å (0.05)"),
    ("seed", int, "of all random numbers (0)"),
)

_SAMPLED = (
    "temperatures", "relaxed", "rigid", *(name.replace("-", "_") for name, *_ in _SAMPLING)
)  # fmt: skip


def json_object(text: str) -> dict[str, Any]:
    """Read the keyword arguments of a calculator.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text is no JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected an object such as {{"a": 1}}, got {text}')
    return value


def _sampler(options: argparse.Namespace) -> Sampler:
    """Make the sampler that the options describe."""
    kind = SAMPLERS[options.sample]
    given = {
        name: getattr(options, name) for name in _SAMPLED if getattr(options, name) is not None
    }
    unused = sorted(set(given) - set(kind.__dataclass_fields__) - {"seed"})
    if unused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ValueError(f"--sample {options.sample} does not take {flags}")
    given = {name: value for name, value in given.items() if name in kind.__dataclass_fields__}
    if "temperatures" in given:
        given["temperatures"] = tuple(given["temperatures"])
    return kind(**given)


def _spec(options: argparse.Namespace) -> CalculatorSpec:
    """Describe the calculator that labels: a model of phicalc, or another one."""
    if options.model is None:
        if options.strict:
            raise ValueError("--strict needs --model: other calculators know no domain")
        return CalculatorSpec(
            options.calculator or CalculatorSpec.name,
            options.arguments,
            options.charge_argument,
            options.dipole_origin,
        )
    if options.calculator is not None:
        raise ValueError("--model and --calculator name two calculators: choose one")
    name = "CommitteeCalculator" if is_committee(options.model) else "PhiCalculator"
    key = "models" if is_committee(options.model) else "model"
    arguments = {key: options.model, "strict": options.strict, **options.arguments}
    return CalculatorSpec(f"phicalc:{name}", arguments, "info")


def _label(options: argparse.Namespace) -> None:
    spec = _spec(options)
    result = label(
        read_structures(options.input, options.index),
        spec,
        options.output,
        _sampler(options),
        total_charge=options.charge,
        workers=options.workers,
        max_force=options.max_force,
        timeout=options.timeout,
        overwrite=options.overwrite,
    )
    for failure in result.failures:
        where = ", ".join(f"{key} {value}" for key, value in failure.items() if key != "error")
        print(f"failed: {where}: {failure['error']}")
    for text in result.warnings.values():
        print(f"phicalc: warning: {text}", file=sys.stderr)
    print(f"{result.n_frames} frames labelled, {len(result.failures)} failed")
    print(f"written: {result.path}, {result.provenance}")


def add_data(verb: argparse.ArgumentParser) -> None:
    """Look for what is wrong with labelled structures."""
    verb.set_defaults(run=_data)
    verb.description = (
        "Check labeled structures: sizes, label statistics, duplicates, outliers, missing labels, "
        "sums of charges and forces, units and signs, overlapping atoms. The exit code is 1 if "
        "something looks wrong."
    )
    verb.add_argument("files", nargs="+", help="check these extended XYZ files together")
    verb.add_argument("--output", help="write a page with pictures into this folder")
    add_keys(verb, "the name of the label")


def _data(options: argparse.Namespace) -> int:
    found = inspect_files(options.files, options.output, keys=keys_of(options))
    return 0 if found.is_sound else 1
