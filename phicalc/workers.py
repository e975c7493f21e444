"""Worker processes: on this machine, or those of a dask cluster, behind one kind of executor."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from queue import SimpleQueue
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


class TaskLostError(RuntimeError):
    """A process ended before its task was done, or took too long and was ended."""


class _Received:
    """Stands for the object that every worker process of this machine has received."""


#: In a worker process: that object, and that the process is one.
_object: Any = None
_is_worker = False


@contextmanager
def workers_of(
    count: int = 1,
    scheduler: str | None = None,
    shared: Any = None,
    *,
    apart: bool = False,
    limit: float | None = None,
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
    limit
        Seconds that a task on this machine may take. One that takes longer, or whose process ends
        of itself, raises `TaskLostError`; the next one gets a new process.

    Raises
    ------
    ValueError
        If `count` is not positive or given together with `scheduler`, if `limit` is not positive
        or given with `scheduler` or `shared`, or if `shared` cannot be sent to another process.
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
    if limit is not None and not (limit > 0 and scheduler is None and shared is None):
        raise ValueError(
            f"limit must be positive (seconds), without scheduler and shared: got {limit}"
        )
    if scheduler is not None:
        with _of_cluster(scheduler, shared) as workers:
            yield workers
    elif limit is not None:
        with _one_thread_each(), _guarded(count, limit) as executor:
            yield Workers(executor, None, count)
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
    with _one_thread_each():
        # Started anew, not forked: threads of numerical libraries do not survive a fork.
        pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (shared,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give processes that start inside the block one thread."""
    # Libraries read this when they are loaded, in the new processes; here it is put back.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


class _Child:
    """A process that does one task after another."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self.is_ready = False

    def do(self, task: Callable[[], Any], limit: float) -> Any:
        """Return the result of a task.

        Raises
        ------
        TaskLostError
            If there is none after `limit` seconds, or the process ends.
        """
        try:
            self._pipe.send(task)
            self.is_ready = bool(self._pipe.recv())  # its imports do not count
            if not self._pipe.poll(limit):
                raise TaskLostError(f"no result within {limit:g} s")
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise TaskLostError(f"its process ended {_cause(self._process.exitcode)}") from error

    def kill(self) -> None:
        """Kill the process and those that it has started; safe while another thread is in `do`."""
        with suppress(ProcessLookupError):
            if self.is_ready and self._process.pid:  # the leader of a group of its own
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def end(self) -> None:
        """Kill the process and free what belongs to it; for the only thread that uses it."""
        self.kill()
        self._process.join()
        self._pipe.close()


def _cause(code: int | None) -> str:
    """Return how a process ended."""
    if code is None or code >= 0:
        return f"with exit code {code}"
    known = {each.value: each.name for each in signal.Signals}
    return f"by signal {-code} ({known.get(-code, 'unknown')})"


def _serve(pipe: Connection) -> None:
    """Do the tasks that come through a pipe, until there are no more."""
    _begin(None)
    os.setsid()  # a calculator's own processes are ended with it
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(True)
        pipe.send(task())


class _Guarded(Executor):
    """Gives each task to a process of its own as long as that lives and answers in time."""

    def __init__(self, count: int, limit: float):
        self._limit, self._threads = limit, ThreadPoolExecutor(count)
        self._idle: SimpleQueue[_Child | None] = SimpleQueue()
        self._children: set[_Child] = set()
        self._is_closed = False
        for _ in range(count):
            self._idle.put(None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._run, partial(fn, *args, **kwargs))

    def _run(self, task: Callable[[], Any]) -> Any:
        child = self._idle.get()
        try:
            if child is None:
                child = _Child()
                self._children.add(child)
            if self._is_closed:  # too late for `close` to have killed it
                child.kill()
            return child.do(task, self._limit)
        except TaskLostError:
            assert child is not None
            self._children.discard(child)
            child.end()
            child = None
            raise
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End all processes; what they have not done is lost."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.kill()
        self._threads.shutdown()  # each thread ends the child that it has lost
        for child in self._children:
            child.end()


@contextmanager
def _guarded(count: int, limit: float) -> Iterator[_Guarded]:
    """Start processes for tasks that may crash or hang."""
    executor = _Guarded(count, limit)
    try:
        yield executor
    finally:
        executor.close()


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
        if os.getpgrp() == os.getpid():  # the leader of a group: see `_serve`
            os.killpg(0, signal.SIGKILL)
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
