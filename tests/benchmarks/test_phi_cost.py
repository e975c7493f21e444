"""What electrostatic heads add to a step of dynamics: `make bench ARGS="-k phi_cost"`.

Water, float32, one thread: energy and forces through ASE with compiled networks of 32 channels
and random weights, one head after the other, each in a process of its own. Prints milliseconds
and the peak of memory, and what they add to those of the bare backbone.

PHICALC_BENCH_MOLECULES and PHICALC_BENCH_HEADS choose sizes and heads; PHICALC_BENCH_CACHE is a
folder that keeps what is compiled.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from phicalc import PhiCalculator
from phicalc.potential import build_potential
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

from ..tiny import flat_config

HEADS = ("none", "dirichlet", "solve", "solve+coulomb", "spectral", "latent", "qeq")
#: Molecules of the box, its repeats along each axis.
BOXES = {17: (17, 1), 64: (64, 1), 343: (343, 1), 3375: (125, 3), 10648: (1331, 2)}
LARGEST = {"spectral": 3375}


def measure(head: str, n_molecules: int, steps: int) -> dict[str, float]:
    """Milliseconds of a step, and peak of memory in MB."""
    torch.set_num_threads(1)
    keep_freed_memory()
    config = flat_config(
        elements=("H", "O"), cutoff=4.0, channels=32, head=head, average_neighbors=26.0
    )
    n, repeats = BOXES[n_molecules]
    atoms = water_box(n).repeat(repeats)
    atoms.rattle(0.02, seed=1)
    atoms.calc = PhiCalculator(build_potential(config, seed=0), device="cpu", compile=True)
    rng, times = np.random.default_rng(2), []
    for _ in range(steps + 2):
        atoms.positions += rng.normal(scale=0.003, size=(len(atoms), 3))
        start = time.perf_counter()
        atoms.get_forces()
        times.append(1e3 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": statistics.median(times[2:]), "mb": peak}


@pytest.mark.parametrize(
    "n_molecules",
    [int(n) for n in os.environ.get("PHICALC_BENCH_MOLECULES", "17,64,343,3375,10648").split(",")],
)
def test_phi_cost(n_molecules: int, record: Callable[[str, float], None], tmp_path_factory) -> None:
    cache = os.environ.get("PHICALC_BENCH_CACHE", tmp_path_factory.getbasetemp() / "phi_cache")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PHICALC_CACHE": str(cache)}
    steps = max(3, min(60, 20000 // n_molecules))
    bare: dict[str, float] = {}
    print(f"\n{3 * n_molecules} atoms: ms, MB")
    for head in os.environ.get("PHICALC_BENCH_HEADS", ",".join(HEADS)).split(","):
        if n_molecules > LARGEST.get(head, n_molecules):
            continue
        command = [sys.executable, str(Path(__file__)), head, str(n_molecules), str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout.splitlines()[-1])
        bare = bare or row
        added = [100 * (row[name] / bare[name] - 1) for name in ("ms", "mb")]
        print(
            f"  {head:<14} {row['ms']:9.2f} ({added[0]:+4.0f} %)  {row['mb']:7.0f} "
            f"({added[1]:+4.0f} %)",
            flush=True,
        )
        record(f"{head} {3 * n_molecules} atoms (ms)", row["ms"])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
