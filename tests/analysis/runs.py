"""Trajectories of which everything is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.analysis.trajectory import Trajectory, read_trajectory


def frames_of(
    atoms: Atoms,
    positions: np.ndarray,
    interval: float,
    *,
    velocities: np.ndarray | None = None,
    charges: np.ndarray | None = None,
    cells: Sequence | None = None,
) -> list[Atoms]:
    """Frames as a run would have written them; times in fs, velocities in Å/fs."""
    frames = []
    for number, place in enumerate(positions):
        frame = atoms.copy()
        if cells is not None:
            frame.set_cell(cells[number])
        frame.positions = place
        frame.info["time_fs"] = number * interval
        if velocities is not None:
            frame.set_velocities(velocities[number] / units.fs)
        if charges is not None:
            of_frame = charges[number] if np.ndim(charges) == 2 else charges
            frame.calc = SinglePointCalculator(frame, energy=0.0, charges=np.array(of_frame))
        frames.append(frame)
    return frames


def trajectory_of(*arguments, **keywords) -> Trajectory:
    """Make the trajectory of such frames."""
    return read_trajectory(frames_of(*arguments, **keywords))
