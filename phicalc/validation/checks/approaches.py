"""Short distances between molecules: two hydrides, head on."""

import numpy as np
from ase import Atoms
from ase.build import molecule

from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.walls import distances, follow, judge
from phicalc.validation.structures import pairs
from phicalc.validation.subject import Subject

#: A molecule in which each element can face another: hydrogen atoms point away.
HYDRIDES = {
    "C": "CH4", "N": "NH3", "O": "H2O", "F": "HF", "Si": "SiH4", "P": "PH3", "S": "SH2",
    "Cl": "HCl", "Li": "LiH",
}  # fmt: skip
#: The path starts at the lowest energy between these multiples of the sum of covalent radii.
START = (0.9, 2.5)


def facing(symbol: str) -> Atoms:
    """Return a molecule with an atom of an element at the origin, and the others at z < 0.

    Hydrogen faces as the end of a water molecule.
    """
    atoms = molecule("H2O" if symbol == "H" else HYDRIDES[symbol])
    atoms.set_initial_magnetic_moments(None)
    front = list(atoms.symbols).index(symbol)
    atoms.positions -= atoms.positions[front]
    rest = [i for i in range(len(atoms)) if i != front]
    back = atoms.positions[rest].mean(axis=0)
    if np.linalg.norm(back) < 0.1:  # a tetrahedron has no back: one corner is
        back = atoms.positions[rest[0]]
    atoms.rotate(back, (0, 0, -1))
    return atoms


def head_on(first: str, second: str, distance: float) -> Atoms:
    """Return two molecules whose atoms of two elements face each other, so far apart (Å)."""
    other = facing(second)
    other.rotate(180, "x")
    other.rotate(40, "z")
    other.translate([0, 0, distance])
    return facing(first) + other


def _known(subject: Subject) -> list[str]:
    """Elements that can face another within what the subject knows."""
    if not subject.takes_charge(0.0) or not subject.knows(("H",)):
        return []
    heavy = [symbol for symbol in subject.elements if symbol in HYDRIDES]
    return [*(["H"] if "O" in subject.elements else []), *heavy]


def _applies(subject: Subject) -> str:
    return "" if _known(subject) else "it knows no hydrides"


def _run(subject: Subject, context: Context) -> Findings:
    rows = []
    for first, second in pairs(_known(subject)):
        path, n_outer = distances(first, second, START)

        def build(distance: float, symbols: tuple[str, str] = (first, second)) -> Atoms:
            return head_on(*symbols, distance)

        rows.append(follow(subject, f"{first}–{second}", path, n_outer, build))
    return judge(rows)


CHECK = Check(
    name="approaches",
    title="Short distances: walls between molecules, head on",
    cost=40.0,
    applies=_applies,
    run=_run,
)
