"""State of a run, training or dynamics, as one file that is replaced atomically.

A state is a set of named tensors and a JSON document. Both go into one safetensors file (the
document into its header), which is written under another name, flushed to the disk and renamed: a
process killed at any moment leaves the previous state or the new one, never a mixture. The header
holds a digest of the whole file, and the state before the last one is kept beside it, so that a
damaged file is noticed and replaced.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

#: Version of the layout of state files: 2 added the digest.
STATE_VERSION = 2
#: The digest in the header is computed with these in its place.
_BLANK = "0" * 64
_MARK = b'"sha256":"'


class State(NamedTuple):
    """Everything a run needs to continue."""

    tensors: dict[str, Shaped[Tensor, "..."]]
    """Arrays of any shape: weights and moments of an optimizer, positions and momenta of atoms."""
    document: dict[str, Any]
    """Counters, configuration and everything else; JSON types and NumPy's numbers only."""


def previous_state(path: Path) -> Path:
    """Return where the state before the last one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_state(path: Path, state: State, folder: int | None = None) -> None:
    """Replace the file at `path` by this state (see the module's description).

    Parameters
    ----------
    path
        The file.
    state
        What to write.
    folder
        Descriptor of the folder of the file; found by its name if not given.

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written; the old file is then left whole.
    ValueError
        If the document holds numbers that are not finite.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
    document = {"version": STATE_VERSION, **state.document}
    text = json.dumps(document, allow_nan=False, default=_python_number)
    content = save(tensors, metadata={"state": text, "sha256": _BLANK})
    start = content.index(_MARK) + len(_MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    content = content[:start] + digest + content[start + len(digest) :]
    write_atomically(path, content, folder, keep=previous_state(path))


def read_state(path: Path, advice: str | None = None) -> State:
    """Return the state in a file, or, with a warning, the one before if the file is damaged.

    Parameters
    ----------
    path
        The file.
    advice
        What to do if no good state is left; by default to remove it.

    Raises
    ------
    ValueError
        When the file is damaged or has another layout, and so is the one before.
    """
    advice = advice or f"remove {path.name} to start the run anew"
    try:
        return _read(path)
    except ValueError as error:
        older = previous_state(path)
        if not older.exists():
            raise ValueError(f"{error}; {advice}") from error
        try:
            state = _read(older)
        except ValueError as other:
            raise ValueError(f"{error}, and {other}; {advice}") from error
        warnings.warn(f"{error}: continuing from the state before, {older.name}", stacklevel=2)
        return state


def _read(path: Path) -> State:
    """Read one file and verify it."""
    content = path.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        document = json.loads(header["state"])
        version = document.pop("version", None)
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not the state of a run ({error})") from error
    if version == 1 and "sha256" not in header:
        warnings.warn(
            f"{path} was written by an earlier version of phicalc, without a checksum: damage to "
            "it cannot be noticed",
            stacklevel=3,
        )
    elif not _is_intact(content, header.get("sha256")):
        raise ValueError(f"{path} is damaged (its content does not have the checksum it states)")
    elif version != STATE_VERSION:
        raise ValueError(f"{path} was written by another version of phicalc")
    return State(tensors, document)


def _is_intact(content: bytes, digest: str | None) -> bool:
    """Whether a file has the digest that its header states."""
    start = content.find(_MARK) + len(_MARK)
    blank = content[:start] + _BLANK.encode() + content[start + len(_BLANK) :]
    return digest is not None and hashlib.sha256(blank).hexdigest() == digest


def _python_number(value: object) -> Any:
    """Turn NumPy's numbers and arrays into what JSON holds."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a state cannot hold {value!r} ({type(value).__name__})")


def write_atomically(
    path: Path, content: bytes, folder: int | None = None, *, keep: Path | None = None
) -> None:
    """Write a file such that `path` holds either the old or the new content at every moment.

    Parameters
    ----------
    path
        The file.
    content
        All of it.
    folder
        Descriptor of the folder of the file: then the file goes there, wherever the folder is now.
    keep
        Where the file that is replaced stays, in the same folder; nowhere if not given.

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written; the old file is then left whole.
    """
    temporary = f"{path.name}.tmp"
    try:
        with _created(path.parent, temporary, folder) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if keep is not None:
            _keep(path, keep, folder)
        _rename(path.parent, temporary, path.name, folder)
    except OSError:
        for name in [temporary] if keep is None else [temporary, f"{keep.name}.tmp"]:
            _remove(path.parent, name, folder)
        raise
    if folder is None:
        sync_folder(path.parent)
    else:
        os.fsync(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut (POSIX; elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Names in a folder, by its descriptor where there is one.


def _created(folder: Path, name: str, place: int | None) -> BinaryIO:
    """Open a new file for writing."""
    if place is None:
        return (folder / name).open("wb")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.fdopen(os.open(name, flags, 0o666, dir_fd=place), "wb")


def _keep(path: Path, older: Path, place: int | None) -> None:
    """Give a file a second name, which stays when it is replaced; drop that of no file."""
    name = f"{older.name}.tmp"
    _remove(path.parent, name, place)
    try:
        if place is None:
            os.link(path, path.parent / name)
        else:
            os.link(path.name, name, src_dir_fd=place, dst_dir_fd=place)
    except FileNotFoundError:  # the first state of a run: what lies there is another run's
        _remove(path.parent, older.name, place)
    except OSError:  # some file systems have no links
        return
    else:
        _rename(path.parent, name, older.name, place)


def _rename(folder: Path, name: str, new: str, place: int | None) -> None:
    if place is None:
        (folder / name).replace(folder / new)
    else:
        os.replace(name, new, src_dir_fd=place, dst_dir_fd=place)


def _remove(folder: Path, name: str, place: int | None) -> None:
    try:
        if place is None:
            (folder / name).unlink()
        else:
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        pass
