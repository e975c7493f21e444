"""A run of labelling: chains of frames over processes, kept as they come, written at the end."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from phicalc._version import __version__
from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.journal import Journal
from phicalc.labelling.labels import defined_labels
from phicalc.labelling.result import LabellingResult, finished, journal_of, write_result
from phicalc.labelling.samplers import SAMPLERS, Sampler
from phicalc.labelling.sampling import GivenStructures
from phicalc.labelling.tasks import Task, first_tasks, following, perform
from phicalc.locks import file_lock
from phicalc.progress import Progress
from phicalc.structures.writing import means_another_format
from phicalc.workers import TaskLostError, Workers, workers_of


def label(
    structures: Sequence[Atoms],
    spec: CalculatorSpec,
    output: str | Path,
    sampler: Sampler = GivenStructures(),  # noqa: B008 - frozen
    *,
    total_charge: float | None = None,
    workers: int = 1,
    max_force: float = 100.0,
    timeout: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> LabellingResult:
    """Label structures, or what a sampler makes of them, and write an extended XYZ file.

    A run can be killed at any moment and started again: frames that were labelled are kept, and
    the file at the end is the same. The number of processes changes nothing. Frames that fail (an
    SCF that does not converge) are recorded and left out, with the rest of their trajectory.

    Beside ``output.extxyz`` stands ``output.provenance.json``: calculator, version, arguments,
    sampler, units, failures. Labels follow `phicalc.training`: dipoles of ions about the centre of
    mass, ``info["charge"]``, stress only where a cell is periodic in three directions.

    Parameters
    ----------
    structures
        Where to start; ``info["charge"]`` is their total charge in e (0 if missing).
    spec
        The calculator.
    output
        The file.
    sampler
        Which frames are labelled; by default the structures themselves.
    total_charge
        Charge in e of every structure, in place of their own.
    workers
        Processes, with one thread each; 1 computes in this process.
    max_force
        Frames with a larger force, in eV/Å, count as failed.
    timeout
        Seconds that a frame may take, in a process of its own: frames whose calculator hangs, or
        takes its process down, count as failed, and the run goes on.
    overwrite
        Whether to replace a result that is there, of another run or of this one.
    progress
        Show a progress bar, or some lines where there is no terminal.

    Raises
    ------
    ValueError
        If there are no structures, the sampler makes no frames of them, the calculator does not
        suit them, a limit is not positive, or the name of the file means another format.
    ImportError
        If the calculator is not installed.
    FileExistsError
        If the file is the result of another run.
    RuntimeError
        If every frame failed (`NothingLabelledError`), a worker process ended of itself, or another
        run writes this file.
    """
    structures = _checked(structures, spec, total_charge)
    _check_limits(workers, max_force, timeout)
    if means_another_format(output):
        raise ValueError(f"labels are written as extended XYZ: give {output} a name ending in .xyz")
    if workers > 1 and "directory" in spec.arguments:
        raise ValueError("workers cannot share one directory: leave it out, or take one worker")
    chains = sampler.chains(structures)
    if not chains:
        formulas = ", ".join(sorted({atoms.get_chemical_formula() for atoms in structures})[:5])
        raise ValueError(
            f"{type(sampler).__name__} makes no frames of {formulas}: it needs what these do not "
            "have (other atoms, bonds to turn about, modes). Choose another sampler"
        )
    settings = _settings(structures, spec, sampler, max_force)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with file_lock(lock, path):
        result = None if overwrite else finished(path, settings)
        if result is None:
            journal = _journal(path, settings, overwrite)
            template = Task(structures[0], chains[0], 0, sampler, spec, max_force)
            team = partial(workers_of, workers, limit=timeout)
            result = _run(structures, template, journal, path, team, progress)
        lock.unlink()  # whoever makes another now finds a result
    return result


def _run(
    structures: Sequence[Atoms],
    template: Task,
    journal: Journal,
    path: Path,
    team: Callable[[], AbstractContextManager[Workers]],
    progress: bool,
) -> LabellingResult:
    """Do what the journal does not have yet, and write the file."""
    chains = template.sampler.chains(structures)
    entries = _kept(journal.open())
    tasks = first_tasks(structures, chains, entries, template)
    total = sum(chain.n_frames for chain in chains)
    bar = tqdm(total=total, initial=len(entries), unit="frame", disable=None if progress else True)
    with bar:
        lines = Progress("labelling") if progress else None
        _compute(tasks, team, entries, journal, bar, lines)
    result = write_result(path, structures, chains, entries, journal.settings)
    journal.path.unlink()
    return result


def _check_limits(workers: int, max_force: float, timeout: float | None) -> None:
    """Refuse limits that no frame could keep."""
    if workers < 1:
        raise ValueError(f"workers must be a positive number, got {workers}")
    if not max_force > 0:
        raise ValueError(f"max_force must be positive (eV/Å), got {max_force:g}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be positive (seconds), got {timeout:g}")


def _checked(
    structures: Sequence[Atoms], spec: CalculatorSpec, total_charge: float | None
) -> list[Atoms]:
    """Copy structures, each with its total charge, if they suit the calculator."""
    structures = [_with_charge(atoms, total_charge) for atoms in structures]
    if not structures or not all(map(len, structures)):
        raise ValueError("there is nothing to label: every structure needs at least one atom")
    # here, once for each charge, and not as a failure of every frame
    for atoms in {atoms.info["charge"]: atoms for atoms in structures}.values():
        defined_labels(atoms, spec.make(atoms))
    return structures


def _with_charge(atoms: Atoms, total_charge: float | None) -> Atoms:
    """Copy a structure that knows its total charge."""
    copy = atoms.copy()
    charge = atoms.info.get("charge", 0) if total_charge is None else total_charge
    copy.info["charge"] = float(charge)
    return copy


def _settings(
    structures: Sequence[Atoms], spec: CalculatorSpec, sampler: Sampler, max_force: float
) -> dict[str, Any]:
    """Everything that decides the result, as JSON types."""
    kinds = {kind: name for name, kind in SAMPLERS.items()}
    digest = hashlib.sha256()
    for atoms in structures:
        # all that a calculator may look at
        for name, part in sorted(atoms.arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(part).tobytes())
        digest.update(np.ascontiguousarray(atoms.cell.array).tobytes() + atoms.pbc.tobytes())
        info = {
            name: getattr(value, "tolist", lambda v=value: v)()
            for name, value in atoms.info.items()
        }
        digest.update(repr(sorted(info.items())).encode())
    settings = {
        "phicalc_version": __version__,
        "calculator": spec.record(),
        "sampler": {"name": kinds[type(sampler)], **asdict(sampler)},
        "structures": {"number": len(structures), "sha256": digest.hexdigest()},
        "max_force": max_force,
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"arguments of the calculator must be what JSON holds: {error}") from error
    return plain


def _journal(path: Path, settings: dict[str, Any], overwrite: bool) -> Journal:
    """Take up the notes of an unfinished run, or begin some."""
    journal = Journal(journal_of(path), settings)
    if path.exists() and not overwrite and not journal.path.exists():
        raise FileExistsError(
            f"{path} exists and is not the result of this run: choose another output, or ask to "
            "overwrite it"
        )
    return journal


def _kept(lines: list[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    """Entries of the journal by chain and frame."""
    return {(line.pop("chain"), line.pop("frame")): line for line in lines}


def _compute(
    tasks: deque[tuple[int, Task]],
    workers_for: Callable[[], AbstractContextManager[Workers]],
    entries: dict[tuple[int, int], dict[str, Any]],
    journal: Journal,
    bar: tqdm,
    lines: Progress | None,
) -> None:
    """Do all tasks; each result is in the journal before it counts."""

    def record(key: tuple[int, int], entry: dict[str, Any]) -> None:
        entries[key] = entry
        journal.append({"chain": key[0], "frame": key[1], **entry})
        bar.update()
        if lines is not None and bar.disable:  # no terminal
            lines(f"{len(entries)} of {bar.total} frames")

    with workers_for() as team:
        try:
            _work(tasks, team.executor, team.processes, record)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a worker process ended of itself (killed, or out of memory): {len(entries)} of "
                f"{bar.total} frames are kept in {journal.path}. Start the same again to go on, "
                "with fewer workers if memory was short"
            ) from error


def _work(
    tasks: deque[tuple[int, Task]],
    executor: Executor,
    workers: int,
    record: Callable[[tuple[int, int], dict[str, Any]], None],
) -> None:
    """Do all tasks, and those that follow from them."""
    running: dict[Future[dict[str, Any]], tuple[int, Task]] = {}
    while tasks or running:
        # one waits behind each that is worked on, unless there is but one to work
        while tasks and len(running) < (2 * workers if workers > 1 else 1):
            number, task = tasks.popleft()
            running[executor.submit(perform, task)] = number, task
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            number, task = running.pop(future)
            entry = _result(future)
            record((number, task.frame), entry)
            if "state" in entry and task.frame + 1 < task.chain.n_frames:
                tasks.append((number, following(task, entry)))


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    """Return what a task has found; that its process was lost is a result, too."""
    try:
        return future.result()
    except TaskLostError as error:
        return {"error": f"{type(error).__name__}: {error}"}
