"""Verbs of molecular dynamics: ``md`` and ``analyse``."""

import argparse

from phicalc.cli.arguments import Verbs, add_structure, add_verb, calculator_of
from phicalc.md import MDConfig, analyse_run, make_report, run_md
from phicalc.md.config import THERMOSTATS
from phicalc.md.report import cells
from phicalc.structures import read_structures


def add_md(verbs: Verbs) -> argparse.ArgumentParser:
    """Molecular dynamics."""
    verb = add_verb(verbs, "md", _md, "Molecular dynamics: NVE, NVT or NPT.")
    add_structure(verb, "-1")
    default = MDConfig()
    thermostats = [name for names in THERMOSTATS.values() for name in names]
    verb.add_argument("--ensemble", default="nvt", choices=tuple(THERMOSTATS), help="ensemble")
    verb.add_argument(
        "--thermostat", choices=sorted(set(thermostats)), help="of nvt (langevin if not given)"
    )
    for name, text in (
        ("temperature", "K"),
        ("pressure", "bar"),
        ("timestep", "fs"),
        ("thermostat_time", "relaxation time in fs (Langevin: 1/friction)"),
        ("barostat_time", "fs"),
        ("max_force", "eV/Å: a larger force ends the run"),
        ("max_temperature", "K: a higher temperature ends the run"),
    ):
        _add_number(verb, name, float, default, text)
    for name, text in (
        ("steps", "number of time steps"),
        ("seed", "of velocities and noise"),
        ("log_interval", "steps between lines of the log"),
        ("trajectory_interval", "steps between frames"),
    ):
        _add_number(verb, name, int, default, text)
    verb.add_argument("--log-pressure", action="store_true", help="log the pressure in nve, nvt")
    verb.add_argument("--output", default="md", help="folder for log, trajectory and picture")
    verb.add_argument("--overwrite", action="store_true", help="replace a run in that folder")
    verb.add_argument("--no-report", action="store_true", help="draw no picture")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")
    return verb


def _add_number(
    verb: argparse.ArgumentParser, name: str, kind: type, default: MDConfig, text: str
) -> None:
    flag = "--" + name.replace("_", "-")
    verb.add_argument(flag, type=kind, default=getattr(default, name), help=text)


def _md(options: argparse.Namespace) -> None:
    atoms = read_structures(options.input, options.index)[-1]
    names = MDConfig.__dataclass_fields__
    config = MDConfig(**{name: getattr(options, name) for name in names if name in options})
    atoms.calc = calculator_of(options)
    result = run_md(
        atoms, config, options.output, overwrite=options.overwrite, progress=not options.quiet
    )
    print(f"{config.steps} steps in {result.seconds:.1f} s ({result.ns_per_day:.3g} ns/day)")
    for name in ("log", "trajectory", "final"):
        print(f"{name}: {getattr(result, name)}")
    if not options.no_report:
        print(f"picture: {make_report(options.output)}")


def add_analyse(verbs: Verbs) -> argparse.ArgumentParser:
    """Everything that a run says."""
    text = "Averages, structure, diffusion, dielectric constant and spectra of a finished run."
    verb = add_verb(verbs, "analyse", _analyse, text)
    verb.add_argument("folder", help="output folder of phicalc md")
    verb.add_argument("--output", help="folder for table, picture and page (default: the run's)")
    verb.add_argument("--discard", type=float, default=0.2, help="fraction of the run to leave out")
    verb.add_argument("--stride", type=int, default=1, help="take every so many frames")
    return verb


def _analyse(options: argparse.Namespace) -> None:
    found = analyse_run(
        options.folder, output=options.output, discard=options.discard, stride=options.stride
    )
    for quantity, value, unit, note in map(cells, found.rows):
        print(f"{quantity:<32} {value:>18} {unit:<12} {note}")
    for name in ("table", "picture", "page"):
        print(f"{name}: {getattr(found, name)}")
