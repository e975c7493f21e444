"""Many small molecules one by one and at once: `make bench ARGS="-k batch_speed"`.

200 molecules of 3 to 12 atoms, energy, forces and charges, one thread, milliseconds per structure;
the network of `water-small` with charge equilibration and random weights.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from phicalc import PhiCalculator
from phicalc.checkpoint import load_model
from phicalc.potential import build_potential
from phicalc.system import keep_freed_memory

NAMES = ("H2O", "CH4", "NH3", "CH3OH", "C2H6", "C6H6", "HCOOH", "CO2")


@pytest.mark.parametrize("compile", [False, True])
def test_batch_speed(
    compile: bool,
    record: Callable[[str, float], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHICALC_CACHE", str(tmp_path))
    keep_freed_memory()
    small = load_model("water-small")[0].config
    config = dataclasses.replace(
        small, elements=("H", "C", "N", "O"), head="qeq", reference_energies=()
    )
    calc = PhiCalculator(build_potential(config), device="cpu", compile=compile)
    structures = [molecule(name) for name in NAMES * 25]

    def one_by_one() -> list[np.ndarray]:
        forces = []
        for atoms in structures:
            calc.reset()
            calc.calculate(atoms, ["forces"])
            forces.append(calc.results["forces"])
        return forces

    def at_once() -> list[np.ndarray]:
        return [results["forces"] for results in calc.batch(structures)]

    times, forces = {}, {}
    for name, work in (("loop", one_by_one), ("batch", at_once)):
        work()
        start = time.perf_counter()
        forces[name] = work()
        times[name] = 1e3 * (time.perf_counter() - start) / len(structures)
        way = "compiled" if compile else "plain"
        record(f"small molecules, {way}, {name} (ms each)", times[name])
    largest = max(np.abs(f).max() for f in forces["loop"])
    pairs = zip(forces["loop"], forces["batch"], strict=True)
    error = max(np.abs(a - b).max() for a, b in pairs) / largest
    print(
        f"\ncompiled {compile}: loop {times['loop']:.2f} ms, batch {times['batch']:.2f} ms per "
        f"structure, {times['loop'] / times['batch']:.1f}×; forces differ by {error:.0e}"
    )
    assert error < 1e-5
