"""Vectors between atoms, and sums over the atoms of each structure."""

import math

import torch
from ase.data import atomic_masses
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from phicalc.graph.record import AtomicGraph
from phicalc.neighbors import pair_vectors as _vectors


def edge_vectors(graph: AtomicGraph) -> Float64[Tensor, "n_edges 3"]:
    """Vectors from each edge's center to its neighbor (or the neighbor's image), in Å."""
    return pair_vectors(graph, graph.edge_index, graph.edge_shifts)


def pair_vectors(
    graph: AtomicGraph, index: Int64[Tensor, "2 n"], shifts: Int64[Tensor, "n 3"]
) -> Float64[Tensor, "n 3"]:
    """Vectors ``r_j + shift·cell − r_i`` in Å for any list of pairs of atoms of `graph`."""
    if graph.n_structures == 1:
        offsets = shifts.to(graph.cell) @ graph.cell[0]
    else:
        offsets = torch.einsum(
            "ns,nsx->nx", shifts.to(graph.cell), graph.cell[graph.batch[index[0]]]
        )
    return _vectors(graph.positions, index, offsets)


def volumes(boxes: Float64[Tensor, "n 3 3"]) -> Float64[Tensor, " n"]:
    """Volumes of boxes whose edges are rows; 0 where there is none, and never negative.

    Written out, as `reciprocal_boxes` is: solvers of linear algebra wait for a GPU.
    """
    first, second, third = boxes.unbind(1)
    return (first * torch.linalg.cross(second, third)).sum(1).abs()


def reciprocal_boxes(boxes: Float64[Tensor, "n 3 3"]) -> Float64[Tensor, "n 3 3"]:
    """Reciprocal vectors in 1/Å as rows, 2π included, of boxes whose edges in Å are rows."""
    first, second, third = boxes.unbind(1)
    ends = ((second, third), (third, first), (first, second))
    normals = torch.stack([torch.linalg.cross(*each) for each in ends], dim=1)
    return 2 * math.pi * normals / (first * normals[:, 0]).sum(1)[:, None, None]


def sum_per_structure(
    per_atom: Float64[Tensor, "n_atoms ..."], graph: AtomicGraph
) -> Float64[Tensor, "n_structures ..."]:
    """Sum a per-atom quantity over the atoms of each structure."""
    if graph.n_structures == 1:  # in an order that is the same on every device
        return per_atom.sum(0, keepdim=True)
    empty = per_atom.new_zeros(graph.n_structures, *per_atom.shape[1:])
    return empty.index_add(0, graph.batch, per_atom)


def of_structure(
    values: Shaped[Tensor, "n_structures ..."], graph: AtomicGraph
) -> Shaped[Tensor, "n_atoms ..."]:
    """Give each atom the value of its structure."""
    if graph.n_structures == 1:  # gradients are then plain sums
        return values.expand(graph.n_atoms, *values.shape[1:])
    return values[graph.batch]


def mean_per_structure(
    per_atom: Float64[Tensor, "n_atoms ..."], graph: AtomicGraph
) -> Float64[Tensor, "n_structures ..."]:
    """Average a per-atom quantity over each structure; 0 where there are no atoms."""
    count = sum_per_structure(torch.ones_like(per_atom), graph).clamp(min=1)
    return sum_per_structure(per_atom, graph) / count


def mass_centers(graph: AtomicGraph) -> Float64[Tensor, "n_structures 3"]:
    """Center of mass of each structure in Å, with the standard masses, for its dipole moment.

    `phicalc.structures.center_of_mass` does the same for one structure of ASE.
    """
    masses = torch.as_tensor(atomic_masses, dtype=torch.float64, device=graph.positions.device)
    mass = masses[graph.atomic_numbers]
    weighted = sum_per_structure(mass[:, None] * graph.positions, graph)
    return weighted / sum_per_structure(mass, graph)[:, None]


def field_coordinate(graph: AtomicGraph) -> Float64[Tensor, " n_atoms"]:
    """Position of each atom along the external field, times its strength: E·r in V."""
    assert graph.external_field is not None
    return (graph.positions * graph.external_field[graph.batch]).sum(1)


def to_slots(
    values: Shaped[Tensor, "n_atoms ..."], graph: AtomicGraph
) -> Shaped[Tensor, "n_structures n_places ..."]:
    """Lay per-atom values out as a padded table, one row per structure, zero in empty slots."""
    assert graph.atom_of_slot is not None
    padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    return padded[graph.atom_of_slot]


def from_slots(
    values: Shaped[Tensor, "n_structures n_places ..."], graph: AtomicGraph
) -> Shaped[Tensor, "n_atoms ..."]:
    """Gather per-atom values from a padded table."""
    assert graph.slot_of_atom is not None
    return values.flatten(0, 1)[graph.slot_of_atom]
