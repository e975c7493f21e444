"""One run: everything that takes part in it, and the loop over its steps."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import perf_counter

import numpy as np
from ase import Atoms, units

from phicalc.md.config import MDConfig
from phicalc.md.constraints import constraint_state
from phicalc.md.folder import (
    CHECKPOINT_FILE,
    FINAL_FILE,
    LAST_GOOD_FILE,
    LOG_FILE,
    RunFolder,
    save_settings,
    start_folder,
    warn_about_room,
    writing_to,
)
from phicalc.md.guard import Guard, MDError
from phicalc.md.integrators import build_integrator, check_suitable
from phicalc.md.log import MDLog, temperature
from phicalc.md.output import TRAJECTORY_FILES, WRITERS, FrameFormat
from phicalc.md.progress import Progress
from phicalc.md.restart import (
    Checkpoint,
    describe_calculator,
    describe_run,
    digest_of,
    start_afresh,
    surroundings,
    take_motion,
)
from phicalc.md.signals import MDInterrupted, StopRequest, stop_requests
from phicalc.md.velocities import initialise_velocities
from phicalc.structures import snapshot
from phicalc.structures.portable import warn_of_changes


class Run:
    """Atoms, integrator, files and guard of one run, brought to the step where it continues.

    Parameters
    ----------
    atoms
        Structure with a calculator.
    config
        The settings.
    folder
        The output folder, locked.
    checkpoint
        The state to continue from; None starts.

    Raises
    ------
    ValueError
        If the atoms do not suit the ensemble, or the checkpoint is one of another run.
    """

    def __init__(
        self, atoms: Atoms, config: MDConfig, folder: RunFolder, checkpoint: Checkpoint | None
    ) -> None:
        self.atoms, self.config, self.folder, self.checkpoint = atoms, config, folder, checkpoint
        self.trajectory = folder / TRAJECTORY_FILES[config.trajectory_format]
        self.first_step = checkpoint.step if checkpoint else 0
        self.rng = np.random.default_rng(config.seed)
        check_suitable(atoms, config)
        self.settings = describe_run(atoms, config)
        self.surroundings = surroundings()
        self.start = checkpoint.start if checkpoint else digest_of(atoms)
        self._bring_atoms()
        self._make_integrator()
        self.format = FrameFormat(self._frame(), config.trajectory_format)
        self.guard = Guard(
            atoms,
            config.max_force,
            config.max_temperature,
            config.committee_threshold,
            self.format.text,
        )

    def _bring_atoms(self) -> None:
        """Give the atoms the velocities of the start, or everything that was saved."""
        atoms, config, saved = self.atoms, self.config, self.checkpoint
        if saved is None:
            initialise_velocities(atoms, config.temperature, self.rng, config.velocities)
        else:
            saved.check_same(self.settings, self.folder.path)
            saved.warn_of_changes(atoms, self.settings, self.folder.path)
            saved.put_atoms(atoms)
        start_afresh(atoms, None, config.needs_pressure)

    def _make_integrator(self) -> None:
        """Make ASE's dynamics, in the state that was saved."""
        config, saved = self.config, self.checkpoint
        n_free = saved.degrees_of_freedom if saved else None
        self.integrator = build_integrator(self.atoms, config, self.rng, n_free)
        if config.is_ramp:
            self.integrator.start_at(*config.targets(self.first_step))
        if saved is not None:
            self.integrator.restore(saved.integrator)
            self.rng.bit_generator.state = saved.random_state
        self.dynamics = self.integrator.dynamics
        self.dynamics.nsteps = self.first_step

    def complete(self, progress: bool) -> float:
        """Run to the end; return the seconds it took.

        Raises
        ------
        MDError, MDInterrupted
            See `phicalc.md.run_md`.
        """
        warn_of_changes(self.format.changes, self.folder.path)
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
        """Prepare the folder, and check that there is room."""
        config = self.config
        settings = {**config.to_dict(), "calculator": describe_calculator(self.atoms)}
        if self.checkpoint is None:
            start_folder(self.folder, settings)
        else:
            with writing_to(self.folder.path):
                save_settings(self.folder, settings)
                for name in (FINAL_FILE, LAST_GOOD_FILE):  # of an earlier end
                    self.folder.remove(name)
        steps = config.steps - self.first_step
        frame = len(self.format.text(self._frame()))
        needed = (
            frame * (steps // config.trajectory_interval + 2) + 200 * steps // config.log_interval
        )
        warn_about_room(self.folder.path, needed)

    def _advance(self, request: StopRequest, progress: bool) -> None:
        """Loop over the steps."""
        config = self.config
        shown = Progress(self.first_step, config.steps, config.timestep, shown=progress)
        with closing(shown):
            for _ in self.dynamics.irun(config.steps - self.first_step):
                step = self.dynamics.nsteps
                if step > self.first_step or self.checkpoint is None:
                    kelvin = self._record(step)
                    if step % config.log_interval == 0:
                        shown.note(step, kelvin)
                    shown.update(step)
                if step == config.steps:
                    return
                if request.signal_number is not None:
                    self._stop(step, request)
                if config.is_ramp:
                    self.integrator.aim(*config.targets(step + 1))

    def _record(self, step: int) -> float:
        """Check, log and save the state after a step; return the temperature in K."""
        config = self.config
        kelvin = temperature(self.atoms, self.integrator.degrees_of_freedom)
        self.guard.check(step, kelvin)
        if logs := step % config.log_interval == 0:
            self.log.write()
            self.guard.warn_of_extrapolation(step)
        if draws := step % config.trajectory_interval == 0:
            self._write_frame(step)
        if step == config.steps:
            positions = self.log.position, self.writer.position
            # Whatever the intervals, the end is written; a run that is lengthened drops it again.
            if not logs:
                self.log.write()
            if not draws:
                self._write_frame(step)
            self.folder.write(FINAL_FILE, self.format.text(self._frame()))
            self._save(step, *positions)
        elif step % config.checkpoint_interval == 0:
            self._save(step, self.log.position, self.writer.position)
            if step > 0:  # there it has no past yet
                start_afresh(self.atoms, self.integrator, config.needs_pressure)
        return kelvin

    def _write_frame(self, step: int) -> None:
        """Append a frame to the trajectory; the first one is read back."""
        frame = self._frame()
        self.writer.append(self.format.frame(frame))
        if step == 0:
            self.writer.sync()
            self.format.check(self.trajectory, frame)

    def _save(self, step: int, log_position: int, trajectory_position: int) -> None:
        """Save the state, after log and trajectory have reached the disk."""
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
            constraints=constraint_state(self.atoms),
            start=self.start,
            surroundings=self.surroundings,
        )
        self.checkpoint.save(self.folder / CHECKPOINT_FILE, self.folder.descriptor)

    def _stop(self, step: int, request: StopRequest) -> None:
        """Save and stop."""
        self._save(step, self.log.position, self.writer.position)
        raise MDInterrupted(
            f"stopped by {request.name} after step {step}; everything is saved in {self.folder}: "
            "continue with restart",
            request.signal_number or 0,
        )

    def _frame(self) -> Atoms:
        """Return a copy of the current state, with its time and results."""
        time = float(self.dynamics.get_time() / units.fs)
        return snapshot(self.atoms, step=self.dynamics.nsteps, time_fs=time)

    @contextmanager
    def _rescuing(self) -> Iterator[None]:
        """Turn a breakdown inside the block into an `MDError`, after saving the last good state."""
        try:
            yield
        except MDInterrupted:
            raise
        except MemoryError as error:
            raise MDError(
                "out of memory: use a smaller structure, dtype='float32' or fewer processes beside "
                f"this one. {self.guard.save_last_good(self.folder)}"
            ) from error
        except OSError as error:
            raise MDError(f"{self._unwritable(error)}") from error
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raise MDError(f"{error}. {self.guard.save_last_good(self.folder)}") from error
        except KeyboardInterrupt:
            self.guard.save_last_good(self.folder)
            raise

    def _unwritable(self, error: OSError) -> str:
        """Say what a failed write has left."""
        reason = error.strerror or str(error)
        text = f"step {self.dynamics.nsteps}: cannot write into {self.folder} ({reason})"
        if self.checkpoint is None:
            return f"{text}: make room, and start again"
        return (
            f"{text}. The files are whole, and saved up to step {self.checkpoint.step}: make room, "
            "and continue from there with restart"
        )
