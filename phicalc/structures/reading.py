"""Read structures from files of any format that ASE knows."""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.io.formats import UnknownFileTypeError, filetype, ioformats, open_with_compression
from ase.utils import string2index

from phicalc.structures.cif import read_cif
from phicalc.structures.occupancy import DisorderError, refuse_disorder
from phicalc.structures.pdb import refuse_alternatives
from phicalc.structures.xyz import check_frames, failing_frame

#: Byte order marks, and the encodings that they announce.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXPECTED = "Expected a file that ase.io.read understands, such as extxyz, CIF or POSCAR"


def read_structures(path: str | Path, index: str = ":") -> list[Atoms]:
    """Return the structures in a file of any format that ASE knows (CIF, POSCAR, extxyz, …).

    Text may be encoded in UTF-8, with a byte order mark or without, in UTF-16, or in Latin-1.
    Deuterium is read from CIF files, as hydrogen with its mass; elsewhere write H, and give the
    mass in a column ``masses``.

    Parameters
    ----------
    path
        The file; names with ``@`` are names, not ASE's ``file@index``.
    index
        Which structures, in ASE's notation: ``":"`` all, ``"-1"`` the last, ``"::10"`` every tenth.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be understood, is truncated, or holds no structure at `index`; if a
        structure is disordered (sites partly empty or shared by elements), or its results (energy,
        forces, …) are not numbers.
    """
    path = Path(path)
    if not path.is_file():
        what = "that is a folder" if path.is_dir() else "check the name and the folder"
        raise FileNotFoundError(f"no structure file {path}: {what}")
    try:
        frames = _read(path, index)
    except DisorderError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # ASE's readers raise whatever their parsers stumble over
        if isinstance(error, (IndexError, StopIteration)) and (count := _count(path)):
            raise _beyond(path, index, count) from error
        reason = f"{_frame_of(path, error)}{_reason(error)}".rstrip(". ")
        raise ValueError(
            f"cannot read structures {index!r} from {path}: {reason}. {_EXPECTED}"
        ) from error
    if index.startswith("-") and index[1:].isdigit() and index != "-1":
        count = _count(path)
        if int(index) < -count:  # ASE returns the first one
            raise _beyond(path, index, count)
    if not frames:
        raise ValueError(f"{path} holds no structure at index {index!r}: use ':' for all")
    for number, atoms in enumerate(frames):
        _check(atoms, str(path) if len(frames) == 1 else f"structure {number} of {path}")
    return frames


def _beyond(path: Path, index: str, count: int) -> ValueError:
    """Return the error of an index beyond a file of so many structures."""
    return ValueError(
        f"{path} holds {count} structure{'s' * (count > 1)}, and none at index {index!r}: the "
        "first one is 0, the last one -1"
    )


def _count(path: Path) -> int:
    """Count the structures of a file; 0 if it cannot be read."""
    try:
        return len(_read(path, ":"))
    except Exception:  # of whatever kind: the error before says what is wrong
        return 0


def _read(path: Path, index: str) -> list[Atoms]:
    """Return the structures at an index, whatever the encoding."""
    form = filetype(str(path))
    try:
        return _read_as(path, index, form, _encoding(path))
    except UnicodeDecodeError:
        if _encoding(path) != "utf-8":
            raise
        return _read_as(path, index, form, "latin-1")  # every byte is a character there


def _read_as(path: Path, index: str, form: str, encoding: str) -> list[Atoms]:
    """Return the structures of a file in a format and encoding."""
    chosen: Any = index
    if form in ("extxyz", "xyz"):
        with _text(path, encoding) as file:
            check_frames(file)
            frames = ase.io.read(file, index=index, format="extxyz")
    elif form == "cif":
        with _text(path, encoding) as file:
            frames = read_cif(file)
        chosen = string2index(index)
        frames = frames[chosen]
    elif encoding == "utf-8" or ioformats[form].isbinary or not ioformats[form].acceptsfd:
        frames = ase.io.read(path, index=index, format=form, do_not_split_by_at_sign=True)
    else:
        with _text(path, encoding) as file:
            frames = ase.io.read(file, index=index, format=form)
    if form == "proteindatabank":
        with _text(path, "latin-1") as file:
            refuse_alternatives(file)
    return [frames] if isinstance(frames, Atoms) else list(frames)


def _encoding(path: Path) -> str:
    """Return the encoding that a byte order mark announces, else UTF-8."""
    with open_with_compression(str(path), "rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")


@contextmanager
def _text(path: Path, encoding: str) -> Iterator[TextIOWrapper]:
    """Open a text file, compressed or not."""
    with (
        open_with_compression(str(path), "rb") as raw,
        TextIOWrapper(raw, encoding=encoding) as file,
    ):
        yield file


def _frame_of(path: Path, error: Exception) -> str:
    """Return ``"frame 3: "`` if one frame of an XYZ file can be blamed for an error."""
    if isinstance(error, (UnicodeDecodeError, EOFError, OSError)) or "frame" in str(error):
        return ""
    try:
        if filetype(str(path)) not in ("extxyz", "xyz"):
            return ""
        encoding = _encoding(path)
        with _text(path, "latin-1" if encoding == "utf-8" else encoding) as file:
            return failing_frame(file)
    except Exception:  # this only searches for a word more
        return ""


def _reason(error: Exception) -> str:
    """Return the reason in words where the reader's own are none."""
    text = str(error) or type(error).__name__
    if isinstance(error, UnknownFileTypeError):
        return f"its format is not known ({text}); give it the usual extension"
    if isinstance(error, KeyError):
        name = str(error.args[0]) if error.args else text
        if name in ("D", "T"):
            mass = {"D": "2.014", "T": "3.016"}[name]
            return f"{name} is an isotope: write H, and {mass} in a column `masses`"
        return f"{name!r} is not known (an element symbol?)"
    if re.search(r"\d[dD][+-]?\d", text):
        text += " (exponents must be written with E, not with Fortran's D)"
    return text


def _check(atoms: Atoms, source: str) -> None:
    """Raise if a structure is disordered, or its results are no numbers."""
    refuse_disorder(atoms, source)
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    for name, value in results.items():
        if name not in all_properties or value is None:
            continue
        if np.asarray(value).dtype.kind not in "fiu":
            raise ValueError(
                f"{source}: {name!r} should be a number or an array of numbers, got {value!r}"
                f"{' (write -1.0E0, not -1.0D0)' if 'D' in str(value).upper()[1:] else ''}; "
                "correct the file"
            )
