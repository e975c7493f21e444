"""Small structures of given elements, without any symmetry that could hide a mistake."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii


def structures_of(elements: Sequence[str]) -> dict[str, Atoms]:
    """Make a molecule, a crystal and a slab.

    Atoms sit about two covalent radii of the largest element apart, near the sites of a cubic
    lattice that is sheared. These are structures to differentiate, not to find in nature.

    Parameters
    ----------
    elements
        Chemical symbols, which follow one another.

    Raises
    ------
    ValueError
        For no elements, or something that is not one.
    """
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown or not elements:
        raise ValueError(f"elements must be chemical symbols, got {list(elements)}")
    rng = np.random.default_rng(11)
    spacing = 2 * max(covalent_radii[atomic_numbers[symbol]] for symbol in elements)
    sites = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = spacing * (sites + rng.uniform(-0.06, 0.06, sites.shape))
    symbols = [elements[index % len(elements)] for index in range(len(sites))]
    crystal = Atoms(symbols, positions, cell=[2 * spacing] * 3, pbc=True)
    shear = np.eye(3) + rng.uniform(-0.06, 0.06, (3, 3))
    crystal.set_cell(crystal.cell @ shear, scale_atoms=True)
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    molecule = crystal[:5]
    molecule.pbc = False
    molecule.cell = None
    return {"molecule": molecule, "crystal": crystal, "slab": slab}
