"""Lists that are filtered are the lists that would be searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from torch import Tensor

from phicalc.neighbors import NeighborList, neighbor_list
from phicalc.skin import NeighborSearch

CUTOFF = 4.0
PBC = {"open": [False] * 3, "slab": [True, False, True], "crystal": [True] * 3}


def structure(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rattled rock salt in a skewed cell, some atoms many cells away."""
    atoms = bulk("NaCl", "rocksalt", a=5.6).repeat((2, 2, 3))
    atoms.rattle(0.1, seed=1)
    positions, cell = atoms.positions.copy(), np.array(atoms.cell)
    if kind != "open":
        positions[3] += 7 * cell[0]
    tensors = (torch.from_numpy(np.ascontiguousarray(x)) for x in (positions, cell))
    return (*tensors, torch.tensor(PBC[kind]))


def assert_same(found: NeighborList, expected: NeighborList) -> None:
    assert torch.equal(found.edge_index, expected.edge_index)
    assert torch.equal(found.edge_shifts, expected.edge_shifts)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", PBC)
def test_filtered_lists_are_searched_lists(kind: str, half: bool) -> None:
    positions, cell, pbc = structure(kind)
    search = NeighborSearch(CUTOFF, half=half)
    generator = torch.Generator().manual_seed(1)
    velocity = 0.03 * torch.randn(positions.shape, generator=generator).double()
    lengths = set()
    for _ in range(60):
        positions = positions + velocity
        found = search.find(positions, cell, pbc)
        assert_same(found, neighbor_list(positions, cell, pbc, CUTOFF, half=half))
        lengths.add(found.edge_index.shape[1])
    assert len(lengths) > 5  # the list did change
    assert search.uses == 60
    assert 2 < search.searches < 30


@pytest.mark.parametrize("change", ["shrink", "shear", "grow"])
def test_cells_may_change(change: str) -> None:
    positions, cell, pbc = structure("crystal")
    strain = {
        "shrink": -0.004 * np.eye(3), "grow": 0.004 * np.eye(3),
        "shear": 0.006 * np.array([[0, 1, 0], [0, 0, 0.5], [0, 0, 0]]),
    }[change]  # fmt: skip
    deformation = torch.eye(3).double() + torch.from_numpy(strain)
    search = NeighborSearch(CUTOFF)
    for _ in range(40):
        positions, cell = positions @ deformation, cell @ deformation
        expected = neighbor_list(positions, cell, pbc, CUTOFF)
        assert_same(search.find(positions, cell, pbc), expected)
    assert search.searches < 20


def test_atoms_from_beyond_the_skin_are_found_in_time() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 7.0]], dtype=torch.float64)
    cell, pbc = torch.zeros(3, 3).double(), torch.tensor([False] * 3)
    search = NeighborSearch(CUTOFF)
    for _ in range(100):
        positions[1, 2] -= 0.05
        positions[0, 2] += 0.01
        found = search.find(positions.clone(), cell, pbc)
        assert found.edge_index.shape[1] == 2 * int((positions[1] - positions[0]).norm() < CUTOFF)
    assert search.searches < 20


def test_the_same_structure_is_searched_once_and_without_a_skin() -> None:
    positions, cell, pbc = structure("crystal")
    search = NeighborSearch(CUTOFF)
    first = search.find(positions, cell, pbc)
    assert search.find(positions.clone(), cell, pbc) is first
    assert (search.uses, search.searches) == (2, 1)


def test_what_drifts_as_a_whole_is_not_searched_again() -> None:
    positions, cell, pbc = structure("slab")
    search = NeighborSearch(CUTOFF)
    for step in range(50):
        search.find(positions + 0.5 * step, cell, pbc)
    assert search.searches == 2  # alone, and with the skin


def test_other_structures_are_searched() -> None:
    search = NeighborSearch(CUTOFF)
    for kind in ("open", "slab", "crystal", "open"):
        positions, cell, pbc = structure(kind)
        expected = neighbor_list(positions, cell, pbc, CUTOFF)
        assert_same(search.find(positions, cell, pbc), expected)
        fewer = positions[:-3]
        expected = neighbor_list(fewer, cell, pbc, CUTOFF)
        assert_same(search.find(fewer, cell, pbc), expected)
    assert search.searches == 8


def test_positions_that_are_changed_in_place_are_noticed() -> None:
    positions, cell, pbc = structure("crystal")
    search = NeighborSearch(CUTOFF)
    for _ in range(3):
        positions *= 1.05
        cell *= 1.05
        expected = neighbor_list(positions, cell, pbc, CUTOFF)
        assert_same(search.find(positions, cell, pbc), expected)


def test_numbers_that_are_none_are_refused_as_by_a_search() -> None:
    positions, cell, pbc = structure("crystal")
    search = NeighborSearch(CUTOFF)
    search.find(positions, cell, pbc)
    positions[2, 1] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        search.find(positions, cell, pbc)
