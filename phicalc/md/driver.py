"""Run molecular dynamics: atoms and settings in, a folder with log and trajectory out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics
from tqdm import tqdm

from phicalc.md.config import MDConfig
from phicalc.md.ensembles import Integrator, build_integrator, initialise_velocities
from phicalc.md.guard import Guard, MDError
from phicalc.md.log import MDLog, temperature
from phicalc.structures import snapshot, write_structures
from phicalc.system import keep_freed_memory

#: Files of a run, inside its output folder.
CONFIG_FILE, LOG_FILE, TRAJECTORY_FILE = "config.json", "log.csv", "trajectory.extxyz"
FINAL_FILE, LAST_GOOD_FILE, REPORT_FILE = "final.extxyz", "last_good.extxyz", "report.png"
RUN_FILES = (CONFIG_FILE, LOG_FILE, TRAJECTORY_FILE, FINAL_FILE, LAST_GOOD_FILE, REPORT_FILE)


class MDResult(NamedTuple):
    """Where a run left its files, and how fast it was."""

    log: Path
    trajectory: Path
    final: Path
    """Last structure, with velocities."""
    seconds: float
    """Wall time of the loop over steps."""
    ns_per_day: float
    """Simulated time per wall time."""


def run_md(
    atoms: Atoms,
    config: MDConfig,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> MDResult:
    """Run molecular dynamics with the calculator of `atoms`, in place.

    The output folder receives ``config.json`` (the settings), ``log.csv``, ``trajectory.extxyz``
    (with forces, velocities and charges) and ``final.extxyz``.

    Parameters
    ----------
    atoms
        Structure with a calculator. Velocities are drawn from `config.seed` if there are none.
    config
        The settings.
    output
        Folder, created if needed.
    overwrite
        Whether to replace an earlier run in that folder.
    progress
        Whether to show a progress bar (on terminals only).

    Raises
    ------
    ValueError
        If the atoms have no calculator or do not suit the ensemble.
    FileExistsError
        If the folder holds a run already.
    MDError
        If forces, temperature or the calculator break down; the last good state has been saved.
    """
    if atoms.calc is None or len(atoms) == 0:
        missing = "a calculator (atoms.calc = …)" if len(atoms) else "at least one atom"
        raise ValueError(f"dynamics needs {missing}")
    folder = Path(output)
    _refuse_earlier_run(folder, overwrite)
    keep_freed_memory()
    rng = np.random.default_rng(config.seed)
    initialise_velocities(atoms, config.temperature, rng)
    integrator = build_integrator(atoms, config, rng)
    _start_folder(folder, config)
    guard = Guard(atoms, config.max_force, config.max_temperature)
    start = perf_counter()
    with _saving_last_good(guard, folder / LAST_GOOD_FILE):
        _advance(atoms, config, integrator, guard, folder, progress)
    seconds = perf_counter() - start
    final = write_structures(folder / FINAL_FILE, [_frame(atoms, integrator.dynamics)])
    speed = _ns_per_day(config.steps, config.timestep, seconds)
    return MDResult(folder / LOG_FILE, folder / TRAJECTORY_FILE, final, seconds, speed)


def _refuse_earlier_run(folder: Path, overwrite: bool) -> None:
    """Do not tread on an earlier run."""
    earlier = [name for name in RUN_FILES if (folder / name).exists()]
    if earlier and not overwrite:
        raise FileExistsError(
            f"output folder {folder} holds a run already ({earlier[0]}): choose another folder, "
            "or ask to overwrite it"
        )


def _start_folder(folder: Path, config: MDConfig) -> None:
    """Create the folder, remove what an earlier run left there, and save the settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n")


@contextmanager
def _saving_last_good(guard: Guard, path: Path) -> Iterator[None]:
    """Turn a breakdown inside the block into an `MDError`, after saving the last good state."""
    try:
        yield
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise MDError(f"{error}. {guard.save_last_good(path)}") from error
    except KeyboardInterrupt:
        guard.save_last_good(path)
        raise


def _advance(
    atoms: Atoms,
    config: MDConfig,
    integrator: Integrator,
    guard: Guard,
    folder: Path,
    progress: bool,
) -> None:
    """Loop over the steps: check, log, save."""
    dynamics = integrator.dynamics
    pressure = config.method == "npt" or config.log_pressure
    trajectory = folder / TRAJECTORY_FILE
    bar = tqdm(total=config.steps, unit="step", disable=None if progress else True)
    with MDLog(folder / LOG_FILE, atoms, integrator, pressure) as log, bar:
        start = perf_counter()
        for _ in dynamics.irun(config.steps):
            step = dynamics.nsteps
            kelvin = temperature(atoms, integrator.degrees_of_freedom)
            guard.check(step, kelvin)
            if step % config.log_interval == 0 or step == config.steps:
                log.write()
                speed = _ns_per_day(step, config.timestep, perf_counter() - start)
                bar.set_postfix_str(f"{kelvin:.0f} K, {speed:.2f} ns/day", refresh=False)
            if step % config.trajectory_interval == 0 or step == config.steps:
                frame = _frame(atoms, dynamics)
                ase.io.write(trajectory, frame, format="extxyz", append=True)
            bar.update(step - bar.n)


def _frame(atoms: Atoms, dynamics: MolecularDynamics) -> Atoms:
    """Copy of the present state, with its time and the results that have been computed for it."""
    return snapshot(atoms, step=dynamics.nsteps, time_fs=dynamics.get_time() / units.fs)


def _ns_per_day(steps: int, timestep: float, seconds: float) -> float:
    """Return simulated nanoseconds per day of wall time; `timestep` in fs."""
    return steps * timestep * 1e-6 / max(seconds, 1e-9) * 86400
