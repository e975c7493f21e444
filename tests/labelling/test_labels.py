from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms

from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.labels import defined_labels, label_structure, with_labels

SPEC = CalculatorSpec("ase.calculators.emt:EMT", dipole_origin="coordinates")


class Model(Calculator):
    """Charges of +1 on the first atom; dipole about the origin of the coordinates."""

    implemented_properties = ("energy", "forces", "charges", "dipole", "stress")
    force = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        charges = np.eye(len(atoms))[0]
        forces = np.full((len(atoms), 3), self.force)
        self.results = {
            "energy": 2.0,
            "free_energy": 1.5,
            "forces": forces,
            "charges": charges,
            "dipole": charges @ atoms.positions,
            "stress": np.arange(6.0),
        }


def ion() -> Atoms:
    atoms = Atoms("OH", [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]], info={"charge": 1.0})
    atoms.calc = Model()
    return atoms


def test_conventions():
    found = label_structure(ion(), SPEC, 100.0)
    assert found["energy"] == 1.5  # the one that the forces belong to
    assert "stress" not in found
    centre = 1.008 / (1.008 + 15.999)
    np.testing.assert_allclose(found["dipole"], [0, 0, -centre], atol=1e-12)  # about the mass
    own = CalculatorSpec(SPEC.name, dipole_origin="centre_of_mass")
    np.testing.assert_allclose(label_structure(ion(), own, 100.0)["dipole"], [1, 2, 3])


@pytest.mark.parametrize(
    ("pbc", "there", "absent"),
    [(False, "dipole", "stress"), (True, "stress", "dipole")],
)
def test_labels_that_boundary_conditions_define(pbc, there, absent):
    atoms = ion()
    atoms.set_cell([9, 9, 9])
    atoms.pbc = pbc
    found = defined_labels(atoms, atoms.calc)
    assert there in found
    assert absent not in found
    atoms.pbc = (True, False, False)
    assert {"stress", "dipole"}.isdisjoint(defined_labels(atoms, atoms.calc))


def test_nonsense_is_no_label():
    atoms = ion()
    for force, message in ((float("nan"), "forces not finite"), (99.0, "more than 100")):
        atoms.calc = Model()
        atoms.calc.force = force
        with pytest.raises(ArithmeticError, match=message):
            label_structure(atoms, SPEC, 100.0)


def test_calculators_without_forces_are_refused():
    atoms = ion()
    atoms.calc.implemented_properties = ["energy"]
    with pytest.raises(ValueError, match="Model gives no forces"):
        defined_labels(atoms, atoms.calc)


def test_the_file_is_what_training_reads(tmp_path):
    crystal = bulk("Cu", cubic=True)
    crystal.info["charge"] = 0.0
    crystal.set_constraint(FixAtoms([0]))
    crystal.arrays["forces"] = np.ones((4, 3))  # of another calculator
    crystal.info["dipole"] = np.ones(3)
    frames = [with_labels(a, label_structure(a, SPEC, 100.0)) for a in (ion(), crystal)]
    ase.io.write(tmp_path / "data.xyz", frames, format="extxyz")
    molecule_read, crystal_read = read_frames(tmp_path / "data.xyz", KeysConfig())
    assert molecule_read.total_charge == 1
    assert molecule_read.labels.energy.item() == 1.5
    assert molecule_read.labels.charges.tolist() == [1, 0]
    assert molecule_read.labels.dipole.isfinite().all()
    assert molecule_read.labels.stress.isnan().all()
    assert crystal_read.labels.dipole.isnan().all()
    assert crystal_read.labels.stress.isfinite().all()
    assert crystal_read.labels.forces.abs().max() < 1e-6


def test_xtb_forces_are_the_derivative_of_the_energy():
    pytest.importorskip("tblite.ase", reason="tblite is not installed (extra 'label')")
    spec, step = CalculatorSpec("gfn2-xtb"), 1e-3
    atoms = molecule("H2O")
    atoms.info["charge"] = 1.0
    atoms.rattle(0.1, seed=1)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[0, 2] += sign * step
        energies.append(label_structure(moved, spec, 100.0)["energy"])
    found = label_structure(atoms, spec, 100.0)
    slope = (energies[1] - energies[0]) / (2 * step)
    assert found["forces"][0][2] == pytest.approx(slope, abs=1e-3)
    charges = np.array(found["charges"])
    assert charges.sum() == pytest.approx(1, abs=1e-6)
    moved = atoms.copy()
    moved.positions += [10, -20, 30]
    np.testing.assert_allclose(label_structure(moved, spec, 100.0)["dipole"], found["dipole"],
                               atol=1e-4)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forces", np.zeros(6)),
        ("forces", np.zeros((3, 3))),
        ("charges", np.zeros(3)),
        ("energy", np.zeros(2)),
        ("free_energy", np.zeros(2)),
        ("dipole", np.zeros((1, 3))),
    ],
)
def test_labels_of_another_shape_are_refused(name, value):
    class Odd(Model):
        def calculate(self, *arguments, **more):
            super().calculate(*arguments, **more)
            self.results[name] = value

    atoms = ion()
    atoms.calc = Odd()
    said = name.removeprefix("free_")
    with pytest.raises(ValueError, match=f"{said} of 2 atoms have the shape .* as in ASE"):
        label_structure(atoms, SPEC, 100.0)


def test_energies_in_brackets_are_energies():
    class Bracketed(Model):
        def calculate(self, *arguments, **more):
            super().calculate(*arguments, **more)
            self.results |= {"energy": np.array([2.0]), "free_energy": [[1.5]]}

    atoms = ion()
    atoms.calc = Bracketed()
    labels = label_structure(atoms, SPEC, 100.0)
    assert with_labels(atoms, labels).get_potential_energy() == 1.5
