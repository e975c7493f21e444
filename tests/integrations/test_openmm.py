"""Systems of OpenMM-ML have our energy and forces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import kJ, mol, nm

from phicalc.structures import water_box

openmm = pytest.importorskip("openmm", reason='pip install "phicalc[openmm]"')
openmmml = pytest.importorskip("openmmml", reason='pip install "phicalc[openmm]"')

from openmm import app, unit  # noqa: E402


def topology_of(atoms: Atoms) -> Any:
    """Return one residue for each three atoms, without bonds."""
    topology = app.Topology()
    chain = topology.addChain()
    for i, symbol in enumerate(atoms.symbols):
        if i % 3 == 0:
            residue = topology.addResidue("HOH", chain)
        topology.addAtom(f"{symbol}{i}", app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors((atoms.cell.array / 10) * unit.nanometer)
    return topology


def context_of(system: Any, atoms: Atoms, timestep: float = 0.5) -> Any:
    """Return a context at the positions of the atoms; steps are in fs."""
    integrator = openmm.VerletIntegrator(timestep * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions((atoms.positions / 10) * unit.nanometer)
    return context


def energy_and_forces(context: Any) -> tuple[float, np.ndarray]:
    """Return eV and eV/Å."""
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * kJ / mol
    forces = state.getForces(asNumpy=True)
    return energy, forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) * kJ / mol / nm


@pytest.fixture
def droplet() -> Atoms:
    atoms = water_box(3, density=0.5)
    atoms.set_pbc(False)
    return atoms


@pytest.mark.parametrize("periodic", [False, True])
def test_a_system_has_the_energy_and_forces_of_the_calculator(calculator, periodic):
    atoms = water_box(3, density=0.5)
    atoms.set_pbc(periodic)
    potential = openmmml.MLPotential("phicalc", model=calculator)
    system = potential.createSystem(topology_of(atoms))
    energy, forces = energy_and_forces(context_of(system, atoms))
    atoms.calc = calculator
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-6)


def test_charges_of_ions_come_with_the_system(calculator, droplet):
    potential = openmmml.MLPotential("phicalc", model=calculator)
    system = potential.createSystem(topology_of(droplet), charge=1)
    energy, _ = energy_and_forces(context_of(system, droplet))
    droplet.calc = calculator
    neutral = droplet.get_potential_energy()
    droplet.info["charge"] = 1
    assert energy == pytest.approx(droplet.get_potential_energy(), abs=1e-6)
    assert abs(energy - neutral) > 1e-3


def test_part_of_a_force_field_has_our_energy_within(calculator, droplet):
    """Mechanical embedding: ours within the part, the force field's with and among the others."""
    system = openmm.System()
    charges = [-0.8 if symbol == "O" else 0.4 for symbol in droplet.symbols]
    force = openmm.NonbondedForce()
    for charge, mass in zip(charges, droplet.get_masses(), strict=True):
        system.addParticle(mass)
        force.addParticle(charge, 0.3, 0.1)
    system.addForce(force)
    topology, part = topology_of(droplet), [3, 4, 5]
    whole, _ = energy_and_forces(context_of(system, droplet))
    potential = openmmml.MLPotential("phicalc", model=calculator)
    mixed = potential.createMixedSystem(topology, system, part)
    energy, _ = energy_and_forces(context_of(mixed, droplet))
    inner = openmm.System()
    force = openmm.NonbondedForce()
    for i in part:
        inner.addParticle(1.0)
        force.addParticle(charges[i], 0.3, 0.1)
    inner.addForce(force)
    theirs, _ = energy_and_forces(context_of(inner, droplet[part]))
    ours = calculator.get_potential_energy(droplet[part])
    assert energy == pytest.approx(whole - theirs + ours, abs=1e-6)


def test_dynamics_conserves_energy(calculator):
    atoms = molecule("H2O")  # untrained: it soon falls apart, and is stopped before
    potential = openmmml.MLPotential("phicalc", model=calculator)
    context = context_of(potential.createSystem(topology_of(atoms)), atoms, 0.05)
    totals = []
    for _ in range(20):
        context.getIntegrator().step(2)
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * kJ / mol)
    moved = context.getState(positions=True).getPositions(asNumpy=True)
    assert np.abs(moved.value_in_unit(unit.angstrom) - atoms.positions).max() > 0.01
    assert np.ptp(totals) < 1e-3


def test_names_of_models_and_options_of_calculators_are_taken():
    potential = openmmml.MLPotential("phicalc", model="water-small", dtype="float64")
    assert potential._impl.calculator.parameters["dtype"] == "float64"
    assert potential._impl.getMLLongRange()
    with pytest.raises(ValueError, match=r'MLPotential\("phicalc", model="water-small"\)'):
        openmmml.MLPotential("phicalc")


def test_atoms_without_an_element_are_refused(calculator):
    topology = topology_of(molecule("H2O"))
    topology.addAtom("site", None, next(topology.residues()))
    with pytest.raises(ValueError, match="element"):
        openmmml.MLPotential("phicalc", model=calculator).createSystem(topology)
