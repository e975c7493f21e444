"""Bussi's thermostat: velocities are scaled at random, so that the ensemble is canonical."""

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi

from phicalc.md.ensembles.kind import Ensemble, Integrator, Motion, counting


class BussiThermostat(Ensemble):
    """Stochastic velocity rescaling with the relaxation time `thermostat_time`."""

    name = "bussi"
    ensemble = "nvt"
    thermostat = "bussi"
    kept_constraints = (object,)
    scales_velocities = True

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = Bussi(
            atoms,
            motion.timestep,
            temperature_K=motion.temperature,
            taut=motion.thermostat_time,
            rng=rng,
        )
        dynamics.ndof = n_free

        def set_targets(temperature: float, _: float) -> None:
            dynamics.temp = units.kB * temperature
            dynamics.target_kinetic_energy = 0.5 * n_free * dynamics.temp

        set_targets(motion.temperature, 0.0)
        return counting(dynamics, n_free, set_targets)
