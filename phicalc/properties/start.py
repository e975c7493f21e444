"""Shared preparation and checks of all properties."""

import warnings

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS

from phicalc.structures import Structure, to_atoms

#: eV/Å: larger forces bend the results of small displacements.
LARGEST_FORCE = 0.05


def prepare(structure: Structure, calculator: Calculator | None, purpose: str) -> Atoms:
    """Copy a structure as atoms with a calculator.

    Raises
    ------
    ValueError
        If there is no calculator, or no atom.
    """
    atoms = to_atoms(structure)
    calculator = atoms.calc if calculator is None else calculator
    if calculator is None:
        raise ValueError(f"{purpose} needs a calculator: give calculator=…, or set atoms.calc")
    if len(atoms) == 0:
        raise ValueError(f"{purpose} needs at least one atom")
    copy = atoms.copy()
    copy.calc = calculator
    return copy


def need_crystal(atoms: Atoms, purpose: str) -> None:
    """Refuse structures that are not periodic in three directions.

    Raises
    ------
    ValueError
        If one is not.
    """
    if not atoms.pbc.all():
        raise ValueError(
            f"{purpose} needs a structure periodic in three directions, "
            f"got pbc={atoms.pbc.tolist()}"
        )


def warn_unrelaxed(atoms: Atoms, purpose: str) -> float:
    """Warn where forces are too large for a minimum; returns the largest, in eV/Å."""
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if largest > LARGEST_FORCE:
        warnings.warn(
            f"{purpose}: the largest force is {largest:.2f} eV/Å, the structure is not at a "
            "minimum: relax it first (phicalc relax)",
            UserWarning,
            stacklevel=3,
        )
    return largest


def relax_positions(atoms: Atoms, fmax: float, purpose: str) -> None:
    """Relax the positions at fixed cell, until no force exceeds `fmax` (eV/Å).

    Raises
    ------
    RuntimeError
        If they do not settle.
    """
    steps = 500
    with BFGS(atoms, logfile=None) as dynamics:
        if not dynamics.run(fmax=fmax, steps=steps):
            raise RuntimeError(
                f"{purpose}: the positions did not relax to {fmax} eV/Å in {steps} steps; "
                "start from a relaxed structure, or ask for a larger fmax"
            )
