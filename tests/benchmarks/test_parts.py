"""Where a step goes, from 200 to 50 000 atoms, and its memory: `make bench ARGS="-k parts"`.

Water, float32, one thread, medians in milliseconds: neighbour list, plan of the electrostatic sums
(with its pair list), network (forward, compiled), charges and electrostatics (forward, plain),
derivatives of each, and what ASE, checks and conversions take. Structures up to 400 atoms, or of
any size without charge equilibration, are otherwise predicted as a whole; that time stands in the
last column. Each size runs in a process of its own, whose peak of memory is given. Prints the
exponent of the total from 648 atoms on.

PHICALC_BENCH_MODELS names the models; PHICALC_BENCH_MOLECULES the numbers of molecules;
PHICALC_BENCH_CACHE is a folder that keeps what is compiled from run to run.
"""

from __future__ import annotations

import json
import math
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
from ase import Atoms

from phicalc import PhiCalculator
from phicalc.compiled.network import with_compiled_networks
from phicalc.derivatives import predict
from phicalc.electrostatics import ChargeHistory
from phicalc.graph import AtomicGraph, from_ase
from phicalc.skin import NeighborSearch
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

MODELS = os.environ.get("PHICALC_BENCH_MODELS", "water-small,water-pbe0").split(",")
MOLECULES = [int(n) for n in os.environ.get(
    "PHICALC_BENCH_MOLECULES", "64,216,512,1728,5832,16384").split(",")]  # fmt: skip
#: Boxes that larger ones are made of: molecules, and repeats along the axes.
BOXES = {1728: (216, (2, 2, 2)), 5832: (216, (3, 3, 3)), 16384: (512, (4, 4, 2)),
         32768: (512, (4, 4, 4)), 65536: (512, (8, 4, 4))}  # fmt: skip


def liquid(n_molecules: int) -> Atoms:
    """Water without any order between the boxes it is made of."""
    n, repeats = BOXES.get(n_molecules, (n_molecules, (1, 1, 1)))
    atoms = water_box(n).repeat(repeats)
    atoms.rattle(0.02, seed=1)
    return atoms


class Clock:
    """Adds up the time spent in parts."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def timed(self, name: str, work: Callable) -> Callable:
        """Let a function run under the clock."""

        def run(*args, **kwargs):
            start = time.perf_counter()
            result = work(*args, **kwargs)
            spent = time.perf_counter() - start
            self.spent[name] = self.spent.get(name, 0.0) + 1e3 * spent
            return result

        return run


def measure(model: str, n_molecules: int, steps: int) -> dict[str, float]:
    """Measure the parts in ms, the whole step, and the peak of memory in MB."""
    torch.set_num_threads(1)
    keep_freed_memory()
    atoms = liquid(n_molecules)
    atoms.calc = PhiCalculator(model, device="cpu", compile=True)
    rng = np.random.default_rng(2)

    def step() -> float:
        atoms.positions += rng.normal(scale=0.003, size=(len(atoms), 3))
        start = time.perf_counter()
        atoms.get_stress()
        atoms.get_forces()
        return 1e3 * (time.perf_counter() - start)

    step()
    whole = statistics.median([step() for _ in range(steps)])
    parts = parts_of_step(atoms, rng, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"atoms": len(atoms), **parts, "whole": whole, "peak_mb": peak}


def parts_of_step(atoms: Atoms, rng: np.random.Generator, steps: int) -> dict[str, float]:
    """Run the pieces of a step one after another under a clock."""
    calc = atoms.calc
    workspace = calc._kept()
    hybrid = with_compiled_networks(calc.potential, workspace.predictor.folder, True)
    planner, search = calc.potential.coulomb_planner(), NeighborSearch(calc.potential.cutoff)
    history = ChargeHistory()
    kept: list[dict[str, float]] = []

    def graph() -> AtomicGraph:
        atoms.positions += rng.normal(scale=0.003, size=(len(atoms), 3))
        found = clock.timed("list", from_ase)(atoms, calc.potential.cutoff, search=search)
        guess = history.guess(atoms)
        if guess is not None:
            found = found._replace(charge_guess=torch.from_numpy(guess))
        return clock.timed("plan", calc.potential.prepare)(found, planner)

    clock = Clock()
    predict(hybrid, graph(), stress=True)  # loads, and compares
    (halves,) = hybrid.backbone.halves.values()
    assert halves is not None
    forward, backward, head = halves.forward, halves.backward, hybrid.head.forward
    for _ in range(steps):
        clock = Clock()
        halves.forward = clock.timed("network", forward)
        halves.backward = clock.timed("network, derivatives", backward)
        hybrid.head.forward = clock.timed("electrostatics", head)
        prepared = graph()
        prediction = clock.timed("predict", predict)(hybrid, prepared, stress=True)
        history.add(atoms, prediction.charges.numpy())
        inside = ("network", "network, derivatives", "electrostatics")
        rest = clock.spent.pop("predict") - sum(clock.spent[name] for name in inside)
        kept.append({**clock.spent, "electrostatics, derivatives": rest})
    return {name: statistics.median(each[name] for each in kept) for name in kept[0]}


@pytest.mark.parametrize("model", MODELS)
def test_parts(model: str, record, tmp_path_factory) -> None:
    cache = Path(
        os.environ.get("PHICALC_BENCH_CACHE", tmp_path_factory.getbasetemp() / "parts_cache")
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PHICALC_CACHE": str(cache)}
    rows = []
    for n in MOLECULES:
        steps = max(3, min(30, 20000 // n))
        command = [sys.executable, str(Path(__file__)), model, str(n), str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        if len(rows) == 1:
            print(f"\n{model}: " + " | ".join(rows[0]))
        row = rows[-1]
        parts = sum(
            value for name, value in row.items() if name not in ("atoms", "whole", "peak_mb")
        )
        sums = row["plan"] + row["electrostatics"] + row["electrostatics, derivatives"]
        print("  " + " | ".join(f"{value:8.1f}" for value in row.values())
              + f" | {1e3 * row['whole'] / row['atoms']:6.1f} µs/atom"
              + f" | electrostatics {100 * sums / parts:3.0f} %"
              + f" | {1024 * row['peak_mb'] / row['atoms']:6.1f} kB/atom", flush=True)  # fmt: skip
        record(f"step {model} {row['atoms']} atoms (ms)", row["whole"])
        record(f"peak memory {model} {row['atoms']} atoms (MB)", row["peak_mb"])
    large = [row for row in rows if row["atoms"] >= 648]
    exponent = math.log(large[-1]["whole"] / large[0]["whole"]) / math.log(
        large[-1]["atoms"] / large[0]["atoms"]
    )
    print(f"  exponent {exponent:.2f} from {large[0]['atoms']} to {large[-1]['atoms']} atoms")
    record(f"exponent {model}", exponent)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
