"""The graph: what from_ase reads, how structures are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.derivatives import predict
from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.graph import (
    AtomicGraph,
    collate,
    edge_vectors,
    field_coordinate,
    from_ase,
    from_tensors,
    slots,
    sum_per_structure,
)
from phicalc.potential import build_potential

from .tiny import flat_config


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

    single = [plan_coulomb(graph, widths(graph)) for graph in graphs]
    joined = collate(single).coulomb
    together = collate(graphs)
    planned = plan_coulomb(together, widths(together)).coulomb
    assert joined is not None
    assert planned is not None
    for name, first, second in zip(joined._fields, joined, planned, strict=True):
        assert (first is None and second is None) or torch.equal(first, second), name
    with pytest.raises(ValueError, match=r"call potential\.prepare on all"):
        collate([single[0], graphs[1]])


def test_collate_fills_in_guesses_and_fields_that_only_some_graphs_have() -> None:
    water, nothing, argon = (from_ase(a, 3.0) for a in (molecule("H2O"), Atoms(), Atoms("Ar")))
    plain = collate([water, nothing, argon])
    assert plain.charge_guess is None
    assert plain.external_field is None
    guess = torch.tensor([-0.8, 0.4, 0.4], dtype=torch.float64)
    field = torch.tensor([[0.0, 0.1, 0.2]], dtype=torch.float64)
    batch = collate(
        [argon._replace(external_field=field), nothing, water._replace(charge_guess=guess)]
    )
    assert batch.charge_guess is not None
    assert batch.charge_guess.tolist() == [0.0, -0.8, 0.4, 0.4]
    assert batch.external_field is not None
    assert batch.external_field.tolist() == [[0.0, 0.1, 0.2], [0.0] * 3, [0.0] * 3]
    nested = collate([water, batch])
    assert nested.charge_guess is not None
    assert nested.charge_guess.tolist() == [0.0] * 4 + guess.tolist()
    assert field_coordinate(nested).abs().max() == 0  # argon lies at the origin
    moved = nested._replace(positions=nested.positions + 1.0)
    assert field_coordinate(moved).tolist() == pytest.approx([0, 0, 0, 0.3, 0, 0, 0])


def test_batches_with_a_field_somewhere_give_what_single_graphs_give() -> None:
    config = flat_config(
        elements=("H", "O"), channels=4, l_max=1, layers=1, charge_feedback="embedding"
    )
    potential = build_potential(config).double()
    water = from_ase(molecule("H2O"), potential.cutoff)
    pair = from_ase(molecule("H2O2"), potential.cutoff)
    field = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    graphs = [water, pair._replace(external_field=field), pair]
    together = predict(potential, potential.prepare(collate(graphs)))
    single = [predict(potential, potential.prepare(graph)) for graph in graphs]
    for name in ("energy", "forces", "charges"):
        expected = torch.cat([getattr(result, name) for result in single])
        torch.testing.assert_close(getattr(together, name), expected, rtol=1e-9, atol=1e-9)
    work = together.terms["external_field"].tolist()
    assert work[0] == work[2] == 0 != work[1]


def test_collate_joins_plans_of_all_kinds() -> None:
    slab = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab.pbc = [True, True, False]
    plans = []
    for atoms, method in ((molecule("H2O"), "direct"), (slab, "mesh"), (bulk("Cu"), "ewald")):
        graph = from_ase(atoms, 3.0)
        widths = torch.full((graph.n_atoms,), 0.6, dtype=torch.float64)
        plans.append(plan_coulomb(graph, widths, CoulombSettings(1e-4, method)))
    batch = collate(plans)
    widths = torch.full((batch.n_atoms,), 0.6, dtype=torch.float64)
    charges = torch.linspace(-1, 1, batch.n_atoms, dtype=torch.float64)
    together = CoulombSum(batch, widths).energy(charges)
    single = [
        CoulombSum(plan, widths[: plan.n_atoms]).energy(charges[batch.batch == i])
        for i, plan in enumerate(plans)
    ]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-10, atol=1e-10)


def test_collate_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        collate([])


def test_slots_lay_atoms_out_by_structure() -> None:
    table, place = slots(torch.tensor([0, 2, 2, 0, 2]), 3)
    assert table.tolist() == [[0, 3, 5], [5, 5, 5], [1, 2, 4]]
    assert table.reshape(-1)[place].tolist() == [0, 1, 2, 3, 4]


def test_to_moves_every_tensor() -> None:
    graph = from_ase(molecule("H2O"), 3.0)
    graph = plan_coulomb(graph, torch.ones(3, dtype=torch.float64)).to("meta")
    assert graph.coulomb is not None
    tensors = [x for x in (*graph, *graph.coulomb) if isinstance(x, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_graphs_can_be_made_of_tensors():
    structures = [bulk("NaCl", "rocksalt", a=5.6), bulk("Cu", cubic=True)]
    expected = collate([from_ase(atoms, 4.0) for atoms in structures])
    found = from_tensors(
        expected.positions,
        expected.edge_index,
        batch=expected.batch,
        cell=expected.cell,
        edge_shifts=expected.edge_shifts,
        atomic_numbers=expected.atomic_numbers,
    )
    for name, value in expected._asdict().items():
        assert (value is None) == (getattr(found, name) is None), name
        if value is not None:
            assert torch.equal(getattr(found, name), value), name


def test_graphs_of_tensors_are_single_open_and_neutral_by_default():
    expected = from_ase(molecule("CH3OH"), 3.0)
    found = from_tensors(expected.positions, expected.edge_index)
    for name in ("cell", "pbc", "batch", "edge_shifts", "edge_of_slot", "total_charge"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
