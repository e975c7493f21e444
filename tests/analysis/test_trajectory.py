"""Trajectories: unwrapped, molecules whole, evenly spaced; molecules and networks told apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from phicalc.analysis.trajectory import read_trajectory
from phicalc.structures import water_box
from phicalc.structures.molecules import find_molecules, longest_stretch

from .runs import frames_of, trajectory_of


def test_wrapped_atoms_are_followed_across_the_boundary(rng):
    atoms = Atoms("Ar4", cell=[[6, 0, 0], [2, 7, 0], [1, 1, 8]], pbc=[True, True, False])
    start = rng.uniform(0, 5, (4, 3))
    positions = start + np.cumsum(rng.normal(0, 0.5, (60, 4, 3)), axis=0)
    frames = frames_of(atoms, positions, 2.0)
    for frame in frames:
        frame.wrap()
    found = read_trajectory(frames)
    moved = positions - positions[0]
    np.testing.assert_allclose(found.positions - found.positions[0], moved, atol=1e-9)
    assert found.interval == 2.0
    assert found.n_frames == 60


def test_molecules_are_whole_in_every_frame():
    box = water_box(8)
    box.positions += 0.3 * np.arange(3)
    box.wrap()
    frames = frames_of(box, box.positions + np.linspace(0, 9, 40)[:, None, None], 1.0)
    for frame in frames:
        frame.wrap()
    found = read_trajectory(frames)
    assert longest_stretch(found.molecules, box.numbers, found.positions) == pytest.approx(
        1.0, abs=0.05
    )
    assert found.molecules.finite.all()
    assert len(found.molecules.finite) == 8


def test_moving_cells_keep_fractional_coordinates():
    atoms = Atoms("Ar2", [[1, 1, 1], [5, 5, 5]], cell=[6, 6, 6], pbc=True)
    cells = [np.eye(3) * (6 + 0.1 * i) for i in range(5)]
    positions = [atoms.get_scaled_positions() @ cell for cell in cells]
    found = trajectory_of(atoms, np.array(positions), 1.0, cells=cells)
    np.testing.assert_allclose(found.scaled - found.scaled[0], 0, atol=1e-12)
    np.testing.assert_allclose(found.frames(2)[-1].cell.lengths(), 6.4)


def test_frames_off_the_grid_are_left_out_and_missing_ones_refused():
    atoms = Atoms("Ar", cell=[5, 5, 5], pbc=True)
    frames = frames_of(atoms, np.zeros((6, 1, 3)), 10.0)
    frames[-1].info["time_fs"] = 43.0
    assert read_trajectory(frames).n_frames == 5
    with pytest.raises(ValueError, match="equal intervals, none missing"):
        read_trajectory([*frames[:2], *frames[3:]])
    with pytest.raises(ValueError, match="tell their time"):
        read_trajectory([Atoms("Ar"), Atoms("Ar")])
    with pytest.raises(ValueError, match="at least one frame"):
        read_trajectory([])
    with pytest.raises(ValueError, match="frame 1 holds other atoms"):
        read_trajectory([Atoms("Ar"), Atoms("Kr")])


def test_part_after_the_start():
    found = trajectory_of(Atoms("Ar"), np.arange(30.0).reshape(10, 1, 3), 5.0).late(0.4)
    assert found.n_frames == 6
    assert found.start == 20.0
    assert found.positions[0, 0, 0] == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("atoms", "n_finite", "n_all"),
    [
        (molecule("CH3CH2OH"), 1, 1),
        (water_box(8), 8, 8),
        (bulk("Si", cubic=True), 0, 1),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), 8, 8),  # ions, each for itself
        (fcc111("Cu", (2, 2, 3), vacuum=5.0), 0, 1),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), 2, 2),
    ],
    ids=["ethanol", "water", "silicon", "salt", "slab", "argon"],
)
def test_molecules_end_and_networks_do_not(atoms, n_finite, n_all):
    found = find_molecules(atoms)
    assert found.finite.sum() == n_finite
    assert len(found.finite) == n_all
