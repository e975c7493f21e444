"""A trajectory as arrays: unwrapped, evenly spaced in time, checked once."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from ase.geometry import complete_cell
from jaxtyping import Float, Int, Shaped

from phicalc.structures.molecules import Molecules, find_molecules


class Trajectory(NamedTuple):
    """Frames of the same atoms, at equal intervals of time."""

    atoms: Atoms
    """The first frame of the file."""
    start: float
    """Time of the first frame in fs."""
    interval: float
    """Time between frames in fs; NaN for a single frame."""
    scaled: Float[np.ndarray, "n_frames n_atoms 3"]
    """Fractional coordinates without jumps at boundaries, (n_frames, n_atoms, 3)."""
    cells: Float[np.ndarray, "n_frames 3 3"]
    """Cells in Å, completed by unit vectors along axes without a vector, (n_frames, 3, 3)."""
    velocities: Float[np.ndarray, "n_frames n_atoms 3"] | None
    """Å/fs, (n_frames, n_atoms, 3); None where the frames have none."""
    charges: Float[np.ndarray, "n_frames n_atoms"] | None
    """e, (n_frames, n_atoms); None where the frames have none."""
    molecules: Molecules
    """Molecules of the first frame; in every frame the finite ones are whole."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.scaled)

    @property
    def duration(self) -> float:
        """Time from the first frame to the last, in fs."""
        return (self.n_frames - 1) * self.interval

    @property
    def symbols(self) -> Shaped[np.ndarray, " n_atoms"]:
        """Symbols of the atoms, (n_atoms,)."""
        return np.array(self.atoms.get_chemical_symbols())

    @property
    def elements(self) -> list[str]:
        """Symbols that occur, in the order of atomic numbers."""
        return sorted(set(self.symbols), key=atomic_numbers.__getitem__)

    @property
    def positions(self) -> Float[np.ndarray, "n_frames n_atoms 3"]:
        """Unwrapped positions in Å, each in the cell of its frame, (n_frames, n_atoms, 3)."""
        return self.scaled @ self.cells

    @property
    def volume(self) -> float:
        """Mean volume in Å³; of structures periodic in three directions only."""
        return float(np.abs(np.linalg.det(self.cells)).mean())

    def late(self, fraction: float) -> "Trajectory":
        """Return what remains after a first part, given as a fraction, has been left out."""
        first = int(fraction * self.n_frames)
        return self._replace(
            start=self.start + (first * self.interval if first else 0.0),
            scaled=self.scaled[first:],
            cells=self.cells[first:],
            velocities=None if self.velocities is None else self.velocities[first:],
            charges=None if self.charges is None else self.charges[first:],
        )

    def frames(self, most: int) -> list[Atoms]:
        """Return some frames as structures, evenly spread, `most` of them at most."""
        chosen = np.unique(np.linspace(0, self.n_frames - 1, min(most, self.n_frames)).astype(int))
        found = []
        for frame in chosen:
            atoms = self.atoms.copy()
            atoms.set_cell(np.where(self.atoms.cell.any(1)[:, None], self.cells[frame], 0.0))
            atoms.positions = self.scaled[frame] @ self.cells[frame]
            found.append(atoms)
        return found


def read_trajectory(frames: Iterable[Atoms]) -> Trajectory:
    """Turn frames into arrays, and follow every atom across periodic boundaries.

    Between two frames an atom is taken to move by less than half the cell. The frames tell their
    time in ``info["time_fs"]``, as `phicalc.md.run_md` writes it. Frames between the others, such
    as the last one of a run, are left out.

    Raises
    ------
    ValueError
        If there is no frame, the atoms change, or the frames are not at equal intervals.
    """
    first: Atoms | None = None
    times: list[float] = []
    columns: dict[str, list[np.ndarray]] = {"scaled": [], "cells": [], "velocities": [],
                                            "charges": []}  # fmt: skip
    for frame in frames:
        first = frame if first is None else first
        if not np.array_equal(frame.numbers, first.numbers):
            raise ValueError(f"frame {len(times)} holds other atoms than the first one")
        times.append(float(frame.info.get("time_fs", np.nan)))
        for name, values in _columns(frame).items():
            columns[name].append(values)
    if first is None:
        raise ValueError("a trajectory needs at least one frame, got none")
    interval, kept = _grid(np.array(times))
    arrays = {
        name: np.array(values)[kept] if len(values) == len(times) else None
        for name, values in columns.items()
    }
    assert arrays["scaled"] is not None  # every frame has positions
    assert arrays["cells"] is not None
    molecules = find_molecules(first)
    return Trajectory(
        first,
        times[0],
        interval,
        _unwrapped(arrays["scaled"], first, molecules),
        arrays["cells"],
        arrays["velocities"],
        arrays["charges"],
        molecules,
    )


def _columns(frame: Atoms) -> dict[str, Float[np.ndarray, "..."]]:
    """Keep of a frame what is needed."""
    cell = complete_cell(frame.cell)
    found = {"scaled": np.linalg.solve(cell.T, frame.positions.T).T, "cells": cell}
    if frame.has("momenta"):
        found["velocities"] = frame.get_velocities() * units.fs
    if frame.calc is not None and frame.calc.results.get("charges") is not None:
        found["charges"] = np.asarray(frame.calc.results["charges"], dtype=float)
    return found


def _grid(times: Float[np.ndarray, " n_times"]) -> tuple[float, Int[np.ndarray, " n_frames"]]:
    """Spacing of the frames in fs, and which of them lie on the grid it makes."""
    if len(times) < 2:
        return float("nan"), np.arange(len(times))
    interval = times[1] - times[0]
    steps = (times - times[0]) / interval if interval > 0 else np.full(len(times), np.nan)
    numbers = np.round(np.nan_to_num(steps, nan=0.0)).astype(int)
    kept = np.flatnonzero(np.abs(steps - numbers) < 1e-3)
    if len(kept) < 2 or np.any(np.diff(numbers[kept]) != 1):
        raise ValueError(
            "frames must be at equal intervals, none missing or doubled, and tell their time in "
            f"info['time_fs']: the times of the first are {times[:4].tolist()} fs, and "
            f"{len(kept)} of {len(times)} frames keep their interval"
        )
    return float(interval), kept


def _unwrapped(
    scaled: Float[np.ndarray, "n_frames n_atoms 3"], first: Atoms, molecules: Molecules
) -> Float[np.ndarray, "n_frames n_atoms 3"]:
    """Undo jumps by whole cells from frame to frame, and start from whole molecules."""
    jumps = np.cumsum(np.round(np.diff(scaled, axis=0)) * first.pbc, axis=0)
    scaled = scaled + molecules.images
    scaled[1:] -= jumps
    return scaled
