"""What a molecular-dynamics run is told: one frozen record, checked when it is made."""

from dataclasses import asdict, dataclass
from typing import Any

#: Thermostats offered by each ensemble; the first is the default.
THERMOSTATS: dict[str, tuple[str, ...]] = {
    "nve": (),
    "nvt": ("langevin", "bussi", "nose-hoover"),
    "npt": ("nose-hoover",),
}


@dataclass(frozen=True, kw_only=True)
class MDConfig:
    """Settings of one molecular-dynamics run.

    Every time constant is given in fs, temperatures in K, pressures in bar.

    Raises
    ------
    ValueError
        If a name is unknown, a number is out of range or two settings contradict each other.
    """

    ensemble: str = "nvt"
    """``"nve"``, ``"nvt"`` or ``"npt"`` (isotropic Martyna–Tobias–Klein)."""
    thermostat: str | None = None
    """For ``"nvt"``: ``"langevin"`` (the default), ``"bussi"`` or ``"nose-hoover"``."""
    temperature: float = 300.0
    """K: the thermostat's target, and of the velocities drawn when the atoms have none."""
    pressure: float = 1.0
    """bar: target of ``"npt"``."""
    timestep: float = 0.5
    """fs."""
    steps: int = 1000
    """Number of time steps."""
    seed: int = 0
    """Of the initial velocities and of the thermostat's noise."""
    thermostat_time: float = 100.0
    """fs: 1/friction of Langevin, relaxation time of Bussi, period of the Nosé–Hoover chain."""
    barostat_time: float = 1000.0
    """fs: period of the barostat."""
    log_interval: int = 10
    """Steps between lines of the log."""
    trajectory_interval: int = 20
    """Steps between frames of the trajectory."""
    log_pressure: bool = False
    """Log the pressure outside ``"npt"`` too, which makes the calculator compute stress."""
    max_force: float = 100.0
    """eV/Å: a larger force on any atom ends the run."""
    max_temperature: float = 10000.0
    """K: a higher temperature ends the run."""

    def __post_init__(self) -> None:
        if self.ensemble not in THERMOSTATS:
            raise ValueError(f"ensemble must be one of {tuple(THERMOSTATS)}, got {self.ensemble!r}")
        offered = THERMOSTATS[self.ensemble]
        if self.thermostat is not None and self.thermostat not in offered:
            choice = f"one of {offered}" if offered else "left out"
            raise ValueError(
                f"with ensemble {self.ensemble!r} the thermostat must be {choice}, "
                f"got {self.thermostat!r}"
            )
        for name in ("timestep", "thermostat_time", "barostat_time", "max_force",
                     "max_temperature", "log_interval", "trajectory_interval"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("steps", "seed", "temperature"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.method not in ("nve", "langevin") and self.temperature == 0:
            raise ValueError(
                f"temperature must be above 0 K for {self.method}; use thermostat 'langevin' to "
                "cool to 0 K, or phicalc.relax to find a minimum"
            )

    @property
    def method(self) -> str:
        """What integrates the motion: ``"nve"``, ``"npt"`` or the name of the NVT thermostat."""
        if self.ensemble != "nvt":
            return self.ensemble
        return self.thermostat or THERMOSTATS["nvt"][0]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a JSON file."""
        return asdict(self)
