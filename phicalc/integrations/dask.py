"""Many structures over the processes of one or many machines, with dask.distributed."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.system import keep_freed_memory

Result = TypeVar("Result")

#: What is done with one structure, which has its calculator: ``task(index, atoms)``.
Task = Callable[[int, Atoms], Result]

#: Name of a scheduler that is started for the occasion, on this machine.
LOCAL = "local"

#: A calculator serves one structure at a time, whatever the number of threads of a worker.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Failure:
    """What stands for the result of a structure that has none."""

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
    scheduler: str | None = None,
    workers: int | None = None,
) -> list[Result | Failure]:
    """Do something with every structure, here or on the workers of a dask scheduler.

    Results do not depend on where they were computed, nor on the structures before: the calculator
    is reset before each.

    Parameters
    ----------
    task
        ``task(index, atoms)`` gets a copy of a structure with its calculator, and returns something
        that can be sent between processes (`phicalc.structures.snapshot`, not atoms with the
        calculator itself). With a scheduler it must be importable on the workers.
    frames
        The structures; they are left alone.
    calculator
        Any ASE calculator; each worker receives a copy, whatever the number of structures.
    scheduler
        ``"local"`` starts worker processes on this machine for the time of the call; an address
        such as ``"tcp://host:8786"`` uses those of a running scheduler, which must have the same
        packages; workers keep freed memory from then on (`phicalc.system.keep_freed_memory`). By
        default everything happens here, one structure after the other.
    workers
        Number of processes of the scheduler ``"local"``, one thread each; one for each core if not
        given.

    Returns
    -------
    results
        In the order of the structures. Where a task raised there is a `Failure`, and the other
        structures have their results. Where a worker dies again and again, what it was given
        besides may fail too, and all that is left with the last worker.

    Raises
    ------
    ValueError
        For a number of workers without sense.
    ImportError
        With a scheduler, if dask.distributed is not installed.
    OSError
        If the scheduler cannot be reached.
    """
    if workers is not None and (workers < 1 or scheduler != LOCAL):
        raise ValueError(
            f"workers must be positive, and goes with the scheduler {LOCAL!r} alone, "
            f"got workers={workers} and scheduler={scheduler!r}"
        )
    if scheduler is None:
        return [_attempt(task, index, atoms, calculator) for index, atoms in enumerate(frames)]
    with _client(scheduler, workers) as client:
        # By broadcast: tasks of one worker share the copy that it has received.
        shared = client.scatter(calculator, broadcast=True)
        futures = [
            client.submit(_attempt_there, task, index, atoms, shared, pure=False)
            for index, atoms in enumerate(frames)
        ]
        return [_outcome(index, future) for index, future in enumerate(futures)]


def _attempt(
    task: Task[Result], index: int, atoms: Atoms, calculator: Calculator
) -> Result | Failure:
    """Run a task on a copy of the structure."""
    atoms = atoms.copy()
    try:
        with _ONE_AT_A_TIME:
            calculator.reset()
            atoms.calc = calculator
            return task(index, atoms)
    except Exception as error:  # whatever it is, the other structures shall have their results
        return Failure(index, error)


def _attempt_there(
    task: Task[Result], index: int, atoms: Atoms, calculator: Calculator
) -> Result | Failure:
    """Run a task on a worker, whose thread would otherwise map every large tensor anew."""
    keep_freed_memory()
    return _attempt(task, index, atoms, calculator)


def _outcome(index: int, future: Any) -> Any:
    """Return what a task gave that ran elsewhere."""
    try:
        return future.result()
    except Exception as error:  # of dask: the worker died, or took the calculator with it
        return Failure(index, error)


@contextmanager
def _client(scheduler: str, workers: int | None) -> Iterator[Any]:
    """Connect to a scheduler, or to one that lives as long as this block."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            f'scheduler={scheduler!r} needs dask.distributed: pip install "phicalc[distributed]"'
        ) from error
    if scheduler != LOCAL:
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(1)
            yield client
        return
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",  # any free port: several runs on one machine are normal
        silence_logs=logging.ERROR,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client
