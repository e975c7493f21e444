"""Run molecular dynamics: atoms and settings in, a folder with log and trajectory out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from phicalc.analysis import Estimate
from phicalc.md.config import MDConfig
from phicalc.md.folder import (
    CHECKPOINT_FILE,
    FINAL_FILE,
    LAST_GOOD_FILE,
    LOG_FILE,
    earlier_files,
    locked,
)
from phicalc.md.log import PRESSURE_COLUMN, VOLUME_COLUMNS, drift, late_average, read_log
from phicalc.md.progress import ns_per_day
from phicalc.md.restart import Checkpoint
from phicalc.md.run import Run
from phicalc.system import keep_freed_memory


class MDResult(NamedTuple):
    """Files of a run, its speed, and averages over its log without the first fifth."""

    log: Path
    trajectory: Path
    final: Path
    """Last structure, with velocities."""
    seconds: float
    """Wall time of the loop over steps, of this process."""
    ns_per_day: float
    """Simulated time per wall time."""
    first_step: int
    """Step from which this process continued; 0 unless restarted, the last if all was done."""
    drift: float
    """Slope of the conserved energy in meV/atom/ps over the whole run; NaN for very short logs."""
    temperature: Estimate
    """Mean in K with its standard error."""
    pressure: Estimate | None = None
    """Mean in bar; None where it was not logged."""
    density: Estimate | None = None
    """Mean in g/cm³; None unless the structure is periodic in three directions."""


def run_md(
    atoms: Atoms,
    config: MDConfig,
    output: str | Path,
    *,
    restart: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> MDResult:
    """Run molecular dynamics with the calculator of `atoms`, in place, and return its files.

    The output folder receives ``config.json`` (the settings), ``log.csv``, the trajectory (with
    forces, velocities and charges), ``final.extxyz`` and ``checkpoint.safetensors``. Entries of
    ``atoms.info`` and ``atoms.arrays`` that the files cannot hold are renamed or left out, with a
    warning, and the first frame is read back before the first step.

    A run that was interrupted, in whatever way, continues with ``restart=True`` and otherwise the
    same arguments (more steps lengthen it). Log and trajectory are cut back to the last checkpoint
    and continued; on a CPU, with the same number of threads, they and the final state agree bit for
    bit with those of a run that was not interrupted. After SIGINT, SIGTERM or SIGHUP the step is
    finished and saved. Caches are reset at that step, and otherwise only at every
    `MDConfig.checkpoint_interval`, so after such a stop results agree to rounding only.

    Parameters
    ----------
    atoms
        Structure with a calculator. `MDConfig.velocities` says whether its velocities are kept.
    config
        The settings.
    output
        Folder, created if needed. If it is moved during the run, the files follow it.
    restart
        Whether to continue the run in that folder; starts it if there is none yet.
    overwrite
        Whether to replace an earlier run in that folder.
    progress
        Whether to show progress: a bar on terminals, a line every half minute elsewhere.

    Raises
    ------
    ValueError
        If the atoms have no calculator or do not suit the ensemble, or a run to continue differs.
    FileExistsError
        If the folder holds a run already.
    OSError
        If the folder cannot be written.
    RuntimeError
        If another process is writing to the folder.
    MDError
        If forces, temperature or the calculator break down, or the disk is full; the last good
        state and everything written before have been saved.
    MDInterrupted
        On SIGINT, SIGTERM or SIGHUP, after the state has been saved.
    """
    _check_atoms(atoms)
    if restart and overwrite:
        raise ValueError("restart continues a run and overwrite removes it: choose one of them")
    with locked(Path(output)) as folder:
        checkpoint = _find_checkpoint(folder.path, restart, overwrite)
        keep_freed_memory()
        run = Run(atoms, config, folder, checkpoint)
        seconds = run.complete(progress) if run.first_step < config.steps or not checkpoint else 0.0
        return _result(run, folder.where(), seconds)


def _result(run: Run, folder: Path, seconds: float) -> MDResult:
    """Collect what a run has left in its folder."""
    log, config = read_log(folder / LOG_FILE), run.config
    density = VOLUME_COLUMNS[1]
    return MDResult(
        log=folder / LOG_FILE,
        trajectory=folder / run.trajectory.name,
        final=folder / FINAL_FILE,
        seconds=seconds,
        ns_per_day=ns_per_day(config.steps - run.first_step, config.timestep, seconds),
        first_step=run.first_step,
        drift=drift(log, len(run.atoms)),
        temperature=late_average(log["temperature_K"]),
        pressure=late_average(log[PRESSURE_COLUMN]) if PRESSURE_COLUMN in log else None,
        density=late_average(log[density]) if density in log else None,
    )


def _check_atoms(atoms: Atoms) -> None:
    """Refuse atoms that cannot move."""
    if atoms.calc is None or len(atoms) == 0:
        missing = "a calculator (atoms.calc = …)" if len(atoms) else "at least one atom"
        raise ValueError(f"dynamics needs {missing}")
    for name, values in (("position", atoms.positions), ("momentum", atoms.get_momenta())):
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            atom = int(wrong[0])
            raise ValueError(
                f"the {name} of atom {atom} ({atoms.symbols[atom]}) is not finite: "
                f"{values[atom]}. Correct the structure"
            )
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"the cell is not finite: {atoms.cell.array.tolist()}")


def _find_checkpoint(folder: Path, restart: bool, overwrite: bool) -> Checkpoint | None:
    """Return the state to continue from; refuse to replace an earlier run unasked."""
    path = folder / CHECKPOINT_FILE
    if restart and path.exists():
        return Checkpoint.load(path)
    earlier = earlier_files(folder)
    if restart and not _has_begun(folder):
        return None
    if earlier and not overwrite:
        raise FileExistsError(
            f"output folder {folder} holds a run already ({earlier[0]}): choose another folder, "
            + ("it has no checkpoint to continue from" if restart else "continue it with restart")
            + ", or ask to overwrite it"
        )
    return None


def _has_begun(folder: Path) -> bool:
    """Whether a run without checkpoint left more than its start (it saves one at step 0)."""
    if any((folder / name).exists() for name in (FINAL_FILE, LAST_GOOD_FILE)):
        return True
    log = folder / LOG_FILE
    return log.exists() and log.read_bytes().count(b"\n") > 2
