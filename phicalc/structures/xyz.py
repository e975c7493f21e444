"""Check that the frames of an XYZ file are complete before it is read."""

import itertools
import re
from collections.abc import Iterator
from io import StringIO, TextIOBase

import ase.io

#: No structure of this many atoms fits into the memory of one machine.
MOST_ATOMS = 100_000_000


def check_frames(file: TextIOBase) -> None:
    """Raise unless an XYZ file is a sequence of complete frames; the file is left at its start.

    ASE's reader believes the count in the header of a frame, reads that many lines beyond the end
    of the file, and stops without a word at the first blank line.

    Raises
    ------
    ValueError
        For a header that is no number of atoms, a truncated frame, or text behind a blank line.
    """
    for _ in _frames(file):
        pass
    file.seek(0)


def failing_frame(file: TextIOBase) -> str:
    """Return ``"frame 3: "`` for the first frame that cannot be read alone, or an empty text."""
    file.seek(0)
    for number, lines in enumerate(_frames(file)):
        try:
            ase.io.read(StringIO("".join(lines)), format="extxyz")
        except Exception:  # its parser raises whatever it stumbles over
            return f"frame {number}: "
    return ""


def _frames(file: TextIOBase) -> Iterator[list[str]]:
    """Yield the lines of each frame."""
    line_number = 1
    for frame in itertools.count():
        header = file.readline()
        if not header.strip():
            _refuse_rest(file, frame, line_number)
            return
        n_atoms = _atom_count(header, frame, line_number)
        lines = list(itertools.islice(iter(file.readline, ""), n_atoms + 1))
        if len(lines) < n_atoms + 1:
            raise ValueError(
                f"frame {frame} (line {line_number}) should have {n_atoms} atoms, but the file "
                f"ends after {max(len(lines) - 1, 0)} lines of atoms: is it truncated?"
            )
        line_number += n_atoms + 2
        while True:  # lattice vectors of some programs
            position = file.tell()
            extra = file.readline()
            if not extra.lstrip().startswith("VEC"):
                file.seek(position)
                break
            lines.append(extra)
            line_number += 1
        yield [header, *lines]


def _atom_count(header: str, frame: int, line_number: int) -> int:
    """Return the number of atoms that the first line of a frame gives."""
    text = header.strip()
    if not re.fullmatch(r"\+?\d+", text) or int(text) > MOST_ATOMS:
        raise ValueError(
            f"frame {frame} should start with its number of atoms (0 to {MOST_ATOMS:.0e}) in line "
            f"{line_number}, got {text[:40]!r}"
        )
    return int(text)


def _refuse_rest(file: TextIOBase, frame: int, line_number: int) -> None:
    """Raise if anything follows the blank line that ends the frames."""
    for number, line in enumerate(iter(file.readline, ""), start=line_number + 1):
        if line.strip():
            raise ValueError(
                f"a blank line ends the structures before line {number} ({line.strip()[:40]!r}), "
                f"after {frame} frames: remove the blank line"
            )
