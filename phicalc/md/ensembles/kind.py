"""Ensembles by protocol: what one demands of a structure, and ASE's integrator for it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics
from jaxtyping import Shaped


class Motion(NamedTuple):
    """Settings of `phicalc.md.MDConfig` that an integrator needs, in ASE's units."""

    timestep: float
    """Å √(u/eV), ASE's unit of time."""
    temperature: float
    """K, at the first step."""
    pressure: float
    """eV/Å³, at the first step."""
    thermostat_time: float
    """Å √(u/eV)."""
    barostat_time: float
    """Å √(u/eV)."""
    compressibility: float
    """Å³/eV."""
    cell_motion: str
    """One of `Ensemble.cell_motions`."""
    axes: str
    """Lattice vectors whose lengths move if `cell_motion` is ``"axes"``: ``"c"``, ``"ab"``, …"""


@dataclass
class Integrator:
    """ASE's dynamics, and how to follow its conserved energy, move its targets and restart it."""

    dynamics: MolecularDynamics
    degrees_of_freedom: int
    """Quadratic terms of the kinetic energy that take part: T = 2 E_kin / (this k_B)."""
    energy: Callable[[], float]
    """Energy in eV that exact integration would keep constant if no target moved."""
    set_targets: Callable[[float, float], None]
    """Sets the target temperature (K) and pressure (eV/Å³)."""
    state_names: tuple[str, ...] = ()
    """Variables of `dynamics` that decide about later steps; positions, momenta and cell apart."""
    refresh: Callable[[], None] = lambda: None
    """Takes over forces that were computed again for the current positions."""
    work: float = 0.0
    """Energy in eV that moving targets have put in."""

    def conserved_energy(self) -> float:
        """Return the energy in eV that exact integration would keep constant."""
        return float(self.energy() - self.work)

    def start_at(self, temperature: float, pressure: float) -> None:
        """Set the targets, a temperature in K and a pressure in bar, without counting work."""
        self.set_targets(temperature, pressure * units.bar)

    def aim(self, temperature: float, pressure: float) -> None:
        """Move the targets to a temperature in K and a pressure in bar, and count the work."""
        before = self.energy()
        self.start_at(temperature, pressure)
        self.work += float(self.energy() - before)

    def state(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Return copies of the variables in `state_names`."""
        state = {name: np.array(attrgetter(name)(self.dynamics)) for name in self.state_names}
        return {**state, "work": np.array(self.work)}

    def restore(self, state: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
        """Take over variables that `state` returned.

        Raises
        ------
        KeyError
            If one is missing.
        """
        self.work = float(state["work"])
        for name in self.state_names:
            owner, _, attribute = name.rpartition(".")
            holder = attrgetter(owner)(self.dynamics) if owner else self.dynamics
            value = state[name]
            # Numbers stay NumPy's, as they are after a step: Python's own may round powers apart.
            setattr(holder, attribute, value.copy() if value.ndim else value[()])


class Ensemble(ABC):
    """One way to move atoms: traits and an integrator. Subclasses keep no state.

    `MDConfig` finds the subclasses in the modules of `phicalc.md.ensembles` by `ensemble` and
    `thermostat`, and others by their import path: ``thermostat="package.module:Class"``.
    """

    name: ClassVar[str]
    """For messages."""
    ensemble: ClassVar[str]
    """``"nve"``, ``"nvt"`` or ``"npt"``."""
    thermostat: ClassVar[str | None] = None
    """Word for `MDConfig.thermostat`; None where there is no choice."""
    is_default: ClassVar[bool] = False
    """Whether this one is meant if no thermostat is named."""
    kept_constraints: ClassVar[tuple[type, ...]] = ()
    """Constraints of ASE that the integrator keeps; ``(object,)`` for all."""
    cell_motions: ClassVar[tuple[str, ...]] = ("isotropic",)
    """Values that `MDConfig.cell_motion` may have."""
    scales_velocities: ClassVar[bool] = False
    """Whether the thermostat multiplies velocities, and so cannot start from rest."""
    drives_all_motion: ClassVar[bool] = False
    """Whether noise reaches the centre of mass and the rotation: they count as temperature."""
    reaches_zero: ClassVar[bool] = False
    """Whether the target may be 0 K."""

    @property
    def needs_pressure(self) -> bool:
        """Whether the integrator needs the stress at every step."""
        return self.ensemble == "npt"

    def check(self, atoms: Atoms, motion: Motion) -> None:
        """Refuse a structure that this integrator would get wrong.

        Raises
        ------
        ValueError
            For constraints that it does not keep, and whatever else does not suit it.
        """
        wrong = {
            type(item).__name__
            for item in atoms.constraints
            if not isinstance(item, self.kept_constraints)
        }
        if wrong:
            raise ValueError(
                f"{self.name} dynamics cannot keep the constraints {sorted(wrong)}: remove them "
                "(atoms.set_constraint()) or use ensemble 'nve' or thermostat 'bussi'"
            )

    @abstractmethod
    def build(
        self, atoms: Atoms, motion: Motion, rng: np.random.Generator, n_free: int
    ) -> Integrator:
        """Return the integrator.

        Parameters
        ----------
        atoms
            The structure, with a calculator and velocities.
        motion
            The settings.
        rng
            Source of noise.
        n_free
            Degrees of freedom of the motion.
        """


class _Counting(Protocol):
    """Dynamics of ASE that adds up the energy it puts in."""

    atoms: Atoms
    transferred_energy: float


def counting(
    dynamics: Any,  # MolecularDynamics and _Counting at once, which has no name
    n_free: int,
    set_targets: Callable[[float, float], None],
    refresh: Callable[[], None] = lambda: None,
) -> Integrator:
    """Return an integrator whose dynamics adds up the energy it puts in: `transferred_energy`."""
    counted: _Counting = dynamics

    def energy() -> float:
        return float(counted.atoms.get_total_energy() - counted.transferred_energy)

    return Integrator(dynamics, n_free, energy, set_targets, ("transferred_energy",), refresh)


def keeps_centre(atoms: Atoms, n_free: int) -> bool:
    """Whether the centre of mass rests: then rounding must not set it in motion."""
    return not atoms.constraints and n_free < 3 * len(atoms)
