"""Find a minimum of the energy with ASE's optimizers: positions, or positions and cell."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from ase.optimize.optimize import Optimizer

from phicalc.hints import install_hint
from phicalc.structures import Structure, largest_force, like, snapshot, to_atoms
from phicalc.structures.portable import Translation, translate, warn_of_changes
from phicalc.units import EV_PER_CUBIC_ANGSTROM_PER_BAR as BAR

#: A force that ASE's own test of convergence never finds small enough, in eV/Å.
_NEVER = 1e-30

OPTIMIZERS = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}


class RelaxResult(NamedTuple):
    """How a relaxation ended."""

    converged: bool
    """Whether the largest force fell below `fmax`, and with a free cell the stress below `smax`."""
    steps: int
    energy: float
    """eV."""
    max_force: float
    """Largest force on an atom, in eV/Å."""
    max_stress: float | None = None
    """With a free cell: largest component of the stress and the pressure together, in bar."""
    structure: Structure = None
    """The relaxed structure, of the kind that was given."""


def relax(
    structure: Structure,
    calculator: Calculator | None = None,
    *,
    fmax: float = 0.02,
    smax: float = 500.0,
    steps: int = 500,
    cell: bool = False,
    symmetry: bool = False,
    pressure: float = 0.0,
    optimizer: str = "lbfgs",
    log: str | Path | None = None,
    trajectory: str | Path | None = None,
) -> RelaxResult:
    """Move the atoms downhill to a minimum of the energy.

    Parameters
    ----------
    structure
        Atoms, which are moved in place, or a structure of pymatgen, which is left alone: the
        relaxed one is in the result.
    calculator
        Any ASE calculator; that of the atoms by default.
    fmax
        Convergence: largest force on an atom, in eV/Å.
    smax
        Convergence with `cell`: largest component of the stress, the pressure added, in bar.
        (ASE's filters divide what they hold against `fmax` by the number of atoms.)
    steps
        Give up after so many.
    cell
        Relax the lattice vectors too; needs three periodic directions.
    symmetry
        Keep the space group: what breaks it is removed from the start, and from every step.
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
        For no atoms, an unknown optimizer, a missing calculator, or `cell` without a periodic cell.
    ImportError
        With `symmetry` without spglib (the extra ``materials``).
    """
    atoms = to_atoms(structure)
    if calculator is not None:
        atoms.calc = calculator
    if not len(atoms):
        raise ValueError("relaxation needs at least one atom")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, got {optimizer!r}")
    if atoms.calc is None:
        raise ValueError("relaxation needs a calculator: set atoms.calc first")
    if not fmax > 0:
        raise ValueError(f"fmax must be positive (eV/Å), got {fmax}")
    if not smax > 0:
        raise ValueError(f"smax must be positive (bar), got {smax}")
    if cell and not atoms.pbc.all():
        raise ValueError(
            f"relaxing the cell needs three periodic directions, got pbc={atoms.pbc.tolist()}"
        )
    with _symmetry_kept(atoms, symmetry):
        target = FrechetCellFilter(atoms, scalar_pressure=pressure * BAR) if cell else atoms
        with _quiet_logarithms(), OPTIMIZERS[optimizer](target, logfile=log) as dynamics:
            _save_steps(dynamics, atoms, trajectory)
            converged = False
            for _ in dynamics.irun(fmax=_NEVER, steps=steps):
                stress = _largest_stress(atoms, pressure) if cell else None
                force = largest_force(atoms)
                converged = force < fmax and (stress is None or stress < smax)
                if converged:
                    break
    energy = float(atoms.get_potential_energy())
    return RelaxResult(converged, dynamics.nsteps, energy, force, stress, like(structure, atoms))


@contextmanager
def _symmetry_kept(atoms: Atoms, wanted: bool) -> Iterator[None]:
    """Constrain atoms to their space group inside the block."""
    if not wanted:
        yield
        return
    if not atoms.pbc.all():
        raise ValueError(
            f"keeping the space group needs three periodic directions, got pbc={atoms.pbc.tolist()}"
        )
    constraints = list(atoms.constraints)
    try:
        kept = FixSymmetry(atoms)
    except ImportError as error:
        raise ImportError(
            f"keeping the space group needs spglib ({error}): {install_hint('materials')}"
        ) from error
    atoms.set_constraint([*constraints, kept])
    try:
        yield
    finally:
        atoms.set_constraint(constraints)


@contextmanager
def _quiet_logarithms() -> Iterator[None]:
    """Silence scipy: the filter takes logarithms of tiny strains, and it worries at 1e-13."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        yield


def _save_steps(dynamics: Optimizer, atoms: Atoms, trajectory: str | Path | None) -> None:
    """Append every step to a file, with the entries of the structure that it can hold."""
    if trajectory is None:
        return
    path = Path(trajectory)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    translation: list[Translation] = []

    def save() -> None:
        frame = snapshot(atoms)
        if not translation:  # at the first step: only now there are results
            translation.append(translate(frame))
            warn_of_changes(translation[0].changes, path)
        ase.io.write(path, translation[0].apply(frame), format="extxyz", append=True)

    dynamics.attach(save)


def _largest_stress(atoms: Atoms, pressure: float) -> float:
    """Largest component of the stress that is not balanced by the pressure, in bar."""
    stress = atoms.get_stress() / BAR
    return float(np.abs(stress + pressure * np.array([1, 1, 1, 0, 0, 0])).max())
