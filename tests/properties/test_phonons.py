"""Phonons: a chain of springs with an analytic band, ASE's own phonons, the sum rule."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.phonons import Phonons

from phicalc import PhiCalculator
from phicalc.electrostatics.charges.formal import LARGEST
from phicalc.properties import phonons
from phicalc.units import COULOMB_CONSTANT

from ..physics.conftest import tiny_potential

pytest.importorskip("phonopy")


class Springs(Calculator):
    """Simple cubic crystal: nearest neighbours along each axis pull with k along that axis."""

    implemented_properties = ["energy", "forces"]
    spring, spacing = 3.0, 3.0

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        sites = np.round(self.atoms.positions / self.spacing)
        shape = np.round(self.atoms.cell.lengths() / self.spacing).astype(int)
        moved = np.empty((*shape, 3))
        index = tuple((sites.astype(int) % shape).T)
        moved[index] = self.atoms.positions - sites * self.spacing
        forces, energy = np.zeros_like(moved), 0.0
        for axis in range(3):
            stretch = np.roll(moved, -1, axis)[..., axis] - moved[..., axis]
            energy += 0.5 * self.spring * float((stretch**2).sum())
            forces[..., axis] += self.spring * (stretch - np.roll(stretch, 1, axis))
        self.results = {"energy": energy, "forces": forces[index]}


def test_crystal_of_springs_has_its_analytic_band():
    atoms = Atoms("Ar", cell=[Springs.spacing] * 3, pbc=True)
    found = phonons(atoms, Springs(), supercell=(4, 4, 4), mesh=(8, 8, 8))
    # ω_x² = (4k/m) sin²(π q_x), and likewise along y and z
    phases = np.sin(np.pi * found.path.kpts) ** 2
    omega = np.sqrt(4 * Springs.spring * phases / atoms.get_masses()[0]) * units.fs
    expected = np.sort(1000 * omega / (2 * np.pi), axis=1)
    np.testing.assert_allclose(found.bands, expected, atol=0.02 * expected.max())
    assert found.stable
    assert found.sum_rule < 1e-3


@pytest.mark.parametrize(("force", "what"), [(0.0, "zero"), (np.nan, "no numbers")])
def test_crystals_whose_atoms_do_not_feel_each_other_are_refused(force, what):
    class Deaf(Springs):
        def calculate(self, *arguments, **more):
            super().calculate(*arguments, **more)
            self.results["forces"] = np.full((len(self.atoms), 3), force)

    atoms = Atoms("Ar", cell=[Springs.spacing] * 3, pbc=True)
    with pytest.raises(ValueError, match=f"phonons: the force constants are {what}"):
        phonons(atoms, Deaf(), supercell=(2, 2, 2), mesh=(2, 2, 2))


def test_copper_agrees_with_ase(tmp_path):
    atoms = bulk("Cu", a=3.59)
    path = tmp_path / "new" / "bands.png"
    found = phonons(atoms, EMT(), supercell=(5, 5, 5), mesh=(8, 8, 8), picture=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    reference = Phonons(atoms, EMT(), supercell=(5, 5, 5), delta=0.01, name=str(tmp_path / "fd"))
    reference.run()
    reference.read(acoustic=True)
    structure = reference.get_band_structure(found.path)
    expected = structure.energies[0] * units._e / units._hplanck / 1e12
    assert np.abs(found.bands.max() - expected.max()) < 0.1
    np.testing.assert_allclose(found.bands, expected, atol=0.2)
    assert found.n_displacements == 1
    width = found.frequencies[1] - found.frequencies[0]
    assert found.density.sum() * width == pytest.approx(3, rel=0.05)


def test_what_falls_apart_is_unstable_and_told():
    with pytest.raises(ValueError, match="three directions"):
        phonons(molecule("CO"), EMT())
    with pytest.raises(ValueError, match="delta must be positive"):
        phonons(bulk("Cu"), EMT(), delta=-1.0)

    class Repelling(Springs):
        spring = -3.0

    atoms = Atoms("Ar", cell=[Springs.spacing] * 3, pbc=True)
    found = phonons(atoms, Repelling(), supercell=(2, 2, 2), mesh=(4, 4, 4))
    assert not found.stable
    assert found.lowest < -1


class Ions(EMT):
    """Copper and silver whose atoms have charges of a given size."""

    size = 1.0

    def __init__(self):
        super().__init__()
        self.implemented_properties = [*self.implemented_properties, "charges"]

    def calculate(self, *arguments):
        super().calculate(*arguments)
        signs = np.where(self.atoms.symbols == "Cu", 1.0, -1.0)
        self.results["charges"] = self.size * signs


@pytest.mark.parametrize(("calculator", "polar"), [(Ions, True), (EMT, True), (None, False)])
def test_phonons_of_polar_crystals_lack_a_part_and_say_so(calculator, polar):
    atoms = bulk("CuAg", "cesiumchloride", a=3.2)
    neutral = Ions()
    neutral.size = 0.01
    settings = {"supercell": (2, 2, 2), "mesh": (2, 2, 2), "n_points": 5}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = phonons(atoms, calculator() if calculator else neutral, **settings)
    assert found.polar == polar
    assert polar == any("LO–TO) is not included" in str(each.message) for each in caught)


def test_fields_of_ions_lift_longitudinal_modes():
    """For one pair of ions in a cubic cell: ω_LO² − ω_TO² = 4π k_e Z*²/(V ε∞ m)."""
    potential = tiny_potential(
        head={"name": "acks2", "formal_charges": "element", "softness_ceiling": 0.1}
    )
    with torch.no_grad():
        potential.embedding.mul_(0.1)
        potential.head.starting.formal.element[[3, 4], [LARGEST + 1, LARGEST - 1]] = 60.0
    model = PhiCalculator(potential, dtype="float64", compile=False)
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is relaxed here
        found = phonons(crystal, model, supercell=(3, 3, 3), mesh=(2, 2, 2), n_points=20)
    assert not found.polar
    gamma = int(np.flatnonzero(~found.path.kpts.any(axis=1))[0])
    without, lifted = ((f * np.abs(f)).sum() for f in (found.bands[gamma], found.longitudinal))
    lifted = (lifted - without) * (2 * np.pi * 1e12) ** 2
    charge = model.get_born_effective_charges(crystal)[0, 0, 0]
    dielectric = model.get_dielectric_tensor(crystal)[0, 0]
    reduced = 1 / (1 / crystal.get_masses()).sum()
    expected = 4 * np.pi * COULOMB_CONSTANT * charge**2 / crystal.get_volume() / dielectric
    expected *= units._e / (reduced * units._amu) * 1e20
    assert lifted == pytest.approx(expected, rel=1e-3)
