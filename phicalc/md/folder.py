"""The folder of a run: its files, whose it is, and whether there is room for what will come."""

import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phicalc.md.output import TRAJECTORY_FILES
from phicalc.state import write_atomically

try:
    import fcntl
except ImportError:  # not POSIX: runs there are not protected from each other
    fcntl = None  # type: ignore[assignment] # what else could say that there is none

#: Files of a run, inside its output folder.
CONFIG_FILE, LOG_FILE, CHECKPOINT_FILE = "config.json", "log.csv", "checkpoint.safetensors"
FINAL_FILE, LAST_GOOD_FILE, REPORT_FILE = "final.extxyz", "last_good.extxyz", "report.png"
TRAJECTORY_FILE = TRAJECTORY_FILES["extxyz"]
RUN_FILES = (CONFIG_FILE, LOG_FILE, *TRAJECTORY_FILES.values(), CHECKPOINT_FILE, FINAL_FILE,
             LAST_GOOD_FILE, REPORT_FILE)  # fmt: skip
#: Holds the process that runs here; locked as long as that lives, however it ends.
LOCK_FILE = ".lock"


def earlier_files(folder: Path) -> list[str]:
    """Names of the files that a run has left in a folder."""
    return [name for name in RUN_FILES if (folder / name).exists()]


def trajectory_of(folder: Path) -> Path:
    """Return the trajectory of a run, in whatever format it has."""
    found = [folder / name for name in TRAJECTORY_FILES.values() if (folder / name).is_file()]
    return found[0] if found else folder / TRAJECTORY_FILE


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make failures to write inside the block say what to do.

    Raises
    ------
    OSError
        Of the same kind, naming the folder.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(
            error.errno,
            f"cannot write into the output folder {folder} ({reason}): make room there, or choose "
            "another folder",
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, if need be, and keep other runs out of it inside the block.

    The lock belongs to the process: it goes when the process goes, killed or not.

    Raises
    ------
    RuntimeError
        If a run is going on in the folder.
    OSError
        If the folder cannot be made or written.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take_lock(descriptor, folder)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, folder: Path) -> None:
    """Lock a file or say who has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        raise RuntimeError(
            f"a run is going on in {folder} ({owner}): wait for it, stop it, or choose another "
            "output folder"
        ) from error
    except OSError as error:  # some network file systems have no locks
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}): do not start a second run there",
            stacklevel=2,
        )


def start_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Remove what an earlier run left in the folder, and save the settings.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    with writing_to(folder):
        for name in earlier_files(folder):
            (folder / name).unlink()
        save_settings(folder, settings)


def save_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the resolved settings of the run."""
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    write_atomically(folder / CONFIG_FILE, f"{text}\n".encode())


def warn_about_room(folder: Path, needed: int) -> None:
    """Warn if the files of the run will take more bytes than there are free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        warnings.warn(
            f"the files of this run will take about {needed / 1e9:.2f} GB, and {folder} has room "
            f"for {free / 1e9:.2f} GB: make room, or write fewer frames (trajectory_interval)",
            stacklevel=2,
        )
