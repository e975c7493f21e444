"""Trajectories: files that grow during a run, and can be cut back to where they were."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import ase.io
from ase import Atoms
from ase.io.trajectory import Trajectory

from phicalc.structures.portable import translate

#: Name of the trajectory in each format.
TRAJECTORY_FILES = {"extxyz": "trajectory.extxyz", "traj": "trajectory.traj"}


class GrowingFile:
    """A file to which whole records are appended; what does not fit is taken back.

    Parameters
    ----------
    path
        The file, made if there is none.
    size
        Number of bytes that stay; what follows them is cut off.

    Raises
    ------
    ValueError
        If the file is shorter than `size`.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        found = self._file.seek(0, os.SEEK_END)
        if found < size:
            self._file.close()
            raise ValueError(_shorter(path, f"{found} bytes", f"{size} bytes"))
        self._file.truncate(size)
        self.size = self._file.seek(size)

    def append(self, content: bytes) -> None:
        """Append all of it, or nothing if there is no room.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self.size += len(content)

    def sync(self) -> None:
        """Bring everything to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TrajectoryWriter(Protocol):
    """Writer of frames, one after the other."""

    @property
    def position(self) -> int:
        """Where the next frame goes; the constructor takes it to cut back to here."""

    def append(self, frame: Atoms) -> None:
        """Write a frame."""

    def sync(self) -> None:
        """Bring everything to the disk."""

    def close(self) -> None:
        """Close the file."""


class ExtxyzWriter:
    """Frames in extended XYZ; positions are bytes."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._file = GrowingFile(path, position)
        self.sync, self.close = self._file.sync, self._file.close

    @property
    def position(self) -> int:
        """Size of the file."""
        return self._file.size

    def append(self, frame: Atoms) -> None:
        """Write a frame."""
        self._file.append(frame_text(frame))


class TrajWriter:
    """Frames in ASE's binary format; positions are numbers of frames."""

    def __init__(self, path: Path, position: int = 0) -> None:
        if position == 0:
            path.unlink(missing_ok=True)
        else:
            _keep_frames(path, position)
        self._writer = Trajectory(path, "a" if position else "w")
        self.position = position

    def append(self, frame: Atoms) -> None:
        """Write a frame."""
        self._writer.write(frame)
        self.position += 1

    def sync(self) -> None:
        """Bring everything to the disk."""
        os.fsync(self._writer.backend.fd.fileno())

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


#: Writer of each format.
WRITERS: dict[str, Callable[[Path, int], TrajectoryWriter]] = {
    "extxyz": ExtxyzWriter,
    "traj": TrajWriter,
}


class FrameFormat:
    """How the frames of a run are written: entries that would not come back are left out.

    Parameters
    ----------
    frame
        The first frame.
    trajectory_format
        ``"extxyz"`` or ``"traj"``, of the trajectory; single structures go into extended XYZ.
    """

    def __init__(self, frame: Atoms, trajectory_format: str) -> None:
        self._format = trajectory_format
        self._text = self._frames = translate(frame)
        if trajectory_format != "extxyz":
            self._frames = translate(frame, trajectory_format)
        #: A phrase for each entry that is dropped or renamed.
        self.changes = tuple(dict.fromkeys((*self._frames.changes, *self._text.changes)))

    def frame(self, atoms: Atoms) -> Atoms:
        """Return a frame as the trajectory holds it."""
        return self._frames.apply(atoms)

    def text(self, atoms: Atoms) -> bytes:
        """Return a structure as extended XYZ."""
        return frame_text(self._text.apply(atoms))

    def check(self, path: Path, atoms: Atoms) -> None:
        """Read the first frame of a trajectory back, and compare it with the structure.

        Raises
        ------
        ValueError
            If it cannot be read, or something has not come back.
        """
        try:
            found = list(ase.io.iread(path, index="0", format=self._format))[0]
        except Exception as error:  # readers raise whatever they stumble over
            raise ValueError(f"the first frame of {path} cannot be read back ({error})") from error
        if lost := self._frames.lost(atoms, found):
            raise ValueError(
                f"the first frame of {path} does not hold the structure: {', '.join(lost)} came "
                "back as something else. Remove these entries"
            )


def frame_text(frame: Atoms) -> bytes:
    """Return the extended XYZ of one frame that is portable."""
    text = io.StringIO()
    ase.io.write(text, frame, format="extxyz")
    return text.getvalue().encode()


def _keep_frames(path: Path, count: int) -> None:
    """Drop all but the first frames of a ``.traj`` file."""
    with Trajectory(path) as old:
        if len(old) < count:
            raise ValueError(_shorter(path, f"{len(old)} frames", f"{count} frames"))
        if len(old) == count:
            return
        shorter = path.with_name(f"{path.name}.tmp")
        with Trajectory(shorter, "w") as new:
            for index in range(count):
                new.write(old[index])
    shorter.replace(path)


def _shorter(path: Path, found: str, expected: str) -> str:
    """Message about a file that lacks what a checkpoint says it had."""
    return (
        f"{path} has {found}, but had {expected} at the checkpoint: it was changed or copied "
        "incompletely. Bring the right file back, or start anew with overwrite"
    )
