"""What approximate electrostatic sums and iterated charges do to dynamics: `-k coulomb_dynamics`.

32 waters with the shipped model in float64, a few minutes each:

- The volume goes from −30 % to +30 % in steps of 0.1 %, as under a barostat. The planner keeps its
  parameters until they no longer serve; printed is what each change does to the energy, and for
  comparison how energies scatter if parameters are chosen anew for each structure.
- NVE with charges of the dense solver and of conjugate gradients, from the same start; 1 ps, or
  PHICALC_BENCH_STEPS of 0.5 fs.
"""

from __future__ import annotations

import os
import time
from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from torch import Tensor

from phicalc import PhiCalculator
from phicalc.electrostatics import CoulombPlanner, CoulombSettings
from phicalc.electrostatics.charges import qeq
from phicalc.electrostatics.charges.solvers import ConjugateGradientSolver, Solver
from phicalc.graph import AtomicGraph, from_ase
from phicalc.md import MDConfig, initialise_velocities, run_md
from phicalc.potential import Potential
from phicalc.relax import relax
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory

VOLUMES = np.linspace(0.7, 1.3, 601)
#: Of these volumes every so many are planned anew.
STRIDE = 10
TIMESTEP = 0.5
STEPS = int(os.environ.get("PHICALC_BENCH_STEPS", "2000"))
COMPARED = 100
BLOCKS = 8


@cache
def box() -> Atoms:
    """32 waters; on their lattice hundreds of equal pairs would cross a cutoff at once."""
    atoms = water_box(32)
    atoms.rattle(0.1, seed=1)
    return atoms


def scaled(volume: float) -> Atoms:
    """32 waters; everything is scaled, so that nothing but the sums can jump."""
    atoms = box().copy()
    atoms.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    return atoms


@cache
def features() -> tuple[Potential, list[tuple[AtomicGraph, Tensor, Tensor]]]:
    """Potential; graph, node features and elements at each volume: the network runs only once."""
    potential = PhiCalculator("water-pbe0", device="cpu", dtype="float64").potential
    found = []
    for volume in VOLUMES:
        graph = from_ase(scaled(volume), potential.cutoff)
        element = potential.element_of_number[graph.atomic_numbers]
        with torch.no_grad():
            nodes = potential.backbone(potential.embedding[element], element, graph)
        found.append((graph, nodes, element))
    return potential, found


@cache
def reference() -> tuple[np.ndarray, np.ndarray]:
    """Energies and forces at all volumes with practically exact sums."""
    return sweep(features()[0].coulomb_planner(CoulombSettings(1e-8)))[:2]


def sweep(
    planner: CoulombPlanner, stride: int = 1, anew: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Electrostatic energies and forces at all volumes, and how often parameters were chosen.

    One planner is kept, as in a calculator. The energies of a calculator differ by as much, as the
    rest of them has no sums; of the forces those at given electronegativities are compared.
    """
    potential, structures = features()
    assert isinstance(potential.head, qeq.ChargeEquilibration)
    energies, forces, changes = [], [], []
    for graph, nodes, element in structures[::stride]:
        if anew:
            planner.parameters = None
        planned = potential.prepare(graph, planner)
        positions = graph.positions.clone().requires_grad_()
        planned = planned._replace(positions=positions)
        energy = potential.head(nodes, element, planned, derivatives=0).atomic_energies.sum()
        forces.append(-torch.autograd.grad(energy, positions)[0].numpy())
        energies.append(float(energy.detach()))
        changes.append(planner.changes)
    return np.array(energies), np.array(forces), np.array(changes)


@pytest.mark.parametrize("accuracy", [1e-3, 1e-4])
@pytest.mark.parametrize("method", ["ewald", "mesh"])
def test_coulomb_dynamics_of_the_cell(method: str, accuracy: float) -> None:
    keep_freed_memory()
    exact_energies, exact_forces = reference()
    settings = CoulombSettings(accuracy, method=method)  # type: ignore[arg-type]  # parametrized
    planner = features()[0].coulomb_planner(settings)
    start = time.perf_counter()
    energies, forces, changes = sweep(planner)
    n_atoms = forces.shape[1]
    error = energies - exact_energies
    of_forces = np.sqrt(((forces - exact_forces) ** 2).mean(axis=(1, 2)))
    steps = np.abs(np.diff(error))
    jumps = np.flatnonzero(np.diff(changes))
    smooth = np.delete(steps, jumps)
    anew = sweep(planner, STRIDE, anew=True)[0] - exact_energies[::STRIDE]
    scatter = np.abs(np.diff(anew)).max()
    # Errors of the atoms are independent: as if each had an error `accuracy` along 1 Å.
    bound = accuracy * np.sqrt(n_atoms)
    print(
        f"\n{method}, {accuracy:g} eV/Å, {n_atoms} atoms, "
        f"{1e3 * (time.perf_counter() - start) / len(VOLUMES):.0f} ms a structure"
    )
    print(f"  rms force error    {of_forces.max():9.1e} eV/Å at most")
    print(f"  energy error       {np.abs(error).max():9.1e} eV at most")
    print(f"  between steps      {smooth.max():9.1e} eV at most, parameters kept")
    print(f"  bound on a jump    {bound:9.1e} eV")
    for jump in jumps:
        print(f"  jump at {100 * (VOLUMES[jump + 1] - 1):+5.1f} %   {steps[jump]:9.1e} eV")
    print(f"  chosen anew        {scatter:9.1e} eV at most between structures")
    assert of_forces.max() <= accuracy
    assert max(steps.max(), scatter) < bound


def drift_of(totals: np.ndarray, n_atoms: int) -> tuple[float, float]:
    """Drift in meV/atom/ps and its standard error from the scatter of block averages."""
    blocks = 1e3 * totals[: len(totals) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(1) / n_atoms
    times = (np.arange(BLOCKS) + 0.5) * len(totals) / BLOCKS * TIMESTEP * 1e-3
    slope, origin = np.polyfit(times, blocks, 1)
    rest = blocks - slope * times - origin
    spread = ((times - times.mean()) ** 2).sum()
    return float(slope), float(np.sqrt((rest**2).sum() / (BLOCKS - 2) / spread))


def dynamics(start: Atoms) -> tuple[np.ndarray, np.ndarray, float]:
    """Potential and total energies of an NVE run, and ms per step."""
    atoms = start.copy()
    atoms.calc = PhiCalculator("water-pbe0", device="cpu", dtype="float64")
    integrator = VelocityVerlet(atoms, TIMESTEP * units.fs)
    potential, total = [], []
    begin = time.perf_counter()
    for _ in integrator.irun(STEPS):
        potential.append(atoms.get_potential_energy())
        total.append(potential[-1] + atoms.get_kinetic_energy())
    taken = 1e3 * (time.perf_counter() - begin) / STEPS
    return np.array(potential), np.array(total), taken


def test_coulomb_dynamics_nve(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keep_freed_memory()
    atoms = water_box(32)
    atoms.calc = PhiCalculator("water-pbe0", device="cpu", dtype="float64")
    relax(atoms, fmax=0.5, steps=20)
    initialise_velocities(atoms, 450.0, np.random.default_rng(1))
    config = MDConfig(
        temperature=300.0, timestep=0.5, steps=300, thermostat_time=30.0, velocities="keep"
    )
    run_md(atoms, config, tmp_path_factory.mktemp("start") / "nvt", progress=False)
    dense_potential, dense_total, dense_time = dynamics(atoms)

    solvers: list[Solver] = []
    choose = qeq.choose_solver

    def recorded(*arguments: object, **named: object) -> Solver:
        solvers.append(choose(*arguments, **named))  # type: ignore[arg-type]  # passed on
        return solvers[-1]

    monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    monkeypatch.setattr(qeq, "choose_solver", recorded)
    potential, total, taken = dynamics(atoms)
    rounds = [sum(s.iterations) for s in solvers if isinstance(s, ConjugateGradientSolver)]
    assert len(rounds) == len(solvers) >= STEPS
    apart = np.abs(potential - dense_potential)[: COMPARED + 1].max()
    print(f"\nNVE, {len(atoms)} atoms, {STEPS} steps of {TIMESTEP} fs")
    print("                    drift in meV/atom/ps    scatter in meV/atom   ms/step")
    drifts = []
    for name, energies, speed in (
        ("dense", dense_total, dense_time),
        ("conjugate gradients", total, taken),
    ):
        drifts.append(drift_of(energies, len(atoms)))
        scatter = 1e3 * energies.std() / len(atoms)
        print(
            f"  {name:<20}{drifts[-1][0]:+10.4f} ± {drifts[-1][1]:.4f}{scatter:18.4f}{speed:15.1f}"
        )
    print(f"  iterations: first {rounds[0]}, then {np.mean(rounds[1:]):.1f} a step")
    print(f"  energies along the first {COMPARED} steps differ by {apart:.1e} eV at most")
    (dense, dense_error), (iterated, error) = drifts
    assert abs(iterated - dense) < 3 * np.hypot(error, dense_error) + 0.01
    assert apart < 1e-4
