"""Find a minimum of the energy with ASE's optimisers: positions, or positions and cell."""

import warnings
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from phicalc.structures import snapshot

OPTIMIZERS = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}


class RelaxResult(NamedTuple):
    """How a relaxation ended."""

    converged: bool
    """Whether the largest force fell below `fmax`."""
    steps: int
    energy: float
    """eV."""
    max_force: float
    """Largest force on an atom, in eV/Å."""


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.02,
    steps: int = 500,
    cell: bool = False,
    pressure: float = 0.0,
    optimizer: str = "lbfgs",
    log: str | Path | None = None,
    trajectory: str | Path | None = None,
) -> RelaxResult:
    """Move the atoms, in place, downhill to a minimum of the energy.

    Parameters
    ----------
    atoms
        Structure with a calculator.
    fmax
        Convergence: largest force on an atom, in eV/Å. With `cell`, the stress is held to the same
        number in the units of `ase.filters.FrechetCellFilter` (eV per strain).
    steps
        Give up after so many.
    cell
        Relax the lattice vectors too; needs three periodic directions.
    pressure
        With `cell`: external pressure in bar.
    optimizer
        ``"lbfgs"``, ``"bfgs"`` (fewest steps for small structures) or ``"fire"`` (most robust).
    log
        File for ASE's table of steps; ``"-"`` prints it.
    trajectory
        Extended XYZ file to receive every step.

    Raises
    ------
    ValueError
        For an unknown optimiser, a missing calculator, or `cell` without a periodic cell.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, got {optimizer!r}")
    if atoms.calc is None:
        raise ValueError("relaxation needs a calculator: set atoms.calc first")
    if not fmax > 0:
        raise ValueError(f"fmax must be positive (eV/Å), got {fmax}")
    if cell and not atoms.pbc.all():
        raise ValueError(
            f"relaxing the cell needs three periodic directions, got pbc={atoms.pbc.tolist()}"
        )
    target = FrechetCellFilter(atoms, scalar_pressure=pressure * units.bar) if cell else atoms
    with warnings.catch_warnings(), OPTIMIZERS[optimizer](target, logfile=log) as dynamics:
        # The filter takes matrix logarithms of tiny strains; scipy worries at errors of 1e-13.
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        if trajectory is not None:
            path = Path(trajectory)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            dynamics.attach(
                lambda: ase.io.write(path, snapshot(atoms), format="extxyz", append=True)
            )
        converged = bool(dynamics.run(fmax=fmax, steps=steps))
        n_steps = dynamics.nsteps
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))
    return RelaxResult(converged, n_steps, float(atoms.get_potential_energy()), largest)
