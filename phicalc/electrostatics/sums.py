"""Electrostatic sums of Gaussian charges: the interaction matrix A, whole or applied to charges.

A_ij is the interaction of unit charges at i and j with all images, so that E = ½ qᵀ A q.
Open structures are summed directly, periodic ones by Ewald's method; both are the same
code, since the split at α = 0 leaves the direct sum.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.electrostatics import kernels
from phicalc.graph import AtomicGraph, CoulombPlan, pair_vectors, sum_per_structure


class CoulombSum:
    """The interaction matrix A of a batch, for one geometry (differentiable in it).

    Parameters
    ----------
    graph
        Batch with a Coulomb plan (`plan_coulomb`).
    smearing
        Gaussian width σ of each atom in Å.

    References
    ----------
    P. P. Ewald, Ann. Phys. 369, 253 (1921); for Gaussian charges and the background of charged
    cells see Gingrich & Wilson, Chem. Phys. Lett. 500, 178 (2010).
    """

    def __init__(self, graph: AtomicGraph, smearing: Float64[Tensor, " n_atoms"]):
        if graph.coulomb is None:
            raise ValueError("the graph has no Coulomb plan: call potential.prepare(graph) first")
        self.graph = graph
        self.plan: CoulombPlan = graph.coulomb
        self.smearing = smearing
        splitting = self.plan.splitting
        first, second = self.plan.pair_index
        distance = pair_vectors(graph, self.plan.pair_index, self.plan.pair_shifts).norm(dim=1)
        width = torch.sqrt(smearing[first] ** 2 + smearing[second] ** 2)
        self.pair = kernels.pair_interaction(distance, width, splitting[graph.batch[first]])
        self.diagonal = kernels.self_interaction(smearing, splitting[graph.batch])
        self._set_reciprocal_part()

    def _set_reciprocal_part(self) -> None:
        """Phases k·r of every slot, weights of every k, and the background of charged cells."""
        splitting = self.plan.splitting
        identity = torch.eye(3, dtype=torch.float64, device=splitting.device)
        cell = torch.where((splitting > 0)[:, None, None], self.graph.cell, identity)
        volume = torch.linalg.det(cell).abs()
        reciprocal_cell = 2 * math.pi * torch.linalg.inv(cell).transpose(1, 2)
        k = self.plan.kvectors.to(cell) @ reciprocal_cell  # (n_structures, n_k, 3)
        phase = self.to_slots(self.graph.positions) @ k.transpose(1, 2)
        self.cosine, self.sine = torch.cos(phase), torch.sin(phase)
        self.weight = kernels.reciprocal_interaction((k * k).sum(2), splitting, volume)
        self.background = kernels.background_interaction(splitting, volume)

    def to_slots(self, values: Float64[Tensor, "n_atoms ..."]) -> Float64[Tensor, "s m ..."]:
        """Lay per-atom values out as a padded table, zero in empty slots."""
        padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return padded[self.plan.atom_of_slot]

    def from_slots(self, values: Float64[Tensor, "s m"]) -> Float64[Tensor, " n_atoms"]:
        """Gather per-atom values from a padded table."""
        return values.reshape(-1)[self.plan.slot_of_atom]

    def total(self, values: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_structures"]:
        """Sum per-atom values over each structure."""
        return sum_per_structure(values, self.graph)

    def potential(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Electrostatic potential A q at each atom in eV/e, without forming A."""
        return (
            self._pair_potential(charges)
            + self._reciprocal_potential(charges)
            + self.diagonal * charges
            + self._background_potential(charges)
        )

    def _pair_potential(self, charges: Tensor) -> Tensor:
        first, second = self.plan.pair_index
        potential = torch.zeros_like(charges).index_add(0, first, self.pair * charges[second])
        return potential.index_add(0, second, self.pair * charges[first])

    def _reciprocal_potential(self, charges: Tensor) -> Tensor:
        slotted = self.to_slots(charges)[:, None, :]  # (s, 1, m)
        real = (slotted @ self.cosine).squeeze(1) * self.weight  # structure factor, (s, n_k)
        imaginary = (slotted @ self.sine).squeeze(1) * self.weight
        potential = self.cosine @ real[:, :, None] + self.sine @ imaginary[:, :, None]
        return self.from_slots(potential.squeeze(2))

    def _background_potential(self, charges: Tensor) -> Tensor:
        constant, per_square = (term[self.graph.batch] for term in self.background)
        total = self.total(charges)[self.graph.batch]
        spread = self.total(charges * self.smearing**2)[self.graph.batch]
        return (constant - per_square * self.smearing**2) * total - per_square * spread

    def matrix(self) -> Float64[Tensor, "s m m"]:
        """Form A itself, one padded matrix per structure in eV/e²; zero in empty slots."""
        first, second = self.plan.pair_index
        n_structures, n_slots = self.plan.atom_of_slot.shape
        row, column = self.plan.slot_of_atom[first], self.plan.slot_of_atom[second] % n_slots
        matrix = self.pair.new_zeros(n_structures * n_slots * n_slots)
        matrix = matrix.index_add(0, row * n_slots + column, self.pair)
        matrix = matrix.reshape(n_structures, n_slots, n_slots)
        matrix = matrix + matrix.transpose(1, 2)
        for phase in (self.cosine, self.sine):
            matrix = matrix + (phase * self.weight[:, None, :]) @ phase.transpose(1, 2)
        constant, per_square = (term[:, None, None] for term in self.background)
        square = self.to_slots(self.smearing**2)
        matrix = matrix + constant - per_square * (square[:, :, None] + square[:, None, :])
        matrix = matrix + torch.diag_embed(self.to_slots(self.diagonal))
        occupied = (self.plan.atom_of_slot < self.graph.n_atoms).to(matrix)
        return matrix * occupied[:, :, None] * occupied[:, None, :]
