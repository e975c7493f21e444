"""Processes that label: as many as asked for, one thread each; they end with the one they serve."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any


class _ThisProcess(Executor):
    """Computes at once, where it is asked."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _end_with_parent() -> None:
    """Let a worker end when the process that started it was killed: nobody else would tell it."""
    parent = parent_process()
    assert parent is not None

    def wait_for_its_end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait_for_its_end, daemon=True).start()


@contextmanager
def executor_of(workers: int) -> Iterator[Executor]:
    """Offer processes with one thread each for the time of the block."""
    if workers == 1:
        yield _ThisProcess()
        return
    # Libraries read this when they are loaded, in the new processes; here it is put back.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    # Started anew, not forked: threads of numerical libraries do not survive a fork.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
