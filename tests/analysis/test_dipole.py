"""Dipoles: continuous, independent of images; dielectric constants of known fluctuations."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule

from phicalc.analysis.dipole import dielectric_constant, group_charges, itinerant_dipole
from phicalc.structures import water_box
from phicalc.units import COULOMB_CONSTANT

from .runs import frames_of, read_trajectory, trajectory_of

WATER = np.array([-0.8, 0.4, 0.4])


def test_dipole_of_a_molecule_is_that_of_its_charges(rng):
    water = molecule("H2O")
    charges = np.array([[-0.8, 0.5, 0.4], [-0.7, 0.3, 0.5]])  # of ions, and in motion
    positions = water.positions + rng.normal(0, 0.05, (2, 3, 3))
    found = itinerant_dipole(trajectory_of(water, positions, 1.0, charges=charges))
    masses = water.get_masses()
    centre = np.einsum("n,fna->fa", masses / masses.sum(), positions)
    expected = np.einsum("fn,fna->fa", charges, positions - centre[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_images_and_wandering_molecules_leave_no_trace(rng):
    box = water_box(8)
    n_frames = 50
    drift = np.repeat(np.cumsum(rng.normal(0, 1.0, (n_frames, 8, 3)), axis=0), 3, axis=1)
    charges = np.tile(WATER, 8) + rng.normal(0, 0.02, (n_frames, 24))
    charges -= charges.mean(axis=1, keepdims=True)  # molecules exchange charge
    frames = frames_of(box, box.positions + drift, 1.0, charges=charges)
    for frame in frames:
        frame.wrap()
    found = itinerant_dipole(read_trajectory(frames))
    masses = molecule("H2O").get_masses()
    centres = np.einsum("m,gma->ga", masses / masses.sum(), _whole(box))
    expected = np.einsum("fgm,gma->fa", charges.reshape(-1, 8, 3), _whole(box) - centres[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def _whole(box: Atoms) -> np.ndarray:
    """Positions of waters, each about its oxygen."""
    groups = [box[i : i + 3].get_distances(0, [0, 1, 2], mic=True, vector=True)
              for i in range(0, len(box), 3)]  # fmt: skip
    return np.array(groups) + box.positions[::3, None]


def test_ions_of_a_crystal_move_by_their_mean_charge():
    salt = Atoms("NaCl", [[0, 0, 0], [2.82, 0, 0]], cell=[5.64] * 3, pbc=True)
    positions = np.array([salt.positions] * 3)
    positions[:, 0, 2] += [0.0, 0.1, 0.2]
    charges = np.array([[0.9, -0.9], [1.0, -1.0], [1.1, -1.1]])
    found = itinerant_dipole(trajectory_of(salt, positions, 1.0, charges=charges))
    np.testing.assert_allclose(found - found[0], [[0, 0, 0], [0, 0, 0.1], [0, 0, 0.2]], atol=1e-12)


def test_slab_has_its_whole_dipole_along_the_normal():
    slab = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.8]], cell=[4, 4, 0], pbc=[True, True, False])
    charges = np.array([[0.9, -0.9], [1.1, -1.1]])
    positions = np.array([slab.positions] * 2)
    found = itinerant_dipole(trajectory_of(slab, positions, 1.0, charges=charges))
    np.testing.assert_allclose(found[:, 2], [-0.9 * 2.8, -1.1 * 2.8])


def rotors(rng, n_frames: int, size: float):
    """Independent dipoles that turn at random: ⟨M²⟩ = n size²."""
    box = water_box(27, density=0.9)
    directions = rng.normal(size=(n_frames, 27, 3))
    directions *= 1 / np.linalg.norm(directions, axis=-1, keepdims=True)
    arm = 0.5 * size * directions
    oxygen = box.positions[::3][None]
    positions = np.stack([np.broadcast_to(oxygen, arm.shape), oxygen + arm, oxygen - arm], axis=2)
    charges = np.tile([0.0, 1.0, -1.0], 27)
    atoms = Atoms("OHH" * 27, cell=box.cell, pbc=True)
    return trajectory_of(atoms, positions.reshape(n_frames, 81, 3), 1.0, charges=charges)


def test_free_dipoles_have_the_dielectric_constant_of_their_fluctuation(rng):
    size, temperature = 1.1, 350.0
    trajectory = rotors(rng, 3000, size)
    moments = itinerant_dipole(trajectory)
    found = dielectric_constant(trajectory, moments, temperature)
    density = 27 / trajectory.volume
    exact = 1 + 4 * np.pi * COULOMB_CONSTANT * density * size**2 / (3 * units.kB * temperature)
    assert found.value == pytest.approx(exact, rel=0.05)
    assert abs(found.value - exact) < 4 * found.error
    assert found.error < 0.05 * exact


def test_where_it_is_not_defined_the_reason_is_told(rng):
    trajectory = rotors(rng, 20, 1.0)
    moments = itinerant_dipole(trajectory)
    with pytest.raises(ValueError, match="above 0 K"):
        dielectric_constant(trajectory, moments, 0.0)
    with pytest.raises(ValueError, match="no charges"):
        itinerant_dipole(trajectory._replace(charges=None))
    with pytest.raises(ValueError, match="too few for a fluctuation"):
        dielectric_constant(trajectory.late(0.9), moments, 300.0)
    open_box = water_box(2, density=0.3)
    open_box.pbc = False
    open_run = trajectory_of(open_box, np.array([open_box.positions] * 20), 1.0,
                             charges=np.tile(WATER, 2))  # fmt: skip
    with pytest.raises(ValueError, match="three directions"):
        dielectric_constant(open_run, itinerant_dipole(open_run), 300.0)


def test_conductors_and_broken_molecules_are_refused():
    melt = Atoms("NaCl", [[0, 0, 0], [3, 3, 3]], cell=[6] * 3, pbc=True)
    positions = melt.positions + np.linspace(0, 4, 20)[:, None, None] * np.array([[[0], [1]]])
    run = trajectory_of(melt, positions, 1.0, charges=np.array([1.0, -1.0]))
    np.testing.assert_allclose(group_charges(run), [1, -1])
    with pytest.raises(ValueError, match="conductor"):
        dielectric_constant(run, itinerant_dipole(run), 300.0)
    box = water_box(2, density=0.3)
    positions = np.array([box.positions] * 20)
    positions[:, 1] += np.linspace(0, 2, 20)[:, None]
    run = trajectory_of(box, positions, 1.0, charges=np.tile(WATER, 2))
    with pytest.raises(ValueError, match="molecules break"):
        itinerant_dipole(run)
