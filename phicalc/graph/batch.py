"""Join graphs to a batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

from phicalc.graph.build import slots, whole_structures
from phicalc.graph.record import AtomicGraph, CoulombPlan, DispersionPlan, Fragments


def collate(graphs: Sequence[AtomicGraph]) -> AtomicGraph:
    """Join graphs of any sizes into one batch; they all have the same kinds of plans.

    Raises
    ------
    ValueError
        For an empty list, or when only some of the graphs have been prepared.
    """
    if not graphs:
        raise ValueError("collate needs at least one graph, got an empty sequence")
    for name in ("coulomb", "dispersion", "links"):
        planned = [getattr(graph, name) is not None for graph in graphs]
        if any(planned) and not all(planned):
            raise ValueError(
                f"some graphs have been prepared ({name}) and some have not: call "
                "potential.prepare on all of them, or on the batch"
            )
    atom_offsets = _offsets([graph.n_atoms for graph in graphs])
    structure_offsets = _offsets([graph.n_structures for graph in graphs])
    batch = torch.cat([g.batch + n for g, n in zip(graphs, structure_offsets, strict=True)])
    cell = torch.cat([g.cell for g in graphs])
    plans = [graph.coulomb for graph in graphs if graph.coulomb is not None]
    dispersion = [graph.dispersion for graph in graphs if graph.dispersion is not None]
    edge_index = torch.cat(
        [g.edge_index + n for g, n in zip(graphs, atom_offsets, strict=True)], dim=1
    )
    atom_of_slot, slot_of_atom = slots(batch, len(cell))
    return AtomicGraph(
        positions=torch.cat([g.positions for g in graphs]),
        atomic_numbers=torch.cat([g.atomic_numbers for g in graphs]),
        cell=cell,
        pbc=torch.cat([g.pbc for g in graphs]),
        batch=batch,
        edge_index=edge_index,
        edge_shifts=torch.cat([g.edge_shifts for g in graphs]),
        edge_of_slot=slots(edge_index[0], len(batch))[0],
        atom_of_slot=atom_of_slot,
        slot_of_atom=slot_of_atom,
        total_charge=torch.cat([g.total_charge for g in graphs]),
        coulomb=_collate_plans(plans, atom_offsets) if plans else None,
        dispersion=collate_dispersion(dispersion, atom_offsets) if dispersion else None,
        links=_collate_links(graphs),
        charge_guess=_join([g.charge_guess for g in graphs], [(g.n_atoms,) for g in graphs]),
        external_field=_join(
            [g.external_field for g in graphs], [(g.n_structures, 3) for g in graphs]
        ),
        fragments=_collate_fragments(graphs),
    )


def _collate_links(graphs: Sequence[AtomicGraph]) -> Int64[Tensor, " n_links"] | None:
    """Join the numbers of edges along which charge may flow."""
    offsets = _offsets([graph.n_edges for graph in graphs])
    numbered = zip(graphs, offsets, strict=True)
    links = [g.links + n for g, n in numbered if g.links is not None]
    return torch.cat(links) if links else None


def _collate_plans(plans: Sequence[CoulombPlan], atom_offsets: list[int]) -> CoulombPlan:
    """Join Coulomb plans, padding the k vectors to the largest number of them."""
    n_k = max(plan.kvectors.shape[1] for plan in plans)
    axes = ([getattr(plan, f"millers_{axis}") for plan in plans] for axis in "abc")
    millers_a, millers_b, millers_c = (max(each, key=len) for each in axes)
    pairs = [p.pair_index + n for p, n in zip(plans, atom_offsets, strict=True)]
    return CoulombPlan(
        pair_index=torch.cat(pairs, dim=1),
        pair_shifts=torch.cat([plan.pair_shifts for plan in plans]),
        kvectors=torch.cat([pad(p.kvectors, (0, 0, 0, n_k - p.kvectors.shape[1])) for p in plans]),
        millers_a=millers_a,
        millers_b=millers_b,
        millers_c=millers_c,
        splitting=torch.cat([plan.splitting for plan in plans]),
        open_length=_join([p.open_length for p in plans], [(len(p.splitting),) for p in plans]),
        mesh=_join([p.mesh for p in plans], [(len(p.splitting), 4) for p in plans]),
        basis=_join([p.basis for p in plans], [(len(p.splitting), 3, 3) for p in plans]),
    )


def collate_dispersion(
    plans: Sequence[DispersionPlan], atom_offsets: Sequence[int]
) -> DispersionPlan:
    """Join plans of dispersion sums, whose first atoms in the batch are given, with padding."""
    places = _padded([plan.places.transpose(1, 2) for plan in plans]).transpose(1, 2)
    pairs = [p.pair_index + n for p, n in zip(plans, atom_offsets, strict=True)]
    n_structures = [len(plan.largest_k) for plan in plans]
    return DispersionPlan(
        pair_index=torch.cat(pairs, dim=1),
        places=places.contiguous(),
        measure=_padded([plan.measure for plan in plans]),
        nodes_a=_padded([plan.nodes_a for plan in plans]),
        nodes_b=_padded([plan.nodes_b for plan in plans]),
        nodes_c=_padded([plan.nodes_c for plan in plans]),
        largest_k=torch.cat([plan.largest_k for plan in plans]),
        open_axes=_join([plan.open_axes for plan in plans], [(n,) for n in n_structures]),
        mesh=_join([plan.mesh for plan in plans], [(n, 4) for n in n_structures]),
        basis=_join([plan.basis for plan in plans], [(n, 3, 3) for n in n_structures]),
    )


def _padded(parts: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """Concatenate tables, with zeros where their rows are shorter than the longest."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in parts])


def _collate_fragments(graphs: Sequence[AtomicGraph]) -> Fragments | None:
    """Join fragments; a graph that has none becomes one fragment per structure."""
    if all(graph.fragments is None for graph in graphs):
        return None
    parts = [graph.fragments or whole_structures(graph) for graph in graphs]
    width = max(part.fixed.shape[1] for part in parts)
    missing = [width - part.fixed.shape[1] for part in parts]
    return Fragments(
        number=torch.cat([part.number for part in parts]),
        fixed=torch.cat([pad(p.fixed, (0, n)) for p, n in zip(parts, missing, strict=True)]),
        charge=torch.cat([pad(p.charge, (0, n)) for p, n in zip(parts, missing, strict=True)]),
        potential=torch.cat([part.potential for part in parts]),
    )


def _join(
    parts: Sequence[Shaped[Tensor, "_ ..."] | None], shapes: Sequence[tuple[int, ...]]
) -> Shaped[Tensor, "_ ..."] | None:
    """Concatenate what is there, with zeros of a given shape in place of what is not."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    zeros = (present[0].new_zeros(shape) for shape in shapes)
    return torch.cat([z if part is None else part for part, z in zip(parts, zeros, strict=True)])


def _offsets(sizes: list[int]) -> list[int]:
    """Start of each block when blocks of these sizes are laid end to end."""
    return [sum(sizes[:i]) for i in range(len(sizes))]
