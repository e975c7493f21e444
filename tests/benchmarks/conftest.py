"""Figures of the benchmarks are kept, and compared with those of the run before."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / ".benchmarks"


def processor() -> str:
    """Name of the processor."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} × {len(names)}" if names else platform.processor()


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, float]]:
    """All figures of this run by name; saved at its end beside those of earlier runs."""
    found: dict[str, float] = {}
    yield found
    if not found:
        return
    FOLDER.mkdir(exist_ok=True)
    before: dict[str, float] = {}
    for path in sorted(FOLDER.glob("*.json")):
        before |= json.loads(path.read_text())["figures"]
    print(f"\n{'figure':<60} {'now':>12} {'before':>12} {'ratio':>7}")
    for name, value in found.items():
        old = before.get(name)
        ratio = f"{value / old:7.2f}" if old else f"{'–':>7}"
        print(f"{name:<60} {value:>12.4g} {'–' if old is None else format(old, '.4g'):>12} {ratio}")
    record = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "figures": found,
    }
    path = FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"saved: {path}")


@pytest.fixture
def record(figures: dict[str, float]) -> Callable[[str, float], None]:
    """``record(name, value)`` keeps a figure; the unit belongs into the name."""

    def keep(name: str, value: float) -> None:
        figures[name] = float(value)

    return keep
