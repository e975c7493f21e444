"""A sound pair potential, and the same with one fault built in."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

CUTOFF = 6.0


class Pairs(Calculator):
    """Morse's potential between all pairs, to a smooth end, and charges that stay at home.

    `fault` breaks one thing; see `FAULTS` in the tests.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", "charges"]

    def __init__(self, fault: str = "", depth: float = 3.0, width: float = 2.0) -> None:
        super().__init__()
        self.fault, self.depth, self.width = fault, depth, width

    def todict(self):
        return {"fault": self.fault, "depth": self.depth, "width": self.width}

    def pair(self, r: np.ndarray, bond: np.ndarray) -> np.ndarray:
        decay = np.exp(-self.width * (r - bond))
        energy = self.depth * (decay**2 - 2 * decay)
        if self.fault == "hole":
            energy -= 400 * np.clip(0.6 * bond - r, 0, None) ** 2 * self.depth * 100
        if self.fault == "kink":
            return energy + 0.02 * np.clip(4.0 - r, 0, None)
        if self.fault == "jump":
            return energy - 0.01 * (r < 4.0)
        end = np.clip((CUTOFF - r) / 2, 0, 1)
        return energy * end**3 * (10 - 15 * end + 6 * end**2)

    def energy_of(self, atoms: Atoms) -> float:
        first, second, r, vectors = neighbor_list("ijdD", atoms, CUTOFF)
        radii = covalent_radii[atoms.numbers]
        pairs = self.pair(r, radii[first] + radii[second]) / 2
        if self.fault == "rotation":
            pairs = pairs * (1 + 0.02 * (vectors[:, 0] / np.maximum(r, 1e-9)) ** 2)
        if self.fault == "permutation":
            pairs = pairs * (1 + 0.1 * np.cos(first))
        energy = pairs.sum()
        if self.fault == "translation":
            energy += 0.05 * np.sin(atoms.positions).sum()
        if self.fault == "size":
            energy += 0.01 * len(atoms) ** 2
        return float(energy)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy = self.energy_of(atoms)
        if self.fault == "crash":
            raise ZeroDivisionError("a defect of the calculator")
        if self.fault == "nan":
            energy = np.nan
        forces = self._forces(atoms)
        if self.fault == "curl":
            forces = forces + 0.1 * np.cross(atoms.positions - atoms.positions.mean(0), [0, 0, 1])
        charges = np.zeros(len(atoms))
        if self.fault == "leak" and len(atoms) > 1:
            charges[0], charges[-1] = 0.2, -0.2
        if self.fault == "charges":
            charges += 0.1
        self.results = {"energy": energy, "free_energy": energy, "forces": forces,
                        "charges": charges}  # fmt: skip
        if atoms.pbc.all():
            scale = 1.3 if self.fault == "stress" else 1.0
            self.results["stress"] = scale * self._stress(atoms)

    def _slopes(self, atoms: Atoms, step: float = 1e-5):
        first, second, r, vectors = neighbor_list("ijdD", atoms, CUTOFF)
        radii = covalent_radii[atoms.numbers]
        bond = radii[first] + radii[second]
        slope = (self.pair(r + step, bond) - self.pair(r - step, bond)) / (2 * step)
        return first, slope[:, None] * vectors / r[:, None], vectors

    def _forces(self, atoms: Atoms) -> np.ndarray:
        first, slopes, _ = self._slopes(atoms)
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, slopes)
        return forces

    def _stress(self, atoms: Atoms) -> np.ndarray:
        _, slopes, vectors = self._slopes(atoms)
        stress = np.einsum("na,nb->ab", slopes, vectors) / 2 / atoms.get_volume()
        return stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
