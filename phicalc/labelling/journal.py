"""What a run of labelling has done so far, on disk: one line of JSON for each frame."""

import json
from pathlib import Path
from typing import Any


class Journal:
    """Frames finished so far; a process killed at any moment loses those it was working on only.

    The first line holds the settings of the run. Numbers are written as Python prints them, which
    is exact, so that dynamics goes on from a frame as if it had never stopped.

    Parameters
    ----------
    path
        The file.
    settings
        What the run was told; JSON types only.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.settings = settings

    def open(self) -> list[dict[str, Any]]:
        """Return the entries that an earlier process wrote, or start the file.

        Raises
        ------
        ValueError
            If the file belongs to a run with other settings.
        """
        if not self.path.exists():
            self.path.write_text(json.dumps(self.settings) + "\n", encoding="utf-8")
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]  # what a kill cut off has no line end
        entries = [json.loads(line) for line in lines]
        if not entries:  # killed in the very first line
            self.path.unlink()
            return self.open()
        changed = _differences(entries[0], self.settings)
        if changed:
            raise ValueError(
                f"{self.path} belongs to a run with other settings ({'; '.join(changed)}). Take "
                "the same settings to continue it, another output, or remove that file"
            )
        with self.path.open("r+b") as stream:
            stream.truncate(sum(len(line) + 1 for line in lines))
        return entries[1:]

    def append(self, entry: dict[str, Any]) -> None:
        """Add a frame."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Entries in which two sets of settings differ, in words."""
    return [
        f"{key}: {before.get(key)!r} → {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
