"""Charges with Gaussian widths, and sums of them, for the tests of electrostatics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.graph import AtomicGraph, from_ase

#: Periodic axes of one structure of each kind.
PBC = {
    "molecule": (False, False, False),
    "wire": (False, True, False),
    "slab": (True, False, True),
    "crystal": (True, True, True),
}

EXACT = CoulombSettings(1e-10, "ewald")


@dataclass(frozen=True)
class Ions:
    """A structure with its charges in e and Gaussian widths in Å."""

    atoms: Atoms
    charges: Tensor
    widths: Tensor

    def graph(self, settings: CoulombSettings = EXACT) -> AtomicGraph:
        return plan_coulomb(from_ase(self.atoms, 1.0), self.widths, settings, self.charges)

    def sum(self, settings: CoulombSettings = EXACT) -> CoulombSum:
        return CoulombSum(self.graph(settings), self.widths)

    def energy(self, settings: CoulombSettings = EXACT) -> float:
        return float(self.sum(settings).energy(self.charges))

    def forces(self, settings: CoulombSettings = EXACT) -> Tensor:
        graph = self.graph(settings)
        graph = graph._replace(positions=graph.positions.requires_grad_())
        energy = CoulombSum(graph, self.widths).energy(self.charges).sum()
        return -torch.autograd.grad(energy, graph.positions)[0]

    def changed(self, **arrays: object) -> Ions:
        """Copy with other ``positions``, ``cell`` or ``pbc``."""
        atoms = self.atoms.copy()
        for name, value in arrays.items():
            setattr(atoms, name, value)
        return replace(self, atoms=atoms)


def random_ions(
    seed: int,
    pbc: tuple[bool, bool, bool] = (True, True, True),
    *,
    n_ions: int = 5,
    net_charge: float | None = 0.0,
    widths: tuple[float, float] = (0.4, 1.1),
    density: float = 0.04,
) -> Ions:
    """Ions anywhere in a random triclinic cell; charges of 1 e rms, and what makes up the net."""
    rng = np.random.default_rng([20260101, seed])
    heights = np.zeros(3)
    while heights.min() < 2.5:
        cell = rng.normal(size=(3, 3))
        cell *= (n_ions / density / abs(np.linalg.det(cell))) ** (1 / 3)
        heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    atoms = Atoms(f"H{n_ions}", cell=cell, pbc=pbc, scaled_positions=rng.random((n_ions, 3)))
    charges = rng.normal(size=n_ions)
    if net_charge is not None:
        charges += (net_charge - charges.sum()) / n_ions
    spread = rng.uniform(*widths, n_ions) if widths[0] < widths[1] else np.full(n_ions, widths[0])
    return Ions(atoms, torch.as_tensor(charges), torch.as_tensor(spread))


def float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rms(forces: Tensor) -> float:
    """Root mean square length of the forces in eV/Å."""
    return math.sqrt(float(forces.square().sum(1).mean()))
