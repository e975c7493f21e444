"""Run molecular dynamics: atoms and settings in, a folder with log and trajectory out."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from tqdm import tqdm

from phicalc.md.config import MDConfig
from phicalc.md.ensembles import build_integrator, check_suitable
from phicalc.md.folder import (
    CHECKPOINT_FILE,
    FINAL_FILE,
    LAST_GOOD_FILE,
    LOG_FILE,
    earlier_files,
    locked,
    save_settings,
    start_folder,
    warn_about_room,
    writing_to,
)
from phicalc.md.guard import Guard, MDError
from phicalc.md.log import MDLog, drift, read_log, temperature
from phicalc.md.output import TRAJECTORY_FILES, WRITERS, frame_text
from phicalc.md.restart import (
    Checkpoint,
    describe_calculator,
    describe_run,
    start_afresh,
    take_motion,
)
from phicalc.md.signals import MDInterrupted, StopRequest, stop_requests
from phicalc.md.velocities import initialise_velocities
from phicalc.state import write_atomically
from phicalc.structures import snapshot
from phicalc.system import keep_freed_memory


class MDResult(NamedTuple):
    """Where a run left its files, and how fast it was."""

    log: Path
    trajectory: Path
    final: Path
    """Last structure, with velocities."""
    seconds: float
    """Wall time of the loop over steps, of this process."""
    ns_per_day: float
    """Simulated time per wall time."""
    first_step: int
    """Step from which this process went on; 0 unless restarted, the last one if all was done."""
    drift: float
    """Slope of the conserved energy in meV/atom/ps over the whole run; NaN for very short logs."""


def run_md(
    atoms: Atoms,
    config: MDConfig,
    output: str | Path,
    *,
    restart: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> MDResult:
    """Run molecular dynamics with the calculator of `atoms`, in place.

    The output folder receives ``config.json`` (the settings), ``log.csv``, the trajectory (with
    forces, velocities and charges), ``final.extxyz`` and ``checkpoint.safetensors``.

    A run that was interrupted, in whatever way, goes on with ``restart=True`` and otherwise the
    same arguments (more steps lengthen it). Log and trajectory are cut back to the last checkpoint
    and continued; on a CPU, with the same number of threads, they and the final state are bit for
    bit those of a run that was not interrupted. After SIGINT or SIGTERM the step is finished and
    the run goes on from there: neighbour lists and iterations begin anew at that step, where they
    otherwise do at every `MDConfig.checkpoint_interval`, which is felt in the last bits.

    Parameters
    ----------
    atoms
        Structure with a calculator. Velocities are drawn from `config.seed` if there are none.
    config
        The settings.
    output
        Folder, created if needed.
    restart
        Whether to continue the run in that folder; starts it if there is none yet.
    overwrite
        Whether to replace an earlier run in that folder.
    progress
        Whether to show a progress bar (on terminals only).

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
        On SIGINT or SIGTERM, after the state has been saved.
    """
    _check_atoms(atoms, config)
    if restart and overwrite:
        raise ValueError("restart continues a run and overwrite removes it: choose one of them")
    folder = Path(output)
    with locked(folder):
        checkpoint = _find_checkpoint(folder, restart, overwrite)
        keep_freed_memory()
        run = _Run(atoms, config, folder, checkpoint)
        seconds = run.complete(progress) if run.first_step < config.steps or not checkpoint else 0.0
    log = folder / LOG_FILE
    speed = _ns_per_day(config.steps - run.first_step, config.timestep, seconds)
    slope = drift(read_log(log), len(atoms))
    return MDResult(log, run.trajectory, folder / FINAL_FILE, seconds, speed, run.first_step, slope)


def _check_atoms(atoms: Atoms, config: MDConfig) -> None:
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
    """Return the state to continue from; do not tread on an earlier run."""
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


class _Run:
    """Everything that takes part in one run, brought to where it starts or goes on."""

    def __init__(
        self, atoms: Atoms, config: MDConfig, folder: Path, checkpoint: Checkpoint | None
    ) -> None:
        self.atoms, self.config, self.folder, self.checkpoint = atoms, config, folder, checkpoint
        self.trajectory = folder / TRAJECTORY_FILES[config.trajectory_format]
        self.first_step = checkpoint.step if checkpoint else 0
        self.settings = describe_run(atoms, config)
        self.rng = np.random.default_rng(config.seed)
        check_suitable(atoms, config)
        if checkpoint is None:
            initialise_velocities(atoms, config.temperature, self.rng)
        else:
            checkpoint.check_same(self.settings, folder)
            checkpoint.put_atoms(atoms)
        start_afresh(atoms, None, config.needs_pressure)
        n_free = checkpoint.degrees_of_freedom if checkpoint else None
        self.integrator = build_integrator(atoms, config, self.rng, n_free)
        if config.is_ramp:
            self.integrator.set_targets(*config.targets(self.first_step))
        if checkpoint is not None:
            self.integrator.restore(checkpoint.integrator)
            self.rng.bit_generator.state = checkpoint.random_state
        self.dynamics = self.integrator.dynamics
        self.dynamics.nsteps = self.first_step
        self.guard = Guard(
            atoms, config.max_force, config.max_temperature, config.committee_threshold
        )

    def complete(self, progress: bool) -> float:
        """Run to the end; return the seconds it took."""
        self._open_folder()
        saved = self.checkpoint
        log = MDLog(
            self.folder / LOG_FILE,
            self.atoms,
            self.integrator,
            self.config.needs_pressure,
            size=saved.log_position if saved else 0,
            wall_time=saved.wall_time if saved else 0.0,
        )
        with closing(log) as self.log:
            writer = WRITERS[self.config.trajectory_format](
                self.trajectory, saved.trajectory_position if saved else 0
            )
            with closing(writer) as self.writer, self._rescuing(), stop_requests() as request:
                start = perf_counter()
                self._advance(request, progress)
                return perf_counter() - start

    def _open_folder(self) -> None:
        """Make the folder ready, and see whether there is room."""
        config = self.config
        settings = {**config.to_dict(), "calculator": describe_calculator(self.atoms)}
        if self.checkpoint is None:
            start_folder(self.folder, settings)
        else:
            with writing_to(self.folder):
                save_settings(self.folder, settings)
                for name in (FINAL_FILE, LAST_GOOD_FILE):  # of an earlier end
                    (self.folder / name).unlink(missing_ok=True)
        steps = config.steps - self.first_step
        frame = len(frame_text(self._frame()))
        needed = (
            frame * (steps // config.trajectory_interval + 2) + 200 * steps // config.log_interval
        )
        warn_about_room(self.folder, needed)

    def _advance(self, request: StopRequest, progress: bool) -> None:
        """Loop over the steps."""
        config, integrator = self.config, self.integrator
        bar = tqdm(
            total=config.steps, initial=self.first_step, unit="step",
            disable=None if progress else True,
        )  # fmt: skip
        start = perf_counter()
        with bar:
            for _ in self.dynamics.irun(config.steps - self.first_step):
                step = self.dynamics.nsteps
                if step > self.first_step or self.checkpoint is None:
                    kelvin = self._record(step)
                    if step % config.log_interval == 0:
                        done, seconds = step - self.first_step, perf_counter() - start
                        speed = _ns_per_day(done, config.timestep, seconds)
                        bar.set_postfix_str(f"{kelvin:.0f} K, {speed:.2f} ns/day", refresh=False)
                    bar.update(step - bar.n)
                if step == config.steps:
                    return
                if request.signal_number is not None:
                    self._stop(step, request)
                if config.is_ramp:
                    integrator.aim(*config.targets(step + 1))

    def _record(self, step: int) -> float:
        """Check, log and save what a step has made; returns the temperature in K."""
        config = self.config
        kelvin = temperature(self.atoms, self.integrator.degrees_of_freedom)
        self.guard.check(step, kelvin)
        if logs := step % config.log_interval == 0:
            self.log.write()
            self.guard.warn_of_extrapolation(step)
        if draws := step % config.trajectory_interval == 0:
            self.writer.append(self._frame())
        if step == config.steps:
            positions = self.log.position, self.writer.position
            # Whatever the intervals, the end is written; a run that is lengthened drops it again.
            if not logs:
                self.log.write()
            if not draws:
                self.writer.append(self._frame())
            write_atomically(self.folder / FINAL_FILE, frame_text(self._frame()))
            self._save(step, *positions)
        elif step % config.checkpoint_interval == 0:
            self._save(step, self.log.position, self.writer.position)
            if step > 0:  # there it has no past yet
                start_afresh(self.atoms, self.integrator, config.needs_pressure)
        return kelvin

    def _save(self, step: int, log_position: int, trajectory_position: int) -> None:
        """Save the state; what it refers to reaches the disk before it does."""
        self.log.sync()
        self.writer.sync()
        self.checkpoint = Checkpoint(
            step=step,
            motion=take_motion(self.atoms),
            integrator=self.integrator.state(),
            random_state=dict(self.rng.bit_generator.state),
            degrees_of_freedom=self.integrator.degrees_of_freedom,
            settings=self.settings,
            log_position=log_position,
            trajectory_position=trajectory_position,
            wall_time=self.log.wall_time,
        )
        self.checkpoint.save(self.folder / CHECKPOINT_FILE)

    def _stop(self, step: int, request: StopRequest) -> None:
        """Save and end, as a signal has asked."""
        self._save(step, self.log.position, self.writer.position)
        raise MDInterrupted(
            f"stopped by {request.name} after step {step}; everything is saved in {self.folder}: "
            "the same with restart goes on",
            request.signal_number or 0,
        )

    def _frame(self) -> Atoms:
        """Copy of the present state, with its time and the results computed for it."""
        time = float(self.dynamics.get_time() / units.fs)
        return snapshot(self.atoms, step=self.dynamics.nsteps, time_fs=time)

    @contextmanager
    def _rescuing(self) -> Iterator[None]:
        """Turn a breakdown inside the block into an `MDError`, after saving the last good state."""
        last_good = self.folder / LAST_GOOD_FILE
        try:
            yield
        except MDInterrupted:
            raise
        except MemoryError as error:
            raise MDError(
                "out of memory: use a smaller structure, dtype='float32' or fewer processes beside "
                f"this one. {self.guard.save_last_good(last_good)}"
            ) from error
        except OSError as error:
            raise MDError(f"{self._unwritable(error)}") from error
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raise MDError(f"{error}. {self.guard.save_last_good(last_good)}") from error
        except KeyboardInterrupt:
            self.guard.save_last_good(last_good)
            raise

    def _unwritable(self, error: OSError) -> str:
        """Say what a failed write leaves."""
        reason = error.strerror or str(error)
        text = f"step {self.dynamics.nsteps}: cannot write into {self.folder} ({reason})"
        if self.checkpoint is None:
            return f"{text}: make room, and start again"
        return (
            f"{text}. What was written is whole, and saved up to step {self.checkpoint.step}: make "
            "room, and the same with restart goes on from there"
        )


def _ns_per_day(steps: int, timestep: float, seconds: float) -> float:
    """Return simulated nanoseconds per day of wall time; `timestep` in fs."""
    return steps * timestep * 1e-6 / max(seconds, 1e-9) * 86400
