"""Newton's equations."""

import numpy as np
from ase import Atoms
from ase.md.verlet import VelocityVerlet

from phicalc.md.ensembles.kind import Ensemble, Integrator, Motion


class NVE(Ensemble):
    """Velocity Verlet: constant energy and volume."""

    name = "nve"
    ensemble = "nve"
    is_default = True
    kept_constraints = (object,)
    reaches_zero = True

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = VelocityVerlet(atoms, motion.timestep)
        return Integrator(dynamics, n_free, atoms.get_total_energy, lambda *_: None)
