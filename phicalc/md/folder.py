"""Folder of a run: file names, lock, free disk space."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from phicalc.locks import file_lock
from phicalc.md.output import TRAJECTORY_FILES
from phicalc.state import previous_state, write_atomically

#: Files of a run, inside its output folder.
CONFIG_FILE, LOG_FILE, CHECKPOINT_FILE = "config.json", "log.csv", "checkpoint.safetensors"
FINAL_FILE, LAST_GOOD_FILE, REPORT_FILE = "final.extxyz", "last_good.extxyz", "report.png"
TRAJECTORY_FILE = TRAJECTORY_FILES["extxyz"]
PREVIOUS_FILE = previous_state(Path(CHECKPOINT_FILE)).name
RUN_FILES = (CONFIG_FILE, LOG_FILE, *TRAJECTORY_FILES.values(), CHECKPOINT_FILE, PREVIOUS_FILE,
             FINAL_FILE, LAST_GOOD_FILE, REPORT_FILE)  # fmt: skip
#: Holds the process that runs here; locked as long as that lives, however it ends.
LOCK_FILE = ".lock"


class RunFolder:
    """The folder of a run, which stays the same when it is moved and another takes its name.

    Parameters
    ----------
    path
        The folder.
    descriptor
        The open folder; None where folders cannot be opened (Windows, which does not move them
        while files inside are open).
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path, self.descriptor = path, descriptor

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file as it was when the run started."""
        return self.path / name

    def __str__(self) -> str:
        """Return where the folder is now."""
        return str(self.where())

    def where(self) -> Path:
        """Return where the folder is now, as far as the system says."""
        link = Path(f"/proc/self/fd/{self.descriptor}")
        if self.descriptor is None or self._is_here() or not link.is_symlink():
            return self.path
        return Path(os.readlink(link))

    def _is_here(self) -> bool:
        """Whether the path still leads to this folder."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor or 0))
        except OSError:
            return False

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written; the old file is then left whole.
        """
        write_atomically(self.path / name, content, self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.where() / name).unlink(missing_ok=True)


def earlier_files(folder: Path) -> list[str]:
    """Return the names of the files that a run has left in a folder."""
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
def locked(folder: Path) -> Iterator[RunFolder]:
    """Make a folder, if need be, and keep other runs out of it inside the block.

    The lock belongs to the process: it goes when the process goes, killed or not.

    Raises
    ------
    RuntimeError
        If another process runs in the folder.
    OSError
        If the folder cannot be made or written.
    """
    with ExitStack() as stack:
        descriptor = None
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if os.name == "posix":
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
            stack.enter_context(file_lock(folder / LOCK_FILE, folder))
        yield RunFolder(folder, descriptor)


def start_folder(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Remove what an earlier run left in the folder, and save the settings.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    with writing_to(folder.path):
        for name in earlier_files(folder.path):
            folder.remove(name)
        save_settings(folder, settings)


def save_settings(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Write the resolved settings of the run.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    folder.write(CONFIG_FILE, f"{text}\n".encode())


def warn_about_room(folder: Path, needed: int) -> None:
    """Warn if the files of the run will take more bytes than there are free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        warnings.warn(
            f"the files of this run will take about {needed / 1e9:.2f} GB, and {folder} has room "
            f"for {free / 1e9:.2f} GB: make room, or write fewer frames (trajectory_interval)",
            stacklevel=2,
        )
