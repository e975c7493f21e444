"""Electrostatic sums of Gaussian charges: the interaction matrix A, whole or applied to charges.

A_ij is the interaction of unit charges at i and j with all images, so that E = ½ qᵀ A q.
Pairs near each other are summed one by one, the smooth rest in Fourier space, with k vectors or on
a mesh. The direct sum of open structures is the same code: the split at α = 0 leaves no rest.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums import kernels
from phicalc.electrostatics.sums.boundary import complete_box, mean_interaction, truncation
from phicalc.electrostatics.sums.mesh import MeshSum
from phicalc.electrostatics.sums.waves import WaveSum
from phicalc.graph import (
    AtomicGraph,
    CoulombPlan,
    from_slots,
    of_structure,
    pair_vectors,
    reciprocal_boxes,
    sum_per_structure,
    to_slots,
    volumes,
)
from phicalc.units import COULOMB_CONSTANT


class CoulombSum:
    """The interaction matrix A of a batch, for one geometry (differentiable in it).

    Parameters
    ----------
    graph
        Batch with a Coulomb plan (`plan_coulomb`).
    smearing
        Gaussian width σ of each atom in Å.

    Raises
    ------
    ValueError
        If the graph has no Coulomb plan.

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
        self.pair = self._pair_interaction()
        self.diagonal = kernels.self_interaction(smearing, of_structure(self.plan.splitting, graph))
        self.box = self._box()
        volume = volumes(self.box)
        self.waves = self._waves(volume) if self.plan.kvectors.shape[1] else None
        self.background = self._background(volume)
        self.meshes = list(self._meshes()) if self.plan.mesh is not None else []

    def _pair_interaction(self) -> Float64[Tensor, " n_pairs"]:
        """Real-space interaction of every pair of the plan."""
        first, second = self.plan.pair_index
        vectors = pair_vectors(self.graph, self.plan.pair_index, self.plan.pair_shifts)
        x, y, z = vectors.unbind(1)
        square = self.smearing * self.smearing
        variance = square.index_select(0, first) + square.index_select(0, second)
        splitting = self.plan.splitting
        if self.graph.n_structures > 1:
            splitting = splitting[self.graph.batch[first]]
        return kernels.pair_interaction(x * x + y * y + z * z, variance, splitting)

    def _box(self) -> Float64[Tensor, "s 3 3"]:
        """Boxes that are periodic in all directions; unit cubes for direct sums."""
        splitting = self.plan.splitting
        identity = torch.eye(3, dtype=torch.float64, device=splitting.device)
        cell = self.graph.cell
        if self.plan.basis is not None:
            cell = self.plan.basis.to(cell) @ cell
        if self.plan.open_length is not None:
            lengths = self.plan.open_length.tolist()
            each = zip(cell, self.graph.pbc, lengths, strict=True)
            cell = torch.stack([complete_box(c, p, n) if n else c for c, p, n in each])
        return torch.where((splitting > 0)[:, None, None], cell, identity)

    def _waves(self, volume: Float64[Tensor, " s"]) -> WaveSum:
        """Sum over the k vectors of the plan."""
        reciprocal_box = reciprocal_boxes(self.box)
        k = self.plan.kvectors.to(self.box) @ reciprocal_box  # (n_structures, n_k, 3)
        weight = kernels.reciprocal_interaction((k * k).sum(2), self.plan.splitting, volume)
        if self.plan.open_length is not None:
            weight = weight * self._truncation(k)
        ranges = (self.plan.millers_a, self.plan.millers_b, self.plan.millers_c)
        places = self.plan.kvectors - torch.cat([each[:1] for each in ranges])
        positions = self.to_slots(self.graph.positions)
        return WaveSum(positions, reciprocal_box, k, weight, places, ranges)

    def _truncation(self, k: Float64[Tensor, "s n_k 3"]) -> Float64[Tensor, "s n_k"]:
        """Factors of the truncated kernels of structures with open axes; 1 for the others."""
        assert self.plan.open_length is not None
        factors = []
        for structure, length in enumerate(self.plan.open_length.tolist()):
            factor = torch.ones_like(k[structure, :, 0])
            if length:
                millers, pbc = self.plan.kvectors[structure], self.graph.pbc[structure]
                factor = truncation(millers, k[structure], pbc, 0.5 * length)
            factors.append(factor)
        return torch.stack(factors)

    def _background(
        self, volume: Float64[Tensor, " s"]
    ) -> tuple[Float64[Tensor, " s"], Float64[Tensor, " s"]]:
        """Terms (a, b) of the interaction ``a − b (σ_i² + σ_j²)`` of every pair with k = 0.

        In three dimensions that of the neutralising background, else the mean of the kernel.
        """
        constant, per_square = kernels.background_interaction(self.plan.splitting, volume)
        if self.plan.open_length is None:
            return constant, per_square
        periodic = self.graph.pbc.sum(1).tolist()
        each = zip(periodic, self.plan.open_length.tolist(), strict=True)
        means = volume.new_tensor([mean_interaction(n, r / 2) if r else 0.0 for n, r in each])
        open_axes = self.plan.open_length > 0
        constant = torch.where(open_axes, COULOMB_CONSTANT * means / volume, constant)
        return constant, torch.where(open_axes, 0.0, per_square)

    def _meshes(self) -> Iterator[tuple[Int64[Tensor, " n"], MeshSum]]:
        """Atoms and mesh of every structure that has one."""
        assert self.plan.mesh is not None
        for structure, (a, b, c, order) in enumerate(self.plan.mesh.tolist()):
            if not order:
                continue
            atoms = self.atoms_of(structure)
            splitting = float(self.plan.splitting[structure])
            yield (
                atoms,
                MeshSum(
                    self.graph.positions[atoms],
                    self.box[structure],
                    self.graph.pbc[structure],
                    (a, b, c),
                    order,
                    splitting,
                ),
            )

    @property
    def n_slots(self) -> int:
        """Number of atoms of the largest structure."""
        assert self.graph.atom_of_slot is not None
        return self.graph.atom_of_slot.shape[1]

    def atoms_of(self, structure: int) -> Int64[Tensor, " n"]:
        """Return the indices of the atoms of one structure."""
        assert self.graph.atom_of_slot is not None
        atoms = self.graph.atom_of_slot[structure]
        return atoms[atoms < self.graph.n_atoms]

    def to_slots(self, values: Float64[Tensor, "n_atoms ..."]) -> Float64[Tensor, "s m ..."]:
        """Lay per-atom values out as a padded table, zero in empty slots."""
        return to_slots(values, self.graph)

    def from_slots(self, values: Float64[Tensor, "s m"]) -> Float64[Tensor, " n_atoms"]:
        """Gather per-atom values from a padded table."""
        return from_slots(values, self.graph)

    def total(self, values: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_structures"]:
        """Sum per-atom values over each structure."""
        return sum_per_structure(values, self.graph)

    def potential(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Electrostatic potential A q at each atom in eV/e, without forming A."""
        potential = self.potential_of_pairs(charges) + self.potential_of_waves(charges)
        for atoms, mesh in self.meshes:
            potential = potential.index_add(0, atoms, mesh.potential(charges[atoms]))
        return potential

    def potential_of_pairs(self, charges: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Part of `potential` in eV/e, for charges in e, that is summed pair by pair."""
        first, second = self.plan.pair_index
        potential = torch.zeros_like(charges).index_add(0, first, self.pair * charges[second])
        return potential.index_add(0, second, self.pair * charges[first])

    def potential_of_waves(self, charges: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """Part of `potential` in eV/e due to k vectors, the mean, and each charge (e) itself."""
        local = self.diagonal * charges + self._background_potential(charges)
        if self.waves is None:
            return local
        return local + self.from_slots(self.waves.potential(self.to_slots(charges)))

    def energy(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_structures"]:
        """½ qᵀAq of each structure in eV; forces from it cost less than from `potential`."""
        return self.energy_and_potential(charges)[0]

    def energy_and_potential(
        self, charges: Float64[Tensor, " n_atoms"]
    ) -> tuple[Float64[Tensor, " n_structures"], Float64[Tensor, " n_atoms"]]:
        """Return `energy`, and the potential at each atom in eV/e as a constant."""
        with torch.no_grad():
            potential = self.potential_of_pairs(charges) + self.potential_of_waves(charges)
        first, second = self.plan.pair_index
        pairs = self.pair * charges.index_select(0, first) * charges.index_select(0, second)
        energy = self.total(0.5 * charges * (self.diagonal * charges))
        if self.graph.n_structures == 1:
            energy = energy + pairs.sum()
        else:
            energy = energy.index_add(0, self.graph.batch[first], pairs)
        energy = energy + 0.5 * self.total(charges * self._background_potential(charges))
        if self.waves is not None:
            energy = energy + self.waves.energy(self.to_slots(charges))
        for atoms, mesh in self.meshes:
            on_mesh, felt = mesh.energy(charges[atoms])
            energy = energy.index_add(0, self.graph.batch[atoms[:1]], on_mesh[None])
            potential = potential.index_add(0, atoms, felt)
        return energy, potential

    def atomic_energies(
        self, charges: Float64[Tensor, " n_atoms"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_atoms"]]:
        """Return the potential φ at each atom in eV/e, a constant, and the energies ½qφ in eV.

        The sum of the energies over a structure is differentiable, not each of them: derivatives of
        one `energy` cost less than those of many potentials.
        """
        energy, potential = self.energy_and_potential(charges)
        values = 0.5 * charges.detach() * potential
        n_atoms = self.total(torch.ones_like(values)).clamp(min=1)
        return potential, values + of_structure((energy - energy.detach()) / n_atoms, self.graph)

    def _background_potential(
        self, charges: Float64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_atoms"]:
        """Potential in eV/e of the terms with k = 0."""
        constant, per_square = (of_structure(term, self.graph) for term in self.background)
        total = of_structure(self.total(charges), self.graph)
        spread = of_structure(self.total(charges * self.smearing**2), self.graph)
        return (constant - per_square * self.smearing**2) * total - per_square * spread

    def matrix(self) -> Float64[Tensor, "s m m"]:
        """Form A itself, one padded matrix per structure in eV/e²; zero in empty slots.

        Raises
        ------
        ValueError
            If the sum of a structure uses a mesh, which never forms a matrix.
        """
        if self.meshes:
            raise ValueError("a mesh sum has no matrix: plan with method='ewald', or use potential")
        first, second = self.plan.pair_index
        atom_of_slot, slot_of_atom = self.graph.atom_of_slot, self.graph.slot_of_atom
        assert atom_of_slot is not None
        assert slot_of_atom is not None
        n_structures, n_slots = atom_of_slot.shape
        row, column = slot_of_atom[first], slot_of_atom[second] % n_slots
        matrix = self.pair.new_zeros(n_structures * n_slots * n_slots)
        matrix = matrix.index_add(0, row * n_slots + column, self.pair)
        matrix = matrix.reshape(n_structures, n_slots, n_slots)
        matrix = matrix + matrix.transpose(1, 2)
        if self.waves is not None:
            matrix = matrix + self.waves.matrix()
        constant, per_square = (term[:, None, None] for term in self.background)
        square = self.to_slots(self.smearing**2)
        matrix = matrix + constant - per_square * (square[:, :, None] + square[:, None, :])
        matrix = matrix + torch.diag_embed(self.to_slots(self.diagonal))
        occupied = (atom_of_slot < self.graph.n_atoms).to(matrix)
        return matrix * occupied[:, :, None] * occupied[:, None, :]
