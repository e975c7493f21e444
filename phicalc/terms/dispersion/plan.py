"""Which pairs, k vectors and meshes the dispersion sums of a batch contain.

Parameters follow from the cutoff of the network, the accuracy and the elements of the structure:
they stay as they are in a simulation.
"""

import math

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.electrostatics.sums.choice import measures
from phicalc.electrostatics.sums.plan import short_basis
from phicalc.graph import AtomicGraph, DispersionPlan, collate_dispersion
from phicalc.terms.dispersion.parameters import Parameters, choose, choose_mesh
from phicalc.terms.dispersion.waves import Waves, find_waves, nodes_for


def plan_dispersion(
    graph: AtomicGraph,
    cutoff: float,
    coefficients: Float64[Tensor, " n_atoms"],
    force_accuracy: float,
    mesh_above: int,
) -> AtomicGraph:
    """Return `graph` with the plan of its dispersion sums.

    Parameters
    ----------
    graph
        Batch of structures, periodic along any axes.
    cutoff
        Of the network, in Å.
    coefficients
        Dispersion coefficient C6 of each atom in eV Å⁶; errors are estimated for the largest of a
        structure.
    force_accuracy
        Root mean square error in eV/Å that the sums may leave in the forces.
    mesh_above
        Crystals of more atoms are summed on a mesh.

    Raises
    ------
    ValueError
        For a structure that takes more than a million waves.
    """
    counts = torch.bincount(graph.batch, minlength=graph.n_structures).tolist()
    starts = [sum(counts[:structure]) for structure in range(len(counts))]
    plans = []
    for structure, (start, n_atoms) in enumerate(zip(starts, counts, strict=True)):
        own = slice(start, start + n_atoms)
        positions, cell = graph.positions[own].detach(), graph.cell[structure].detach()
        pbc = graph.pbc[structure]
        if n_atoms == 0 or not bool(pbc.any()):
            plans.append(_direct(positions))
            continue
        parameters = choose(cutoff, float(coefficients[own].max()), force_accuracy)
        if n_atoms > mesh_above and bool(pbc.all()):
            plans.append(_with_mesh(cell, pbc, n_atoms, parameters))
        else:
            plans.append(_with_waves(positions, cell, pbc, parameters))
    return graph._replace(dispersion=collate_dispersion(plans, starts))


def _direct(positions: Float64[Tensor, "n 3"]) -> DispersionPlan:
    """Plan of a structure without periodic axes: all pairs."""
    n_atoms = len(positions)
    pairs = torch.triu_indices(n_atoms, n_atoms, offset=1, device=positions.device)
    return _without_waves(positions.new_ones(1))._replace(pair_index=pairs)


def _with_waves(
    positions: Float64[Tensor, "n 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    parameters: Parameters,
) -> DispersionPlan:
    """Plan with k vectors, in a box whose open edges set the unit of the quadrature."""
    largest = parameters.largest_k
    box = complete_box(cell, pbc, 2 * math.pi / largest)
    directions = box / box.norm(dim=1, keepdim=True)
    places = positions @ directions.T
    extents = (places.amax(0) - places.amin(0)).tolist()
    axes = tuple(pbc.tolist())
    a, b, c = (
        0 if periodic else nodes_for(largest, extent, parameters.a)
        for periodic, extent in zip(axes, extents, strict=True)
    )
    waves = find_waves(tuple(box.reshape(-1).tolist()), axes, largest, (a, b, c))
    plan = _of_waves(waves, cell.new_full((1,), largest))
    return plan if bool(pbc.all()) else plan._replace(open_axes=pbc.new_ones(1))


def _with_mesh(
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    n_atoms: int,
    parameters: Parameters,
) -> DispersionPlan:
    """Plan with a mesh."""
    basis = short_basis(cell, pbc).to(cell.device)
    edges, _ = measures(basis.to(cell) @ cell)
    mesh = choose_mesh(parameters, edges, n_atoms)
    plan = _without_waves(cell.new_ones(1))
    return plan._replace(mesh=basis.new_tensor([mesh]), basis=basis[None])


def _of_waves(waves: Waves, largest_k: Float64[Tensor, "1"]) -> DispersionPlan:
    """Plan of one structure that is summed over k vectors, on the device of `largest_k`."""
    a, b, c = (nodes[None].to(largest_k) for nodes in waves.nodes)
    places = waves.places[None].to(largest_k.device)
    pairs = places.new_zeros(2, 0)
    return DispersionPlan(pairs, places, waves.measure[None].to(largest_k), a, b, c, largest_k)


def _without_waves(one: Float64[Tensor, "1"]) -> DispersionPlan:
    """Plan of one structure without k vectors, on the device of `one`."""
    none = one.new_zeros(1, 0)
    places = torch.zeros(1, 0, 3, dtype=torch.int64, device=one.device)
    return DispersionPlan(places.new_zeros(2, 0), places, none, none, none, none, one)
