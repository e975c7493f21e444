"""Attraction of dimers and of a rare-gas crystal: `make bench ARGS="-k dispersion_dimers"`.

Prints energies of interaction in meV: the term with coefficients of free atoms, as before training,
beside D4 (for PBE; where ``dftd4`` is installed) and the whole of GFN2-xTB, which contains D4.
Asserts that the term falls as 1/r⁶ and, for argon, agrees with D4 far away.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from phicalc import units
from phicalc.derivatives import predict
from phicalc.graph import from_ase
from phicalc.potential import PotentialConfig, build_potential

DISTANCES = (3.4, 3.8, 4.2, 5.0, 6.0, 8.0, 10.0, 15.0)
CONSTANTS = (5.3, 6.0, 7.0, 9.0, 12.0)
CUTOFF = 5.0
#: C6 of the whole molecules in Hartree Bohr⁶ from dipole oscillator strengths: Kumar & Meath, Mol.
#: Phys. 75, 311 (1992) for benzene; Thomas & Meath, Mol. Phys. 34, 113 (1977) for methane; Kumar &
#: Meath, Mol. Phys. 54, 823 (1985) for argon.
MEASURED = {"C6H6": 1723.0, "CH4": 129.7, "Ar": 64.3}

Energy = Callable[[Atoms], float]


def term() -> Energy:
    """Return the dispersion of an untrained potential, in eV."""
    config = PotentialConfig.from_dict(
        {"elements": ["H", "C", "Ar"], "cutoff": CUTOFF, "head": "none", "dispersion": "learned"}
    )
    potential = build_potential(config).double().eval()
    planner = potential.coulomb_planner()

    def energy(atoms: Atoms) -> float:
        graph = potential.prepare(from_ase(atoms, CUTOFF), planner)
        return float(predict(potential, graph).terms["dispersion"])

    return energy


def others() -> dict[str, Energy]:
    """Return what is installed to compare with."""
    found: dict[str, Energy] = {}
    if find_spec("dftd4"):
        found["D4 (PBE)"] = d4
    if find_spec("tblite"):
        from tblite.ase import TBLite

        def xtb(atoms: Atoms) -> float:
            copy = atoms.copy()
            copy.calc = TBLite(method="GFN2-xTB", verbosity=0)
            return float(copy.get_potential_energy())

        found["GFN2-xTB"] = xtb
    return found


def d4(atoms: Atoms) -> float:
    """Energy of D4 between pairs of atoms of different halves, or of all in a crystal.

    Within molecules it depends on charges from an equilibration that sees the other one.
    """
    from dftd4.interface import DampingParam, DispersionModel

    periodic = {"lattice": atoms.cell.array / units.BOHR, "periodic": atoms.pbc}
    model = DispersionModel(
        atoms.numbers, atoms.positions / units.BOHR, **(periodic if atoms.pbc.any() else {})
    )
    if atoms.pbc.any():
        energy = model.get_dispersion(DampingParam(method="PBE"), grad=False)["energy"]
        return float(energy) * units.EV_PER_HARTREE
    found = model.get_pairwise_dispersion(DampingParam(method="PBE"))
    half = len(atoms) // 2
    between = found["additive pairwise energy"][:half, half:]
    return 2 * float(between.sum()) * units.EV_PER_HARTREE


def stacked(monomer: Atoms, distance: float) -> Atoms:
    """Two molecules one above the other, their centers apart by `distance` in Å."""
    upper = monomer.copy()
    upper.positions[:, 2] += distance
    return monomer + upper


@pytest.mark.parametrize("name", ["C6H6", "CH4"])
def test_dispersion_dimers(name: str) -> None:
    monomer = molecule(name)
    methods = {"free atoms": term(), **others()}
    print(f"\ntwo {name}, meV\n{'distance / Å':>14}" + "".join(f"{m:>14}" for m in methods))
    far = []
    apart = {m: energy(stacked(monomer, 500.0)) for m, energy in methods.items()}
    for distance in DISTANCES:
        dimer = stacked(monomer, distance)
        row = [1e3 * (energy(dimer) - apart[m]) for m, energy in methods.items()]
        print(f"{distance:14.1f}" + "".join(f"{value:14.3f}" for value in row))
        far = row
    atomic = units.EV_PER_HARTREE * units.BOHR**6
    c6 = -1e-3 * far[0] * DISTANCES[-1] ** 6 / atomic
    print(f"C6 at {DISTANCES[-1]} Å: {c6:.0f} Hartree Bohr⁶, measured {MEASURED[name]:.0f}")
    energy = methods["free atoms"]
    ratio = (energy(stacked(monomer, 200.0)) - apart["free atoms"]) / (
        energy(stacked(monomer, 100.0)) - apart["free atoms"]
    )
    assert ratio == pytest.approx(1 / 64, rel=0.02)
    assert MEASURED[name] < c6 < 2.5 * MEASURED[name]  # atoms in molecules are less polarizable


def test_dispersion_dimers_and_a_crystal() -> None:
    """Argon: atoms are free ones, so that before training the tail is right already."""
    methods = {"free atoms": term(), **others()}
    methods.pop("GFN2-xTB", None)  # its sums over cells do not see beyond neighbors
    print(f"\nargon, fcc, meV/atom\n{'a / Å':>14}" + "".join(f"{m:>14}" for m in methods))
    atom = Atoms("Ar")
    alone = {m: energy(atom) for m, energy in methods.items()}
    for constant in CONSTANTS:
        crystal = bulk("Ar", "fcc", a=constant)
        row = [1e3 * (energy(crystal) - alone[m]) for m, energy in methods.items()]
        print(f"{constant:14.1f}" + "".join(f"{value:14.3f}" for value in row))
    measured = -0.5 * 14.45392 * MEASURED["Ar"] * units.EV_PER_HARTREE * units.BOHR**6
    measured *= 1e3 / (CONSTANTS[-1] / np.sqrt(2)) ** 6
    print(f"of the measured C6 at {CONSTANTS[-1]} Å: {measured:.3f}")
    assert row[0] == pytest.approx(measured, rel=0.06)
    assert row[-1] == pytest.approx(row[0], rel=0.15)
