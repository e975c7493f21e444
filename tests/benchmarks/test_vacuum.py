"""Cost follows atoms, not volume: one water molecule in larger and larger cells, `-k vacuum`.

Prints the time of the first and of later evaluations (energy, forces, stress; uncompiled, one
thread), and by how much the energy differs from that of the molecule alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase.build import molecule

from phicalc import PhiCalculator

LENGTHS = (10, 20, 50, 100, 200, 400, 500)
STEPS = 20


@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
@pytest.mark.parametrize("model", ["water-pbe0", "water-small"])
def test_vacuum(model: str, record: Callable[[str, float], None]) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    calculator = PhiCalculator(model, compile=False)
    alone = molecule("H2O")
    alone.calc = calculator
    reference = alone.get_potential_energy()
    print(f"\n{model}: Å, first ms, later ms (median of {STEPS}), E − E(alone) in meV")
    for length in LENGTHS:
        atoms = molecule("H2O")
        atoms.cell, atoms.pbc = [length] * 3, True
        atoms.calc = calculator
        start = time.perf_counter()
        atoms.get_stress()
        first = time.perf_counter() - start
        difference = atoms.get_potential_energy() - reference
        times = []
        for _ in range(STEPS):
            atoms.positions += rng.normal(scale=1e-3, size=(3, 3))
            start = time.perf_counter()
            atoms.get_stress()
            times.append(time.perf_counter() - start)
        later = float(np.median(times))
        print(f"  {length:4d}  {1e3 * first:7.1f}  {1e3 * later:7.1f}  {1e3 * difference:9.4f}")
        record(f"{model}, one water in {length} Å (ms)", 1e3 * later)
        assert abs(difference) < 0.1
