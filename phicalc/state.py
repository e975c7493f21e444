"""The state of a running training on disk: one file, replaced at a single instant.

A state is a set of named tensors and a JSON document. Both go into one safetensors file (the
document into its header), which is written under another name, flushed to the disk and renamed: a
process killed at any moment leaves the previous state or the new one, never a mixture.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

#: Version of the layout of state files.
STATE_VERSION = 1


class State(NamedTuple):
    """Everything a run needs to go on."""

    tensors: dict[str, Tensor]
    """Arrays: weights and moments of an optimizer, positions and momenta of atoms, …"""
    document: dict[str, Any]
    """Counters, configuration and everything else; JSON types only."""


def write_state(path: Path, state: State) -> None:
    """Replace the file at `path` by this state (see the module's description).

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written; the old file is then left whole.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
    text = json.dumps({"version": STATE_VERSION, **state.document}, allow_nan=False)
    write_atomically(path, save(tensors, metadata={"state": text}))


def read_state(path: Path, advice: str | None = None) -> State:
    """Read a state file.

    Parameters
    ----------
    path
        The file.
    advice
        What to do if it is damaged; by default to remove it.

    Raises
    ------
    ValueError
        When the file is damaged or has another layout.
    """
    advice = advice or f"remove {path.name} to start the run anew"
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged or not the state of a run ({error}); {advice}"
        ) from error
    if document.pop("version", None) != STATE_VERSION:
        raise ValueError(f"{path} was written by another version of phicalc; {advice}")
    return State(tensors, document)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that `path` holds either the old or the new content at every moment."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut (POSIX; elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
