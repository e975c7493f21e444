"""The log of a run: a CSV file with units in its header and every digit of its numbers."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64

from phicalc.analysis import Estimate, block_average
from phicalc.md.ensembles.kind import Integrator
from phicalc.md.output import GrowingFile
from phicalc.units import GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM

#: Columns of every log.
COLUMNS = (
    "step",
    "time_ps",
    "temperature_K",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "conserved_energy_eV",
    "wall_time_s",
)
#: Columns added for structures that are periodic in three directions.
VOLUME_COLUMNS = ("volume_A3", "density_g_cm3")
#: Column added where pressure is asked for.
PRESSURE_COLUMN = "pressure_bar"


def temperature(atoms: Atoms, degrees_of_freedom: int) -> float:
    """Return the temperature in K of motion with so many quadratic terms."""
    return float(2 * atoms.get_kinetic_energy() / (degrees_of_freedom * units.kB))


class MDLog:
    """Writes one line per call, at once, so that an interrupted run keeps what it logged.

    Parameters
    ----------
    path
        CSV file.
    atoms, integrator
        The run.
    pressure
        Whether to log the pressure (which makes the calculator compute stress).
    size
        Bytes of an earlier part of the run that stay.
    wall_time
        Seconds that the earlier part took.
    """

    def __init__(
        self,
        path: Path,
        atoms: Atoms,
        integrator: Integrator,
        pressure: bool,
        *,
        size: int = 0,
        wall_time: float = 0.0,
    ) -> None:
        self._atoms = atoms
        self._integrator = integrator
        self._has_volume = bool(atoms.pbc.all())
        self._has_pressure = pressure
        self._start = perf_counter() - wall_time
        self._columns = [*COLUMNS]
        self._columns += VOLUME_COLUMNS if self._has_volume else ()
        self._columns += [PRESSURE_COLUMN] if pressure else []
        self._file = GrowingFile(path, size)
        self.sync, self.close = self._file.sync, self._file.close
        if not size:
            self._write(self._columns)

    @property
    def position(self) -> int:
        """Size of the file."""
        return self._file.size

    @property
    def wall_time(self) -> float:
        """Seconds since the start, time between interruptions and restarts left out."""
        return perf_counter() - self._start

    def write(self) -> None:
        """Log the present state."""
        row = self._row()
        self._write([str(row[name]) for name in self._columns])

    def _row(self) -> dict[str, int | float]:
        """Values of the present state; text of Python's floats gives back their every bit."""
        atoms, dynamics = self._atoms, self._integrator.dynamics
        row: dict[str, int | float] = {"step": dynamics.nsteps}
        row["time_ps"] = float(dynamics.get_time() / units.fs / 1000)
        if self._has_pressure:  # first: an evaluation with stress gives the energies as well
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            row[PRESSURE_COLUMN] = float(-np.trace(stress) / 3 / units.bar)
        row["temperature_K"] = temperature(atoms, self._integrator.degrees_of_freedom)
        row["potential_energy_eV"] = float(atoms.get_potential_energy())
        row["kinetic_energy_eV"] = float(atoms.get_kinetic_energy())
        row["conserved_energy_eV"] = self._integrator.conserved_energy()
        row["wall_time_s"] = round(self.wall_time, 3)
        if self._has_volume:
            volume = float(atoms.get_volume())
            mass = float(atoms.get_masses().sum())
            row["volume_A3"] = volume
            row["density_g_cm3"] = mass / volume * GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM
        return row

    def _write(self, cells: list[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.append(line.getvalue().encode())


def read_log(path: str | Path) -> dict[str, Float64[np.ndarray, " n_lines"]]:
    """Return a log as one float array of shape (n_lines,) per column; units are in the names.

    A last line that was cut off (by a kill) is left out.

    Raises
    ------
    ValueError
        If the file is not a log of `run_md` or holds no line yet.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    reader = csv.DictReader(lines)
    rows = list(reader)
    columns = reader.fieldnames or ()
    if not rows or not set(COLUMNS) <= set(columns):
        raise ValueError(
            f"{path} is not the log of a run: expected at least one line under the columns "
            f"{', '.join(COLUMNS)}"
        )
    return {name: np.array([float(row[name]) for row in rows]) for name in columns}


def late_average(values: Float64[np.ndarray, " n"]) -> Estimate:
    """Return the mean of a column of the log without its first fifth, with its error."""
    return block_average(values[len(values) // 5 :])


def drift(log: Mapping[str, Float64[np.ndarray, " n_lines"]], n_atoms: int) -> float:
    """Return the slope of the conserved energy in meV/atom/ps; NaN for fewer than three lines.

    Parameters
    ----------
    log
        Columns, as of `read_log`.
    n_atoms
        Number of atoms.
    """
    time, energy = log["time_ps"], log["conserved_energy_eV"]
    if len(time) < 3 or np.ptp(time) == 0:
        return float("nan")
    return float(np.polyfit(time, energy - energy[0], 1)[0] * 1000 / n_atoms)
