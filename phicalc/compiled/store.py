"""Compiled functions on disk: loaded only if they are intact and nobody else can have written them.

The name of a file holds the SHA-256 of its content: ``<key>.<digest>.pt2``. So a file and its
digest appear and go at one instant, and who may write a file but not into its folder cannot
change both. Owner and permissions of files and folders are checked as in `phicalc.compiled.trust`.
"""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from jaxtyping import Shaped
from torch import Tensor

from phicalc.compiled.messages import compiling
from phicalc.compiled.tracing import Function, load_function
from phicalc.compiled.trust import distrust, distrust_file

logger = logging.getLogger("phicalc")


class LoadedFunction:
    """A compiled function in memory, shared by all that use it.

    torch never unloads the machine code of a function, so each is loaded once per process.
    """

    def __init__(self, function: Function):
        self.function: Function | None = function

    def __call__(self, *inputs: Shaped[Tensor, "..."]) -> Sequence[Shaped[Tensor, "..."]]:
        """Call the function.

        Raises
        ------
        RuntimeError
            While Python shuts down.
        """
        if self.function is None:
            raise RuntimeError("compiled functions cannot be called while Python shuts down")
        return self.function(*inputs)

    def close(self) -> None:
        """Let torch remove the temporary folder into which it has unpacked the function."""
        self.function = None


#: Functions in memory by the digests of their files.
_loaded: dict[str, LoadedFunction] = {}
#: Folders for this process only: none, or one.
_own_folders: list[Path] = []
#: Folders that the user has been warned of.
_warned: set[Path] = set()
_lock = threading.Lock()


class Store:
    """Compiled functions in one folder.

    Parameters
    ----------
    folder
        Where they are kept; it need not exist. With None, or a folder that cannot be written or
        trusted, they last as long as this process.
    """

    #: How names of files end.
    suffix: ClassVar[str] = "pt2"

    def __init__(self, folder: Path | None):
        self.folder = folder

    @staticmethod
    def read(path: Path) -> Function:
        """Load what a file holds."""
        return load_function(path)

    def load(self, names: Sequence[str]) -> list[LoadedFunction] | None:
        """Return functions that belong together; None unless all of them are there and sound.

        A damaged file is removed, and one that others may have written is left alone, with one
        line in the log each.
        """
        for folder in [self.folder, *_own_folders]:
            if folder is None or not all(self._candidates(folder, name) for name in names):
                continue
            if _trusted(folder):
                paths = [self._intact(folder, name) for name in names]
                found = [self._load(path) for path in paths if path is not None]
                if len(found) == len(names):
                    return found
        return None

    def obtain(
        self, names: Sequence[str], what: str, write: Callable[[list[Path]], object] | None
    ) -> list[LoadedFunction] | None:
        """Return functions that are there, or have been compiled now.

        Parameters
        ----------
        names
            Their names.
        what
            What they are, for messages.
        write
            As for `fill`; None compiles nothing.

        Raises
        ------
        Exception
            Whatever `write` or the loader raises.
        """
        found = self.load(names)
        if found is None and write is not None:
            with compiling(what, self.folder):
                self.fill(names, write)
            found = self.load(names)
            if found is None:
                raise OSError(f"{what}: the functions just compiled could not be read back")
        return found

    def fill(self, names: Sequence[str], write: Callable[[list[Path]], object]) -> None:
        """Keep new functions.

        Parameters
        ----------
        names
            Their names.
        write
            Writes each to the path that it is given; whatever it raises leaves nothing behind.
        """
        folder = self._writable()
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            paths = [Path(unfinished) / f"{name}.{self.suffix}" for name in names]
            write(paths)
            for name, path in zip(names, paths, strict=True):
                path.chmod(0o600)
                path.replace(folder / f"{name}.{_digest(path)}.{self.suffix}")

    def _writable(self) -> Path:
        """Return the folder to write into, making it if need be."""
        try:
            if self.folder is not None:
                make_private(self.folder)
                if _trusted(self.folder) and os.access(self.folder, os.W_OK | os.X_OK):
                    return self.folder
        except OSError:  # a file system that cannot be written, or is full
            pass
        return _folder_of_this_process()

    def _candidates(self, folder: Path, name: str) -> list[Path]:
        """Files that may hold a function."""
        return sorted(folder.glob(f"{name}.*.{self.suffix}"))

    def _intact(self, folder: Path, name: str) -> Path | None:
        """Return the file of a function that may be loaded; remove damaged ones."""
        for path in self._candidates(folder, name):
            reason = distrust_file(path)
            if reason is None and _digest(path) == _digest_in_name(path):
                return path
            if reason is None:
                path.unlink(missing_ok=True)
                reason = "it is damaged, and was removed (compile=True compiles it anew)"
            logger.warning("the compiled function %s is not loaded: %s", path, reason)
        return None

    def _load(self, path: Path) -> LoadedFunction:
        """Load a function, once per process."""
        digest = _digest_in_name(path)
        with _lock:
            if digest not in _loaded:
                _loaded[digest] = LoadedFunction(self.read(path))
            return _loaded[digest]


def make_private(folder: Path) -> None:
    """Make a folder that is closed to other users; one that exists stays as it is."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def _trusted(folder: Path) -> bool:
    """Whether a folder is safe to load from; if not, warn once."""
    reason = distrust(folder)
    if reason is not None and folder not in _warned:
        _warned.add(folder)
        logger.warning(
            "compiled functions are neither loaded from %s nor kept there: %s. Close it, or set "
            "PHICALC_CACHE to a folder that only you can write",
            folder,
            reason,
        )
    return reason is None


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_in_name(path: Path) -> str:
    """SHA-256 that a file had when it was written."""
    return path.name.split(".")[-2]


def _folder_of_this_process() -> Path:
    """Return a folder that only this process uses."""
    with _lock:
        if not _own_folders:
            folder = Path(tempfile.mkdtemp(prefix="phicalc-compiled-"))
            atexit.register(_remove_folder, folder, os.getpid())
            _own_folders.append(folder)
        return _own_folders[0]


def _remove_folder(folder: Path, owner: int) -> None:
    """Remove the folder of a process, unless this is a fork of that process."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


@atexit.register
def _close() -> None:
    """Close all functions: no temporary folder outlives the process."""
    for function in _loaded.values():
        function.close()
