"""Locks that keep two processes from writing the same files."""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX: runs there are not protected from each other
    fcntl = None  # type: ignore[assignment] # what else could say that there is none


@contextmanager
def file_lock(file: Path, what: Path) -> Iterator[None]:
    """Keep other processes that lock the same file out of the block.

    The lock belongs to the process: it goes when the process goes, killed or not. The file says
    which process it is, and stays.

    Parameters
    ----------
    file
        The file to lock; it is made if there is none.
    what
        The folder or file that is protected, for messages.

    Raises
    ------
    RuntimeError
        If another process has the lock.
    OSError
        If the file cannot be made or written.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, what)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, what: Path) -> None:
    """Lock a file or say who has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        raise RuntimeError(
            f"a run is going on in {what} ({owner}): wait for it, stop it, or choose another output"
        ) from error
    except OSError as error:  # some network file systems have no locks
        warnings.warn(
            f"{what} cannot be locked ({error.strerror}): do not start a second run there",
            stacklevel=2,
        )
