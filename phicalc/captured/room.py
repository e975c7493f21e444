"""Room to grow: graphs with more edges, pairs and links than they need, none of which counts."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

from phicalc.graph import AtomicGraph, CoulombPlan, DispersionPlan

#: Length in Å of what fills up edges and pairs, beyond every cutoff; and in units of the width of
#: the Gaussians that split electrostatic sums, where their complement is exactly zero.
_FAR, _FAR_WIDTHS = 200.0, 30.0
#: Room beyond what is needed, and what it is rounded up to.
_RESERVE = 1.15
_STEPS = (256, 8, 256, 64, 64, 4, 4, 4)


class Room(NamedTuple):
    """How many of each thing there may be; things of other kinds keep their number."""

    edges: int
    slots: int
    pairs: int
    links: int
    waves: int
    """Of the dispersion sum, which follow a cell that changes; and their components."""
    nodes_a: int
    nodes_b: int
    nodes_c: int

    def holds(self, needed: "Room") -> bool:
        """Whether so much fits in."""
        return all(mine >= its for mine, its in zip(self, needed, strict=True))

    def with_reserve(self) -> "Room":
        """Return more room, for what a simulation may need; nothing for what there is not."""
        each = zip(self, _STEPS, strict=True)
        return Room(*(step * math.ceil(_RESERVE * n / step) if n else 0 for n, step in each))


def room_for(graph: AtomicGraph) -> Room:
    """Return what a prepared structure needs: one edge more than it has, which may fill up links.

    Pairs of structures without periodic axes are all there are, and need no room.
    """
    assert graph.edge_of_slot is not None
    coulomb, dispersion = graph.coulomb, graph.dispersion
    periodic = coulomb is not None and coulomb.kvectors.shape[1] > 0
    return Room(
        edges=graph.n_edges + 1,
        slots=graph.edge_of_slot.shape[1],
        pairs=coulomb.pair_index.shape[1] if periodic and coulomb is not None else 0,
        links=0 if graph.links is None else len(graph.links),
        waves=0 if dispersion is None else dispersion.places.shape[1],
        nodes_a=0 if dispersion is None else dispersion.nodes_a.shape[1],
        nodes_b=0 if dispersion is None else dispersion.nodes_b.shape[1],
        nodes_c=0 if dispersion is None else dispersion.nodes_c.shape[1],
    )


def filled_up(graph: AtomicGraph, room: Room) -> AtomicGraph:
    """Return a prepared structure that takes all of a room, with the same energy and charges.

    What fills it up leads from the first atom to an image of it beyond every cutoff, and has weight
    zero in every sum. Where the cell has no vectors it gets some, which nothing else looks at.
    """
    assert graph.edge_of_slot is not None
    n_edges, slots = graph.n_edges, graph.edge_of_slot
    graph = graph._replace(cell=_with_edges(graph.cell))
    far = _far_image(graph)
    slots = slots.masked_fill(torch.eq(slots, n_edges), room.edges)
    links, coulomb, dispersion = graph.links, graph.coulomb, graph.dispersion
    return graph._replace(
        edge_index=_longer(graph.edge_index, room.edges, 1),
        edge_shifts=_with_far(graph.edge_shifts, room.edges, far),
        edge_of_slot=pad(slots, (0, room.slots - slots.shape[1]), value=room.edges),
        links=None if links is None else _longer(links, room.links, 0, value=n_edges),
        coulomb=None if coulomb is None else _roomy_coulomb(coulomb, room, far),
        dispersion=None if dispersion is None else _roomy_dispersion(dispersion, room),
    )


def _with_edges(cell: Float64[Tensor, "1 3 3"]) -> Float64[Tensor, "1 3 3"]:
    """Put unit vectors in the place of vectors that are zero."""
    present = cell.any(2, keepdim=True)
    return torch.where(present, cell, torch.eye(3, dtype=cell.dtype, device=cell.device))


def _far_image(graph: AtomicGraph) -> Int64[Tensor, " 3"]:
    """Shift of an image along the first lattice vector that is beyond every cutoff."""
    length = _FAR
    if graph.coulomb is not None and float(graph.coulomb.splitting) > 0:
        length = max(length, _FAR_WIDTHS / float(graph.coulomb.splitting))
    times = math.ceil(length / float(graph.cell[0, 0].norm()))
    return torch.tensor([times, 0, 0], device=graph.cell.device)


def _roomy_coulomb(plan: CoulombPlan, room: Room, far: Int64[Tensor, " 3"]) -> CoulombPlan:
    """Return a plan with room for pairs, if there is to be any."""
    if not room.pairs:
        return plan
    return plan._replace(
        pair_index=_longer(plan.pair_index, room.pairs, 1),
        pair_shifts=_with_far(plan.pair_shifts, room.pairs, far),
    )


def _roomy_dispersion(plan: DispersionPlan, room: Room) -> DispersionPlan:
    """Return a plan with room for waves: those that fill it up are not measured."""
    return plan._replace(
        places=_longer(plan.places, room.waves, 1),
        measure=_longer(plan.measure, room.waves, 1),
        nodes_a=_longer(plan.nodes_a, room.nodes_a, 1),
        nodes_b=_longer(plan.nodes_b, room.nodes_b, 1),
        nodes_c=_longer(plan.nodes_c, room.nodes_c, 1),
    )


def _longer(
    values: Shaped[Tensor, "..."], size: int, axis: int, value: int = 0
) -> Shaped[Tensor, "..."]:
    """Fill up one axis of a tensor with a number."""
    behind = [0, 0] * (values.ndim - 1 - axis)
    return pad(values, (*behind, 0, size - values.shape[axis]), value=value)


def _with_far(
    shifts: Int64[Tensor, "n 3"], size: int, far: Int64[Tensor, " 3"]
) -> Int64[Tensor, "m 3"]:
    """Fill up shifts with that of the far image."""
    return torch.cat([shifts, far.expand(size - len(shifts), 3)])
