"""One charge equilibration with energy and forces, by size: `make bench ARGS="-k qeq_scaling"`.

Rattled rock salt and water on one thread in float64, electronegativities and hardnesses of the
elements, widths the covalent radii. Times are CPU milliseconds (the least of a few) of what follows
the plan: sum, charges, energy, forces. All atoms move by about 0.01 Å per step along straight
lines. "Cold" starts from equal charges, "last" from those of the step before, "warm" from those
that the last three steps let expect, as the calculator does. "Fixed" is energy and forces of given
charges with the same plan. Aim: warm at most 3 times fixed.

PHICALC_BENCH_LARGE=1 adds 32768 ions.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from torch import Tensor

from phicalc.electrostatics import ChargeHistory, CoulombPlanner, CoulombSettings, CoulombSum
from phicalc.electrostatics.charges.elements import electronegativity
from phicalc.electrostatics.charges.qeq import ITERATIONS, equilibrate
from phicalc.electrostatics.charges.solvers import ConjugateGradientSolver, DenseSolver, Solver
from phicalc.graph import AtomicGraph, from_ase
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

#: eV/e².
HARDNESS = {"H": 9.0, "O": 8.0, "Na": 5.0, "Cl": 9.0}
DENSE_LIMIT = 1000
AIM = 3.0
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)

MakeSolver = Callable[[CoulombSum, Tensor], Solver]


def rock_salt(*repeats: int) -> Atoms:
    """Return 8 ions per cell, rattled."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeats)
    atoms.rattle(0.05, seed=1)
    return atoms


def water(repeats: int) -> Atoms:
    """Return copies of 64 waters, rattled."""
    atoms = water_box(64).repeat(repeats)
    atoms.rattle(0.02, seed=1)
    return atoms


BOXES: dict[str, Callable[[], Atoms]] = {
    "NaCl 192": partial(rock_salt, 2, 3, 4),
    "water 192": partial(water, 1),
    "NaCl 1000": partial(rock_salt, 5, 5, 5),
    "NaCl 4096": partial(rock_salt, 8, 8, 8),
    "water 5184": partial(water, 3),
    "NaCl 32768": partial(rock_salt, 16, 16, 16),
}


class Problem(NamedTuple):
    """A structure with what its charges depend on."""

    graph: AtomicGraph
    smearing: Tensor
    chi: Tensor
    hardness: Tensor


class Answer(NamedTuple):
    """What a step gives."""

    charges: Tensor
    energy: float
    forces: Tensor
    solver: Solver


def problem_of(atoms: Atoms, planner: CoulombPlanner) -> Problem:
    """Plan the sums; χ varies a little from atom to atom, as that of a network."""
    noise = 0.3 * torch.randn(len(atoms), generator=torch.Generator().manual_seed(2)).double()
    symbols = atoms.get_chemical_symbols()
    smearing = torch.as_tensor(covalent_radii[atoms.numbers])
    chi = torch.tensor([electronegativity(s) for s in symbols], dtype=torch.float64) + noise
    hardness = torch.tensor([HARDNESS[s] for s in symbols], dtype=torch.float64)
    return Problem(planner.plan(from_ase(atoms, 1.0), smearing), smearing, chi, hardness)


def step(problem: Problem, make: MakeSolver) -> Answer:
    """Charges, energy and forces, as the head and its derivatives compute them."""
    graph = problem.graph._replace(positions=problem.graph.positions.clone().requires_grad_())
    chi, hardness = problem.chi, problem.hardness
    coulomb = CoulombSum(graph, problem.smearing)
    solver = make(coulomb, hardness)
    q = equilibrate(coulomb, chi, hardness, derivatives=0, solver=solver)
    energy = (chi * q + 0.5 * hardness * q**2).sum() + coulomb.energy(q).sum()
    forces = -torch.autograd.grad(energy, graph.positions)[0]
    return Answer(q, float(energy.detach()), forces, solver)


def fixed(problem: Problem, charges: Tensor) -> Tensor:
    """Compute forces of given charges."""
    graph = problem.graph._replace(positions=problem.graph.positions.clone().requires_grad_())
    energy = CoulombSum(graph, problem.smearing).energy(charges).sum()
    return -torch.autograd.grad(energy, graph.positions)[0]


def conjugate(guess: Tensor | None = None, tolerance: float | None = None) -> MakeSolver:
    """Conjugate gradients from a guess; the package's tolerance by default."""
    given = {} if tolerance is None else {"tolerance": tolerance}
    return partial(ConjugateGradientSolver, guess=guess, **given)  # type: ignore[arg-type]  # partial


def milliseconds(work: Callable[[], object]) -> float:
    """Least CPU time of a few calls, within a few seconds."""
    first = time.perf_counter()
    times: list[float] = []
    while len(times) < 2 or (time.perf_counter() - first < 2 and len(times) < 10):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def iterations(answer: Answer) -> int:
    """Count iterations of conjugate gradients."""
    assert isinstance(answer.solver, ConjugateGradientSolver)
    return sum(answer.solver.iterations)


def steps(atoms: Atoms, number: int) -> list[Atoms]:
    """Return structures on the way: at every step atoms move by about 0.01 Å."""
    velocity = np.random.default_rng(3).normal(0.0, 0.01 / 3**0.5, (len(atoms), 3))
    structures = []
    for time_step in range(number):
        structures.append(atoms.copy())
        structures[-1].positions += time_step * velocity
    return structures


@pytest.mark.parametrize("name", list(BOXES))
def test_qeq_scaling(name: str) -> None:
    if name.endswith("32768") and not os.environ.get("PHICALC_BENCH_LARGE"):
        pytest.skip("PHICALC_BENCH_LARGE=1 adds it")
    keep_freed_memory()
    *before, now = steps(BOXES[name](), 4)
    planner = CoulombPlanner(CoulombSettings(1e-4), applications=ITERATIONS)
    history = ChargeHistory()
    for atoms in before:
        last = step(problem_of(atoms, planner), conjugate()).charges
        history.add(atoms, last.numpy())
    guess = torch.from_numpy(history.guess(now))
    start = time.process_time()
    problem = problem_of(now, planner)
    planning = 1e3 * (time.process_time() - start)
    parameters = planner.parameters
    assert parameters is not None
    print(
        f"\n{name}: {parameters.method}, {problem.graph.coulomb.pair_index.shape[1]} pairs, "  # type: ignore[union-attr]  # it was planned
        f"{problem.graph.coulomb.kvectors.shape[1]} k, mesh {parameters.mesh} "  # type: ignore[union-attr]
        f"order {parameters.spline_order}; plan {planning:.0f} ms"
    )
    solvers = {"cold": conjugate(), "last": conjugate(last), "warm": conjugate(guess)}
    if len(now) <= DENSE_LIMIT and parameters.method == "ewald":
        solvers["dense"] = DenseSolver
    answers = {how: step(problem, make) for how, make in solvers.items()}
    of_fixed = milliseconds(lambda: fixed(problem, answers["warm"].charges))
    print(f"  fixed charges {of_fixed:10.1f} ms")
    for how, make in solvers.items():
        taken = milliseconds(partial(step, problem, make))
        rounds = f"{iterations(answers[how])} iterations" if how != "dense" else ""
        mark = "  ← above the aim" if how == "warm" and taken > AIM * of_fixed else ""
        print(f"  {how:<13} {taken:10.1f} ms  {taken / of_fixed:5.2f} × fixed  {rounds}{mark}")
    for how, answer in answers.items():
        error = float((answer.charges - answers["cold"].charges).abs().max())
        assert error < 1e-6, f"{how}: charges differ by {error:.1e} e"


@pytest.mark.parametrize("name", ["NaCl 1000", "water 192"])
def test_qeq_scaling_tolerance(name: str) -> None:
    keep_freed_memory()
    before, now = steps(BOXES[name](), 2)
    planner = CoulombPlanner(CoulombSettings(1e-4), applications=ITERATIONS)
    guess = step(problem_of(before, planner), conjugate(tolerance=1e-11)).charges
    problem = problem_of(now, planner)
    exact = step(problem, conjugate(tolerance=1e-11))
    print(f"\n{name}: largest errors against 1e-11 eV/e, from a warm start")
    print("  tolerance  iterations  charge/e  force/(eV/Å)  energy/atom/eV")
    for tolerance in TOLERANCES:
        found = step(problem, conjugate(guess, tolerance))
        charge = float((found.charges - exact.charges).abs().max())
        force = float((found.forces - exact.forces).abs().max())
        energy = abs(found.energy - exact.energy) / len(before)
        print(f"  {tolerance:9.0e}{iterations(found):12d}{charge:10.1e}{force:14.1e}{energy:16.1e}")
        # A residual is the error of the charges by at least the smallest eigenvalue of A + J.
        assert float((found.charges - exact.charges).norm()) <= (
            tolerance * len(before) ** 0.5 / float(problem.hardness.min())
        )


@pytest.mark.parametrize("name", ["NaCl 4096", "NaCl 32768"])
def test_qeq_scaling_profile(name: str) -> None:
    if name.endswith("32768") and not os.environ.get("PHICALC_BENCH_LARGE"):
        pytest.skip("PHICALC_BENCH_LARGE=1 adds it")
    keep_freed_memory()
    problem = problem_of(
        BOXES[name](), CoulombPlanner(CoulombSettings(1e-4), applications=ITERATIONS)
    )
    step(problem, conjugate())
    profile = cProfile.Profile()
    answer = profile.runcall(step, problem, conjugate())
    print(f"\n{name}: cold step with {iterations(answer)} iterations, cumulative and own time")
    pstats.Stats(profile).sort_stats("tottime").print_stats(22)
    assert iterations(answer) > 0
