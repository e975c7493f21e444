"""Origin of dipole moments: the center of mass with the standard masses."""

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from jaxtyping import Float64


def center_of_mass(atoms: Atoms) -> Float64[np.ndarray, "3"]:
    """Return the center of mass in Å with the standard masses; zeros without atoms.

    Dipole moments of charged structures refer to it. Masses that the user has set do not matter:
    ASE does not tell calculators about them. `phicalc.graph.mass_centers` does the same for the
    structures of a batch.
    """
    if len(atoms) == 0:
        return np.zeros(3)
    return np.average(atoms.positions, axis=0, weights=atomic_masses[atoms.numbers])
