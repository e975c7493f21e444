"""Process-wide settings for long runs: kept memory and the number of threads.

Nothing here runs at import. Drivers (training, molecular dynamics) call these functions when a
run starts, and a user who does not want that simply does not start one.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Parameters of glibc's ``mallopt`` (``malloc.h``).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_INT, _NEVER = 2**31 - 1, -1
#: So many programs for each core that want to run are a crowd.
_CROWD = 1.25


def keep_freed_memory() -> bool:
    """Let the C allocator keep the memory of freed tensors for the next ones.

    By default glibc maps every large tensor anew from the kernel and gives it back when freed, so
    that each step pays for page faults: on graphs of a few hundred atoms this can halve the speed.
    The setting holds for the rest of the process; its price is that memory once used stays with
    the process.

    Returns
    -------
    bool
        True if the allocator accepted the setting; False on systems without glibc's ``mallopt``,
        where nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc (macOS, Windows, musl)
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    settings = {_M_MMAP_THRESHOLD: _LARGEST_INT, _M_TRIM_THRESHOLD: _NEVER}
    return all([mallopt(key, value) for key, value in settings.items()])


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Compute with `threads` threads inside the block and restore the former number after it.

    ``None`` leaves the number alone.
    """
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def advice_on_threads() -> str | None:
    """Return what to do where other programs want the cores, so that our threads would wait."""
    threads, cores = torch.get_num_threads(), os.cpu_count()
    if threads == 1 or cores is None or not hasattr(os, "getloadavg"):  # not on Windows
        return None
    load = os.getloadavg()[0]
    if load <= _CROWD * cores:
        return None
    return (
        f"{load:.0f} programs want to run on {cores} cores, and {threads} threads of ours will wait"
        " for one another: --threads 1 or OMP_NUM_THREADS=1 may be many times faster"
    )
