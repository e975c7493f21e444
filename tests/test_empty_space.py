"""Cost follows atoms: large cells and atoms far away cost little, or are refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from ase.build import molecule

from phicalc import PhiCalculator
from phicalc.electrostatics.sums.choice import choose
from phicalc.electrostatics.sums.settings import CoulombSettings
from phicalc.neighbors import available_engines, neighbor_list

#: Space around molecules is outside of the densities of liquid water.
pytestmark = pytest.mark.filterwarnings(
    "ignore:the density is:phicalc.inference.concerns.DomainWarning"
)


@pytest.fixture(scope="module")
def water_model():
    return PhiCalculator("water-pbe0", compile=False)


@pytest.mark.parametrize("length", [150.0, 500.0, 1e4, 1e8])
def test_a_molecule_in_a_large_box_costs_little(length, water_model):
    atoms = molecule("H2O")
    alone = atoms.copy()
    alone.calc = water_model
    isolated = alone.get_potential_energy()
    atoms.cell, atoms.pbc = [length] * 3, True
    atoms.calc = water_model
    start = time.process_time()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert time.process_time() - start < 2.0
    # The dipole and its images: -2π k_e μ² / 3V, and the accuracy of the sums.
    assert energy == pytest.approx(isolated, abs=2e-5 + 2e2 / length**3)
    assert np.abs(forces - alone.get_forces()).max() < 2e-3


@pytest.mark.parametrize("length", [150.0, 1000.0, 1e5])
def test_sums_in_nearly_empty_cells_choose_few_waves(length):
    positions = torch.tensor(molecule("H2O").positions)
    cell, pbc = length * torch.eye(3, dtype=torch.float64), torch.tensor([True] * 3)
    widths = torch.full((3,), 0.5, dtype=torch.float64)
    for settings in (CoulombSettings(), CoulombSettings(force_accuracy=1e-6)):
        found = choose(positions, cell, pbc, widths, 1.0, settings, narrower=True)
        n_waves = (found.k_cutoff * length) ** 3 / (12 * np.pi**2)
        assert n_waves < 2e5


@pytest.mark.parametrize("pbc", [(1, 0, 0), (1, 1, 0), (0, 0, 0), (1, 1, 1)])
@pytest.mark.parametrize("distance", [1e3, 1e7, 1e8])
def test_atoms_far_away_cost_little_or_are_refused(pbc, distance, water_model):
    atoms, other = molecule("H2O"), molecule("H2O")
    other.translate([0, 0, distance])
    atoms += other
    atoms.cell, atoms.pbc, atoms.calc = [12.0] * 3, pbc, water_model
    start = time.process_time()
    energy, reason = None, ""
    try:
        energy = atoms.get_potential_energy()
    except RuntimeError as error:
        reason = str(error)
    if energy is None:
        assert sum(pbc) in (1, 2)
        assert distance > 1e6
        assert "look for an atom far away from the others" in reason
    else:
        assert energy == pytest.approx(2 * -467.52, abs=0.2)
    assert time.process_time() - start < 8.0


@pytest.mark.parametrize("engine", available_engines())
@pytest.mark.parametrize("pbc", [(1, 0, 0), (1, 1, 0), (0, 0, 0)])
def test_gaps_along_open_axes_leave_the_pairs_alone(engine, pbc):
    random = np.random.default_rng(3)
    cluster = random.uniform(0, 6, (40, 3))
    shifts = np.array([[0, 0, 0], [0, 0, 1e6], [0, 3e5, 1e6]]) * (1 - np.array(pbc))
    positions = (cluster + shifts[:, None]).reshape(-1, 3)
    cell = torch.tensor([[6.0, 0, 0], [1.0, 7.0, 0], [0, 0, 8.0]], dtype=torch.float64)
    start = time.process_time()
    found = neighbor_list(
        torch.tensor(positions), cell, torch.tensor(pbc, dtype=torch.bool), 3.0, engine=engine
    )
    assert time.process_time() - start < 2.0
    alone = neighbor_list(
        torch.tensor(cluster), cell, torch.tensor(pbc, dtype=torch.bool), 3.0, engine="vesin"
    )
    distinct = len(np.unique(shifts, axis=0))
    pairs = {(*map(int, pair), *map(int, shift)) for pair, shift in zip(
        found.edge_index.T, found.edge_shifts, strict=True)}  # fmt: skip
    for number in range(3 if distinct == 3 else 1):
        for (i, j), shift in zip(alone.edge_index.T, alone.edge_shifts, strict=True):
            assert (int(i) + 40 * number, int(j) + 40 * number, *map(int, shift)) in pairs
    if distinct == 3:
        assert len(pairs) == 3 * alone.edge_index.shape[1]
