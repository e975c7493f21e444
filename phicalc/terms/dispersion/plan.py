"""Which pairs, k vectors and meshes the dispersion sums of a batch contain.

Pairs are the edges of the network. The other parameters follow from its cutoff, the accuracy and
the elements: they are the same for all structures, and stay as they are in a simulation.
"""

import math

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.electrostatics.sums.choice import measures
from phicalc.electrostatics.sums.plan import short_basis
from phicalc.graph import AtomicGraph, DispersionPlan, collate_dispersion
from phicalc.neighbors import points_forward
from phicalc.terms.dispersion.parameters import Parameters, choose, choose_mesh
from phicalc.terms.dispersion.waves import Waves, find_waves, nodes_for


def plan_dispersion(
    graph: AtomicGraph,
    cutoff: float,
    coefficient: float,
    force_accuracy: float,
    mesh_above: int,
) -> AtomicGraph:
    """Return `graph` with the plan of its dispersion sums.

    Parameters
    ----------
    graph
        Batch of structures, periodic along any axes, with all edges up to the cutoff.
    cutoff
        In Å.
    coefficient
        Dispersion coefficient C6 of a pair in eV Å⁶ for which errors are estimated.
    force_accuracy
        Root mean square error in eV/Å that the sums may leave in the forces.
    mesh_above
        Crystals of more atoms are summed on a mesh.

    Raises
    ------
    ValueError
        For a structure that takes more than a million waves.
    """
    parameters = choose(cutoff, coefficient, force_accuracy)
    counts = torch.bincount(graph.batch, minlength=graph.n_structures).tolist()
    starts = [sum(counts[:structure]) for structure in range(len(counts))]
    plans = []
    for structure, (start, n_atoms) in enumerate(zip(starts, counts, strict=True)):
        positions = graph.positions[start : start + n_atoms].detach()
        cell, pbc = graph.cell[structure].detach(), graph.pbc[structure]
        if n_atoms == 0 or not bool(pbc.any()):
            plans.append(_direct(positions))
            continue
        pairs = _half_of_edges(graph, structure, start)
        if n_atoms > mesh_above and bool(pbc.all()):
            plans.append(_with_mesh(pairs, cell, pbc, n_atoms, parameters))
        else:
            plans.append(_with_waves(pairs, positions, cell, pbc, parameters))
    return graph._replace(dispersion=collate_dispersion(plans, starts))


_Pairs = tuple[Int64[Tensor, "2 n_pairs"], Int64[Tensor, "n_pairs 3"]]


def _direct(positions: Float64[Tensor, "n 3"]) -> DispersionPlan:
    """All pairs, no images, no reciprocal part."""
    n_atoms, device = len(positions), positions.device
    pairs = torch.triu_indices(n_atoms, n_atoms, offset=1, device=device)
    shifts = pairs.new_zeros(pairs.shape[1], 3)
    return _plan((pairs, shifts), positions.new_zeros(1), positions.new_ones(1))


def _half_of_edges(graph: AtomicGraph, structure: int, start: int) -> _Pairs:
    """Each pair of edges once, atoms counted from the first one of the structure."""
    first, second = graph.edge_index
    half = first < second
    themselves = (first == second).nonzero().squeeze(1)
    half[themselves] = points_forward(graph.edge_shifts[themselves])
    if graph.n_structures > 1:
        half = half & (graph.batch[first] == structure)
    chosen = half.nonzero().squeeze(1)
    pairs = graph.edge_index.index_select(1, chosen) - start
    return pairs, graph.edge_shifts.index_select(0, chosen)


def _with_waves(
    pairs: _Pairs,
    positions: Float64[Tensor, "n 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    parameters: Parameters,
) -> DispersionPlan:
    """Pairs and k vectors, in a box whose open edges set the unit of the quadrature."""
    largest = parameters.largest_k
    box = complete_box(cell, pbc, 2 * math.pi / largest)
    directions = box / box.norm(dim=1, keepdim=True)
    places = positions @ directions.T
    extents = (places.amax(0) - places.amin(0)).tolist()
    axes = tuple(pbc.tolist())
    a, b, c = (
        0 if periodic else nodes_for(largest, extent, parameters.splitting)
        for periodic, extent in zip(axes, extents, strict=True)
    )
    waves = find_waves(tuple(box.reshape(-1).tolist()), axes, largest, (a, b, c))
    splitting, last = cell.new_full((1,), parameters.splitting), cell.new_full((1,), largest)
    plan = _plan(pairs, splitting, last, waves)
    return plan if bool(pbc.all()) else plan._replace(open_axes=pbc.new_ones(1))


def _with_mesh(
    pairs: _Pairs,
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    n_atoms: int,
    parameters: Parameters,
) -> DispersionPlan:
    """Pairs and a mesh."""
    basis = short_basis(cell, pbc).to(cell.device)
    edges, _ = measures(basis.to(cell) @ cell)
    mesh = choose_mesh(parameters, edges, n_atoms)
    splitting = cell.new_full((1,), parameters.splitting)
    plan = _plan(pairs, splitting, torch.ones_like(splitting))
    return plan._replace(mesh=basis.new_tensor([mesh]), basis=basis[None])


def _plan(
    pairs: _Pairs,
    splitting: Float64[Tensor, "1"],
    largest_k: Float64[Tensor, "1"],
    waves: Waves | None = None,
) -> DispersionPlan:
    """Plan of one structure, on one device."""
    index, shifts = pairs
    if waves is None:
        none = splitting.new_zeros(1, 0)
        places = index.new_zeros(1, 0, 3)
        return DispersionPlan(index, shifts, places, none, none, none, none, splitting, largest_k)
    a, b, c = (nodes[None].to(splitting) for nodes in waves.nodes)
    places, measure = waves.places[None].to(index), waves.measure[None].to(splitting)
    return DispersionPlan(index, shifts, places, measure, a, b, c, splitting, largest_k)
