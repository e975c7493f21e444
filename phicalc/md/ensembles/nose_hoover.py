"""Nosé–Hoover chains, at constant volume and with the barostat of Martyna, Tobias and Klein."""

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import (
    MTKNPT,
    IsotropicMTKNPT,
    MaskedMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)

from phicalc.md.ensembles.kind import Ensemble, Integrator, Motion

# Variables of ASE's chains, and of the barostat for each motion of the cell.
_CHAIN = ("_thermostat._eta", "_thermostat._p_eta")
_CHAINS = (*_CHAIN, "_barostat._xi", "_barostat._p_xi")
_BAROSTATS = {
    "isotropic": (*_CHAINS, "_cell0", "_volume0", "_eps", "_p_eps"),
    "full": (*_CHAINS, "_p_g"),
    "axes": (*_CHAINS, "_h0_basis", "_p_c"),
}


class NoseHooverThermostat(Ensemble):
    """A chain of thermostats with the period `thermostat_time`."""

    name = "nose-hoover"
    ensemble = "nvt"
    thermostat = "nose-hoover"

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = NoseHooverChainNVT(
            atoms,
            motion.timestep,
            temperature_K=motion.temperature,
            tdamp=motion.thermostat_time,
        )
        thermostat = dynamics._thermostat = _chain(dynamics, motion, n_free)

        def set_targets(temperature: float, _: float) -> None:
            # The masses of the chain stay: another target changes no momentum of it.
            thermostat._kT = units.kB * temperature

        return Integrator(dynamics, n_free, dynamics.get_conserved_energy, set_targets, _CHAIN)


class NoseHooverBarostat(Ensemble):
    """Chains of thermostats for atoms and cell (Martyna–Tobias–Klein)."""

    name = "npt"
    ensemble = "npt"
    thermostat = "nose-hoover"
    is_default = True
    cell_motions = ("isotropic", "full", "axes")

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = _barostat(atoms, motion)
        thermostat = dynamics._thermostat = _chain(dynamics, motion, n_free)
        barostat = dynamics._barostat

        def set_targets(temperature: float, pressure: float) -> None:
            thermostat._kT = barostat._kT = units.kB * temperature
            dynamics._pressure_au = pressure

        energy, names = dynamics.get_conserved_energy, _BAROSTATS[motion.cell_motion]
        return Integrator(dynamics, n_free, energy, set_targets, names)


def _barostat(atoms: Atoms, motion: Motion) -> IsotropicMTKNPT | MTKNPT:
    """Return ASE's integrator for a motion of the cell."""
    settings: dict[str, Any] = {
        "temperature_K": motion.temperature,
        "pressure_au": motion.pressure,
        "tdamp": motion.thermostat_time,
        "pdamp": motion.barostat_time,
    }
    if motion.cell_motion == "axes":
        mask: Any = np.array([axis in motion.axes for axis in "abc"])  # a tuple indexes wrongly
        return MaskedMTKNPT(atoms, motion.timestep, mask=mask, **settings)
    if motion.cell_motion == "full":
        return MTKNPT(atoms, motion.timestep, **settings)
    return IsotropicMTKNPT(atoms, motion.timestep, **settings)


def _chain(dynamics: MolecularDynamics, motion: Motion, n_free: int) -> NoseHooverChainThermostat:
    """Nosé–Hoover chain for `n_free` degrees of freedom; ASE's own always counts 3 N."""
    return NoseHooverChainThermostat(
        num_atoms_global=n_free / 3,  # type: ignore[arg-type] # enters only as 3 × this number
        masses=dynamics.masses,
        temperature_K=motion.temperature,
        tdamp=motion.thermostat_time,
    )
