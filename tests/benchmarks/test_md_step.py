"""Where the time of one step of dynamics goes: `make bench ARGS="-k md_step"`.

Prints milliseconds (median) for 64 waters with the shipped model on one thread: parts without
compiling, and whole steps of dynamics with and without; also what it costs to compile, and to load
what was compiled. Asserts that compiled forces agree.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from phicalc import PhiCalculator
from phicalc.derivatives import predict
from phicalc.graph import from_ase
from phicalc.md import initialise_velocities
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

REPEATS = 15


def milliseconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median wall time of `work` after two warm-up calls."""
    work(), work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_md_step(dtype: str) -> None:
    keep_freed_memory()
    atoms = water_box(64)
    atoms.calc = PhiCalculator("water-pbe0", device="cpu", dtype=dtype, compile=False)
    potential = atoms.calc.potential
    graph = from_ase(atoms, potential.cutoff)
    prepared = potential.prepare(graph)
    element = potential.element_of_number[graph.atomic_numbers]
    head = potential.head
    with torch.no_grad():
        features = potential.backbone(potential.embedding[element], element, graph)
        parts = {
            "neighbour list": milliseconds(lambda: from_ase(atoms, potential.cutoff)),
            "Coulomb pairs and k vectors": milliseconds(lambda: potential.prepare(graph)),
            "backbone": milliseconds(
                lambda: potential.backbone(potential.embedding[element], element, graph)
            ),
            "charges and electrostatics": milliseconds(lambda: head(features, element, prepared)),
            "forward": milliseconds(lambda: potential(prepared)),
        }
    parts["forward and forces"] = milliseconds(lambda: predict(potential, prepared))
    parts["forward, forces and stress"] = milliseconds(
        lambda: predict(potential, prepared, stress=True)
    )
    initialise_velocities(atoms, 300.0, np.random.default_rng(1))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    parts["whole step of dynamics (ASE)"] = milliseconds(lambda: dynamics.run(1))
    print(f"\n64 waters, {dtype}, {torch.get_num_threads()} thread, {graph.n_edges} edges")
    for name, value in parts.items():
        print(f"  {name:<30} {value:8.2f} ms")
    derivatives = parts["forward and forces"] - parts["forward"]
    inside = sum(parts[n] for n in ("neighbour list", "Coulomb pairs and k vectors",
                                    "forward and forces"))  # fmt: skip
    print(f"  {'→ derivatives':<30} {derivatives:8.2f} ms")
    print(f"  {'→ ASE, checks, integrator':<30} {parts[list(parts)[-1]] - inside:8.2f} ms")
    assert inside > 0


@pytest.mark.parametrize(("dtype", "agreement"), [("float32", 1e-5), ("float64", 1e-10)])
def test_md_step_compiled(
    dtype: str, agreement: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHICALC_CACHE", str(tmp_path))
    keep_freed_memory()
    start = water_box(64)
    initialise_velocities(start, 300.0, np.random.default_rng(1))
    print(f"\n64 waters, {dtype}, {torch.get_num_threads()} thread")
    forces, steps = [], []
    for name, mode in (("plain", False), ("compiled", True), ("compiled before", "auto")):
        atoms = start.copy()
        atoms.calc = PhiCalculator("water-pbe0", device="cpu", dtype=dtype, compile=mode)
        begin = time.perf_counter()
        forces.append(atoms.get_forces())
        first = time.perf_counter() - begin
        dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
        dynamics.run(5)
        steps.append(milliseconds(lambda run=dynamics.run: run(1), 100))
        print(f"  {name:<16} first forces {first:7.2f} s   step {steps[-1]:7.2f} ms")
    error = np.abs(forces[1] - forces[0]).max() / np.abs(forces[0]).max()
    print(
        f"  compiled forces differ by {error:.1e} of the largest; {steps[0] / steps[2]:.1f}× faster"
    )
    assert error < agreement
    assert steps[2] < steps[0]
