"""Read labelled structures from files of any format that ASE knows."""

import hashlib
import os
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, ioformats, open_with_compression

from phicalc.data.config import KeysConfig
from phicalc.data.frames import LabelledAtoms, label_atoms
from phicalc.data.names import warn_of_names
from phicalc.structures import read_structures
from phicalc.structures.xyz import check_frames, failing_frame

#: Folder searched last for data files that are given by a relative name.
DATA_VARIABLE = "PHICALC_DATA"

_COMPRESSED = (".gz", ".bz2", ".xz")


def find_data_file(name: str | Path, base: Path | None = None) -> Path:
    """Return the path of a data file: as given, beside `base`, or in the folder ``PHICALC_DATA``.

    Relative names are looked for, in this order, in the folder `base` (that of the configuration
    file), in the current folder, and in the folder that the environment variable
    ``PHICALC_DATA`` names.

    Raises
    ------
    FileNotFoundError
        Naming every place that was tried.
    """
    folders = [base or Path(), Path()]
    if os.environ.get(DATA_VARIABLE):
        folders.append(Path(os.environ[DATA_VARIABLE]))
    places = list(dict.fromkeys(folder / Path(name).expanduser() for folder in folders))
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"data file {str(name)!r} was not found; tried {', '.join(str(p) for p in places)}. Give "
        f"a path, or set the environment variable {DATA_VARIABLE} to the folder with the data"
    )


def read_frames(
    path: str | Path, keys: KeysConfig, required: Iterable[str] = ()
) -> list[LabelledAtoms]:
    """Return every structure of a file with its labels.

    Parameters
    ----------
    path
        Extended XYZ (plain or compressed), ASE's ``.traj``, ``.db`` and ``.json``, or any other
        file that `ase.io.read` understands. Key-value pairs and data of a database count as
        ``info``.
    keys
        Names of the labels in the file.
    required
        Labels (of `LABELS`) that every structure must have.

    Raises
    ------
    ValueError
        For a file that cannot be read or has no structures, a missing required label, a label that
        is no number, not finite or of the wrong shape, and external conditions (fields, fragments,
        electrodes); the message names file, frame and key.
    """
    path = Path(path)
    try:
        images = _images(path)
    except Exception as error:  # ASE's readers raise whatever their parsers stumble over
        reason = str(error) or type(error).__name__
        form = " as extended XYZ" if _is_extended_xyz(path) else ""
        raise ValueError(
            f"{path} could not be read{form}: {reason}. Expected labeled structures as "
            "extended XYZ, .traj, .db, .json, or another format that ase.io.read understands"
        ) from error
    if not images:
        raise ValueError(f"{path} holds no structures")
    required = tuple(required)
    origins = [f"{path.name}, frame {i}" for i in range(len(images))]
    pairs = zip(images, origins, strict=True)
    frames = [label_atoms(atoms, keys, required, origin) for atoms, origin in pairs]
    warn_of_names(images, keys, path)
    return frames


def _images(path: Path) -> list[Atoms]:
    """Return the structures of a file."""
    if _is_extended_xyz(path):
        return _read_extended_xyz(path)
    if filetype(str(path)) in ("db", "json"):
        return _read_database(path)
    return read_structures(path)


def _is_extended_xyz(path: Path) -> bool:
    """Whether the name says so, or the first line does where the name says nothing."""
    name = Path(path.stem) if path.suffix in _COMPRESSED else path
    if name.suffix in (".xyz", ".extxyz"):
        return True
    try:
        known = filetype(str(path)) in ioformats
    except UnknownFileTypeError:
        known = False
    if not known:
        with open_with_compression(str(path), "rb") as stream:
            return bool(stream.readline(32).strip().isdigit())
    return False


def _read_extended_xyz(path: Path) -> list[Atoms]:
    """Return the structures of an extended XYZ file."""
    # Unpacked as a whole: ASE steps back and forth, which inside a .gz file takes minutes.
    with open_with_compression(str(path), "rb") as stream:
        content = stream.read()
    try:
        text = StringIO(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        text = StringIO(content.decode("latin-1"))  # every byte is a character there
    check_frames(text)
    try:
        return list(ase.io.read(text, index=":", format="extxyz"))
    except Exception as error:
        raise ValueError(f"{failing_frame(text)}{error}") from error


def _read_database(path: Path) -> list[Atoms]:
    """Return the structures of one of ASE's databases, with all that their rows hold."""
    images = []
    with ase.db.connect(str(path), serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            found: dict[str, Any] = {**row.data, **row.key_value_pairs}
            atoms.info = {**found, **atoms.info}
            images.append(atoms)
    return images


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
