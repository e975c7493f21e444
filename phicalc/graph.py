"""The one record that travels down the pipeline: a batch of atomic structures with their edges."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor
from torch.nn.functional import pad

from phicalc.skin import NeighborSearch


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
    """Row 0: centre, row 1: neighbour. Both directions of a pair are present."""
    edge_shifts: Int64[Tensor, "n_edges 3"]
    """Lattice shift of the neighbour, in cells."""
    total_charge: Float64[Tensor, " n_structures"]
    """Net charge of each structure in e."""
    edge_of_slot: Int64[Tensor, "n_atoms n_slots"] | None = None
    """Edges of each centre as a padded table; `n_edges` marks an empty slot."""
    atom_of_slot: Int64[Tensor, "n_structures n_places"] | None = None
    """Atoms of each structure as a padded table; `n_atoms` marks an empty slot."""
    slot_of_atom: Int64[Tensor, " n_atoms"] | None = None
    """Where each atom stands in the flattened `atom_of_slot`."""
    coulomb: CoulombPlan | None = None
    """Terms of the electrostatic sums; None until `Potential.prepare` has run."""
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


def edge_vectors(graph: AtomicGraph) -> Float64[Tensor, "n_edges 3"]:
    """Vectors from each edge's centre to its neighbour (or the neighbour's image), in Å."""
    return pair_vectors(graph, graph.edge_index, graph.edge_shifts)


def pair_vectors(
    graph: AtomicGraph, index: Int64[Tensor, "2 n"], shifts: Int64[Tensor, "n 3"]
) -> Float64[Tensor, "n 3"]:
    """Vectors ``r_j + shift·cell − r_i`` in Å for any list of pairs of atoms of `graph`."""
    first, second = index
    if graph.n_structures == 1:
        offsets = shifts.to(graph.cell) @ graph.cell[0]
    else:
        offsets = torch.einsum("ns,nsx->nx", shifts.to(graph.cell), graph.cell[graph.batch[first]])
    ends, starts = (graph.positions.index_select(0, atoms) for atoms in (second, first))
    return ends - starts + offsets


def sum_per_structure(
    per_atom: Float64[Tensor, "n_atoms ..."], graph: AtomicGraph
) -> Float64[Tensor, "n_structures ..."]:
    """Sum a per-atom quantity over the atoms of each structure."""
    empty = per_atom.new_zeros(graph.n_structures, *per_atom.shape[1:])
    return empty.index_add(0, graph.batch, per_atom)


def mean_per_structure(
    per_atom: Float64[Tensor, "n_atoms ..."], graph: AtomicGraph
) -> Float64[Tensor, "n_structures ..."]:
    """Average a per-atom quantity over each structure; 0 where there are no atoms."""
    count = sum_per_structure(torch.ones_like(per_atom), graph).clamp(min=1)
    return sum_per_structure(per_atom, graph) / count


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


def from_ase(
    atoms: Atoms,
    cutoff: float,
    *,
    total_charge: float | None = None,
    engine: str = "auto",
    search: NeighborSearch | None = None,
) -> AtomicGraph:
    """Make the graph of one ASE structure.

    Parameters
    ----------
    atoms
        The structure; positions may lie outside the cell.
    cutoff
        Largest distance of an edge, in Å.
    total_charge
        Net charge in e; by default ``atoms.info["charge"]``, or 0 where that is missing.
    engine
        Neighbour engine, see `phicalc.neighbors.neighbor_list`.
    search
        Search with this cutoff that remembers the structure before; `engine` has no meaning then.

    Raises
    ------
    ValueError
        For positions or cells that are not finite, or a periodic cell without volume.
    """
    if total_charge is None:
        total_charge = float(atoms.info.get("charge", 0.0))
    positions = torch.tensor(atoms.positions, dtype=torch.float64).reshape(-1, 3)
    cell = torch.tensor(np.array(atoms.cell), dtype=torch.float64)
    pbc = torch.tensor(atoms.pbc, dtype=torch.bool)
    edges = (search or NeighborSearch(cutoff, engine=engine)).find(positions, cell, pbc)
    everyone = torch.arange(len(atoms))
    return AtomicGraph(
        positions=positions,
        atomic_numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        cell=cell[None],
        pbc=pbc[None],
        batch=torch.zeros(len(atoms), dtype=torch.int64),
        edge_index=edges.edge_index,
        edge_shifts=edges.edge_shifts,
        edge_of_slot=slots(edges.edge_index[0], len(atoms))[0],
        atom_of_slot=everyone[None],
        slot_of_atom=everyone,
        total_charge=torch.tensor([total_charge], dtype=torch.float64),
    )


def from_tensors(
    positions: Float64[Tensor, "n_atoms 3"],
    edge_index: Int64[Tensor, "2 n_edges"],
    *,
    batch: Int64[Tensor, " n_atoms"] | None = None,
    cell: Float64[Tensor, "n_structures 3 3"] | None = None,
    edge_shifts: Int64[Tensor, "n_edges 3"] | None = None,
    total_charge: Float64[Tensor, " n_structures"] | None = None,
    atomic_numbers: Int64[Tensor, " n_atoms"] | None = None,
) -> AtomicGraph:
    """Make a graph of what other programs hold, with their edges.

    Parameters
    ----------
    positions
        In Å; what is differentiable stays so.
    edge_index
        Both directions of every pair; the vector of an edge goes from row 0 to row 1, whose image
        is shifted.
    batch
        Structure of each atom, ascending; by default there is one structure.
    cell, edge_shifts
        Lattice vectors as rows in Å, and shifts in cells; by default nothing is periodic.
    total_charge
        In e; 0 by default.
    atomic_numbers
        Needed by nothing that only sees features, such as a `PhiModule`; 0 by default.
    """
    n_atoms, device = len(positions), positions.device
    if batch is None:
        batch = torch.zeros(n_atoms, dtype=torch.int64, device=device)
    n_structures = len(cell) if cell is not None else (int(batch[-1]) + 1 if n_atoms else 1)
    atom_of_slot, slot_of_atom = slots(batch, n_structures)
    periodic = cell is not None
    cell = positions.new_zeros(n_structures, 3, 3) if cell is None else cell
    if edge_shifts is None:
        edge_shifts = edge_index.new_zeros(edge_index.shape[1], 3)
    return AtomicGraph(
        positions=positions,
        atomic_numbers=torch.zeros_like(batch) if atomic_numbers is None else atomic_numbers,
        cell=cell,
        pbc=torch.full((n_structures, 3), periodic, device=device),
        batch=batch,
        edge_index=edge_index,
        edge_shifts=edge_shifts,
        edge_of_slot=slots(edge_index[0], n_atoms)[0],
        atom_of_slot=atom_of_slot,
        slot_of_atom=slot_of_atom,
        total_charge=cell.new_zeros(n_structures) if total_charge is None else total_charge,
    )


def collate(graphs: Sequence[AtomicGraph]) -> AtomicGraph:
    """Join graphs of any sizes into one batch; they all have a Coulomb plan, or none has.

    Raises
    ------
    ValueError
        For an empty list, or when only some of the graphs have been prepared.
    """
    if not graphs:
        raise ValueError("collate needs at least one graph, got an empty sequence")
    planned = [graph.coulomb is not None for graph in graphs]
    if any(planned) and not all(planned):
        raise ValueError(
            "some graphs have a Coulomb plan and some have none: call potential.prepare on all "
            "of them, or on the batch"
        )
    atom_offsets = _offsets([graph.n_atoms for graph in graphs])
    structure_offsets = _offsets([graph.n_structures for graph in graphs])
    batch = torch.cat([g.batch + n for g, n in zip(graphs, structure_offsets, strict=True)])
    cell = torch.cat([g.cell for g in graphs])
    plans = [graph.coulomb for graph in graphs if graph.coulomb is not None]
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
        charge_guess=_join([g.charge_guess for g in graphs], [(g.n_atoms,) for g in graphs]),
        external_field=_join(
            [g.external_field for g in graphs], [(g.n_structures, 3) for g in graphs]
        ),
        fragments=_collate_fragments(graphs),
    )


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


def whole_structures(graph: AtomicGraph) -> Fragments:
    """Describe each structure as one fragment with its total charge."""
    total = graph.total_charge[:, None]
    zeros = torch.zeros_like(graph.positions[:, 0])
    return Fragments(zeros.long(), torch.ones_like(total, dtype=torch.bool), total, zeros)


def _join(parts: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> Tensor | None:
    """Concatenate what is there, with zeros of a given shape in place of what is not."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    zeros = (present[0].new_zeros(shape) for shape in shapes)
    return torch.cat([z if part is None else part for part, z in zip(parts, zeros, strict=True)])


def slots(
    owner: Int64[Tensor, " n"], n_owners: int
) -> tuple[Int64[Tensor, "n_owners n_slots"], Int64[Tensor, " n"]]:
    """Lay things out as a padded table, one row for those of each owner.

    Returns the thing in each slot of the table, `n` where it is empty, and where each thing stands
    in the flattened table.
    """
    n, device = len(owner), owner.device
    counts = torch.bincount(owner, minlength=n_owners)
    n_slots = int(counts.max()) if n else 0
    starts = torch.cumsum(counts, 0) - counts
    order = torch.argsort(owner, stable=True)
    rank = torch.empty_like(owner)
    rank[order] = torch.arange(n, device=device) - starts[owner[order]]
    slot_of_thing = owner * n_slots + rank
    thing_of_slot = torch.full((n_owners * n_slots,), n, device=device)
    thing_of_slot[slot_of_thing] = torch.arange(n, device=device)
    return thing_of_slot.reshape(n_owners, n_slots), slot_of_thing


def _offsets(sizes: list[int]) -> list[int]:
    """Start of each block when blocks of these sizes are laid end to end."""
    return [sum(sizes[:i]) for i in range(len(sizes))]
