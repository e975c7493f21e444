"""Worker processes: on this machine, or those of a dask cluster, behind one kind of executor."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple

from phicalc.hints import install_hint
from phicalc.system import keep_freed_memory


class Workers(NamedTuple):
    """Something that runs functions, and an object that all of them need."""

    executor: Executor
    shared: Any
    """What the workers receive in place of the object: pass it to each task."""
    processes: int


class _ThisProcess(Executor):
    """Computes at once, where it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Received:
    """Stands for the object that every worker process of this machine has received."""


#: In a worker process: that object, and that the process is one.
_object: Any = None
_is_worker = False


@contextmanager
def workers_of(
    count: int = 1, scheduler: str | None = None, shared: Any = None, *, apart: bool = False
) -> Iterator[Workers]:
    """Offer workers for the time of the block.

    Processes of this machine compute with one thread each, and end when this process ends.

    Parameters
    ----------
    count
        Processes on this machine; 1 computes in this process.
    scheduler
        Address of a dask scheduler, such as ``"tcp://host:8786"``: its workers are used instead.
        They need the same packages.
    shared
        An object that every task needs, a calculator for instance. Each process receives it once,
        whatever the number of tasks; tasks get it by `received`.
    apart
        Start a process for a `count` of 1, too: for tasks that may kill it.

    Raises
    ------
    ValueError
        If `count` is not positive or given together with `scheduler`, or if `shared` cannot be
        sent to another process.
    ImportError
        With `scheduler`, if dask.distributed is not installed.
    OSError
        If nothing answers at that address.
    """
    if count < 1:
        raise ValueError(f"workers must be a positive number, got {count}")
    if scheduler is not None and count > 1:
        raise ValueError(
            f"give workers or scheduler, not both: got workers={count} and scheduler={scheduler!r}"
        )
    if scheduler is not None:
        with _of_cluster(scheduler, shared) as workers:
            yield workers
    elif count == 1 and not apart:
        yield Workers(_ThisProcess(), shared, 1)
    else:
        with _processes(count, shared) as pool:
            yield Workers(pool, _Received(), count)


def received(shared: Any) -> Any:
    """Return the object that was shared, inside a task."""
    return _object if isinstance(shared, _Received) else shared


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the task inside the block; an idle worker process ignores it.

    Processes that were not started here are left alone.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C in the block, as one that can be sent back from the worker.
    """
    if not _is_worker:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:  # of a subclass that need not survive the way back
        raise KeyboardInterrupt(*map(str, error.args)) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _processes(count: int, shared: Any) -> Iterator[ProcessPoolExecutor]:
    """Start processes with one thread each."""
    try:
        pickle.dumps(shared)
    except Exception as error:  # of whatever kind the object's own code raises
        raise ValueError(f"{shared!r} cannot be sent to worker processes: {error}") from error
    # Libraries read this when they are loaded, in the new processes; here it is put back.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    # Started anew, not forked: threads of numerical libraries do not survive a fork.
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (shared,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _begin(shared: Any) -> None:
    """Prepare a worker process."""
    global _object, _is_worker
    _object, _is_worker = shared, True
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: see interruptible
    _end_with_parent()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed: nothing else would end it."""
    parent = parent_process()
    assert parent is not None

    def wait_for_its_end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait_for_its_end, daemon=True).start()


@contextmanager
def _of_cluster(scheduler: str, shared: Any) -> Iterator[Workers]:
    """Connect to the workers of a dask scheduler."""
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            f"scheduler={scheduler!r} needs dask.distributed: {install_hint('distributed')}"
        ) from error
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(1)
        # By broadcast: tasks of one worker share the copy that it has received.
        handle = client.scatter(shared, broadcast=True)
        client.run(keep_freed_memory)
        yield Workers(client.get_executor(pure=False), handle, len(client.nthreads()))
