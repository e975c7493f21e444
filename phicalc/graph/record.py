"""The one record that travels down the pipeline: a batch of atomic structures with their edges."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


class CoulombPlan(NamedTuple):
    """Which terms the electrostatic sums of a batch contain (made by `phicalc.electrostatics`).

    Only integers and one splitting parameter per structure: positions and cell stay in the graph,
    so the sums remain differentiable, and smooth while a cell moves under a fixed plan.
    """

    pair_index: Int64[Tensor, "2 n_pairs"]
    """Each unordered pair of atoms (or images) of the real-space sum once."""
    pair_shifts: Int64[Tensor, "n_pairs 3"]
    """Lattice shift of the second atom of each pair."""
    kvectors: Int64[Tensor, "n_structures n_k 3"]
    """Miller indices, one of each ±k; rows of zeros are padding."""
    millers_a: Int64[Tensor, " n_a"]
    """All first indices that k vectors may have, in order; `millers_b` and `millers_c` likewise."""
    millers_b: Int64[Tensor, " n_b"]
    millers_c: Int64[Tensor, " n_c"]
    splitting: Float64[Tensor, " n_structures"]
    """Ewald parameter α = 1/(√2 η) in 1/Å; 0 for direct sums (no reciprocal part)."""
    open_length: Float64[Tensor, " n_structures"] | None = None
    """Length of the box along open axes in Å, 0 where there are none; None if nowhere."""
    mesh: Int64[Tensor, "n_structures 4"] | None = None
    """Mesh points along three axes and order of the splines, zeros without; None if nowhere."""
    basis: Int64[Tensor, "n_structures 3 3"] | None = None
    """Short lattice vectors in terms of those of the cell: what Miller indices refer to."""


class DispersionPlan(NamedTuple):
    """Which terms the dispersion sums of a batch contain (made by `phicalc.terms`).

    As in a `CoulombPlan`, positions and cell stay in the graph. Along open axes waves are the nodes
    of a quadrature, in units of the largest k: their sum stands for an integral.
    """

    pair_index: Int64[Tensor, "2 n_pairs"]
    """Each unordered pair of atoms of structures without periodic axes once."""
    places: Int64[Tensor, "n_structures n_k 3"]
    """Places in the nodes along the three axes of each k vector, one of each ±k."""
    measure: Float64[Tensor, "n_structures n_k"]
    """Weight of each k vector in the sum: 1, or that of the quadrature; 0 for padding."""
    nodes_a: Float64[Tensor, "n_structures n_a"]
    """All first components of k vectors, padded with 0; `nodes_b` and `nodes_c` likewise."""
    nodes_b: Float64[Tensor, "n_structures n_b"]
    nodes_c: Float64[Tensor, "n_structures n_c"]
    largest_k: Float64[Tensor, " n_structures"]
    """Where the weights of waves have faded out, in 1/Å; 1 where there are none."""
    open_axes: Bool[Tensor, " n_structures"] | None = None
    """Whether there are open axes beside periodic ones; None if nowhere."""
    mesh: Int64[Tensor, "n_structures 4"] | None = None
    """Mesh points along three axes and order of the splines, zeros without; None if nowhere."""
    basis: Int64[Tensor, "n_structures 3 3"] | None = None
    """Short lattice vectors in terms of those of the cell, edges of the mesh; None if nowhere."""


class Fragments(NamedTuple):
    """Groups of atoms whose net charges are fixed one by one, or left to a reservoir of charge."""

    number: Int64[Tensor, " n_atoms"]
    """Fragment to which each atom belongs, counted from 0 in its structure."""
    fixed: Bool[Tensor, "n_structures n_fragments"]
    """Whether the net charge is fixed; False for padding."""
    charge: Float64[Tensor, "n_structures n_fragments"]
    """Net charge in e; 0 where it is not fixed."""
    potential: Float64[Tensor, " n_atoms"]
    """Electric potential in V of the reservoir that each atom is connected to."""


class AtomicGraph(NamedTuple):
    """One or several structures as a graph (immutable; passes torch.compile as it is)."""

    positions: Float64[Tensor, "n_atoms 3"]
    """Cartesian positions in Å."""
    atomic_numbers: Int64[Tensor, " n_atoms"]
    cell: Float64[Tensor, "n_structures 3 3"]
    """Lattice vectors as rows, in Å; zero rows where there is none."""
    pbc: Bool[Tensor, "n_structures 3"]
    batch: Int64[Tensor, " n_atoms"]
    """Structure to which each atom belongs."""
    edge_index: Int64[Tensor, "2 n_edges"]
    """Row 0: center, row 1: neighbor. Both directions of a pair are present."""
    edge_shifts: Int64[Tensor, "n_edges 3"]
    """Lattice shift of the neighbor, in cells."""
    total_charge: Float64[Tensor, " n_structures"]
    """Net charge of each structure in e."""
    edge_of_slot: Int64[Tensor, "n_atoms n_slots"] | None = None
    """Edges of each center as a padded table; `n_edges` marks an empty slot."""
    atom_of_slot: Int64[Tensor, "n_structures n_places"] | None = None
    """Atoms of each structure as a padded table; `n_atoms` marks an empty slot."""
    slot_of_atom: Int64[Tensor, " n_atoms"] | None = None
    """Where each atom stands in the flattened `atom_of_slot`."""
    coulomb: CoulombPlan | None = None
    """Terms of the electrostatic sums; None until `Potential.prepare` has run."""
    dispersion: DispersionPlan | None = None
    """Terms of the dispersion sums; None until `Potential.prepare` has run."""
    links: Int64[Tensor, " n_links"] | None = None
    """Numbers of the edges along which charge may flow; None until `Potential.prepare` has run, and
    for heads without links."""
    charge_guess: Float64[Tensor, " n_atoms"] | None = None
    """Charges in e from which iterative solvers start; None if nothing is known."""
    external_field: Float64[Tensor, "n_structures 3"] | None = None
    """Uniform electric field in V/Å; None means no field."""
    fragments: Fragments | None = None
    """Constraints of the charges; None means that each structure has its total charge."""

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all structures together."""
        return self.positions.shape[0]

    @property
    def n_edges(self) -> int:
        """Number of directed edges in all structures together."""
        return self.edge_index.shape[1]

    @property
    def n_structures(self) -> int:
        """Number of structures in the batch."""
        return self.cell.shape[0]

    def to(self, device: torch.device | str) -> "AtomicGraph":
        """Return the graph with every tensor on `device`."""
        moved = {
            name: _to_device(value, device)
            for name, value in self._asdict().items()
            if value is not None
        }
        return self._replace(**moved)


def _to_device(value: Any, device: torch.device | str) -> Any:
    """Move a tensor, or all tensors of a record."""
    if isinstance(value, Tensor):
        return value.to(device)
    parts = {name: t.to(device) for name, t in value._asdict().items() if t is not None}
    return value._replace(**parts)
