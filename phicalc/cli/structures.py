"""Verbs that take structures and give results: ``predict``, ``relax``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from phicalc.cli.arguments import add_scheduler, add_structure
from phicalc.cli.many import Relaxed, predict_each, raise_failures, relax_each
from phicalc.many import Failure
from phicalc.relax import OPTIMIZERS
from phicalc.structures import holds_results, largest_force, read_structures, write_structures
from phicalc.units import GPA_PER_EV_PER_CUBIC_ANGSTROM


def add_predict(verb: argparse.ArgumentParser) -> None:
    """Energies, forces, stresses and charges of structures."""
    verb.set_defaults(run=_predict)
    add_structure(verb, ":")
    verb.add_argument("--output", help="file for the results: .json, or extended XYZ otherwise")
    verb.add_argument("--no-stress", action="store_true", help="leave out the stress")
    add_scheduler(verb)


def _predict(options: argparse.Namespace) -> None:
    frames = read_structures(options.input, options.index)
    results = predict_each(frames, options)
    written = _write(options.output, results) if options.output else []  # before a reader can leave
    _print_results(results)
    for line in written:
        print(line)
    raise_failures(results)


def _print_results(results: Sequence[Atoms | Failure]) -> None:
    """Print a line for each structure; with standard deviations, if there are any."""
    heads = f"{'energy (eV)':>16} {'max |F| (eV/Å)':>15} {'charges (e)':>16}"
    good = [atoms for atoms in results if not isinstance(atoms, Failure)]
    uncertain = any("forces_std" in atoms.arrays for atoms in good)
    heads += f" {'σ_E (eV)':>10} {'max σ_F (eV/Å)':>15} {'outside':>8}" if uncertain else ""
    with_stress = any("stress" in atoms.calc.results for atoms in good)
    heads += f"  {'stress xx yy zz yz xz xy (GPa)'}" if with_stress else ""
    print(f"{'':>5}  {'formula':<16} {heads}")
    for number, atoms in enumerate(results):
        if isinstance(atoms, Failure):
            continue
        energy, force = atoms.get_potential_energy(), largest_force(atoms)
        line = f"{number:>5}  {atoms.get_chemical_formula():<16} {energy:>16.6f} {force:>15.4f}"
        line += f" {_charge_range(atoms):>16}"
        print(line + (_deviations(atoms) if uncertain else "") + _stress(atoms))


def _write(path: str, results: Sequence[Atoms | Failure]) -> list[str]:
    """Write the structures that have results, if there are any, and return what to say of it."""
    good = [atoms for atoms in results if not isinstance(atoms, Failure)]
    if not good:
        return []
    written = write_structures(path, good)
    if holds_results(written):
        return [f"written: {written}"]
    beside = write_structures(written.with_name(f"{written.name}.results.json"), good)
    return [
        f"written: {written}",
        f"written: {beside}, as {written.name} holds structures without results",
    ]


def _deviations(atoms: Atoms) -> str:
    """Format the error bars, and how many atoms are outside of the training data."""
    largest = atoms.arrays["forces_std"].max(initial=0.0)
    flags = atoms.arrays.get("outside")
    outside = "–" if flags is None else f"{flags.sum()}"
    return f" {atoms.info['energy_std']:>10.4f} {largest:>15.4f} {outside:>8}"


def _stress(atoms: Atoms) -> str:
    """Format the stress in GPa, if there is one."""
    stress = atoms.calc.results.get("stress")
    if stress is None:
        return ""
    return "  " + " ".join(f"{value * GPA_PER_EV_PER_CUBIC_ANGSTROM:.4f}" for value in stress)


def _charge_range(atoms: Atoms) -> str:
    charges = atoms.calc.results.get("charges")
    if charges is None or not len(charges):
        return "–"
    return f"{charges.min():+.3f} … {charges.max():+.3f}"


def add_relax(verb: argparse.ArgumentParser) -> None:
    """Minima of the energy."""
    verb.set_defaults(run=_relax)
    add_structure(verb, "-1")
    verb.add_argument("--cell", action="store_true", help="relax the lattice vectors too")
    verb.add_argument("--symmetry", action="store_true", help="keep the space group")
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
    add_scheduler(verb)


def _relax(options: argparse.Namespace) -> None:
    outcomes = relax_each(read_structures(options.input, options.index), options)
    for outcome in outcomes:
        if not isinstance(outcome, Failure):
            _print_relaxed(outcome, options.cell)
    output = options.output or f"{Path(options.input).stem}_relaxed.extxyz"
    _write(output, [o if isinstance(o, Failure) else o.atoms for o in outcomes])
    raise_failures(outcomes)


def _print_relaxed(relaxed: Relaxed, cell: bool) -> None:
    result = relaxed.result
    state = "converged" if result.converged else "NOT converged"
    print(f"{state} after {result.steps} steps: max |F| = {result.max_force:.4f} eV/Å")
    print(f"energy: {relaxed.before:.6f} → {result.energy:.6f} eV")
    if cell:
        a, b, c, alpha, beta, gamma = relaxed.atoms.cell.cellpar()
        print(f"cell: {a:.4f} {b:.4f} {c:.4f} Å, {alpha:.2f} {beta:.2f} {gamma:.2f}°")
