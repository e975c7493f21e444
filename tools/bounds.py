"""Versions of what phicalc needs, for pip (`tools/matrix.sh` calls it).

``python -m tools.bounds lowest`` prints constraints: the lowest versions that ``setup.cfg``
allows, of the tools of the tests, too, and the pins of ``constraints.txt`` for all else.
``python -m tools.bounds rest`` prints what phicalc and its tests need beside torch.
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pins(root: Path = ROOT) -> dict[str, str]:
    """Return the lines of ``constraints.txt`` by package."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}


def lowest(root: Path = ROOT) -> dict[str, str]:
    """Return the lowest version of all that phicalc and its tests need, as ``NAME==VERSION``.

    Raises
    ------
    ValueError
        For a requirement without a lower bound.
    """
    found = {}
    for line in needed(root):
        bound = re.match(r"([\w-]+)>=([\d.]+)", line)
        if not bound:
            raise ValueError(f"setup.cfg: {line} has no lower bound")
        found[bound[1]] = f"{bound[1]}=={bound[2]}"
    return found


def needed(root: Path = ROOT) -> list[str]:
    """Return what phicalc and its tests need, as it stands in ``setup.cfg``."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    tests = config["options.extras_require"]["test"]
    return (config["options"]["install_requires"] + tests).split()


def rest(root: Path = ROOT) -> list[str]:
    """Return the same beside torch."""
    return [line for line in needed(root) if not line.startswith("torch>")]


if __name__ == "__main__":
    [which] = sys.argv[1:]
    found = {"lowest": lambda: (pins() | lowest()).values(), "rest": rest}
    print("\n".join(found[which]()))
