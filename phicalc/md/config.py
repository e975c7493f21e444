"""Settings of molecular dynamics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from ase import units

from phicalc.md.ensembles.kind import Ensemble, Motion
from phicalc.md.ensembles.offered import find_ensemble
from phicalc.schema import (
    AtLeast,
    Positive,
    build,
    check_keys,
    checked,
    read_yaml,
    settings,
    to_plain,
)

EnsembleName = Literal["nve", "nvt", "npt"]
CellMotion = Literal["isotropic", "full", "axes"]
TrajectoryFormat = Literal["extxyz", "traj"]
Velocities = Literal["auto", "new", "keep"]

#: How the cell of ``"npt"`` may move.
CELL_MOTIONS: tuple[CellMotion, ...] = get_args(CellMotion)
#: Formats of trajectories.
TRAJECTORY_FORMATS: tuple[TrajectoryFormat, ...] = get_args(TrajectoryFormat)
#: Where velocities at the start come from.
VELOCITIES: tuple[Velocities, ...] = get_args(Velocities)


@settings
@dataclass(frozen=True, kw_only=True)
class MDConfig:
    """Settings of one molecular-dynamics run.

    Every time constant is given in fs, temperatures in K, pressures in bar.

    Raises
    ------
    ValueError
        If a setting has the wrong type, is out of range or contradicts another.
    """

    ensemble: EnsembleName = "nvt"
    """``"nve"``, ``"nvt"`` or ``"npt"``."""
    thermostat: str | None = None
    """For ``"nvt"``: ``"langevin"`` (the default), ``"bussi"``, ``"nose-hoover"``, ``"berendsen"``;
    for ``"npt"``, with its barostat: ``"nose-hoover"`` (Martyna–Tobias–Klein, the default),
    ``"berendsen"``. Berendsen's equilibrate fast but sample no ensemble. The import path
    ``"package.module:Class"`` names an `Ensemble` of your own (its module is imported)."""
    temperature: Annotated[float, AtLeast(0)] = 300.0
    """Target of the thermostat in K, and temperature of initial velocities that are drawn."""
    velocities: Velocities = "auto"
    """``"new"`` draws velocities, ``"keep"`` keeps those of the structure, ``"auto"`` draws them if
    all atoms are at rest; it warns if the temperature of those it keeps is another."""
    temperature_end: Annotated[float, AtLeast(0)] | None = None
    """Target at the end of the run in K; the target changes linearly."""
    pressure: float = 1.0
    """Target of the barostat of ``"npt"`` in bar."""
    pressure_end: float | None = None
    """Target at the end of the run in bar; the target changes linearly."""
    cell_motion: CellMotion = "isotropic"
    """Motion of the cell in ``"npt"``: ``"isotropic"`` keeps its shape, ``"full"`` changes lengths
    and angles, ``"axes"`` only the lengths of `axes`."""
    axes: str = "abc"
    """Lattice vectors whose lengths move with ``"axes"``: ``"c"``, ``"ab"``, …"""
    compressibility: Annotated[float, Positive] = 4.6e-5
    """Compressibility in 1/bar for Berendsen's barostat; an estimate is enough (default: water)."""
    timestep: Annotated[float, Positive] = 0.5
    """Time step in fs."""
    steps: Annotated[int, AtLeast(0)] = 1000
    """Number of time steps."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seed of the initial velocities and of the thermostat's noise."""
    thermostat_time: Annotated[float, Positive] = 100.0
    """1/friction of Langevin, relaxation time of Bussi and Berendsen, or period of the Nosé–Hoover
    chain, in fs."""
    barostat_time: Annotated[float, Positive] = 1000.0
    """Period of the barostat, or relaxation time of Berendsen's, in fs."""
    log_interval: Annotated[int, AtLeast(1)] = 10
    """Steps between lines of the log."""
    trajectory_interval: Annotated[int, AtLeast(1)] = 20
    """Steps between frames of the trajectory."""
    trajectory_format: TrajectoryFormat = "extxyz"
    """``"extxyz"`` or ``"traj"`` (ASE's own, binary)."""
    checkpoint_interval: Annotated[int, AtLeast(1)] = 200
    """Steps between checkpoints; each costs one more evaluation."""
    log_pressure: bool = False
    """Log the pressure outside ``"npt"`` too, which makes the calculator compute stress."""
    max_force: Annotated[float, Positive] = 100.0
    """Largest force on an atom in eV/Å; a larger one ends the run."""
    max_temperature: Annotated[float, Positive] = 10000.0
    """Highest temperature in K; a higher one ends the run."""
    committee_threshold: Annotated[float, Positive] = 0.3
    """Largest standard deviation of the force on an atom over the members of a committee, in eV/Å.
    The run warns once if it is exceeded. The default is about ten times the force error of a good
    model."""

    def __post_init__(self) -> None:
        """Check every field, then what several say together."""
        checked(self)
        self._check_words()
        self._check_targets()

    def _check_words(self) -> None:
        """Check that thermostat, moving axes and cell motion suit the ensemble."""
        kind = self.kind
        if not self.axes or set(self.axes) - set("abc") or len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes must name some of the vectors 'abc', got {self.axes!r}")
        if self.axes != "abc" and self.cell_motion != "axes":
            raise ValueError(f"axes={self.axes!r} needs cell_motion 'axes'")
        if self.cell_motion != "isotropic" and self.ensemble != "npt":
            raise ValueError(f"cell_motion {self.cell_motion!r} needs ensemble 'npt'")
        if self.cell_motion not in kind.cell_motions:
            choice = " or ".join(map(repr, kind.cell_motions))
            lack = "moves no angles" if self.cell_motion == "full" else "moves no single axes"
            raise ValueError(f"{kind.thermostat} {lack}: use cell_motion {choice}")

    def _check_targets(self) -> None:
        """Check that the method reaches the targets, and that the ensemble has them."""
        if not self.kind.reaches_zero and 0 in (self.temperature, self.temperature_end):
            raise ValueError(
                f"temperature must be above 0 K for {self.method}; use thermostat 'langevin' to "
                "cool to 0 K, or phicalc.relax to find a minimum"
            )
        if self.temperature_end is not None and self.ensemble == "nve":
            raise ValueError("temperature_end needs a thermostat: use ensemble 'nvt' or 'npt'")
        if self.pressure_end is not None and self.ensemble != "npt":
            raise ValueError("pressure_end needs a barostat: use ensemble 'npt'")

    @property
    def kind(self) -> Ensemble:
        """The ensemble that the settings name."""
        return find_ensemble(self.ensemble, self.thermostat)

    @property
    def method(self) -> str:
        """Name of the integrator: the thermostat of NVT, or nve, npt, npt-berendsen."""
        return self.kind.name

    @property
    def motion(self) -> Motion:
        """What the integrator needs, in ASE's units."""
        return Motion(
            timestep=self.timestep * units.fs,
            temperature=self.temperature,
            pressure=self.pressure * units.bar,
            thermostat_time=self.thermostat_time * units.fs,
            barostat_time=self.barostat_time * units.fs,
            compressibility=self.compressibility / units.bar,
            cell_motion=self.cell_motion,
            axes=self.axes,
        )

    @property
    def needs_pressure(self) -> bool:
        """Whether the pressure is computed."""
        return self.kind.needs_pressure or self.log_pressure

    @property
    def is_ramp(self) -> bool:
        """Whether a target changes over the run."""
        return self.temperature_end is not None or self.pressure_end is not None

    def targets(self, step: int) -> tuple[float, float]:
        """Return the targets of a step, temperature in K and pressure in bar."""
        part = step / max(self.steps, 1)
        ends = (self.temperature, self.temperature_end), (self.pressure, self.pressure_end)
        temperature, pressure = (
            start if end is None else start + part * (end - start) for start, end in ends
        )
        return temperature, pressure

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a JSON file."""
        values: dict[str, Any] = to_plain(self)
        return values


class RunDescription(NamedTuple):
    """Settings of a run as read from a file."""

    settings: dict[str, Any]
    """Settings of `MDConfig` that the file holds."""
    calculator: dict[str, Any]
    """Parameters of the calculator."""


def read_description(path: str | Path) -> RunDescription:
    """Return settings of `MDConfig` and, under ``calculator``, of the calculator in a YAML file.

    The ``config.json`` of a run is such a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For text that is not YAML, and for unknown keys, wrong types and values out of range.
    """
    try:
        settings = read_yaml(path)
        check_keys(settings, [*MDConfig.__dataclass_fields__, "calculator"], "")
        calculator = settings.pop("calculator", None) or {}
        if not isinstance(calculator, dict):
            raise ValueError(f"'calculator' must be a section of keys, got {calculator!r}")
        config = build(MDConfig, settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return RunDescription({name: getattr(config, name) for name in settings}, calculator)
