from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from phicalc.labelling.calculators import CalculatorSpec


def ion(symbols: str, charge: float) -> Atoms:
    atoms = molecule(symbols)
    atoms.info["charge"] = charge
    return atoms


def test_import_path_and_arguments():
    spec = CalculatorSpec("ase.calculators.lj:LennardJones", {"sigma": 2.0})
    calculator = spec.make(ion("N2", 0))
    assert isinstance(calculator, LennardJones)
    assert calculator.parameters["sigma"] == 2.0
    assert spec.record()["package"] == "ase"
    assert spec.record()["version"][0] == "3"


def test_ions_need_a_way_to_tell_the_charge():
    path = "ase.calculators.emt:EMT"
    with pytest.raises(ValueError, match=r"N2 has the total charge 1 e.*charge_argument"):
        CalculatorSpec(path).make(ion("N2", 1))
    assert isinstance(CalculatorSpec(path, charge_argument="info").make(ion("N2", 1)), EMT)
    told = CalculatorSpec(path, charge_argument="asap_cutoff").make(
        ion("N2", 1)
    )  # any argument will do
    assert told.parameters["asap_cutoff"] == 1.0


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("gfn3-xtb", ValueError, "gfn2-xtb, gfn1-xtb or an import path"),
        ("nowhere.to.be:Found", ImportError, "set PYTHONPATH"),
        ("ase.calculators.emt:ETM", ValueError, "check the class"),
    ],
)
def test_wrong_names_say_what_there_is(name, kind, message):
    with pytest.raises(kind, match=message):
        CalculatorSpec(name).load()
    with pytest.raises(ValueError, match="'dipole_origin' must be one of"):
        CalculatorSpec(dipole_origin="origin")


def test_missing_tblite_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(ImportError, match=r"pip install .*\[label\]"):
        CalculatorSpec().load()


def test_xtb_gets_charge_and_spin_but_no_preset_moments():
    pytest.importorskip("tblite.ase", reason="tblite is not installed (extra 'label')")
    spec = CalculatorSpec("gfn2-xtb")
    energies = {}
    for charge in (-1, 0):
        atoms = ion("OH", charge)
        assert "initial_magmoms" in atoms.arrays  # as ASE sets them; xTB stops at them
        prepared = spec.prepare(atoms)
        prepared.calc = spec.make(prepared)
        energies[charge] = prepared.get_potential_energy()
        assert prepared.get_charges().sum() == pytest.approx(charge, abs=1e-6)
    assert energies[-1] < energies[0] - 1  # xTB overestimates the electron affinity
    triplet = ion("O2", 0)
    triplet.info["multiplicity"] = 3
    singlet = ion("O2", 0)
    found = []
    for atoms in (triplet, singlet):
        atoms.calc = spec.make(atoms)
        atoms.arrays.pop("initial_magmoms")
        found.append(atoms.get_potential_energy())
    assert not np.isclose(*found)


def test_dipoles_of_ions_need_an_origin_but_for_ours():
    path = "ase.calculators.lj:LennardJones"
    assert CalculatorSpec().dipole_origin == "coordinates"
    assert CalculatorSpec(path).dipole_origin is None
    assert CalculatorSpec("phicalc:PhiCalculator").dipole_origin == "centre_of_mass"
    own = CalculatorSpec("phicalc:PhiCalculator", dipole_origin="coordinates")
    assert own.dipole_origin == "coordinates"


def test_calculators_with_dipoles_of_ions_ask_for_their_origin(monkeypatch):
    monkeypatch.setattr(EMT, "implemented_properties", ["energy", "forces", "dipole"])
    path, ions = "ase.calculators.emt:EMT", ion("N2", 1)
    with pytest.raises(ValueError, match="dipole_origin, 'coordinates' or 'centre_of_mass'"):
        CalculatorSpec(path, charge_argument="info").make(ions)
    CalculatorSpec(path, charge_argument="info", dipole_origin="coordinates").make(ions)
    CalculatorSpec(path).make(ion("N2", 0))
    ions.pbc = True  # no dipole there
    CalculatorSpec(path, charge_argument="info").make(ions)


def test_arguments_that_a_calculator_does_not_have_are_refused():
    pytest.importorskip("tblite")
    with pytest.raises(ValueError, match="gfn2-xtb has no arguments bogus; it has accuracy"):
        CalculatorSpec("gfn2-xtb", {"bogus": 1}).make(ion("N2", 0))
    with pytest.raises(ValueError, match="does not take these"):
        CalculatorSpec("ase.calculators.singlepoint:SinglePointCalculator").make(ion("N2", 0))
