"""Results attached to structures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from jaxtyping import Float

from phicalc.structures.pymatgen import Structure, to_atoms

#: Two atoms nearer than this (Å) are taken for a mistake in the input.
COINCIDENCE_DISTANCE = 0.1

#: Results of calculators that are written into files if they are there.
RESULTS = ("energy", "forces", "stress", "charges", "dipole")

#: What models with an uncertainty and committees add to them, in ``info`` or arrays: standard
#: deviations, and which atoms are outside of the training data.
DEVIATIONS = ("energy_std", "energies_std", "forces_std", "charges_std", "outside")


def same_structure(first: Atoms | None, second: Atoms) -> bool:
    """Whether positions, elements and cell are the same: ASE's own comparison takes longer."""
    return first is not None and all(
        np.array_equal(one, other)
        for one, other in (
            (first.positions, second.positions),
            (first.numbers, second.numbers),
            (first.cell.array, second.cell.array),
            (first.pbc, second.pbc),
        )
    )


def largest_force(atoms: Atoms) -> float:
    """Return the largest force on an atom in eV/Å; constraints are respected."""
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))


def snapshot(atoms: Atoms, **info: Any) -> Atoms:
    """Copy atoms together with the results that have been computed for them.

    Nothing is computed here. `info` is added to the copy's ``info``. Standard deviations, of
    models with an uncertainty and committees, stand in its ``info`` (``energy_std``) and arrays
    (``energies_std``, ``forces_std``, …).
    """
    copy = atoms.copy()
    copy.info.update(info)
    if atoms.calc is not None:
        offered = [name for name in RESULTS if name in atoms.calc.implemented_properties]
        results = {
            name: atoms.calc.get_property(name, atoms, allow_calculation=False) for name in offered
        }
        copy.calc = SinglePointCalculator(copy, **results)
        if copy.calc.results:
            _add_spread(copy, getattr(atoms.calc, "deviations", {}))
    return copy


def _add_spread(atoms: Atoms, spread: Mapping[str, Float[np.ndarray, "..."] | float]) -> None:
    """Note standard deviations: of atoms in arrays, others in ``info``."""
    for name, value in spread.items():
        if np.ndim(value):
            atoms.set_array(name, np.asarray(value))
        else:
            atoms.info[name] = float(value)


def evaluate_structures(
    frames: Sequence[Structure], calculator: Calculator, *, stress: bool = True
) -> list[Atoms]:
    """Return copies of the structures with the results of a calculator.

    Parameters
    ----------
    frames
        Structures of ASE or pymatgen; they are left alone.
    calculator
        Any ASE calculator.
    stress
        Compute the stress of those that are periodic in three directions, if the calculator can.
    """
    frames = [to_atoms(frame) for frame in frames]
    if hasattr(calculator, "batch"):
        return _evaluate_batch(frames, calculator, stress)
    results = []
    for frame in frames:
        atoms = frame.copy()
        calculator.reset()  # each result is that of its structure alone, not of a path to it
        atoms.calc = calculator
        if stress and atoms.pbc.all() and "stress" in calculator.implemented_properties:
            atoms.get_stress()  # first: the same evaluation gives energy and forces
        atoms.get_forces()
        results.append(snapshot(atoms))
    return results


def _evaluate_batch(frames: Sequence[Atoms], calculator: Any, stress: bool) -> list[Atoms]:
    """Do the same with a calculator that takes many structures at once."""
    copies = [frame.copy() for frame in frames]
    for atoms, results in zip(copies, calculator.batch(frames, stress=stress), strict=True):
        kept = {name: value for name, value in results.items() if name in RESULTS}
        atoms.calc = SinglePointCalculator(atoms, **kept)
        _add_spread(atoms, {name: results[name] for name in DEVIATIONS if name in results})
    return copies
