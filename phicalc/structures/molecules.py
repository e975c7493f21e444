"""Which atoms are bonded, which molecules that makes, and where they can be made whole."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list
from jaxtyping import Bool, Float, Int

#: Atoms are bonded up to this multiple of the sum of their covalent radii.
BOND_STRETCH = 1.25
#: A bond of the first frame that grows beyond this multiple is broken.
BROKEN_STRETCH = 1.9
#: Alkali and alkaline-earth metals: ions, which are bonded to nobody.
IONS = (3, 11, 19, 37, 55, 12, 20, 38, 56)


class Molecules(NamedTuple):
    """Molecules of a structure."""

    labels: Int[np.ndarray, " n_atoms"]
    """Molecule of each atom, (n_atoms,)."""
    finite: Bool[np.ndarray, " n_molecules"]
    """Whether each molecule ends; the network of bonds of a crystal does not, (n_molecules,)."""
    bonds: Int[np.ndarray, "n_bonds 2"]
    """Pairs of bonded atoms, (n_bonds, 2)."""
    images: Int[np.ndarray, "n_atoms 3"]
    """Cells to go from each atom to its place in its whole molecule, (n_atoms, 3) integers."""

    @property
    def wholes(self) -> Int[np.ndarray, " n_atoms"]:
        """Group of each atom: its molecule if that is finite, else the atom alone, (n_atoms,)."""
        alone = len(self.finite) + np.arange(len(self.labels))
        groups = np.where(self.finite[self.labels], self.labels, alone)
        return np.unique(groups, return_inverse=True)[1]


def find_molecules(atoms: Atoms) -> Molecules:
    """Find the molecules of a structure from its distances and covalent radii."""
    first, second, shifts = _bonds(atoms)
    neighbors = defaultdict(list)
    for one, other, shift in zip(first, second, shifts, strict=True):
        neighbors[one].append((other, shift))
    labels = np.full(len(atoms), -1)
    images = np.zeros((len(atoms), 3), dtype=int)
    finite: list[bool] = []
    for root in range(len(atoms)):
        if labels[root] >= 0:
            continue
        labels[root], waiting = len(finite), [root]
        finite.append(True)
        while waiting:
            atom = waiting.pop()
            for neighbor, shift in neighbors[atom]:
                image = images[atom] + shift
                if labels[neighbor] < 0:
                    labels[neighbor], images[neighbor] = labels[root], image
                    waiting.append(neighbor)
                elif np.any(images[neighbor] != image):  # another way round the cell
                    finite[-1] = False
    ends = np.array(finite, dtype=bool)
    images[~ends[labels]] = 0
    bonds = np.stack([first, second], axis=1)
    return Molecules(labels, ends, bonds[bonds[:, 0] < bonds[:, 1]], images)


def longest_stretch(
    molecules: Molecules,
    numbers: Int[np.ndarray, " n_atoms"],
    positions: Float[np.ndarray, "n_frames n_atoms 3"],
) -> float:
    """Largest bond over all frames, in sums of covalent radii, of bonds in finite molecules.

    Parameters
    ----------
    molecules
        Those of the first frame.
    numbers
        Atomic numbers, (n_atoms,).
    positions
        Unwrapped positions in Å, molecules whole, (n_frames, n_atoms, 3).
    """
    inside = molecules.finite[molecules.labels[molecules.bonds[:, 0]]]
    first, second = molecules.bonds[inside].T
    if not len(first):
        return 0.0
    lengths = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1).max(axis=0)
    return float(
        (lengths / (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])).max()
    )


def _bonds(
    atoms: Atoms,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, "n 3"]]:
    """Both directions of every bond, and the cells it crosses."""
    boxed = atoms.copy()
    boxed.set_cell(complete_cell(atoms.cell))
    radii = BOND_STRETCH * covalent_radii[atoms.numbers]
    first, second, shifts = neighbor_list("ijS", boxed, radii, self_interaction=False)
    ionic = np.isin(atoms.numbers, IONS)
    kept = ~(ionic[first] | ionic[second])
    return first[kept], second[kept], shifts[kept]
