"""Constraints of ASE in a run: how restarts recognise them, and the numbers they carry along."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixConstraint
from ase.io.jsonio import encode
from jaxtyping import Float

from phicalc.structures.comparison import plain


def describe_constraints(atoms: Atoms) -> str:
    """Return the constraints of a structure as text that is equal for equal constraints."""
    return encode([_description(item) for item in atoms.constraints])


def check_constraint(constraint: FixConstraint, atoms: Atoms) -> None:
    """Do with a constraint what a run and its restart need.

    Raises
    ------
    Exception
        Whatever ASE raises if it cannot.
    """
    json.dumps(_description(constraint), allow_nan=False)
    constraint.get_removed_dof(atoms)


def constraint_state(atoms: Atoms) -> dict[str, Float[np.ndarray, "..."]]:
    """Return the numbers that constraints hold, by position in the list and name.

    Some are set at the first step, such as the lengths that `ase.constraints.FixBondLengths` keeps:
    a restart would take them from its own first step.
    """
    return {
        f"{number}.{name}": np.array(value)
        for number, item in enumerate(atoms.constraints)
        for name, value in vars(item).items()
        if isinstance(value, float) or getattr(value, "dtype", np.dtype(bool)).kind == "f"
    }


def restore_constraints(atoms: Atoms, state: Mapping[str, Float[np.ndarray, "..."]]) -> None:
    """Give constraints back the numbers that `constraint_state` took."""
    for key, value in state.items():
        number, _, name = key.partition(".")
        setattr(atoms.constraints[int(number)], name, value.copy() if value.ndim else value[()])


def _description(constraint: FixConstraint) -> Any:
    """Return ASE's description with numbers of Python: JSON knows no others."""
    return plain(constraint.todict())
