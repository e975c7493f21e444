"""The log of a run: a CSV file with units in its header and digits enough to see a drift."""

import csv
from pathlib import Path
from time import perf_counter

import numpy as np
from ase import Atoms, units

from phicalc.md.ensembles import Integrator
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
    """Temperature in K of the motion that takes part in equipartition."""
    return float(2 * atoms.get_kinetic_energy() / (degrees_of_freedom * units.kB))


class MDLog:
    """Writes one line per call and flushes it, so that an interrupted run keeps what it logged.

    Parameters
    ----------
    path
        CSV file to create.
    atoms, integrator
        What is running.
    pressure
        Whether to log the pressure (which makes the calculator compute stress).
    """

    def __init__(self, path: Path, atoms: Atoms, integrator: Integrator, pressure: bool) -> None:
        self._atoms = atoms
        self._integrator = integrator
        self._has_volume = bool(atoms.pbc.all())
        self._has_pressure = pressure
        self._start = perf_counter()
        columns = [*COLUMNS]
        columns += VOLUME_COLUMNS if self._has_volume else ()
        columns += [PRESSURE_COLUMN] if pressure else []
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()

    def __enter__(self) -> "MDLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self) -> None:
        """Log the present state."""
        atoms, dynamics = self._atoms, self._integrator.dynamics
        row = {
            "step": str(dynamics.nsteps),
            "time_ps": f"{dynamics.get_time() / units.fs / 1000:.6f}",
        }
        if self._has_pressure:  # first: an evaluation with stress gives the energies as well
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            row[PRESSURE_COLUMN] = f"{-np.trace(stress) / 3 / units.bar:.4f}"
        kelvin = temperature(atoms, self._integrator.degrees_of_freedom)
        row["temperature_K"] = f"{kelvin:.4f}"
        row["potential_energy_eV"] = f"{atoms.get_potential_energy():.9f}"
        row["kinetic_energy_eV"] = f"{atoms.get_kinetic_energy():.9f}"
        row["conserved_energy_eV"] = f"{self._integrator.conserved_energy():.9f}"
        row["wall_time_s"] = f"{perf_counter() - self._start:.3f}"
        if self._has_volume:
            volume = atoms.get_volume()
            density = atoms.get_masses().sum() / volume * GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM
            row["volume_A3"], row["density_g_cm3"] = f"{volume:.6f}", f"{density:.6f}"
        self._writer.writerow(row)
        self._file.flush()


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """Read a log as one float array per column.

    Raises
    ------
    ValueError
        If the file is not a log of `run_md` or holds no line yet.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        columns = reader.fieldnames or ()
    if not rows or not set(COLUMNS) <= set(columns):
        raise ValueError(
            f"{path} is not the log of a run: expected at least one line under the columns "
            f"{', '.join(COLUMNS)}"
        )
    return {name: np.array([float(row[name]) for row in rows]) for name in columns}
