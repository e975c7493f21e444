"""Velocities at the start, and the degrees of freedom that the motion reaches."""

import warnings

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from jaxtyping import Float64

#: How many standard deviations the temperature of velocities that are kept may lie off the target.
_USUAL_DEVIATION = 2.0


def initialise_velocities(
    atoms: Atoms, temperature: float, rng: np.random.Generator, velocities: str = "auto"
) -> None:
    """Draw Maxwell–Boltzmann velocities at `temperature`, unless those of the atoms are kept.

    The motion of the centre of mass is removed (not for a single atom or with constraints), and the
    rotation of structures without any periodic direction.

    Parameters
    ----------
    atoms
        The structure, changed in place.
    temperature
        In K.
    rng
        Random numbers.
    velocities
        ``"new"`` draws, ``"keep"`` does not, ``"auto"`` draws only if all atoms are at rest, and
        warns if the velocities that it keeps have another temperature.
    """
    if velocities == "keep":
        return
    if velocities == "auto" and np.any(atoms.get_momenta()):
        _compare(atoms, temperature)
        return
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) < 2 or atoms.constraints:
        return
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        _remove_rotation(atoms)


def _compare(atoms: Atoms, temperature: float) -> None:
    """Warn if the velocities of the structure are not those of `temperature` (K)."""
    n_free = degrees_of_freedom(atoms)
    found = 2 * atoms.get_kinetic_energy() / (n_free * units.kB)
    if abs(found - temperature) > _USUAL_DEVIATION * temperature * np.sqrt(2 / n_free):
        warnings.warn(
            f"the structure has velocities of {found:.0f} K, and they are kept, though temperature "
            f"is {temperature:g} K: velocities='new' (--velocities new) draws others, 'keep' keeps "
            "them without this warning",
            stacklevel=4,
        )


def _remove_rotation(atoms: Atoms) -> None:
    """Subtract the rigid rotation that carries the angular momentum."""
    arms = atoms.positions - atoms.get_center_of_mass()
    angular_velocity = _inverse_inertia(atoms) @ atoms.get_angular_momentum()
    atoms.set_velocities(atoms.get_velocities() - np.cross(angular_velocity, arms))


def _inverse_inertia(atoms: Atoms) -> Float64[np.ndarray, "3 3"]:
    """Pseudo-inverse of the inertia tensor: linear molecules do not turn about their axis."""
    arms = atoms.positions - atoms.get_center_of_mass()
    squares = np.einsum("n,ni,nj->ij", atoms.get_masses(), arms, arms)
    return np.linalg.pinv(np.trace(squares) * np.eye(3) - squares, rcond=1e-10, hermitian=True)


def degrees_of_freedom(atoms: Atoms, *, all_motion: bool = False) -> int:
    """Return the number of quadratic terms of the kinetic energy that the dynamics can reach.

    Newton's equations, and thermostats that only scale momenta, conserve a total momentum of zero,
    and without periodic directions an angular momentum of zero: those do not count.

    Parameters
    ----------
    atoms
        The structure with its velocities.
    all_motion
        Whether noise drives total and angular momentum too, as in Langevin dynamics.
    """
    if atoms.constraints or all_motion:
        return max(int(atoms.get_number_of_degrees_of_freedom()), 1)
    count, momenta = 3 * len(atoms), atoms.get_momenta()
    small = 1e-8 * max(float(np.abs(momenta).sum()), 1e-12)
    if len(atoms) > 1 and np.abs(momenta.sum(axis=0)).max() < small:
        count -= 3
        size = float(np.abs(atoms.positions - atoms.get_center_of_mass()).max())
        if not atoms.pbc.any() and np.abs(atoms.get_angular_momentum()).max() < small * size:
            count -= int(np.linalg.matrix_rank(_inverse_inertia(atoms), hermitian=True))
    return max(count, 1)
