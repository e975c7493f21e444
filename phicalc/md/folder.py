"""The folder of a run: its files, whose it is, and whether there is room for what will come."""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from phicalc.locks import file_lock
from phicalc.md.output import TRAJECTORY_FILES
from phicalc.state import write_atomically

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
    with ExitStack() as stack:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(folder / LOCK_FILE, folder))
        yield


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
