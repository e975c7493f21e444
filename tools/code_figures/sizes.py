"""Sizes of modules and functions, and how many paths lead through a function."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .source import Package


class Spread(NamedTuple):
    """Median, 90th percentile and largest of some counts."""

    median: int
    p90: int
    largest: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Complexity(NamedTuple):
    """What ruff finds, ``noqa`` ignored."""

    cyclomatic: Spread
    too_complex: int
    """Findings of C901, PLR0912 and PLR0915 with their default limits."""


def spread(counts: Sequence[int]) -> Spread:
    """Return the smallest counts that half, nine tenths and all of them do not exceed."""
    ordered = sorted(counts) or [0]
    last = len(ordered) - 1
    return Spread(*(ordered[-(-share * last // 10)] for share in (5, 9, 10)))


def find_ruff() -> str | None:
    """Return the ruff beside this interpreter, or the one on the path."""
    beside = Path(sys.executable).with_name("ruff")
    return str(beside) if beside.is_file() else shutil.which("ruff")


def complexity(package: Package) -> Complexity | None:
    """Return the cyclomatic complexity of all functions; None without ruff."""
    ruff = find_ruff()
    if ruff is None:
        return None
    folder = package.root / package.modules[package.name].path.parent
    command = [
        *(ruff, "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero"),
        *("--select", "C901,PLR0912,PLR0915", "--config", "lint.mccabe.max-complexity=0"),
        *("--output-format", "json", str(folder)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    counts = [
        int(match[1])
        for row in found
        if row["code"] == "C901" and (match := re.search(r"\((\d+) > 0\)", row["message"]))
    ]
    others = sum(row["code"] in {"PLR0912", "PLR0915"} for row in found)
    return Complexity(spread(counts), others + sum(count > 10 for count in counts))
