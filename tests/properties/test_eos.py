"""Equation of state: copper with EMT against ASE's own numbers, and a crystal with a known one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from phicalc.properties import equation_of_state


class Balloon(Calculator):
    """Energy B₀ (V − V₀)² / 2 V₀ − 3 eV: the bulk modulus at V₀ is B₀."""

    implemented_properties = ["energy", "forces"]
    volume, modulus = 40.0, 75.0 * units.GPa

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        change = self.atoms.get_volume() - self.volume
        self.results = {
            "energy": self.modulus * change**2 / (2 * self.volume) - 3.0,
            "forces": np.zeros((len(self.atoms), 3)),
        }


def test_known_volume_and_modulus():
    atoms = bulk("Cu", a=(4 * 39.0) ** (1 / 3))
    found = equation_of_state(atoms, Balloon(), strain=0.05, n_points=11)
    assert found.volume == pytest.approx(40.0, abs=0.02)
    assert found.bulk_modulus == pytest.approx(75.0, rel=0.01)
    assert found.scale == pytest.approx((40 / 39) ** (1 / 3), rel=1e-3)
    assert atoms.get_volume() == pytest.approx(39.0)
    assert atoms.calc is None


def test_copper_agrees_with_the_stress(tmp_path):
    atoms = bulk("Cu", a=3.6)
    atoms.calc = EMT()
    path = tmp_path / "new" / "eos.png"
    found = equation_of_state(atoms, picture=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert found.residual < 0.1
    pressures = []
    for factor in (1 - 1e-3, 1, 1 + 1e-3):
        relaxed = atoms.copy()
        relaxed.set_cell(atoms.cell * (found.volume * factor / atoms.get_volume()) ** (1 / 3),
                         scale_atoms=True)  # fmt: skip
        relaxed.calc = EMT()
        pressures.append(-relaxed.get_stress()[:3].mean() / units.GPa)
    assert pressures[1] == pytest.approx(0, abs=0.1)
    modulus = -(pressures[2] - pressures[0]) / 2e-3
    assert found.bulk_modulus == pytest.approx(modulus, rel=0.02)


def test_positions_relax_where_symmetry_leaves_them_free():
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    clamped = equation_of_state(atoms, strain=0.09, n_points=5)
    relaxed = equation_of_state(atoms, strain=0.09, n_points=5, relax=True)
    perfect = equation_of_state(bulk("Cu", a=3.6), EMT(), strain=0.09, n_points=5)
    assert relaxed.energy / 4 == pytest.approx(perfect.energy, abs=1e-4)
    assert clamped.energy > relaxed.energy


@pytest.mark.parametrize(
    ("atoms", "settings", "message"),
    [
        (bulk("Cu", a=5.0), {}, "the energy still falls at .*relax the cell first"),
        (bulk("Cu", a=2.6), {}, "the energy still falls at"),
        (molecule("CO"), {}, "three directions"),
        (bulk("Cu"), {"n_points": 3}, "n_points be 5 or more"),
        (Atoms(), {}, "at least one atom"),
    ],
)
def test_senseless_requests_are_refused(atoms, settings, message):
    with pytest.raises(ValueError, match=message):
        equation_of_state(atoms, EMT(), **settings)


def test_a_calculator_is_needed():
    with pytest.raises(ValueError, match=r"needs a calculator: give calculator=…"):
        equation_of_state(bulk("Cu"))


@pytest.mark.parametrize("factor", [0.85, 0.93, 1.07, 1.2])
def test_cells_need_not_be_relaxed(factor):
    exact = equation_of_state(bulk("Cu", a=3.59), EMT())
    found = equation_of_state(bulk("Cu", a=3.59 * factor), EMT())
    assert found.volume == pytest.approx(exact.volume, rel=1e-3)
    assert found.bulk_modulus == pytest.approx(exact.bulk_modulus, rel=0.02)
    assert found.scale * factor == pytest.approx(exact.scale, rel=1e-3)
    assert found.volumes[0] < found.volume < found.volumes[-1]
