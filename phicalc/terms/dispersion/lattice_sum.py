"""The dispersion energy of a batch, ``E = −½ Σ_ij c_i c_j f(r_ij)/r_ij⁶`` with ``c_i = √C_i``.

Because of the geometric mean it is a sum like that of charges, over all pairs and images. The
damped interaction is smooth: without periodic axes it is summed pair by pair, and otherwise in
Fourier space alone.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.electrostatics.sums.mesh import MeshSum
from phicalc.electrostatics.sums.waves import WaveSum
from phicalc.graph import (
    AtomicGraph,
    DispersionPlan,
    from_slots,
    of_structure,
    reciprocal_boxes,
    sum_per_structure,
    to_slots,
    volumes,
)
from phicalc.terms.dispersion import formulas


class DispersionSum:
    """The matrix D of ``f(r)/r⁶``, images included, for one geometry (differentiable in it).

    Parameters
    ----------
    graph
        Batch with a plan of its dispersion sums (`plan_dispersion`).
    cutoff
        Of the network, in Å: the damping f is nearly 1 beyond it.

    Raises
    ------
    ValueError
        If the graph has no plan.
    """

    def __init__(self, graph: AtomicGraph, cutoff: float):
        if graph.dispersion is None:
            raise ValueError("the graph has no dispersion plan: call potential.prepare(graph)")
        self.graph = graph
        self.plan: DispersionPlan = graph.dispersion
        self.a = formulas.damping_parameter(cutoff)
        first, second = self.plan.pair_index
        ends = (graph.positions.index_select(0, each) for each in (second, first))
        x, y, z = torch.sub(*ends).unbind(1)
        self.pair = formulas.attraction(x * x + y * y + z * z, self.a)
        self.summed = graph.pbc.any(1)  # in Fourier space
        self.itself = formulas.self_interaction(self.a) * self.summed.double()
        self.box = self._box()
        self.volume = volumes(self.box)
        self.uniform = self._uniform()
        self.waves = self._waves() if self.plan.places.shape[1] else None
        self.meshes = list(self._meshes()) if self.plan.mesh is not None else []

    def _box(self) -> Float64[Tensor, "s 3 3"]:
        """Boxes with edges along all axes; unit cubes for direct sums."""
        plan, cell = self.plan, self.graph.cell
        identity = torch.eye(3, dtype=torch.float64, device=cell.device)
        if plan.basis is not None:
            on_mesh = plan.basis.to(cell) @ cell
            cell = torch.where(plan.basis.any(2).any(1)[:, None, None], on_mesh, cell)
        if plan.open_axes is not None:
            lengths = (2 * math.pi / plan.largest_k).tolist()
            each = zip(cell, self.graph.pbc, lengths, plan.open_axes.tolist(), strict=True)
            cell = torch.stack([complete_box(c, p, n) if some else c for c, p, n, some in each])
        return torch.where(self.summed[:, None, None], cell, identity)

    def _uniform(self) -> Float64[Tensor, " s"]:
        """Interaction of each pair due to k = 0; it is part of the integral over open axes."""
        found = torch.where(self.summed, formulas.uniform_interaction(self.a) / self.volume, 0.0)
        if self.plan.open_axes is None:
            return found
        return torch.where(self.plan.open_axes, 0.0, found)

    def _waves(self) -> WaveSum:
        """Sum over the k vectors of the plan, each of which stands for ±k."""
        plan = self.plan
        reciprocal_box = reciprocal_boxes(self.box)
        ranges = (plan.nodes_a, plan.nodes_b, plan.nodes_c)
        axes = zip(ranges, plan.places.unbind(2), strict=True)
        k = torch.stack([nodes.gather(1, place) for nodes, place in axes], dim=2) @ reciprocal_box
        square = torch.where(plan.measure > 0, (k * k).sum(2), 1.0)
        fading = formulas.fading(square.sqrt() / plan.largest_k[:, None])
        strength = 2 / self.volume[:, None] * plan.measure * fading
        weight = strength * formulas.transform(square, self.a)
        positions = to_slots(self.graph.positions, self.graph)
        return WaveSum(positions, reciprocal_box, k, weight, plan.places, ranges)

    def _meshes(self) -> Iterator[tuple[Int64[Tensor, " n"], MeshSum]]:
        """Atoms and mesh of every structure that has one."""
        assert self.plan.mesh is not None
        for structure, (a, b, c, order) in enumerate(self.plan.mesh.tolist()):
            if not order:
                continue
            atoms = (self.graph.batch == structure).nonzero().squeeze(1)
            box, pbc = self.box[structure], self.graph.pbc[structure]
            yield (
                atoms,
                MeshSum(
                    self.graph.positions[atoms], box, pbc, (a, b, c), order, self.a,
                    formulas.transform,
                ),
            )  # fmt: skip

    def atomic_energies(self, root: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return ``−½ c_i Σ_j D_ij c_j`` in eV for roots c of dispersion coefficients, eV^½ Å³.

        Their sum over a structure is differentiable, not each of them: derivatives of one energy
        cost less than those of many.
        """
        energy, felt = self._energy_and_field(root)
        values = -0.5 * root.detach() * felt
        n_atoms = sum_per_structure(torch.ones_like(values), self.graph).clamp(min=1)
        return values + of_structure((energy - energy.detach()) / n_atoms, self.graph)

    def _energy_and_field(
        self, root: Float64[Tensor, " n"]
    ) -> tuple[Float64[Tensor, " s"], Float64[Tensor, " n"]]:
        """Energy of each structure, and ``Σ_j D_ij c_j`` of each atom as a constant."""
        batch, (first, second) = self.graph.batch, self.plan.pair_index
        pairs = self.pair * root.index_select(0, first) * root.index_select(0, second)
        total = sum_per_structure(root, self.graph)
        alone = self.itself * sum_per_structure(root * root, self.graph)
        energy = 0.5 * (self.uniform * total**2 - alone)
        if self.graph.n_structures == 1:
            energy = energy + pairs.sum()
        else:
            energy = energy.index_add(0, batch[first], pairs)
        with torch.no_grad():
            felt = of_structure(self.uniform * total, self.graph)
            felt = felt - of_structure(self.itself, self.graph) * root
            felt = felt.index_add(0, first, self.pair * root.index_select(0, second))
            felt = felt.index_add(0, second, self.pair * root.index_select(0, first))
        if self.waves is not None:
            slots = to_slots(root, self.graph)
            energy = energy + self.waves.energy(slots)
            with torch.no_grad():
                felt = felt + from_slots(self.waves.potential(slots), self.graph)
        for atoms, mesh in self.meshes:
            on_mesh, near = mesh.energy(root[atoms])
            energy = energy.index_add(0, batch[atoms[:1]], on_mesh[None])
            felt = felt.index_add(0, atoms, near)
        return -energy, felt
