"""Many structures on two workers of dask beside one process: `make bench ARGS="-k dask"`.

Boxes of 64 waters with `water-pbe0`, one thread for each process. The numbers must be the same to
the last bit. Once with workers that are running and have the model, as in a long campaign; once
with starting them, as ``phicalc predict --workers 2`` does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc import PhiCalculator
from phicalc.many import map_structures
from phicalc.structures import evaluate_structures, water_box
from phicalc.system import keep_freed_memory

WORKERS, BOXES, ROUNDS = 2, 100, 3


def evaluate(
    indices: Sequence[int], frames: Sequence[Atoms], calculator: Calculator
) -> list[Atoms]:
    return list(evaluate_structures(frames, calculator))


def timed(work: Callable[[], list[Atoms]]) -> tuple[float, list[Atoms]]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def test_dask(record) -> None:
    distributed = pytest.importorskip("distributed", reason='pip install "phicalc[distributed]"')
    cloudpickle = pytest.importorskip("cloudpickle", reason='pip install "phicalc[distributed]"')
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    keep_freed_memory()  # as the workers do
    frames = [water_box(64, seed=seed) for seed in range(BOXES)]
    calculator = PhiCalculator("water-pbe0", device="cpu", compile=False)

    def serial() -> list[Atoms]:
        return map_structures(evaluate, frames, calculator)

    with distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:

        def spread() -> list[Atoms]:
            address = cluster.scheduler_address
            return map_structures(evaluate, frames, calculator, scheduler=address)

        serial(), spread()  # warm
        rounds = [(timed(serial), timed(spread)) for _ in range(ROUNDS)]
    started, there = timed(lambda: map_structures(evaluate, frames, calculator, workers=WORKERS))
    here = rounds[0][0][1]
    for found in (there, *(spread for _, (_, spread) in rounds)):
        for one, other in zip(here, found, strict=True):
            for name, value in one.calc.results.items():
                np.testing.assert_array_equal(other.calc.results[name], value, err_msg=name)
    alone, two = np.median([[serial[0], spread[0]] for serial, spread in rounds], axis=0)
    print(f"\n{BOXES} boxes of 64 waters: {BOXES / alone:.2f}/s in one process, "
          f"{BOXES / two:.2f}/s on {WORKERS} workers ({alone / two:.2f}×); "
          f"{BOXES / started:.2f}/s with their start ({started:.1f} s); the same bits")  # fmt: skip
    record("dask: structures per second, one process", BOXES / alone)
    record("dask: structures per second, two workers", BOXES / two)
