"""Make graphs of single structures."""

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from phicalc.graph.conditions import Conditions, total_charge_of
from phicalc.graph.record import AtomicGraph, Fragments
from phicalc.skin import NeighborSearch
from phicalc.structures import check_structure


def from_ase(
    atoms: Atoms,
    cutoff: float,
    *,
    total_charge: float | None = None,
    conditions: Conditions | None = None,
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
    conditions
        All external conditions, in place of `total_charge`; ``atoms.info`` is not read then.
    engine
        Neighbor engine, see `phicalc.neighbors.neighbor_list`.
    search
        Search with this cutoff that remembers the structure before; `engine` has no meaning then.

    Raises
    ------
    ValueError
        For positions or cells that are not finite, a periodic cell without volume, an
        ``info["charge"]`` that is not one finite number, or arrays that
        `phicalc.structures.check_structure` refuses.
    """
    check_structure(atoms)
    if conditions is None:
        conditions = Conditions(total_charge_of(atoms) if total_charge is None else total_charge)
    positions = _as_tensor(atoms.positions, np.float64).reshape(-1, 3)
    cell, pbc = _as_tensor(atoms.cell.array, np.float64), _as_tensor(atoms.pbc, np.bool_)
    edges = (search or NeighborSearch(cutoff, engine=engine)).find(positions, cell, pbc)
    everyone = torch.arange(len(atoms))
    graph = AtomicGraph(
        positions=positions,
        atomic_numbers=_as_tensor(atoms.numbers, np.int64),
        cell=cell[None],
        pbc=pbc[None],
        batch=torch.zeros(len(atoms), dtype=torch.int64),
        edge_index=edges.edge_index,
        edge_shifts=edges.edge_shifts,
        edge_of_slot=slots(edges.edge_index[0], len(atoms))[0],
        atom_of_slot=everyone[None],
        slot_of_atom=everyone,
        total_charge=torch.zeros(1, dtype=torch.float64),
    )
    return conditions.apply(graph)


def _as_tensor(values: Shaped[np.ndarray, "..."], dtype: type) -> Shaped[Tensor, "..."]:
    """Copy an array of any type and byte order."""
    return torch.from_numpy(np.array(values, dtype=dtype))


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


def whole_structures(graph: AtomicGraph) -> Fragments:
    """Describe each structure as one fragment with its total charge."""
    total = graph.total_charge[:, None]
    zeros = torch.zeros_like(graph.positions[:, 0])
    return Fragments(zeros.long(), torch.ones_like(total, dtype=torch.bool), total, zeros)
