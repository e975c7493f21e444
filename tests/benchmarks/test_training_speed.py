"""Structures trained per second, compiled and plain: `make bench ARGS="-k training_speed"`.

Energies and forces of boxes of 64 waters, one at a time, loss and gradient of all weights, float32,
one thread: the networks of both water models, and the small one with the stress in the loss too.
Losses and gradients must agree to rounding.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from phicalc.checkpoint import load_model
from phicalc.graph import AtomicGraph, from_ase
from phicalc.potential import Potential, build_potential
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory
from phicalc.training.engine import Engine

STEPS = 12


def boxes(potential: Potential) -> list[AtomicGraph]:
    """Prepare boxes of different structure."""
    graphs = []
    for seed in range(STEPS):
        atoms = water_box(64, seed=seed % 3)
        atoms.rattle(0.03, seed=seed)
        graphs.append(potential.prepare(from_ase(atoms, potential.cutoff)))
    return graphs


def train(engine: Engine, potential: Potential, graphs: list[AtomicGraph]) -> tuple:
    """Return losses, last gradient, and median seconds of a step."""
    losses, times = [], []
    for graph in graphs:
        start = time.perf_counter()
        potential.zero_grad()
        prediction = engine(graph)
        loss = prediction.forces.square().mean() + (prediction.energy / 192).square().mean()
        if prediction.stress is not None:
            loss = loss + 1e4 * prediction.stress.square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        times.append(time.perf_counter() - start)
    gradient = torch.cat([p.grad.ravel() for p in potential.parameters() if p.grad is not None])
    return torch.tensor(losses), gradient, statistics.median(times[3:])


def measure(model: str, stress: bool) -> dict[str, float]:
    """Compare both ways of training a new network of the same shape."""
    torch.set_num_threads(1)
    keep_freed_memory()
    results = {}
    for compile in (False, True):
        potential = build_potential(load_model(model)[0].config, seed=1)
        engine = Engine(potential, stress=stress, compile=compile, n_steps=9, report=lambda _: None)
        results[compile] = train(engine, potential, boxes(potential))
    (plain, plain_gradient, slow), (compiled, gradient, fast) = results[False], results[True]
    return {
        "plain": 1 / slow,
        "compiled": 1 / fast,
        "loss_error": float(((compiled - plain) / plain).abs().max()),
        "gradient_error": float(
            (gradient - plain_gradient).abs().max() / plain_gradient.abs().max()
        ),
    }


@pytest.mark.parametrize(
    ("model", "stress"), [("water-small", False), ("water-pbe0", False), ("water-small", True)]
)
def test_training_speed(model: str, stress: bool, record: Callable[[str, float], None]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # In a process of its own, as the compiler dislikes shape checks.
    command = [sys.executable, str(Path(__file__)), model, *(["stress"] if stress else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"{model} with stress" if stress else model
    print(f"\n{name}: plain {found['plain']:.2f}, compiled {found['compiled']:.2f} structures/s "
          f"({found['compiled'] / found['plain']:.1f}×); differences: losses "
          f"{found['loss_error']:.1e}, gradients {found['gradient_error']:.1e}")  # fmt: skip
    for way in ("plain", "compiled"):
        record(f"training {name} {way} (structures/s)", found[way])
    assert found["loss_error"] < 1e-4
    assert found["gradient_error"] < 1e-3


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], "stress" in sys.argv[2:])))
