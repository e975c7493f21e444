"""Velocities at the start, and the degrees of freedom that motion can really reach."""

import numpy as np
from ase import Atoms
from ase.md.velocitydistribution import Stationary, thermalize_momenta


def initialise_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw Maxwell–Boltzmann velocities at `temperature` (K), unless the atoms already move.

    The motion of the centre of mass is removed (not for a single atom or with constraints), and the
    rotation of structures without any periodic direction.
    """
    if np.any(atoms.get_momenta()):
        return
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) < 2 or atoms.constraints:
        return
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        _remove_rotation(atoms)


def _remove_rotation(atoms: Atoms) -> None:
    """Subtract the rigid rotation that carries the angular momentum."""
    arms = atoms.positions - atoms.get_center_of_mass()
    angular_velocity = _inverse_inertia(atoms) @ atoms.get_angular_momentum()
    atoms.set_velocities(atoms.get_velocities() - np.cross(angular_velocity, arms))


def _inverse_inertia(atoms: Atoms) -> np.ndarray:
    """Pseudo-inverse of the inertia tensor: linear molecules do not turn about their axis."""
    arms = atoms.positions - atoms.get_center_of_mass()
    squares = np.einsum("n,ni,nj->ij", atoms.get_masses(), arms, arms)
    return np.linalg.pinv(np.trace(squares) * np.eye(3) - squares, rcond=1e-10, hermitian=True)


def degrees_of_freedom(atoms: Atoms, method: str) -> int:
    """Count the quadratic terms of the kinetic energy that dynamics by `method` can reach.

    Newton's equations, and thermostats that only scale momenta, keep a total momentum of zero for
    ever, and without periodic directions an angular momentum of zero: those do not count. Langevin
    noise drives them all.
    """
    if atoms.constraints or method == "langevin":
        return max(atoms.get_number_of_degrees_of_freedom(), 1)
    count, momenta = 3 * len(atoms), atoms.get_momenta()
    small = 1e-8 * max(float(np.abs(momenta).sum()), 1e-12)
    if len(atoms) > 1 and np.abs(momenta.sum(axis=0)).max() < small:
        count -= 3
        size = float(np.abs(atoms.positions - atoms.get_center_of_mass()).max())
        if not atoms.pbc.any() and np.abs(atoms.get_angular_momentum()).max() < small * size:
            count -= int(np.linalg.matrix_rank(_inverse_inertia(atoms), hermitian=True))
    return max(count, 1)
