"""Vibrations: a diatomic molecule in a Morse potential, with charges that tell the intensity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixedPlane

from phicalc.properties import vibrations
from phicalc.relax import relax
from phicalc.units import KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU


class Morse(Calculator):
    """Diatomic molecule: D (1 − exp(−a (r − r₀)))² and fixed charges ±q."""

    implemented_properties = ["energy", "forces", "dipole"]
    depth, width, length, charge = 4.6, 1.9, 1.1, 0.3

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bond = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(bond)
        decay = np.exp(-self.width * (r - self.length))
        slope = 2 * self.depth * self.width * decay * (1 - decay)
        pull = slope * bond / r
        self.results = {
            "energy": self.depth * (1 - decay) ** 2,
            "forces": np.array([pull, -pull]),
            "dipole": self.charge * (self.atoms.positions[1] - self.atoms.positions[0]),
        }


def test_morse_molecule_has_its_frequency_and_intensity(tmp_path):
    atoms = Atoms("CO", [[0, 0, 0], np.array([1, 2, 2]) / 3 * Morse.length])
    found = vibrations(atoms, Morse(), delta=1e-3, picture=tmp_path / "ir.png")
    masses = atoms.get_masses()
    reduced = masses.prod() / masses.sum()
    energy = (
        units._hbar
        * 1e10
        / np.sqrt(units._e * units._amu)
        * np.sqrt(2 * Morse.depth * Morse.width**2 / reduced)
    )
    assert found.frequencies == pytest.approx([energy / units.invcm], rel=1e-4)
    exact = KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU * Morse.charge**2 / reduced
    assert found.intensities == pytest.approx([exact], rel=1e-4)
    assert found.zero_point_energy == pytest.approx(energy / 2, rel=1e-4)
    assert found.n_imaginary == 0
    assert len(found.rigid) == 5
    assert np.abs(found.rigid).max() < 20
    assert found.modes.shape == (1, 2, 3)
    assert (tmp_path / "ir.png").read_bytes().startswith(b"\x89PNG")


def test_three_atoms_have_three_modes_and_no_files_remain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    water = molecule("H2O")
    with pytest.warns(UserWarning, match="not at a minimum"):
        found = vibrations(water, EMT())
    assert len(found.frequencies) == 3
    assert len(found.rigid) == 6
    assert found.intensities is None
    assert list(tmp_path.iterdir()) == []
    assert water.calc is None


def test_maximum_has_imaginary_frequencies():
    class Hill(Morse):
        depth = -4.6

    atoms = Atoms("CO", [[0, 0, 0], [0, 0, Morse.length]])
    found = vibrations(atoms, Hill())
    assert found.n_imaginary == 1
    assert found.frequencies[0] < -1000
    assert found.zero_point_energy == 0


def test_crystals_lose_three_modes_and_pictures_need_dipoles():
    atoms = bulk("Cu", a=3.59, cubic=True)
    found = vibrations(atoms, EMT())
    assert len(found.frequencies) == 9
    with pytest.raises(ValueError, match="calculator with dipoles"):
        vibrations(atoms, EMT(), picture="never.png")
    with pytest.raises(ValueError, match="delta must be positive"):
        vibrations(atoms, EMT(), delta=0.0)


class Chain(Calculator):
    """Stiff bonds along a chain of atoms, and angles of a given size (degrees) between them."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, lengths, angle: float = 180.0, field: float = 0.0):
        super().__init__()
        self.lengths, self.angle, self.field = torch.tensor(lengths), np.radians(angle), field

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions = torch.tensor(self.atoms.positions, requires_grad=True)
        bonds = positions[1:] - positions[:-1]
        lengths = bonds.norm(dim=1)
        cosines = (bonds[1:] * bonds[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
        energy = 15 * (lengths - self.lengths).square().sum()
        energy = energy + 1.5 * (cosines + np.cos(self.angle)).square().sum()
        if self.angle > 3.1:
            energy = energy + 2 * (1 - cosines).sum()
        energy = energy - self.field * (positions[0] - positions[-1])[2]
        energy.backward()
        self.results = {"energy": float(energy.detach()), "forces": -positions.grad.numpy()}


ACETYLENE = [1.06, 1.2, 1.06]


def acetylene(seed: int | None = None) -> Atoms:
    """Linear chain of four atoms, perhaps displaced."""
    heights = np.cumsum([0.0, *ACETYLENE])
    atoms = Atoms("HCCH", [[0, 0, z] for z in heights], calculator=Chain(ACETYLENE))
    if seed is not None:
        atoms.rattle(0.06, seed=seed)
        relax(atoms, fmax=0.045, optimizer="fire")
    return atoms


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_slightly_bent_linear_molecules_keep_all_their_modes(seed):
    exact, found = vibrations(acetylene()), vibrations(acetylene(seed))
    assert len(exact.frequencies) == len(found.frequencies) == 7
    assert len(found.rigid) == 5
    assert found.n_imaginary == exact.n_imaginary == 0
    assert found.zero_point_energy == pytest.approx(exact.zero_point_energy, abs=2e-3)
    assert found.frequencies == pytest.approx(exact.frequencies, rel=0.02)


@pytest.mark.parametrize("angle", [176.0, 172.0, 150.0, 120.0])
def test_molecules_with_a_bent_minimum_have_three_rotations(angle):
    atoms = Atoms("OCO", [[0, 0, -1.16], [0.03, 0, 0], [0, 0, 1.16]])
    atoms.calc = Chain([1.16, 1.16], angle)
    relax(atoms, fmax=1e-7, optimizer="bfgs")
    assert atoms.get_angle(0, 1, 2) == pytest.approx(angle, abs=0.01)
    found = vibrations(atoms)
    assert len(found.frequencies) == 3
    assert len(found.rigid) == 6
    assert found.n_imaginary == 0


@pytest.mark.parametrize(
    ("constraints", "n_modes", "n_rigid"),
    [
        ([FixAtoms([0])], 3, 3),  # it turns about its oxygen
        ([FixAtoms([0, 1])], 2, 1),  # and about a bond
        ([FixAtoms([0, 1, 2])], 0, 0),
        ([FixCartesian(0, [True, False, False])], 3, 5),
        ([FixedPlane([0, 1, 2], [1, 0, 0])], 3, 3),
        ([FixAtoms([0]), FixedPlane([1, 2], [1, 0, 0])], 3, 1),
    ],
)
def test_free_rotations_of_constrained_molecules_are_no_imaginary_modes(
    constraints, n_modes, n_rigid
):
    atoms = Atoms("HOH", [[0, 0.76, -0.48], [0, 0, 0.12], [0, -0.76, -0.48]])[[1, 0, 2]]
    atoms.calc = Bent()
    relax(atoms, fmax=1e-6)
    atoms.set_constraint(constraints)
    found = vibrations(atoms)
    assert len(found.frequencies) == n_modes
    assert len(found.rigid) == n_rigid
    assert found.n_imaginary == 0
    assert np.abs(found.rigid).max(initial=0.0) < 40
    assert (found.frequencies > 500).all()
    moved = [constraint.index for constraint in constraints if isinstance(constraint, FixAtoms)]
    assert np.allclose(found.modes[:, np.concatenate([np.empty(0, int), *moved])], 0)


class Bent(Chain):
    """Water: the oxygen is atom 0, between its hydrogens."""

    def __init__(self):
        super().__init__([0.97, 0.97], 104.0)

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        swapped = (self.atoms if atoms is None else atoms)[[1, 0, 2]]
        super().calculate(swapped, properties, system_changes)
        self.atoms = atoms.copy()
        self.results["forces"] = self.results["forces"][[1, 0, 2]]


def test_constraints_that_are_not_linear_are_refused():
    atoms = acetylene()
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ValueError, match="FixBondLengths are not defined here: use constraints"):
        vibrations(atoms)


def test_wires_turn_about_their_axis():
    zigzag = Atoms("Cu2", [[5, 5.6, 0], [5, 4.4, 2.3]], cell=[10, 10, 4.6], pbc=[0, 0, 1])
    zigzag.calc = EMT()
    relax(zigzag, fmax=1e-4)
    found = vibrations(zigzag)
    assert len(found.rigid) == 4
    assert np.abs(found.rigid).max() < 5
    assert len(found.frequencies) == 2


def test_a_field_keeps_molecules_from_turning():
    atoms = Atoms("HF", [[0, 0, 0], [0, 0, 0.92]], calculator=Chain([0.92], field=-0.05))
    relax(atoms, fmax=1e-6)
    atoms.info["external_field"] = [0.0, 0.0, 0.05]
    found = vibrations(atoms)
    assert len(found.rigid) == 3
    assert len(found.frequencies) == 3  # it swings about the field, and its bond vibrates
    assert found.frequencies[0] == pytest.approx(found.frequencies[1], rel=1e-3)
    assert 50 < found.frequencies[0] < 1000 < found.frequencies[2]


def test_a_lone_atom_has_no_vibrations():
    found = vibrations(Atoms("Cu", calculator=EMT()))
    assert found.modes.shape == (0, 1, 3)
    assert found.zero_point_energy == 0
