"""Progress of a labelling run on disk: one line of JSON with a checksum for each frame."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from phicalc.schema import differences
from phicalc.state import write_atomically

#: Length of a checksum in hexadecimal digits; a blank and the entry follow it.
_DIGITS = 64


class Journal:
    """Frames finished so far; a process killed at any moment loses those it was working on only.

    The first line holds the settings of the run. Every line starts with the SHA-256 of the checksum
    before it and of its own entry, so that a line that was changed, lost or moved is noticed.
    Numbers are written as Python prints them, which is exact: dynamics continue from a frame as if
    they had never stopped.

    Parameters
    ----------
    path
        The file.
    settings
        Settings of the run; JSON types only.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.settings = settings
        self._last = ""  # checksum of the last line

    def open(self) -> list[dict[str, Any]]:
        """Return the entries that an earlier process wrote, or start the file.

        Raises
        ------
        ValueError
            If the file is damaged, or belongs to a run with other settings.
        """
        lines, rest = self._lines()
        if not lines:  # none, or killed in the very first line
            self.path.write_bytes(self._line(self.settings))
            return []
        if lines[0].startswith(b"{"):
            lines, rest = self._with_checksums(lines), b""
        entries = [self._entry(number, line) for number, line in enumerate(lines, start=1)]
        if self._verified(rest[:-1], self._last) is not None:
            raise ValueError(self._damage(len(lines) + 1))  # whole, but for the end of the line
        if changed := differences(entries[0], self.settings):
            raise ValueError(
                f"{self.path} belongs to a run with other settings ({'; '.join(changed)}). Use "
                "the same settings to continue it, or another output, or remove that file"
            )
        with self.path.open("r+b") as stream:
            stream.truncate(sum(len(line) + 1 for line in lines))
        return entries[1:]

    def append(self, entry: dict[str, Any]) -> None:
        """Add a frame; JSON types only."""
        line = self._line(entry)
        with self.path.open("ab") as stream:
            stream.write(line)

    def _lines(self) -> tuple[list[bytes], bytes]:
        """Return whole lines, and what a kill has left of another."""
        content = self.path.read_bytes() if self.path.exists() else b""
        *lines, rest = content.split(b"\n")
        return lines, rest

    def _line(self, entry: dict[str, Any]) -> bytes:
        """Return the line of an entry, and remember its checksum."""
        text = json.dumps(entry)
        self._last = _checksum(self._last, text.encode())
        return f"{self._last} {text}\n".encode()

    def _entry(self, number: int, line: bytes) -> dict[str, Any]:
        """Return the entry of a line, and remember its checksum."""
        entry = self._verified(line, self._last)
        if entry is None:
            raise ValueError(self._damage(number))
        self._last = line[:_DIGITS].decode()
        return entry

    def _damage(self, number: int) -> str:
        """Say which line is damaged, and what to do."""
        kept = f"cut it before that line to keep {number - 2} frames, or " if number > 2 else ""
        return (
            f"{self.path} is damaged: line {number} does not have the checksum it states; {kept}"
            "remove the file to start anew"
        )

    @staticmethod
    def _verified(line: bytes, before: str) -> dict[str, Any] | None:
        """Return the entry of a line if its checksum is right."""
        text = line[_DIGITS + 1 :]
        if line[: _DIGITS + 1] != f"{_checksum(before, text)} ".encode():
            return None
        entry: dict[str, Any] = json.loads(text)
        return entry

    def _with_checksums(self, lines: list[bytes]) -> list[bytes]:
        """Rewrite a file of an earlier version, which had no checksums."""
        warnings.warn(
            f"{self.path} was written by an earlier version of phicalc, without checksums: damage "
            "to it cannot be noticed. It gets checksums now",
            stacklevel=3,
        )
        try:
            content = b"".join(self._line(json.loads(line)) for line in lines)
        except ValueError as error:
            raise ValueError(
                f"{self.path} is damaged ({error}): remove it to start anew"
            ) from error
        write_atomically(self.path, content)
        self._last = ""
        return content.split(b"\n")[:-1]


def _checksum(before: str, text: bytes) -> str:
    """Return the SHA-256 of a line, given that of the line before."""
    return hashlib.sha256(before.encode() + b"\n" + text).hexdigest()
