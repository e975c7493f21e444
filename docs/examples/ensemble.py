"""Andersen's thermostat: now and then an atom forgets its velocity (J. Chem. Phys. 72, 2384)."""

import numpy as np
from ase import units
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from phicalc.md.ensembles.kind import Ensemble, counting


class Colliding(VelocityVerlet):
    transferred_energy = 0.0  # what the collisions put in, so that a conserved energy is left

    def step(self, forces=None):
        forces = super().step(forces)
        before, momenta = self.atoms.get_kinetic_energy(), self.atoms.get_momenta()
        hit = self.rng.random(len(self.atoms)) < self.rate * self.dt
        widths = np.sqrt(units.kB * self.temperature * self.atoms.get_masses()[hit])
        momenta[hit] = self.rng.normal(size=(hit.sum(), 3)) * widths[:, None]
        self.atoms.set_momenta(momenta)
        self.transferred_energy += self.atoms.get_kinetic_energy() - before
        return forces


class Andersen(Ensemble):
    name, ensemble, thermostat = "andersen", "nvt", "andersen"
    kept_constraints = (FixAtoms,)
    drives_all_motion = True

    def build(self, atoms, motion, rng, n_free):
        dynamics = Colliding(atoms, motion.timestep)
        dynamics.rng, dynamics.rate = rng, 1 / motion.thermostat_time
        dynamics.temperature = motion.temperature

        def set_targets(temperature, pressure):
            dynamics.temperature = temperature

        return counting(dynamics, n_free, set_targets)
