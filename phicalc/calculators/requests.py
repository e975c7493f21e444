"""Requests to a calculator: for which structure, and whether a property is defined there."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError


def given_or_last(atoms: Atoms | None, last: Atoms | None) -> Atoms:
    """Return the structure to compute: the given one, or that of the last calculation.

    Raises
    ------
    ase.calculators.calculator.InputError
        If there is neither.
    """
    chosen = last if atoms is None else atoms
    if chosen is None:
        raise InputError("no structure yet: pass atoms, or compute an energy first")
    return chosen


def refuse_undefined(properties: Sequence[str], atoms: Atoms) -> None:
    """Refuse properties that do not exist under these boundary conditions.

    Raises
    ------
    ase.calculators.calculator.PropertyNotImplementedError
        For a stress without three periodic axes, and a dipole moment with any.
    """
    if "stress" in properties and not atoms.pbc.all():
        raise PropertyNotImplementedError(
            f"stress is defined for pbc=[True, True, True] only, got pbc={atoms.pbc.tolist()}"
        )
    if "dipole" in properties and atoms.pbc.any():
        raise PropertyNotImplementedError(
            "the dipole of a periodic structure depends on the choice of the cell: it is given for "
            f"pbc=[False, False, False] only, got pbc={atoms.pbc.tolist()}"
        )
