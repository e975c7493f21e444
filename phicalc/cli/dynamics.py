"""Verbs of molecular dynamics: ``md`` and ``analyse``."""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from phicalc.cli.arguments import (
    add_scheduler,
    add_structure,
    as_setting,
    calculator_settings,
    make_calculator,
)
from phicalc.cli.replicas import run_each
from phicalc.md import MDConfig, MDResult, analyse_run, make_report, run_md
from phicalc.md.config import (
    CELL_MOTIONS,
    TRAJECTORY_FORMATS,
    VELOCITIES,
    RunDescription,
    read_description,
)
from phicalc.md.ensembles.offered import THERMOSTATS
from phicalc.md.folder import CONFIG_FILE
from phicalc.md.log import temperature
from phicalc.md.report.page import cells
from phicalc.md.velocities import degrees_of_freedom
from phicalc.pictures import with_error
from phicalc.structures import read_structures

#: Settings that are numbers or words, and their help.
_TEXTS = {
    "thermostat": "one of {thermostats}, or package.module:Class",
    "temperature": "target, and temperature of drawn velocities, in K",
    "temperature_end": "move the target to this temperature over the run, in K",
    "pressure": "target in bar",
    "pressure_end": "move the target to this pressure over the run, in bar",
    "axes": "with --cell-motion axes: lattice vectors whose lengths move, such as c or ab",
    "compressibility": "for Berendsen's barostat, in 1/bar",
    "timestep": "in fs",
    "steps": "number of time steps",
    "seed": "seed of velocities and noise",
    "thermostat_time": "relaxation time (Langevin: 1/friction), in fs",
    "barostat_time": "relaxation time or period, in fs",
    "log_interval": "steps between lines of the log",
    "trajectory_interval": "steps between frames",
    "checkpoint_interval": "steps between states to restart from",
    "max_force": "stop at a larger force on an atom, in eV/Å",
    "max_temperature": "stop at a higher temperature, in K",
    "committee_threshold": "warn when members disagree about a force by more than this, in eV/Å",
}
#: Settings that are one of a few words, and their help.
_CHOICES: dict[str, tuple[tuple[str, ...], str]] = {
    "ensemble": (tuple(THERMOSTATS), "what is kept constant"),
    "velocities": (VELOCITIES, "draw new ones, keep those of the file, or draw if it has none"),
    "cell_motion": (CELL_MOTIONS, "how the cell moves in npt"),
    "trajectory_format": (TRAJECTORY_FORMATS, "extended XYZ, or ASE's binary format"),
}


def add_md(verb: argparse.ArgumentParser) -> None:
    """Molecular dynamics."""
    verb.set_defaults(run=_md)
    add_structure(verb, "-1")
    # What is not given here comes from the file, and then from the defaults of the settings.
    verb.set_defaults(model=None, device=None, dtype=None, compile=None)
    verb.add_argument("--config", help="YAML file with settings; arguments override it")
    # `MDConfig` judges words and numbers, in the same sentences as those from the file.
    for name, (choices, text) in _CHOICES.items():
        offered = f"{{{','.join(choices)}}}"
        verb.add_argument(_flag(name), metavar=offered, type=as_setting, help=_help(name, text))
    thermostats = ", ".join(sorted({name for names in THERMOSTATS.values() for name in names}))
    for name, text in _TEXTS.items():
        metavar = name.rpartition("_")[2].upper()
        text = _help(name, text.format(thermostats=thermostats))
        verb.add_argument(_flag(name), metavar=metavar, type=as_setting, help=text)
    verb.add_argument(
        "--log-pressure",
        action="store_const",
        const=True,
        help="log the pressure in nve and nvt too",
    )
    verb.add_argument("--output", default="md", help="folder for log, trajectory and picture")
    verb.add_argument("--restart", action="store_true", help="continue the run in that folder")
    verb.add_argument("--overwrite", action="store_true", help="replace a run in that folder")
    verb.add_argument("--no-report", action="store_true", help="draw no picture of the run")
    verb.add_argument("--quiet", action="store_true", help="show no progress")
    verb.add_argument(
        "--replicas", type=int, default=1, help="runs of each structure, with seeds of their own"
    )
    add_scheduler(verb)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(name: str, text: str) -> str:
    """Return a help text with the default of the settings, which the parser does not know."""
    default = getattr(MDConfig(), name)
    return text if default is None else f"{text} (default: {default})"


def _md(options: argparse.Namespace) -> None:
    described = _described(options)
    given = {name: getattr(options, name) for name in MDConfig.__dataclass_fields__}
    given = {name: value for name, value in given.items() if value is not None}
    config = MDConfig(**{**described.settings, **given})
    frames = read_structures(options.input, options.index)
    calculator = make_calculator({**described.calculator, **calculator_settings(options)})
    if len(frames) > 1 or options.replicas != 1 or options.scheduler or options.workers != 1:
        run_each(frames, config, calculator, options)
        return
    atoms = frames[0]
    atoms.calc = calculator
    if not options.restart:
        _say_velocities(atoms, config)
    result = run_md(
        atoms,
        config,
        options.output,
        restart=options.restart,
        overwrite=options.overwrite,
        progress=not options.quiet,
    )
    _print_result(result, config)
    if not options.no_report:
        print(f"picture: {make_report(options.output)}")


def _say_velocities(atoms: Atoms, config: MDConfig) -> None:
    """Say that the velocities of the file are kept, if they are."""
    if config.velocities != "new" and np.any(atoms.get_momenta()):
        kelvin = temperature(atoms, degrees_of_freedom(atoms))
        print(f"velocities: those of the file, {kelvin:.0f} K (--velocities new draws others)")


def _described(options: argparse.Namespace) -> RunDescription:
    """Read the file with settings; a run to continue has its own."""
    own = Path(options.output) / CONFIG_FILE
    path = options.config or (own if options.restart and own.is_file() else None)
    if path is None:
        return RunDescription({}, {})
    settings, calculator = read_description(path)
    # Checkpoints compare these; they are no parameters.
    return RunDescription(settings, _without(calculator, "name", "sha256"))


def _without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in names}


def _print_result(result: MDResult, config: MDConfig) -> None:
    """Print what was done, averages, and where the files are."""
    if config.steps and result.first_step == config.steps:
        print(f"finished before: all {config.steps} steps are done; more --steps lengthen the run")
    else:
        if result.first_step:
            print(f"continued after step {result.first_step}")
        done = config.steps - result.first_step
        print(f"{done} steps in {result.seconds:.1f} s ({result.ns_per_day:.3g} ns/day)")
    if not math.isnan(result.drift):
        print(f"drift of the conserved energy: {result.drift:+.3g} meV/atom/ps")
    for name, unit in (("temperature", "K"), ("pressure", "bar"), ("density", "g/cm³")):
        if (mean := getattr(result, name)) is not None:
            print(f"mean {name}: {with_error(mean.value, mean.error)} {unit}")
    for name in ("log", "trajectory", "final"):
        print(f"{name}: {getattr(result, name)}")


def add_analyse(verb: argparse.ArgumentParser) -> None:
    """Everything that a run says."""
    verb.set_defaults(run=_analyse)
    verb.add_argument("folder", help="output folder of phicalc md")
    verb.add_argument("--output", help="folder for table, picture and page (default: the run's)")
    verb.add_argument("--discard", type=float, default=0.2, help="fraction of the run to leave out")
    verb.add_argument("--stride", type=int, default=1, help="take every so many frames")


def _analyse(options: argparse.Namespace) -> None:
    found = analyse_run(
        options.folder, output=options.output, discard=options.discard, stride=options.stride
    )
    for quantity, value, unit, note in map(cells, found.rows):
        print(f"{quantity:<32} {value:>18} {unit:<12} {note}")
    for name in ("table", "picture", "page"):
        print(f"{name}: {getattr(found, name)}")
