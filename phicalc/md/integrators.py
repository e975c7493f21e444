"""Integrators of runs: does the structure suit the ensemble, and if so, ASE's dynamics for it."""

import numpy as np
from ase import Atoms
from ase.constraints import FixConstraint

from phicalc.md.config import MDConfig
from phicalc.md.constraints import check_constraint
from phicalc.md.ensembles.kind import Integrator
from phicalc.md.velocities import degrees_of_freedom


def build_integrator(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int | None = None
) -> Integrator:
    """Return ASE's integrator for `config`, working on `atoms`.

    Parameters
    ----------
    atoms
        Structure with a calculator and velocities.
    config
        The settings.
    rng
        Source of noise.
    n_free
        Degrees of freedom; counted from the current motion if not given.

    Raises
    ------
    ValueError
        If the ensemble does not suit the atoms: constraints it cannot keep, a structure without a
        volume, a calculator without stress, atoms at rest where a thermostat scales velocities.
    """
    check_suitable(atoms, config)
    kind = config.kind
    if kind.scales_velocities and not np.any(atoms.get_momenta()):
        raise ValueError(f"{kind.name} scales velocities and cannot start from rest: set momenta")
    if n_free is None:
        n_free = degrees_of_freedom(atoms, all_motion=kind.drives_all_motion)
    return kind.build(atoms, config.motion, rng, n_free)


def check_suitable(atoms: Atoms, config: MDConfig) -> None:
    """Refuse structures that the integrator would fail on or, worse, silently get wrong.

    Raises
    ------
    ValueError
        For constraints it cannot keep, a structure without a volume, a calculator without stress.
    """
    config.kind.check(atoms, config.motion)
    for item in atoms.constraints:
        _check_usable(item, atoms)
    if config.needs_pressure:
        _check_pressure(atoms)


def _check_usable(constraint: FixConstraint, atoms: Atoms) -> None:
    """Refuse constraints that ASE can use in relaxations only."""
    try:
        check_constraint(constraint, atoms)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) or "ASE has not implemented that for it"
        raise ValueError(
            f"dynamics cannot use the constraint {type(constraint).__name__}: its degrees of "
            f"freedom or its description, which restarts need, are not defined ({reason}). Remove "
            "it (atoms.set_constraint())"
        ) from error


def _check_pressure(atoms: Atoms) -> None:
    """Refuse structures and calculators without a pressure."""
    if not (atoms.pbc.all() and atoms.cell.volume > 0):
        raise ValueError(
            f"pressure needs a cell that is periodic in three directions, got pbc={atoms.pbc} and "
            f"volume {atoms.cell.volume:.3g} Å³: use ensemble 'nvt' without log_pressure"
        )
    if "stress" not in atoms.calc.implemented_properties:
        raise ValueError(
            f"pressure needs stress, which the calculator {type(atoms.calc).__name__} does not give"
        )
