"""Berendsen's thermostat and barostat: fast to equilibrate, but they sample no ensemble.

References
----------
Berendsen et al., J. Chem. Phys. 81, 3684 (1984), doi:10.1063/1.448118.
"""

from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixCom
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from jaxtyping import Float64

from phicalc.md.ensembles.kind import Ensemble, Integrator, Motion, counting, keeps_centre


class EnergyCountingBerendsen(NVTBerendsen):
    """Berendsen's thermostat that adds up the energy its scaling puts in."""

    transferred_energy = 0.0

    def scale_velocities(self) -> None:
        """Scale, and count the change of kinetic energy."""
        before = self.atoms.get_kinetic_energy()
        super().scale_velocities()
        self.transferred_energy += self.atoms.get_kinetic_energy() - before


class IsotropicBerendsen(NPTBerendsen):
    """Berendsen's thermostat and barostat that add up the energy both put in."""

    transferred_energy = 0.0

    def step(
        self, forces: Float64[np.ndarray, "n_atoms 3"] | None = None
    ) -> Float64[np.ndarray, "n_atoms 3"]:
        """Advance one step, remember the energy before it (eV) and return the forces (eV/Å)."""
        self._before = self.atoms.get_total_energy()
        return super().step(forces)

    def scale_positions_and_cell(self) -> None:
        """Scale, and count the change of energy."""
        # ASE scales velocities first, then the cell, and only then lets the atoms move. The energy
        # of the scaled cell costs nothing: its forces are asked for next.
        super().scale_positions_and_cell()
        self.transferred_energy += self.atoms.get_total_energy() - self._before


class AxesBerendsen(IsotropicBerendsen, Inhomogeneous_NPTBerendsen):
    """The same for the lengths of chosen axes."""


class BerendsenThermostat(Ensemble):
    """Velocities are scaled towards the target with the relaxation time `thermostat_time`."""

    name = "berendsen"
    ensemble = "nvt"
    thermostat = "berendsen"
    kept_constraints = (FixAtoms, FixCartesian, FixCom)
    scales_velocities = True

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        dynamics = EnergyCountingBerendsen(
            atoms,
            motion.timestep,
            temperature_K=motion.temperature,
            taut=motion.thermostat_time,
            fixcm=keeps_centre(atoms, n_free),
        )
        return _scaling(dynamics, motion, n_free)


class BerendsenBarostat(Ensemble):
    """Velocities and cell are scaled towards their targets."""

    name = "npt-berendsen"
    ensemble = "npt"
    thermostat = "berendsen"
    cell_motions = ("isotropic", "axes")
    scales_velocities = True

    def check(self, atoms: Atoms, motion: Motion) -> None:
        """Refuse skewed cells whose axes are to move apart (see `Ensemble.check`).

        Raises
        ------
        ValueError
            For these, and whatever else does not suit it.
        """
        super().check(atoms, motion)
        aligned = not np.any(atoms.cell.array - np.diag(np.diag(atoms.cell.array)))
        if motion.cell_motion == "axes" and not aligned:
            raise ValueError(
                "berendsen with cell_motion 'axes' needs lattice vectors along x, y and z: use "
                "thermostat 'nose-hoover', or cell_motion 'isotropic'"
            )

    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator (see `Ensemble.build`)."""
        settings: dict[str, Any] = {
            "temperature_K": motion.temperature,
            "pressure_au": motion.pressure,
            "taut": motion.thermostat_time,
            "taup": motion.barostat_time,
            "compressibility_au": motion.compressibility,
            "fixcm": keeps_centre(atoms, n_free),
        }
        if motion.cell_motion == "axes":
            mask = tuple(int(axis in motion.axes) for axis in "abc")
            dynamics = AxesBerendsen(atoms, motion.timestep, mask=mask, **settings)
            return _scaling(dynamics, motion, n_free)
        return _scaling(IsotropicBerendsen(atoms, motion.timestep, **settings), motion, n_free)


def _scaling(
    dynamics: EnergyCountingBerendsen | IsotropicBerendsen, motion: Motion, n_free: int
) -> Integrator:
    """Complete one of Berendsen's integrators."""
    # ASE measures the temperature with degrees of freedom of its own count.
    count = n_free / dynamics.atoms.get_number_of_degrees_of_freedom()

    def set_targets(temperature: float, pressure: float) -> None:
        dynamics.set_temperature(temperature_K=temperature * count)
        if isinstance(dynamics, IsotropicBerendsen):
            dynamics.pressure = pressure

    set_targets(motion.temperature, motion.pressure)
    return counting(dynamics, n_free, set_targets)
