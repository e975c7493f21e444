"""Vibrations: a diatomic molecule in a Morse potential, with charges that tell the intensity."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from phicalc.properties import vibrations
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
