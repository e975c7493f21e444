"""One task for many structures: in this process, in several, or on a cluster."""

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.progress import Progress
from phicalc.workers import Workers, interruptible, received, workers_of

Result = TypeVar("Result")

#: What is done with some structures: ``task(indices, frames, calculator)`` returns as many results.
Task = Callable[[Sequence[int], Sequence[Atoms], Calculator], Sequence[Result]]

#: Chunks that each worker gets on average, so that all of them end at about the same time.
_CHUNKS_PER_WORKER = 4
#: Largest number of structures in a chunk, which bounds what travels and what is repeated after
#: the death of a worker.
_LARGEST_CHUNK = 200
#: A calculator serves one task at a time, whatever the number of threads of a dask worker.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Failure:
    """Stands for the result of a structure that has none."""

    index: int
    """Of the structure."""
    error: BaseException

    def __str__(self) -> str:
        text = " ".join(str(self.error).split()) or type(self.error).__name__
        return f"structure {self.index}: {text}"


def map_structures(
    task: Task[Result],
    frames: Sequence[Atoms],
    calculator: Calculator,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> list[Result | Failure]:
    """Return what a task gives for every structure, computed here or by worker processes.

    Structures travel in chunks, which the task may evaluate as batches. If a chunk fails, it is
    halved until the structures at fault are found; if a worker process dies, the structures that
    it worked on are tried again one by one. The other structures keep their results.

    Parameters
    ----------
    task
        ``task(indices, frames, calculator)`` gets the numbers and copies of some structures and
        returns a result for each: something that can be sent between processes, such as
        `phicalc.structures.snapshot`. With workers it must be importable there.
    frames
        The structures; they are left alone.
    calculator
        Any ASE calculator; it is reset before each chunk. Each worker receives one copy.
    workers
        Processes on this machine, with one thread each; 1 computes in this process.
    scheduler
        Address of a dask scheduler whose workers are used instead, ``"tcp://host:8786"``.
    chunk
        Structures in a chunk. By default all of them in this process; with workers four chunks for
        each worker, of 200 structures at most.
    progress
        Prints how many structures are done.

    Returns
    -------
    results
        In the order of the structures; a `Failure` where a task raised or killed its process.

    Raises
    ------
    ValueError
        If `workers` or `chunk` is not positive, or if `workers` and `scheduler` are both given.
    ImportError
        With `scheduler`, if dask.distributed is not installed.
    OSError
        If no scheduler answers.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be positive, got {chunk}")
    found: dict[int, Result | Failure] = {}
    spread = partial(_spread, task, frames, found, progress)
    with _started(workers, scheduler, calculator) as team:
        todo = _chunks(len(frames), chunk, team.processes, here=workers == 1 and scheduler is None)
        suspects = spread(team, todo)
    while suspects or todo:  # a process died
        alone: deque[Sequence[int]] = deque([index] for index in suspects)
        while alone:
            with _started(1, None, calculator, apart=True) as team:
                found |= {index: Failure(index, _death()) for index in spread(team, alone)}
        with _started(workers, scheduler, calculator) as team:
            suspects = spread(team, todo)
    return [found[index] for index in range(len(frames))]


def _chunks(n: int, size: int | None, workers: int, *, here: bool) -> deque[Sequence[int]]:
    """Divide the numbers from 0 to n."""
    if size is None:
        share = n if here else min(-(-n // (_CHUNKS_PER_WORKER * workers)), _LARGEST_CHUNK)
        size = max(share, 1)
    return deque(range(first, min(first + size, n)) for first in range(0, n, size))


@contextmanager
def _started(
    workers: int, scheduler: str | None, calculator: Calculator, *, apart: bool = False
) -> Iterator[Workers]:
    """Offer workers that have the calculator."""
    with workers_of(workers, scheduler, calculator, apart=apart) as team:
        try:
            team.executor.submit(_is_there, team.shared).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "worker processes end before they compute anything: a script that uses them needs "
                "`if __name__ == '__main__':` around its commands, and they need the memory for "
                "one calculator each"
            ) from error
        yield team


def _is_there(shared: Any) -> bool:
    """Tell that a worker has received the calculator."""
    return received(shared) is not None


def _spread(
    task: Task[Result],
    frames: Sequence[Atoms],
    found: dict[int, Result | Failure],
    progress: Progress | None,
    team: Workers,
    todo: deque[Sequence[int]],
) -> list[int]:
    """Work through chunks until all are done, or a process dies.

    Returns the structures that the workers had then, one of which may have killed its process.
    """
    running: dict[Future[list[Any]], Sequence[int]] = {}
    # One chunk waits behind each that is worked on; a process that may die gets one at a time.
    window = 1 if team.processes == 1 else 2 * team.processes
    while todo or running:
        try:
            while todo and len(running) < window:
                frames_of_chunk = [frames[index] for index in todo[0]]
                future = team.executor.submit(_run, task, todo[0], frames_of_chunk, team.shared)
                running[future] = todo.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                found |= dict(zip(running[future], _outcome(future, running[future]), strict=True))
                del running[future]
                if progress is not None:
                    progress(f"{len(found)} of {len(frames)} structures")
        except BrokenProcessPool:
            return [index for chunk in running.values() for index in chunk]
    return []


def _outcome(future: Future[list[Any]], indices: Sequence[int]) -> list[Any]:
    """Return what a chunk gave; a dask cluster reports the death of a worker as an exception."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return [Failure(index, error) for index in indices]


def _death() -> RuntimeError:
    return RuntimeError("its worker process died: killed from outside, or out of memory")


def _run(task: Task[Any], indices: Sequence[int], frames: Sequence[Atoms], shared: Any) -> Any:
    """Run a task on a worker."""
    with _ONE_AT_A_TIME, interruptible():
        return _attempt(task, indices, frames, received(shared))


def _attempt(
    task: Task[Any], indices: Sequence[int], frames: Sequence[Atoms], calculator: Calculator
) -> list[Any]:
    """Run a task on copies of structures, and on the halves of a chunk that fails."""
    try:
        calculator.reset()
        return list(task(indices, [atoms.copy() for atoms in frames], calculator))
    except Exception as error:  # whatever it is, the other structures shall have their results
        if len(indices) == 1:
            return [Failure(indices[0], _portable(error))]
    half = len(indices) // 2
    return [
        *_attempt(task, indices[:half], frames[:half], calculator),
        *_attempt(task, indices[half:], frames[half:], calculator),
    ]


def _portable(error: Exception) -> Exception:
    """Return an exception that can be sent between processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a class with a constructor of its own, say
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
