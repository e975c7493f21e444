"""Walls: repulsion of nuclei, messages that fade out, and bounded terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from phicalc.graph import from_ase
from phicalc.potential import Potential, PotentialOutput
from phicalc.terms import ScreenedRepulsion

from ..physics.conftest import ELEMENTS, tiny_potential

WALLS = {
    "repulsion": "zbl", "inner_envelope": True, "density_limit": 5.0,
    "head": {"name": "acks2", "softness_ceiling": 0.5},
}  # fmt: skip
PAIRS = [(a, b) for i, a in enumerate(ELEMENTS) for b in ELEMENTS[: i + 1]]


def evaluate(potential: Potential, atoms: Atoms) -> PotentialOutput:
    """Without a calculator, which refuses most of these structures."""
    with torch.no_grad():
        return potential(potential.prepare(from_ase(atoms, potential.cutoff)))


def energy_of(potential: Potential, atoms: Atoms) -> float:
    return float(evaluate(potential, atoms).energy)


def repulsion(a: str, b: str, distances: np.ndarray) -> np.ndarray:
    term = ScreenedRepulsion(ELEMENTS, 4.0)
    graphs = [from_ase(Atoms([a, b], [(0, 0, 0), (0, 0, d)]), 4.0) for d in distances]
    element = torch.tensor([ELEMENTS.index(a), ELEMENTS.index(b)])
    return np.array([float(term(element, graph).sum()) for graph in graphs])


def test_nuclei_repel_each_other_as_published() -> None:
    """Closed form of one pair: the universal screening function, here written down again."""
    distances = np.array([0.01, 0.05, 0.1])
    a = 0.46850 / (11**0.23 + 17**0.23)
    x = distances / a
    phi = 0.18175 * np.exp(-3.19980 * x) + 0.50986 * np.exp(-0.94229 * x)
    phi += 0.28022 * np.exp(-0.40290 * x) + 0.02817 * np.exp(-0.20162 * x)
    expected = 14.399645 * 11 * 17 / distances * phi
    np.testing.assert_allclose(repulsion("Na", "Cl", distances), expected, rtol=1e-6)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_wall_rises_inwards_and_ends_at_the_covalent_radii(a: str, b: str) -> None:
    end = covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]
    energies = repulsion(a, b, np.linspace(min(end, 4.0), 0.1, 60))
    assert energies[0] == pytest.approx(0, abs=1e-12)
    assert (np.diff(energies) > -1e-12).all()
    assert energies[-1] > 20


@pytest.fixture(scope="module")
def walled() -> Potential:
    """Random weights, as large as those of a network that knows nothing."""
    return tiny_potential(**WALLS)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_no_pair_falls_into_a_hole(walled: Potential, a: str, b: str) -> None:
    contact = covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]
    inside = np.linspace(0.45 * contact, 0.2, 12)
    pairs = [Atoms([a, b], [(0, 0, 0), (0, 0, d)]) for d in inside]
    found = [evaluate(walled, pair) for pair in pairs]
    assert (np.diff([float(each.energy) for each in found]) > 0).all()
    assert max(float(each.charges.abs().max()) for each in found) < 10


@pytest.mark.parametrize("scale", [0.6, 0.2 ** (1 / 3)])
def test_crowded_crystals_are_above_loose_ones(walled: Potential, scale: float) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    crowded = crystal.copy()
    crowded.set_cell(scale * crystal.cell, scale_atoms=True)
    assert energy_of(walled, crowded) > energy_of(walled, crystal)


def test_saturation_bounds_what_a_crowd_of_neighbors_makes() -> None:
    """Energies per atom grow without bound with the number of neighbors only without a limit."""

    def energy(limit: float | None, n: int) -> float:
        potential = tiny_potential(head="none", density_limit=limit)
        rng = np.random.default_rng(3)
        ball = rng.normal(size=(n, 3))
        ball *= 1.5 / np.linalg.norm(ball, axis=1)[:, None]
        atoms = Atoms(f"OH{n}", [(0, 0, 0), *ball])
        return abs(float(evaluate(potential, atoms).atomic_energies[0]))

    assert energy(None, 200) > 100 * energy(5.0, 200)
    assert energy(5.0, 200) < 3 * energy(5.0, 100) + 10
