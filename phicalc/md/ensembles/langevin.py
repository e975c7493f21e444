"""Langevin dynamics (BAOAB)."""

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixCom
from ase.md.langevinbaoab import LangevinBAOAB

from phicalc.md.ensembles.kind import Ensemble, Integrator, Motion, counting


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


class Langevin(Ensemble):
    """Friction 1/`thermostat_time` and noise."""

    name = "langevin"
    ensemble = "nvt"
    thermostat = "langevin"
    is_default = True
    kept_constraints = (FixAtoms, FixCartesian, FixCom)
    drives_all_motion = True
    reaches_zero = True

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = HeatCountingLangevin(
            atoms,
            motion.timestep,
            temperature_K=motion.temperature,
            T_tau=motion.thermostat_time,
            hydrostatic=True,  # the cell is fixed; this only spares 3×3 matrix exponentials
            rng=rng,
        )

        def set_targets(temperature: float, _: float) -> None:
            dynamics.set_temperature(temperature)

        # The accelerations that BAOAB keeps are the forces at the current positions.
        return counting(dynamics, n_free, set_targets, refresh=dynamics._update_accel)
