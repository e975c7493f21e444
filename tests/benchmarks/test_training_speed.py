"""Structures trained per second: `make bench ARGS="-k training_speed"`.

Energies and forces of boxes of 64 waters, one at a time, loss and gradient of all weights, float32,
one thread: plain, compiled without native sums over neighbours (`phicalc.backbone.native`), and
compiled with them; networks of three water models, two of them with the stress in the loss too.
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
from phicalc.training import engine as engines
from phicalc.training.engine import Engine

STEPS = 12
WAYS = ("plain", "compiled", "native")


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
    """Compare the ways of training a new network of the same shape."""
    torch.set_num_threads(1)
    keep_freed_memory()
    results, prepare = {}, engines.prepare_kernels
    for way in WAYS:
        engines.prepare_kernels = prepare if way == "native" else lambda *_: False
        potential = build_potential(load_model(model)[0].config, seed=1)
        compile = way != "plain"
        engine = Engine(potential, stress=stress, compile=compile, n_steps=9, report=lambda _: None)
        results[way] = train(engine, potential, boxes(potential))
        torch._dynamo.reset()
    losses, gradient, _ = results["plain"]
    found = {way: 1 / results[way][2] for way in WAYS}
    for way in WAYS[1:]:
        loss, own = results[way][:2]
        found[f"{way}_loss_error"] = float(((loss - losses) / losses).abs().max())
        found[f"{way}_gradient_error"] = float((own - gradient).abs().max() / gradient.abs().max())
    return found


@pytest.mark.parametrize(
    ("model", "stress"),
    [("water-small", False), ("water-pbe0", False), ("water-small", True), ("water", True)],
)
def test_training_speed(model: str, stress: bool, record: Callable[[str, float], None]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # In a process of its own, as the compiler dislikes shape checks.
    command = [sys.executable, str(Path(__file__)), model, *(["stress"] if stress else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"{model} with stress" if stress else model
    print(f"\n{name}: structures/s (× plain), largest differences of losses and gradients")
    for way in WAYS:
        print(f"  {way:<9} {found[way]:6.2f} ({found[way] / found['plain']:.1f}×)", end="")
        record(f"training {name} {way} (structures/s)", found[way])
        if way != "plain":
            errors = found[f"{way}_loss_error"], found[f"{way}_gradient_error"]
            print(f" {errors[0]:.1e} {errors[1]:.1e}", end="")
            assert errors[0] < 1e-4
            assert errors[1] < 1e-3
        print()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], "stress" in sys.argv[2:])))
