"""A hundred thousand steps: neither memory nor time per step grow. `make bench ARGS="-k long_run"`.

24 atoms of water at 300 K with the small water model, Langevin, float32, compiled, one thread.
PHICALC_BENCH_STEPS sets another number of steps.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.md.langevin import Langevin

from phicalc import PhiCalculator
from phicalc.md import initialise_velocities
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

STEPS = int(os.environ.get("PHICALC_BENCH_STEPS", "100000"))
PARTS = 10


def memory() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_long_run(record) -> None:
    keep_freed_memory()
    atoms = water_box(8)
    atoms.calc = PhiCalculator("water-small", device="cpu", compile=True)
    rng = np.random.default_rng(1)
    initialise_velocities(atoms, 300.0, rng)
    dynamics = Langevin(
        atoms, 0.5 * units.fs, temperature_K=300.0, friction=0.01 / units.fs, rng=rng, fixcm=False
    )
    dynamics.run(1000)
    rows = []
    print("\n  steps   ms/step   CPU ms/step   MB   lists searched")
    for part in range(PARTS):
        start, cpu = time.perf_counter(), time.process_time()
        dynamics.run(STEPS // PARTS)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        scale = 1e3 / (STEPS // PARTS)
        rows.append((scale * wall, scale * cpu, memory()))
        search = atoms.calc._kept().search
        print(f"  {(part + 1) * STEPS // PARTS:>7} {scale * wall:8.3f} {scale * cpu:8.3f} "
              f"{rows[-1][2]:8.1f} {search.searches / search.uses:8.4f}", flush=True)  # fmt: skip
    growth = rows[-1][2] - rows[1][2]
    print(f"  memory grew by {growth:.1f} MB after the first {2 * STEPS // PARTS} steps")
    record("long run: ms per step, first tenth", rows[0][1])
    record("long run: ms per step, last tenth", rows[-1][1])
    record("long run: growth of memory (MB)", growth)
    assert growth < 20
    assert rows[-1][1] < 1.2 * rows[0][1]
