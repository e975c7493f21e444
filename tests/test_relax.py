"""Relaxation: minima of positions and cells that are known."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from phicalc.relax import OPTIMIZERS, relax
from phicalc.structures import read_structures, to_pymatgen


def rattled_copper(a: float = 3.6):
    atoms = bulk("Cu", a=a, cubic=True)
    atoms.rattle(0.1, seed=4)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_atoms_go_back_to_their_sites(optimizer):
    atoms = rattled_copper()
    cell = atoms.cell.copy()
    result = relax(atoms, fmax=0.005, optimizer=optimizer)
    perfect = bulk("Cu", a=3.6, cubic=True)
    perfect.calc = EMT()
    assert result.converged
    assert result.max_force < 0.005
    assert result.energy == pytest.approx(perfect.get_potential_energy(), abs=1e-4)
    assert np.array_equal(atoms.cell, cell)


def test_cell_goes_to_the_lattice_constant_of_zero_pressure():
    atoms = rattled_copper(a=3.7)
    result = relax(atoms, fmax=0.002, cell=True)
    assert result.converged
    assert np.abs(atoms.get_stress()).max() < 1e-3
    np.testing.assert_allclose(atoms.cell.lengths(), 3.59, atol=0.01)


def test_cell_under_pressure():
    atoms = rattled_copper(a=3.5)
    relax(atoms, fmax=0.002, cell=True, pressure=100_000.0)
    assert -atoms.get_stress()[:3].mean() / units.GPa == pytest.approx(10.0, abs=0.2)


def test_cell_is_relaxed_until_the_stress_is_small_in_a_large_cell():
    atoms = bulk("Cu", a=3.66, cubic=True).repeat(3)  # ASE's filter divides stress by 108 atoms
    atoms.calc = EMT()
    result = relax(atoms, fmax=0.05, cell=True, smax=100.0)
    assert result.converged
    assert result.max_stress < 100.0
    assert np.abs(atoms.get_stress()).max() / units.bar == pytest.approx(result.max_stress)


def test_steps_are_limited_and_saved(tmp_path):
    atoms = rattled_copper()
    result = relax(atoms, fmax=1e-6, steps=3, trajectory=tmp_path / "new" / "path.extxyz")
    assert not result.converged
    assert result.steps == 3
    frames = ase.io.read(tmp_path / "new" / "path.extxyz", ":")
    energies = [frame.get_potential_energy() for frame in frames]
    assert len(energies) == 4
    assert energies[-1] == pytest.approx(result.energy)
    assert energies[-1] < energies[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "newton"}, "optimizer must be one of .*'lbfgs'.*got 'newton'"),
        ({"fmax": 0.0}, "fmax must be positive"),
        ({"smax": -1.0}, "smax must be positive"),
        ({"cell": True}, "three periodic directions"),
    ],
)
def test_senseless_requests_are_refused(settings, message):
    atoms = molecule("CO")
    atoms.calc = EMT()
    with pytest.raises(ValueError, match=message):
        relax(atoms, **settings)


def test_atoms_without_a_calculator_are_refused():
    with pytest.raises(ValueError, match="needs a calculator"):
        relax(bulk("Cu"))


def test_structures_without_atoms_are_refused():
    with pytest.raises(ValueError, match="at least one atom"):
        relax(Atoms(), EMT())


def test_symmetry_is_kept_if_asked():
    spglib = pytest.importorskip("spglib")
    atoms = bulk("Cu", a=3.8, cubic=True)
    atoms.set_cell(atoms.cell @ np.diag([1.0, 1.0, 1.04]), scale_atoms=True)
    atoms.positions[1] += [0, 0, 1e-4]  # noise that the symmetry forbids
    atoms.calc = EMT()
    result = relax(atoms, fmax=0.002, cell=True, symmetry=True, steps=60)
    found = spglib.get_symmetry_dataset(
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=1e-7
    )
    assert found.number in (139, 225)  # tetragonal, or cubic again
    assert result.converged
    assert atoms.constraints == []


def test_symmetry_needs_a_crystal():
    atoms = molecule("CO")
    atoms.calc = EMT()
    with pytest.raises(ValueError, match="space group needs three periodic directions"):
        relax(atoms, symmetry=True)


def test_structures_of_pymatgen_come_back_relaxed():
    pytest.importorskip("pymatgen.core")
    structure = to_pymatgen(bulk("Cu", a=3.7))
    result = relax(structure, EMT(), fmax=0.002, cell=True)
    assert type(result.structure) is type(structure)
    assert structure.volume == pytest.approx(3.7**3 / 4)
    assert result.structure.volume == pytest.approx(3.59**3 / 4, rel=0.01)


def test_steps_of_labelled_atoms_are_saved(tmp_path):
    atoms = rattled_copper()
    atoms.info.update({"energy": -5.0, "stress": [1.0, 2, 3, 4, 5, 6], 5: "five"})
    atoms.arrays.update(forces=np.ones((4, 3)), charge=np.arange(4.0), tensor=np.ones((4, 3, 3)))
    with pytest.warns(UserWarning, match="will not hold every entry"):
        result = relax(atoms, fmax=1e-6, steps=3, trajectory=tmp_path / "path.xyz")
    frames = read_structures(tmp_path / "path.xyz")
    assert len(frames) == 4
    assert frames[-1].get_potential_energy() == pytest.approx(result.energy)
    assert all(frame.info["input_energy"] == -5.0 for frame in frames)
    assert atoms.info["energy"] == -5.0
