"""Integrators with their conserved quantity, and the velocities they start from.

Everything is ASE's, with two things added: the heat that Langevin's noise and friction exchange,
and a count of the degrees of freedom that motion can really reach.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian, FixCom
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import (
    IsotropicMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phicalc.md.config import MDConfig


class Integrator(NamedTuple):
    """What a run advances, and what should stay constant while it does."""

    dynamics: MolecularDynamics
    conserved_energy: Callable[[], float]
    """Energy in eV that exact integration would keep constant."""
    degrees_of_freedom: int
    """Quadratic terms of the kinetic energy that take part: T = 2 E_kin / (this k_B)."""


class HeatCountingLangevin(LangevinBAOAB):
    """Langevin dynamics (BAOAB) that adds up the energy its noise and friction put in.

    The stochastic half of a BAOAB step changes the momenta alone, so the heat of a step is the
    change of kinetic energy over it, and E_pot + E_kin − heat is conserved up to the error of the
    deterministic half: the measure of the time step that NVE has.

    References
    ----------
    Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013), doi:10.1063/1.4802990.
    """

    transferred_energy = 0.0

    def _BAOAB_OU(self, drag_gamma_mod: float = 0.0) -> None:
        before = self.atoms.get_kinetic_energy()
        super()._BAOAB_OU(drag_gamma_mod)
        self.transferred_energy += self.atoms.get_kinetic_energy() - before


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


def build_integrator(atoms: Atoms, config: MDConfig, rng: np.random.Generator) -> Integrator:
    """Return ASE's integrator for `config`, working on `atoms` (which must have velocities).

    Raises
    ------
    ValueError
        If the ensemble does not suit the atoms: constraints it cannot keep, a structure without a
        volume, a calculator without stress, atoms at rest where a thermostat scales velocities.
    """
    _check_suitable(atoms, config)
    n_free = degrees_of_freedom(atoms, config.method)
    builder = {
        "nve": _nve,
        "langevin": _langevin,
        "bussi": _bussi,
        "nose-hoover": _nose_hoover,
        "npt": _npt,
    }[config.method]
    dynamics, conserved_energy = builder(atoms, config, rng, n_free)
    return Integrator(dynamics, conserved_energy, n_free)


def _check_suitable(atoms: Atoms, config: MDConfig) -> None:
    """Refuse what the integrators would run into or, worse, silently get wrong."""
    allowed: tuple[type, ...] = (object,)
    if config.method == "langevin":
        allowed = (FixAtoms, FixCartesian, FixCom)
    elif config.method in ("nose-hoover", "npt"):
        allowed = ()
    wrong = {type(item).__name__ for item in atoms.constraints if not isinstance(item, allowed)}
    if wrong:
        raise ValueError(
            f"{config.method} dynamics cannot keep the constraints {sorted(wrong)}: remove them "
            "(atoms.set_constraint()) or use ensemble 'nve' or thermostat 'bussi'"
        )
    wants_stress = config.method == "npt" or config.log_pressure
    if wants_stress and not (atoms.pbc.all() and atoms.cell.volume > 0):
        raise ValueError(
            f"pressure needs a cell that is periodic in three directions, got pbc={atoms.pbc} and "
            f"volume {atoms.cell.volume:.3g} Å³: use ensemble 'nvt' without log_pressure"
        )
    if wants_stress and "stress" not in atoms.calc.implemented_properties:
        raise ValueError(
            f"pressure needs stress, which the calculator {type(atoms.calc).__name__} does not give"
        )
    if config.method == "bussi" and not np.any(atoms.get_momenta()):
        raise ValueError("bussi scales velocities and cannot start from rest: set momenta")


_Built = tuple[MolecularDynamics, Callable[[], float]]


def _nve(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> _Built:
    return VelocityVerlet(atoms, config.timestep * units.fs), atoms.get_total_energy


def _langevin(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> _Built:
    dynamics = HeatCountingLangevin(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        T_tau=config.thermostat_time * units.fs,
        hydrostatic=True,  # the cell is fixed; this only spares 3×3 matrix exponentials
        rng=rng,
    )
    return dynamics, lambda: float(atoms.get_total_energy() - dynamics.transferred_energy)


def _bussi(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> _Built:
    dynamics = Bussi(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        taut=config.thermostat_time * units.fs,
        rng=rng,
    )
    dynamics.ndof = n_free
    dynamics.target_kinetic_energy = 0.5 * n_free * units.kB * config.temperature
    return dynamics, lambda: float(atoms.get_total_energy() - dynamics.transferred_energy)


def _nose_hoover(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> _Built:
    dynamics = NoseHooverChainNVT(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        tdamp=config.thermostat_time * units.fs,
    )
    dynamics._thermostat = _chain(dynamics, config, n_free)
    return dynamics, dynamics.get_conserved_energy


def _npt(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> _Built:
    dynamics = IsotropicMTKNPT(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        pressure_au=config.pressure * units.bar,
        tdamp=config.thermostat_time * units.fs,
        pdamp=config.barostat_time * units.fs,
    )
    dynamics._thermostat = _chain(dynamics, config, n_free)
    return dynamics, dynamics.get_conserved_energy


def _chain(dynamics: MolecularDynamics, config: MDConfig, n_free: int) -> NoseHooverChainThermostat:
    """Nosé–Hoover chain for `n_free` degrees of freedom; ASE's own always counts 3 N."""
    return NoseHooverChainThermostat(
        num_atoms_global=n_free / 3,  # type: ignore[arg-type] # enters only as 3 × this number
        masses=dynamics.masses,
        temperature_K=config.temperature,
        tdamp=config.thermostat_time * units.fs,
    )
