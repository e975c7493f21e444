"""What a step costs by head and term: `make bench ARGS="-k term_costs"` (a quarter of an hour).

Charge equilibration, ACKS2, and ACKS2 with screened repulsion and dispersion, the same trained
network (`test_charge_physics.py`), compiled, float32, one thread: forces of hexadecane (50 atoms)
and of boxes of water of 192, 648 and 5184 atoms, whose atoms move by some hundredths of an Å each
step. The calculators take turns.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from phicalc import PhiCalculator
from phicalc.checkpoint import load_model
from phicalc.potential import Potential, build_potential
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

from .charge_physics.models import trained, weights_of
from .charge_physics.structures import alkane

#: Structures, and how many steps each calculator makes.
SIZES: dict[int, tuple[Callable[[], Atoms], int]] = {
    50: (lambda: alkane(16), 60),
    192: (lambda: water_box(64), 40),
    648: (lambda: water_box(216), 20),
    5184: (lambda: water_box(1728), 5),
}

TERMS: dict[str, dict[str, object]] = {
    "qeq": {"repulsion": "none"},
    "acks2": {"repulsion": "none"},
    "acks2, repulsion, dispersion": {"repulsion": "zbl", "dispersion": "learned"},
}


def potentials() -> dict[str, Potential]:
    """By name; dispersion, which was not trained, has the weights it starts with."""
    found = {}
    for name, terms in TERMS.items():
        plain = load_model(trained("molecules", name.partition(",")[0], "1") / "model")[0]
        found[name] = build_potential(dataclasses.replace(plain.config, **terms))
        assert not found[name].load_state_dict(weights_of(plain), strict=False).unexpected_keys
    return found


def stepper(potential: Potential, atoms: Atoms) -> Callable[[], float]:
    """Return a function that moves the atoms and gives the milliseconds of the forces."""
    atoms, rng = atoms.copy(), np.random.default_rng(0)
    home = atoms.positions.copy()
    atoms.calc = PhiCalculator(potential, dtype="float32", compile=True)
    phases = rng.uniform(0, 2 * np.pi, home.shape)
    count = iter(range(10**9))

    def step() -> float:
        atoms.positions = home + 0.05 * np.sin(0.2 * next(count) + phases)
        start = time.perf_counter()
        atoms.get_forces()
        return 1e3 * (time.perf_counter() - start)

    return step


def test_term_costs(
    record: Callable[[str, float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHICALC_CACHE", os.environ.get("PHICALC_BENCH_CACHE", str(tmp_path)))
    keep_freed_memory()
    print("\nms for each step (median), ratio to charge equilibration")
    built = potentials()
    for size, (make, steps) in SIZES.items():
        atoms = make()  # a large box of water takes a minute
        steppers = {name: stepper(each, atoms) for name, each in built.items()}
        for each in steppers.values():
            each(), each(), each()
        times: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(steps):
            for name, each in steppers.items():
                times[name].append(each())
        medians = {name: statistics.median(each) for name, each in times.items()}
        for name, value in medians.items():
            ratio = value / medians["qeq"]
            print(f"  {size:5d} atoms  {name:<30} {value:9.2f}  {ratio:5.2f}", flush=True)
            record(f"{size} atoms, {name}, ratio to qeq", ratio)
        assert all(value > 0 for value in medians.values())
