"""A slab of TiO2 under water: `make bench ARGS="-k slab"` (a quarter of an hour).

`tio2-water` runs 5 ps at 300 K from a frame of its data, a slab of rutile with 64 molecules of
water and vacuum above, with the boundary conditions of a slab (periodic in the plane alone).
Prints where the atoms went; nothing may come off. Log and trajectory stay in ``runs/slab``.
"""

from __future__ import annotations

from collections.abc import Callable

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from phicalc import PhiCalculator
from phicalc.md import MDConfig, read_log, run_md

from .water_start import RUNS

VACUUM = 10.0
#: Lengths in Å: of a bond between oxygen and hydrogen at most, and of one between titanium and
#: oxygen.
OH, TIO = 1.35, 2.7


def rutile_under_water(path) -> Atoms:
    """Take the last frame of rutile with water and vacuum, in one piece, as a slab."""
    frames = ase.io.read(path, ":")
    atoms = [a for a in frames if a.info["config_type"] == "r5-water-v-rutile"][-1]
    heights = np.sort(atoms.get_scaled_positions()[:, 2])
    gaps = np.diff(np.append(heights, heights[0] + 1))
    widest = int(gaps.argmax())
    atoms.positions -= (heights[widest] + gaps[widest]) * atoms.cell[2]
    atoms.wrap()
    atoms.pbc = (True, True, False)
    atoms.center(VACUUM, axis=2)
    atoms.calc = None
    return atoms


def nearest(atoms: Atoms, ones: str, others: str) -> np.ndarray:
    """Distance in Å of each atom of an element to the nearest atom of another."""
    first, second = (np.flatnonzero(atoms.symbols == name) for name in (ones, others))
    vectors = atoms.positions[second][None] - atoms.positions[first][:, None]
    _, lengths = find_mic(vectors.reshape(-1, 3), atoms.cell, atoms.pbc)
    return lengths.reshape(len(first), -1).min(1)


def test_slab(record: Callable[[str, float], None], shared_data) -> None:
    atoms = rutile_under_water(shared_data("tio2_water_optb88_subset.xyz.gz"))
    start = atoms.copy()
    atoms.calc = PhiCalculator("tio2-water", compile=True)
    config = MDConfig(
        temperature=300.0, timestep=0.5, steps=10_000, thermostat_time=100.0, seed=1,
        log_interval=20, trajectory_interval=100,
    )  # fmt: skip
    result = run_md(atoms, config, RUNS / "slab", overwrite=True)
    frames = ase.io.read(result.trajectory, ":")
    temperature = read_log(result.log)["temperature_K"][100:].mean()
    speed = 1e3 * result.seconds / config.steps
    longest = max(nearest(frame, "H", "O").max() for frame in frames)
    bond = max(nearest(frame, "Ti", "O").max() for frame in frames)
    titanium = start.symbols == "Ti"
    moved = np.linalg.norm((frames[-1].positions - start.positions)[titanium], axis=1)
    height = max(np.ptp(frame.positions[:, 2]) for frame in frames) - np.ptp(start.positions[:, 2])
    print(f"\n{start.get_chemical_formula()}, 5 ps: {speed:.1f} ms a step, {temperature:.0f} K")
    print(f"longest O-H {longest:.2f} Å, longest Ti-O to the nearest O {bond:.2f} Å")
    print(f"titanium moved by {moved.mean():.2f} Å (largest {moved.max():.2f}), the whole grew by "
          f"{height:.1f} Å")  # fmt: skip
    record("slab of rutile and water, step (ms)", speed)
    assert abs(temperature - 300) < 15
    assert longest < OH
    assert bond < TIO
