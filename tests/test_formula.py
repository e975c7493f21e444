"""Names of structures: by molecules, whose formulas are not reduced."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.properties import vibrations
from phicalc.structures import formula_of, water_box


def apart(*names: str) -> Atoms:
    """Molecules side by side."""
    atoms = Atoms()
    for number, name in enumerate(names):
        one = molecule(name)
        one.translate([10.0 * number, 0, 0])
        atoms += one
    return atoms


@pytest.mark.parametrize(
    ("atoms", "name"),
    [
        (apart("CH3COOH"), "C₂H₄O₂"),
        (apart("H2O2"), "H₂O₂"),
        (apart("C6H6", "C6H6"), "2 C₆H₆"),
        (apart("CH3CH2OH", "H2O", "H2O"), "C₂H₆O, 2 H₂O"),
        (water_box(8), "8 H₂O"),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), "4 NaCl"),
        (bulk("Cu", cubic=True), "4 Cu"),
        (Atoms("Cu3", [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0]]), "Cu₃"),
        (apart("H2O", "CH4", "NH3", "C6H6", "H2"), "C₇H₁₇NO"),
    ],
)
def test_structures_are_named_by_their_molecules(atoms, name):
    assert formula_of(atoms) == name


def test_pictures_name_molecules(tmp_path, monkeypatch):
    from ase.calculators.calculator import Calculator, all_changes

    class Springs(Calculator):
        """Harmonic bonds between all atoms, with fixed charges."""

        implemented_properties = ["energy", "forces", "dipole"]

        def calculate(self, atoms=None, properties=(), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            forces = acid.positions - self.atoms.positions
            self.results = {"energy": 0.0, "forces": forces, "dipole": self.atoms.positions[0]}

    titles = []
    acid = molecule("CH3COOH")
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, *_, **__: titles.append(self)
    )
    vibrations(acid, Springs(), picture=tmp_path / "a.png")
    assert titles[0].axes[0].get_title().startswith("C₂H₄O₂: ")
