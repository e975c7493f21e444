"""The graph: what from_ase reads, how structures are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.electrostatics import plan_coulomb
from phicalc.graph import AtomicGraph, collate, edge_vectors, from_ase, slots, sum_per_structure


def test_from_ase_reads_everything() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.info["charge"] = -1
    graph = from_ase(atoms, 3.0)
    assert (graph.n_atoms, graph.n_structures, graph.n_edges) == (2, 1, 12)
    assert graph.positions.dtype == graph.cell.dtype == torch.float64
    assert graph.atomic_numbers.tolist() == [11, 17]
    assert graph.pbc.tolist() == [[True] * 3]
    assert graph.total_charge.tolist() == [-1.0]
    assert from_ase(atoms, 3.0, total_charge=2.0).total_charge.tolist() == [2.0]
    torch.testing.assert_close(edge_vectors(graph).norm(dim=1), torch.full((12,), 2.82).double())


def test_positions_are_a_copy() -> None:
    atoms = molecule("H2O")
    graph = from_ase(atoms, 3.0)
    atoms.positions += 1.0
    assert not np.allclose(graph.positions, atoms.positions)


def test_collate_offsets_atoms_and_structures() -> None:
    structures = [molecule("H2O"), Atoms(), Atoms("Ar"), bulk("Cu")]
    graphs = [from_ase(atoms, 3.0) for atoms in structures]
    batch = collate(graphs)
    assert batch.batch.tolist() == [0, 0, 0, 2, 3]
    assert batch.n_structures == 4
    lengths = torch.cat([edge_vectors(g).norm(dim=1) for g in graphs])
    torch.testing.assert_close(edge_vectors(batch).norm(dim=1), lengths)
    ones = torch.ones(batch.n_atoms, dtype=torch.float64)
    assert sum_per_structure(ones, batch).tolist() == [3.0, 0.0, 1.0, 1.0]


def test_collate_joins_coulomb_plans() -> None:
    structures = [bulk("NaCl", "rocksalt", a=5.6), molecule("H2O"), bulk("NaCl", "rocksalt", a=7.0)]
    graphs = [from_ase(atoms, 3.0) for atoms in structures]

    def widths(graph: AtomicGraph) -> torch.Tensor:
        return torch.full((graph.n_atoms,), 0.5, dtype=torch.float64)

    single = [plan_coulomb(graph, widths(graph), 1e-8) for graph in graphs]
    joined = collate(single).coulomb
    together = collate(graphs)
    planned = plan_coulomb(together, widths(together), 1e-8).coulomb
    assert joined is not None
    assert planned is not None
    for first, second in zip(joined, planned, strict=True):
        assert torch.equal(first, second)
    with pytest.raises(ValueError, match=r"call potential\.prepare on all"):
        collate([single[0], graphs[1]])


def test_collate_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        collate([])


def test_slots_lay_atoms_out_by_structure() -> None:
    table, place = slots(torch.tensor([0, 2, 2, 0, 2]), 3)
    assert table.tolist() == [[0, 3, 5], [5, 5, 5], [1, 2, 4]]
    assert table.reshape(-1)[place].tolist() == [0, 1, 2, 3, 4]


def test_to_moves_every_tensor() -> None:
    graph = from_ase(molecule("H2O"), 3.0)
    graph = plan_coulomb(graph, torch.ones(3, dtype=torch.float64), 1e-6).to("meta")
    assert graph.coulomb is not None
    assert {tensor.device.type for tensor in (*graph[:-1], *graph.coulomb)} == {"meta"}
