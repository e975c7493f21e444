"""The command line: ``phicalc predict | relax | md | train | evaluate | info``.

Parsing and printing only; every verb calls one function of the package.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from phicalc import __version__
from phicalc.calculator import PhiCalculator
from phicalc.compiled import Mode
from phicalc.info import describe_installation, describe_model
from phicalc.md import MDConfig, make_report, run_md
from phicalc.md.config import THERMOSTATS
from phicalc.relax import OPTIMIZERS, relax
from phicalc.structures import (
    evaluate_structures,
    read_structures,
    snapshot,
    write_structures,
)
from phicalc.system import keep_freed_memory, thread_count
from phicalc.training import evaluate_model, train_from_yaml

#: Errors that tell the user what to change; anything else is a defect and shows its traceback.
USER_ERRORS = (ValueError, OSError, RuntimeError, ImportError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after an error of the user."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        with thread_count(options.threads):
            options.run(options)
    except USER_ERRORS as error:
        if options.debug:
            raise
        print(f"phicalc {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"phicalc {options.verb}: interrupted; what was written stays", file=sys.stderr)
        return 130
    return 0


def _predict(options: argparse.Namespace) -> None:
    frames = read_structures(options.input, options.index)
    calculator = _calculator(options)
    results = evaluate_structures(frames, calculator, stress=not options.no_stress)
    print(
        f"{'':>5}  {'formula':<16} {'energy (eV)':>16} {'max |F| (eV/Å)':>15} {'charges (e)':>16}"
    )
    for number, atoms in enumerate(results):
        energy = atoms.get_potential_energy()
        print(
            f"{number:>5}  {atoms.get_chemical_formula():<16} {energy:>16.6f} "
            f"{_largest_force(atoms):>15.4f} {_charge_range(atoms):>16}"
        )
    if options.output:
        print(f"written: {write_structures(options.output, results)}")


def _relax(options: argparse.Namespace) -> None:
    atoms = read_structures(options.input, options.index)[-1]
    atoms.calc = _calculator(options)
    before = atoms.get_potential_energy()
    result = relax(
        atoms,
        fmax=options.fmax,
        smax=options.smax,
        steps=options.steps,
        cell=options.cell,
        pressure=options.pressure,
        optimizer=options.optimizer,
        log="-" if options.verbose else None,
        trajectory=options.trajectory,
    )
    output = options.output or f"{Path(options.input).stem}_relaxed.extxyz"
    state = "converged" if result.converged else "NOT converged"
    print(f"{state} after {result.steps} steps: max |F| = {result.max_force:.4f} eV/Å")
    print(f"energy: {before:.6f} → {result.energy:.6f} eV")
    if options.cell:
        a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
        print(f"cell: {a:.4f} {b:.4f} {c:.4f} Å, {alpha:.2f} {beta:.2f} {gamma:.2f}°")
    print(f"written: {write_structures(output, [snapshot(atoms)])}")


def _md(options: argparse.Namespace) -> None:
    atoms = read_structures(options.input, options.index)[-1]
    names = MDConfig.__dataclass_fields__
    config = MDConfig(**{name: getattr(options, name) for name in names if name in options})
    atoms.calc = _calculator(options)
    result = run_md(
        atoms, config, options.output, overwrite=options.overwrite, progress=not options.quiet
    )
    print(f"{config.steps} steps in {result.seconds:.1f} s ({result.ns_per_day:.3g} ns/day)")
    for name in ("log", "trajectory", "final"):
        print(f"{name}: {getattr(result, name)}")
    if not options.no_report:
        print(f"picture: {make_report(options.output)}")


def _train(options: argparse.Namespace) -> None:
    train_from_yaml(options.config, options.overrides)


def _evaluate(options: argparse.Namespace) -> None:
    evaluate_model(options.model, options.data, options.output, device=options.device)


def _info(options: argparse.Namespace) -> None:
    _print_table(describe_model(options.model) if options.model else describe_installation())


_COMPILE_MODES: dict[str, Mode] = {"auto": "auto", "yes": True, "no": False}


def _calculator(options: argparse.Namespace) -> PhiCalculator:
    return PhiCalculator(
        options.model,
        device=options.device,
        dtype=options.dtype,
        total_charge=options.charge,
        compile=_COMPILE_MODES[options.compile],
    )


def _largest_force(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))


def _charge_range(atoms: Atoms) -> str:
    charges = atoms.calc.results.get("charges")
    return "–" if charges is None else f"{charges.min():+.3f} … {charges.max():+.3f}"


def _print_table(rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def _parser() -> argparse.ArgumentParser:
    """Build the parser, one function for each verb."""
    parser = argparse.ArgumentParser(
        prog="phicalc", description="Electrostatics-aware neural network potentials."
    )
    parser.add_argument("--version", action="version", version=f"phicalc {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_predict, _add_relax, _add_md, _add_train, _add_evaluate, _add_info):
        verb = add(verbs)
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.add_argument("--threads", type=int, help="threads of torch (default: torch's choice)")
    return parser


_Verbs = argparse._SubParsersAction


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not "(default: None)"."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _add_verb(verbs: _Verbs, name: str, run: object, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text, formatter_class=_HelpFormatter)
    verb.set_defaults(run=run)
    return verb


def _add_structure(verb: argparse.ArgumentParser, index: str) -> None:
    """Arguments of the verbs that evaluate structures."""
    verb.add_argument("input", help="structure file: extxyz, CIF, POSCAR, …")
    verb.add_argument("--index", default=index, help="which structures of the file, as in ASE")
    verb.add_argument("--model", default="water", help="name or folder of a model")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    verb.add_argument("--dtype", default="float32", help="precision: float32 or float64")
    verb.add_argument("--charge", type=float, help="total charge in e (default: of the file, or 0)")
    verb.add_argument(
        "--compile",
        default="auto",
        choices=tuple(_COMPILE_MODES),
        help="yes: compile the model, a minute or two once; auto: use what was compiled before",
    )


def _add_predict(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "predict", _predict, "Energy, forces, stress and charges.")
    _add_structure(verb, ":")
    verb.add_argument("--output", help="file for the results: .json, or extended XYZ otherwise")
    verb.add_argument("--no-stress", action="store_true", help="leave out the stress")
    return verb


def _add_relax(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "relax", _relax, "Relax positions, and the cell if asked.")
    _add_structure(verb, "-1")
    verb.add_argument("--cell", action="store_true", help="relax the lattice vectors too")
    verb.add_argument("--fmax", type=float, default=0.02, help="largest force at the end, eV/Å")
    verb.add_argument(
        "--smax", type=float, default=500.0, help="with --cell: largest stress at the end, bar"
    )
    verb.add_argument("--steps", type=int, default=500, help="give up after so many")
    verb.add_argument("--pressure", type=float, default=0.0, help="with --cell: in bar")
    verb.add_argument("--optimizer", default="lbfgs", choices=tuple(OPTIMIZERS), help="algorithm")
    verb.add_argument("--output", help="relaxed structure (default: INPUT_relaxed.extxyz here)")
    verb.add_argument("--trajectory", help="extended XYZ file for every step")
    verb.add_argument("--verbose", action="store_true", help="print every step")
    return verb


def _add_md(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "md", _md, "Molecular dynamics: NVE, NVT or NPT.")
    _add_structure(verb, "-1")
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


def _add_train(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "train", _train, "Train a model as a YAML file says.")
    verb.add_argument("config", help="YAML file")
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that go before")
    return verb


def _add_evaluate(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "evaluate", _evaluate, "Errors of a model on labelled structures.")
    verb.add_argument("model", help="name or folder of a model")
    verb.add_argument("data", help="extended XYZ file with labels")
    verb.add_argument("--output", help="folder for the errors and pictures")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    return verb


def _add_info(verbs: _Verbs) -> argparse.ArgumentParser:
    verb = _add_verb(verbs, "info", _info, "Versions, engines, devices, models.")
    verb.add_argument("model", nargs="?", help="show the card of this model instead")
    return verb


if __name__ == "__main__":
    sys.exit(main())
