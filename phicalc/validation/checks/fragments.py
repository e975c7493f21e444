"""Far fragments: their energies add up, and each keeps its charge."""

from itertools import combinations

import numpy as np
from ase import Atoms

from phicalc.certificate import Figure
from phicalc.units import COULOMB_CONSTANT
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import cluster, molecules
from phicalc.validation.subject import Subject

#: Å between the fragments: no dipole of a molecule reaches so far with a meV.
FAR = 40.0
#: eV and e.
LARGEST_ENERGY, LARGEST_CHARGE = 0.02, 0.02
NEUTRAL = ("H2O", "CO2", "C6H6", "NH3", "HCl", "CH4", "C2H2", "N2", "CH3Cl", "NaCl")
IONS = (("Na", 1.0), ("Cl", -1.0), ("F", -1.0), ("Li", 1.0), ("NH4", 1.0))

Fragment = tuple[str, Atoms, float]
"""Name, structure, and total charge in e."""


def _ammonium() -> Atoms:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return Atoms("NH4", np.vstack([np.zeros(3), 1.03 * corners]))


def _fragments(subject: Subject) -> list[Fragment]:
    """Return molecules, ions, and the subject's own isolated structures."""
    found: list[Fragment] = [(n, a, 0.0) for n, a in molecules(subject, NEUTRAL).items()]
    if subject.knows_molecules:
        for name, charge in IONS:
            atoms = _ammonium() if name == "NH4" else Atoms(name)
            if subject.knows(atoms) and subject.takes_charge(charge):
                found.append((f"{name}{'+' if charge > 0 else '-'}", atoms, charge))
    if len(found) < 2:
        own = [atoms for atoms in subject.structures if not atoms.pbc.any() and len(atoms) <= 60]
        for number, atoms in enumerate(own, start=1):
            charge = float(atoms.info.get("charge") or 0.0)
            found += [(f"{number}: {atoms.get_chemical_formula()} {charge:+g} e", atoms, charge)]
    if not found and subject.knows_molecules and subject.takes_charge(0.0):
        found = [("cluster", cluster(subject.elements), 0.0)]
    return found


def _pairs(subject: Subject) -> list[tuple[Fragment, Fragment]]:
    """Return pairs, also of equals, whose total charge the subject takes."""
    found = _fragments(subject)
    chosen = [*combinations(found, 2), *((each, each) for each in found[:2])]
    return [pair for pair in chosen if subject.takes_charge(pair[0][2] + pair[1][2])]


def apart(first: Atoms, second: Atoms, distance: float) -> Atoms:
    """Return both, with their centers so far apart along z (Å)."""
    one, other = first.copy(), second.copy()
    one.translate(-one.positions.mean(axis=0))
    other.translate([0, 0, distance] - other.positions.mean(axis=0))
    both = one + other
    both.info = {}
    return both


def _applies(subject: Subject) -> str:
    return "" if _pairs(subject) else "it knows no isolated molecules or ions"


def _run(subject: Subject, context: Context) -> Findings:
    alone: dict[str, float] = {}
    energies, leaks = {}, {}
    for (name, first, q_first), (other, second, q_second) in _pairs(subject):
        for key, atoms, charge in ((name, first, q_first), (other, second, q_second)):
            if key not in alone:
                alone[key] = subject.energy(atoms, charge)
        both = subject.ready(apart(first, second, FAR), q_first + q_second)
        expected = alone[name] + alone[other] + COULOMB_CONSTANT * q_first * q_second / FAR
        pair = f"{name} / {other}"
        energies[pair] = both.get_potential_energy() - expected
        charges = subject.charges(both)
        if charges is not None:
            leaks[pair] = float(charges[: len(first)].sum()) - q_first
    worst = max(energies, key=lambda pair: abs(energies[pair]))
    figures = [
        Figure.of(
            f"energy that does not add up ({worst})",
            abs(energies[worst]),
            "eV",
            at_most=LARGEST_ENERGY,
        )
    ]
    neutral = [abs(v) for pair, v in energies.items() if "+" not in pair and "-" not in pair]
    if neutral:
        figures.append(
            Figure.of("the same of neutral pairs", max(neutral), "eV", at_most=LARGEST_ENERGY)
        )
    if leaks:
        leak = max(leaks, key=lambda pair: abs(leaks[pair]))
        figures.append(
            Figure.of(f"charge that leaks ({leak})", abs(leaks[leak]), "e", at_most=LARGEST_CHARGE)
        )
    notes = [f"{pair}: {1000 * value:+.1f} meV" for pair, value in energies.items()]
    return Findings(figures, notes=[f"{FAR:g} Å apart: " + "; ".join(notes)])


CHECK = Check(
    name="fragments",
    title="Far fragments: energies add up, charges stay",
    cost=6.0,
    applies=_applies,
    run=_run,
)
