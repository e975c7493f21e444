"""Diffusion: random walks of known coefficient, by elements, directions and moving cells."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from phicalc.analysis.diffusion import _displacement, diffusion

from .runs import trajectory_of


def walk(rng, n_frames: int, n_atoms: int, coefficients: np.ndarray, interval: float) -> np.ndarray:
    """Brownian motion; coefficients in Å²/fs for each atom."""
    widths = np.sqrt(2 * coefficients * interval)[:, None]
    steps = rng.normal(size=(n_frames, n_atoms, 3)) * widths
    return rng.uniform(0, 12, (n_atoms, 3)) + np.cumsum(steps, axis=0)


def test_random_walk_has_its_coefficient(rng):
    atoms = Atoms("Ar60Kr60", cell=[12.0] * 3, pbc=True)
    given = np.repeat([2e-4, 8e-4], 60)  # 2 and 8 in 1e-9 m²/s
    positions = walk(rng, 2000, 120, given, 10.0)
    found = diffusion(trajectory_of(atoms, positions, 10.0))
    for element, symbol, exact in zip(found, ("Ar", "Kr"), (2.0, 8.0), strict=True):
        assert element.symbol == symbol
        assert element.diffusive
        assert element.coefficient.value == pytest.approx(exact, rel=0.08)
        assert abs(element.coefficient.value - exact) < 4 * element.coefficient.error
        assert element.coefficient.error < 0.1 * exact


def test_only_periodic_directions_count_and_drift_does_not(rng):
    atoms = Atoms("Ar100", cell=[12.0] * 3, pbc=[True, True, False])
    positions = walk(rng, 1200, 100, np.full(100, 5e-4), 10.0)
    positions[..., 2] = 3.0
    positions += np.arange(1200)[:, None, None] * np.array([0.02, 0, 0])
    (found,) = diffusion(trajectory_of(atoms, positions, 10.0))
    assert found.coefficient.value == pytest.approx(5.0, rel=0.12)


def test_breathing_of_the_cell_is_no_diffusion(rng):
    atoms = Atoms("Ar8", cell=[6.0] * 3, pbc=True)
    scaled = rng.uniform(0, 1, (8, 3)) + 5
    cells = [np.eye(3) * (6 + 0.3 * np.sin(i / 5)) for i in range(200)]
    positions = np.array([scaled @ cell for cell in cells])
    (found,) = diffusion(trajectory_of(atoms, positions, 10.0, cells=cells))
    assert abs(found.coefficient.value) < 1e-9
    assert not found.diffusive


def test_fast_displacements_are_those_of_the_definition(rng):
    positions = np.cumsum(rng.normal(size=(50, 3, 3)), axis=0)
    expected = [
        np.mean(np.sum((positions[lag:] - positions[: 50 - lag]) ** 2, axis=-1))
        for lag in range(1, 25)
    ]
    np.testing.assert_allclose(_displacement(positions, 24)[1:], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("atoms", "n_frames", "message"),
    [
        (Atoms("Ar2"), 100, "does not diffuse endlessly"),
        (Atoms("Ar", cell=[5] * 3, pbc=True), 100, "its own center of mass"),
        (Atoms("Ar2", cell=[5] * 3, pbc=True), 10, "10 frames are too few"),
    ],
)
def test_where_there_is_no_diffusion_the_reason_is_told(atoms, n_frames, message):
    positions = np.zeros((n_frames, len(atoms), 3)) + 2.0 * np.arange(len(atoms))[:, None]
    with pytest.raises(ValueError, match=message):
        diffusion(trajectory_of(atoms, positions, 1.0))
