"""Integrators: ASE's own, with what they conserve, what they aim at, and what a restart needs.

Three things are added: the energy that thermostats and barostats without a conserved quantity of
their own exchange is counted, targets may move, and every variable that decides about the future
besides positions, momenta and cell has its name in a table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian, FixCom
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import (
    MTKNPT,
    IsotropicMTKNPT,
    MaskedMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet

from phicalc.md.config import MDConfig
from phicalc.md.velocities import degrees_of_freedom

#: Constraints that each method keeps; the others keep every constraint of ASE.
KEPT_CONSTRAINTS: dict[str, tuple[type, ...]] = {
    "langevin": (FixAtoms, FixCartesian, FixCom),
    "berendsen": (FixAtoms, FixCartesian, FixCom),
    "nose-hoover": (),
    "npt": (),
    "npt-berendsen": (),
}

# Variables of ASE's Nosé–Hoover chains, and of the barostat for each motion of the cell.
_CHAIN = ("_thermostat._eta", "_thermostat._p_eta")
_CHAINS = (*_CHAIN, "_barostat._xi", "_barostat._p_xi")
_BAROSTATS = {
    "isotropic": (*_CHAINS, "_cell0", "_volume0", "_eps", "_p_eps"),
    "full": (*_CHAINS, "_p_g"),
    "axes": (*_CHAINS, "_h0_basis", "_p_c"),
}


@dataclass
class Integrator:
    """What a run advances, and what should stay constant while it does."""

    dynamics: MolecularDynamics
    degrees_of_freedom: int
    """Quadratic terms of the kinetic energy that take part: T = 2 E_kin / (this k_B)."""
    energy: Callable[[], float]
    """Energy in eV that exact integration would keep constant if no target moved."""
    set_targets: Callable[[float, float], None]
    """Sets temperature (K) and pressure (bar)."""
    state_names: tuple[str, ...] = ()
    """Variables of `dynamics` that decide about the future; positions, momenta and cell apart."""
    refresh: Callable[[], None] = lambda: None
    """Takes over results that were computed anew for the present positions."""
    work: float = 0.0
    """Energy in eV that moving targets have put in."""

    def conserved_energy(self) -> float:
        """Energy in eV that exact integration would keep constant."""
        return float(self.energy() - self.work)

    def aim(self, temperature: float, pressure: float) -> None:
        """Move the targets to a temperature in K and a pressure in bar, and count the work."""
        before = self.energy()
        self.set_targets(temperature, pressure)
        self.work += float(self.energy() - before)

    def state(self) -> dict[str, np.ndarray]:
        """Copy what decides about the future (see `state_names`)."""
        state = {name: np.array(attrgetter(name)(self.dynamics)) for name in self.state_names}
        return {**state, "work": np.array(self.work)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave.

        Raises
        ------
        KeyError
            If something is missing.
        """
        self.work = float(state["work"])
        for name in self.state_names:
            owner, _, attribute = name.rpartition(".")
            holder = attrgetter(owner)(self.dynamics) if owner else self.dynamics
            value = state[name]
            # Numbers stay NumPy's, as they are after a step: Python's own may round powers apart.
            setattr(holder, attribute, value.copy() if value.ndim else value[()])


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


class EnergyCountingBerendsen(NVTBerendsen):
    """Berendsen's thermostat that adds up the energy its scaling puts in.

    References
    ----------
    Berendsen et al., J. Chem. Phys. 81, 3684 (1984), doi:10.1063/1.448118.
    """

    transferred_energy = 0.0

    def scale_velocities(self) -> None:
        """Scale, and count the change of kinetic energy."""
        before = self.atoms.get_kinetic_energy()
        super().scale_velocities()
        self.transferred_energy += self.atoms.get_kinetic_energy() - before


class _EnergyCountingBarostat(NPTBerendsen):
    """Berendsen's thermostat and barostat; what both put in is counted (see above)."""

    transferred_energy = 0.0

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        self._before = self.atoms.get_total_energy()
        return super().step(forces)

    def scale_positions_and_cell(self) -> None:
        # ASE scales velocities first, then the cell, and only then lets the atoms move. The energy
        # of the scaled cell costs nothing: its forces are the next thing that is asked for.
        super().scale_positions_and_cell()
        self.transferred_energy += self.atoms.get_total_energy() - self._before


_Berendsen = EnergyCountingBerendsen | _EnergyCountingBarostat


class IsotropicBerendsen(_EnergyCountingBarostat):
    """Berendsen's barostat that keeps the shape of the cell."""


class AxesBerendsen(_EnergyCountingBarostat, Inhomogeneous_NPTBerendsen):
    """Berendsen's barostat for the lengths of chosen axes."""


def build_integrator(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int | None = None
) -> Integrator:
    """Return ASE's integrator for `config`, working on `atoms` (which must have velocities).

    Parameters
    ----------
    atoms, config, rng
        What moves, how, and where noise comes from.
    n_free
        Degrees of freedom; counted from the present motion if not given.

    Raises
    ------
    ValueError
        If the ensemble does not suit the atoms: constraints it cannot keep, a structure without a
        volume, a calculator without stress, atoms at rest where a thermostat scales velocities.
    """
    check_suitable(atoms, config)
    scales = config.method in ("bussi", "berendsen", "npt-berendsen")
    if scales and not np.any(atoms.get_momenta()):
        raise ValueError(
            f"{config.method} scales velocities and cannot start from rest: set momenta"
        )
    builder = {
        "nve": _nve,
        "langevin": _langevin,
        "bussi": _bussi,
        "berendsen": _berendsen,
        "nose-hoover": _nose_hoover,
        "npt": _npt,
        "npt-berendsen": _npt_berendsen,
    }[config.method]
    if n_free is None:
        n_free = degrees_of_freedom(atoms, config.method)
    return builder(atoms, config, rng, n_free)


def check_suitable(atoms: Atoms, config: MDConfig) -> None:
    """Refuse what the integrators would run into or, worse, silently get wrong.

    Raises
    ------
    ValueError
        For constraints it cannot keep, a structure without a volume, a calculator without stress.
    """
    allowed = KEPT_CONSTRAINTS.get(config.method, (object,))
    wrong = {type(item).__name__ for item in atoms.constraints if not isinstance(item, allowed)}
    if wrong:
        raise ValueError(
            f"{config.method} dynamics cannot keep the constraints {sorted(wrong)}: remove them "
            "(atoms.set_constraint()) or use ensemble 'nve' or thermostat 'bussi'"
        )
    if config.needs_pressure and not (atoms.pbc.all() and atoms.cell.volume > 0):
        raise ValueError(
            f"pressure needs a cell that is periodic in three directions, got pbc={atoms.pbc} and "
            f"volume {atoms.cell.volume:.3g} Å³: use ensemble 'nvt' without log_pressure"
        )
    if config.needs_pressure and "stress" not in atoms.calc.implemented_properties:
        raise ValueError(
            f"pressure needs stress, which the calculator {type(atoms.calc).__name__} does not give"
        )
    aligned = not np.any(atoms.cell.array - np.diag(np.diag(atoms.cell.array)))
    if config.method == "npt-berendsen" and config.cell_motion == "axes" and not aligned:
        raise ValueError(
            "berendsen with cell_motion 'axes' needs lattice vectors along x, y and z: use "
            "thermostat 'nose-hoover', or cell_motion 'isotropic'"
        )


def _nve(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> Integrator:
    dynamics = VelocityVerlet(atoms, config.timestep * units.fs)
    return Integrator(dynamics, n_free, atoms.get_total_energy, lambda *_: None)


def _langevin(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> Integrator:
    dynamics = HeatCountingLangevin(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        T_tau=config.thermostat_time * units.fs,
        hydrostatic=True,  # the cell is fixed; this only spares 3×3 matrix exponentials
        rng=rng,
    )

    def set_targets(temperature: float, _: float) -> None:
        dynamics.set_temperature(temperature)

    # The accelerations that BAOAB keeps are the forces of the present positions.
    refresh = dynamics._update_accel
    return _counting(dynamics, n_free, set_targets, refresh=refresh)


def _bussi(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> Integrator:
    dynamics = Bussi(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        taut=config.thermostat_time * units.fs,
        rng=rng,
    )
    dynamics.ndof = n_free

    def set_targets(temperature: float, _: float) -> None:
        dynamics.temp = units.kB * temperature
        dynamics.target_kinetic_energy = 0.5 * n_free * dynamics.temp

    set_targets(config.temperature, 0.0)
    return _counting(dynamics, n_free, set_targets)


def _berendsen(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> Integrator:
    dynamics = EnergyCountingBerendsen(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        taut=config.thermostat_time * units.fs,
        fixcm=_keeps_centre(atoms, n_free),
    )
    return _scaling(dynamics, config, n_free)


def _npt_berendsen(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int
) -> Integrator:
    settings: dict[str, Any] = {
        "temperature_K": config.temperature,
        "pressure_au": config.pressure * units.bar,
        "taut": config.thermostat_time * units.fs,
        "taup": config.barostat_time * units.fs,
        "compressibility_au": config.compressibility / units.bar,
        "fixcm": _keeps_centre(atoms, n_free),
    }
    timestep = config.timestep * units.fs
    if config.cell_motion == "axes":
        mask = tuple(int(axis in config.axes) for axis in "abc")
        return _scaling(AxesBerendsen(atoms, timestep, mask=mask, **settings), config, n_free)
    return _scaling(IsotropicBerendsen(atoms, timestep, **settings), config, n_free)


def _keeps_centre(atoms: Atoms, n_free: int) -> bool:
    """Whether the centre of mass rests: then rounding must not set it in motion."""
    return not atoms.constraints and n_free < 3 * len(atoms)


def _scaling(dynamics: _Berendsen, config: MDConfig, n_free: int) -> Integrator:
    """Complete one of Berendsen's integrators."""
    # ASE measures the temperature with degrees of freedom of its own count.
    count = n_free / dynamics.atoms.get_number_of_degrees_of_freedom()

    def set_targets(temperature: float, pressure: float) -> None:
        dynamics.set_temperature(temperature_K=temperature * count)
        if isinstance(dynamics, _EnergyCountingBarostat):
            dynamics.pressure = pressure * units.bar

    set_targets(config.temperature, config.pressure)
    return _counting(dynamics, n_free, set_targets)


def _counting(
    dynamics: HeatCountingLangevin | Bussi | _Berendsen,
    n_free: int,
    set_targets: Callable[[float, float], None],
    refresh: Callable[[], None] = lambda: None,
) -> Integrator:
    """Complete an integrator that counts the energy it puts in."""

    def energy() -> float:
        return float(dynamics.atoms.get_total_energy() - dynamics.transferred_energy)

    return Integrator(dynamics, n_free, energy, set_targets, ("transferred_energy",), refresh)


def _nose_hoover(
    atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int
) -> Integrator:
    dynamics = NoseHooverChainNVT(
        atoms,
        config.timestep * units.fs,
        temperature_K=config.temperature,
        tdamp=config.thermostat_time * units.fs,
    )
    thermostat = dynamics._thermostat = _chain(dynamics, config, n_free)

    def set_targets(temperature: float, _: float) -> None:
        # The masses of the chain stay: another target changes no momentum of it.
        thermostat._kT = units.kB * temperature

    return Integrator(dynamics, n_free, dynamics.get_conserved_energy, set_targets, _CHAIN)


def _npt(atoms: Atoms, config: MDConfig, rng: np.random.Generator, n_free: int) -> Integrator:
    settings: dict[str, Any] = {
        "temperature_K": config.temperature,
        "pressure_au": config.pressure * units.bar,
        "tdamp": config.thermostat_time * units.fs,
        "pdamp": config.barostat_time * units.fs,
    }
    timestep = config.timestep * units.fs
    dynamics: IsotropicMTKNPT | MTKNPT
    if config.cell_motion == "axes":
        mask: Any = np.array([axis in config.axes for axis in "abc"])  # a tuple indexes wrongly
        dynamics = MaskedMTKNPT(atoms, timestep, mask=mask, **settings)
    elif config.cell_motion == "full":
        dynamics = MTKNPT(atoms, timestep, **settings)
    else:
        dynamics = IsotropicMTKNPT(atoms, timestep, **settings)
    thermostat = dynamics._thermostat = _chain(dynamics, config, n_free)
    barostat = dynamics._barostat

    def set_targets(temperature: float, pressure: float) -> None:
        thermostat._kT = barostat._kT = units.kB * temperature
        dynamics._pressure_au = pressure * units.bar

    energy = dynamics.get_conserved_energy
    return Integrator(dynamics, n_free, energy, set_targets, _BAROSTATS[config.cell_motion])


def _chain(dynamics: MolecularDynamics, config: MDConfig, n_free: int) -> NoseHooverChainThermostat:
    """Nosé–Hoover chain for `n_free` degrees of freedom; ASE's own always counts 3 N."""
    return NoseHooverChainThermostat(
        num_atoms_global=n_free / 3,  # type: ignore[arg-type] # enters only as 3 × this number
        masses=dynamics.masses,
        temperature_K=config.temperature,
        tdamp=config.thermostat_time * units.fs,
    )
