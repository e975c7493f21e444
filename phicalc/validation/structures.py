"""Structures that checks are made with: chosen by the elements that a subject knows."""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers, covalent_radii

from phicalc.structures import find_molecules, water_box
from phicalc.validation.subject import Subject

#: Closed-shell molecules of the G2 set, small ones first.
CLOSED_SHELL = (
    "H2", "HF", "HCl", "LiH", "LiF", "NaCl", "N2", "CO", "F2", "Cl2", "ClF", "H2O", "SH2", "HCN",
    "CO2", "N2O", "OCS", "CS2", "SO2", "HOCl", "NH3", "PH3", "C2H2", "H2CO", "H2O2", "CH4", "SiH4",
    "CF4", "CH3Cl", "HCOOH", "C2H4", "CH3OH", "CH3SH", "C2F4", "N2H4", "CH3CN", "H3CNH2", "CH3CHO",
    "C2H6", "CH3COOH", "CH3CONH2", "CH3CH2OH", "butadiene", "C3H8", "C6H6", "C5H5N",
)  # fmt: skip
#: Rock salts: lattice constant in Å and bulk modulus in GPa at room temperature (experiment).
ROCKSALTS = {
    "LiF": (4.026, 67.0), "LiCl": (5.140, 30.0), "NaF": (4.634, 46.5), "NaCl": (5.640, 24.9),
    "KF": (5.347, 30.5), "KCl": (6.293, 17.4), "MgO": (4.212, 160.0), "CaO": (4.811, 114.0),
}  # fmt: skip
#: Crystals of elements: structure, lattice constant in Å, bulk modulus in GPa (experiment).
ELEMENTAL = {
    "Al": ("fcc", 4.05, 76.0), "Ni": ("fcc", 3.52, 186.0), "Cu": ("fcc", 3.61, 137.0),
    "Pd": ("fcc", 3.89, 181.0), "Ag": ("fcc", 4.09, 101.0), "Pt": ("fcc", 3.92, 278.0),
    "Au": ("fcc", 4.08, 173.0), "Ar": ("fcc", 5.31, 2.8), "Si": ("diamond", 5.43, 98.0),
    "Ne": ("fcc", 4.46, 1.1), "Kr": ("fcc", 5.64, 3.4), "Fe": ("bcc", 2.87, 168.0),
    "W": ("bcc", 3.16, 310.0), "Ge": ("diamond", 5.66, 75.0),
}  # fmt: skip
#: Largest size of a structure that stands for others, in atoms.
MOST_ATOMS = 150


def contact(first: str, second: str) -> float:
    """Return the sum of the covalent radii of two elements, in Å."""
    return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in (first, second)))


def pairs(elements: Sequence[str]) -> list[tuple[str, str]]:
    """Return all pairs of elements, each with itself too."""
    return list(combinations_with_replacement(elements, 2))


def largest_charge(symbol: str) -> float:
    """Return the largest charge in e that an atom may carry: its valence and two more."""
    number = atomic_numbers[symbol]
    group = _group(number)
    if group is None:
        return 6.0
    if group <= 2:
        return group + 2.0
    return (18 - group if group > 13 else min(group, 4) if group < 13 else 3) + 2.0


def _group(number: int) -> int | None:
    """Group of the periodic table; None for lanthanides and actinides."""
    if number <= 2:
        return 1 if number == 1 else 18
    for noble, following in ((2, 10), (10, 18), (18, 36), (36, 54), (54, 86), (86, 118)):
        if number <= following:
            place, length = number - noble, following - noble
            if length == 8:
                return place if place <= 2 else place + 10
            if length == 18 or place <= 2:
                return place
            return None if place <= 17 else place - 14
    return None


def molecules(subject: Subject, names: Sequence[str] = CLOSED_SHELL) -> dict[str, Atoms]:
    """Return the molecules among `names` (of ASE's G2 set) that a subject covers."""
    if not subject.knows_molecules or not subject.takes_charge(0.0):
        return {}
    found = {name: molecule(name) for name in names}
    return {name: atoms for name, atoms in found.items() if subject.covers(atoms)}


def crystals(subject: Subject) -> dict[str, tuple[Atoms, float, float]]:
    """Return crystals that a subject covers, with lattice constant (Å) and bulk modulus (GPa)."""
    if not subject.knows_crystals or not subject.takes_charge(0.0):
        return {}
    known = {
        name: (bulk(name, "rocksalt", a=a), a, modulus) for name, (a, modulus) in ROCKSALTS.items()
    }
    known |= {
        name: (bulk(name, kind, a=a), a, modulus) for name, (kind, a, modulus) in ELEMENTAL.items()
    }
    return {name: found for name, found in known.items() if subject.covers(found[0])}


def is_water(subject: Subject) -> bool:
    """Whether a subject knows liquid water: it was made for periodic structures of H and O."""
    if not subject.knows(("H", "O")) or not subject.knows_crystals or not subject.takes_charge(0.0):
        return False
    periodic = [atoms for atoms in subject.structures if atoms.pbc.all()]
    return any(is_liquid_water(atoms) for atoms in periodic) or (
        subject.claims.periodic is True and set(subject.elements) == {"H", "O"}
    )


def is_liquid_water(atoms: Atoms) -> bool:
    """Whether a structure consists of several water molecules alone, in a cell."""
    found = find_molecules(atoms)
    of_each = [sorted(atoms.symbols[found.labels == m]) for m in range(len(found.finite))]
    return len(of_each) > 1 and atoms.pbc.all() and all(m == ["H", "H", "O"] for m in of_each)


def samples(subject: Subject, most: int = 3) -> dict[str, Atoms]:
    """Return a few structures of the kind a subject was made for, slightly distorted.

    Its own ones come first; molecules and crystals fill up; a small cluster is the last resort.
    """
    found: dict[str, Atoms] = {}
    for atoms in _candidates(subject):
        if len(atoms) <= MOST_ATOMS and subject.knows(atoms):
            name = f"{atoms.get_chemical_formula()}{' (periodic)' if atoms.pbc.any() else ''}"
            if name not in found:
                found[name] = rattled(atoms)
        if len(found) == most:
            break
    if not found and subject.takes_charge(0.0):
        found["cluster"] = rattled(cluster(subject.elements))
    return found


def _candidates(subject: Subject) -> Iterator[Atoms]:
    """Yield structures, the best ones first."""
    own = sorted(subject.structures, key=lambda atoms: not atoms.pbc.all())
    yield from own
    if is_water(subject):
        yield water_box(8, density=0.9)
    built = list(molecules(subject).values())
    yield from reversed(built[-12:])
    for crystal, _, _ in crystals(subject).values():
        yield crystal.repeat(2)


def cluster(elements: Sequence[str]) -> Atoms:
    """Return four atoms of the elements at the corners of a tetrahedron, at contact."""
    symbols = [elements[i % len(elements)] for i in range(4)]
    edge = 1.05 * max(contact(first, second) for first, second in pairs(symbols))
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
    return Atoms(symbols, edge * corners)


def rattled(atoms: Atoms, size: float = 0.03, seed: int = 0) -> Atoms:
    """Return a copy whose atoms are moved at random, by `size` Å along each axis."""
    copy = atoms.copy()
    copy.positions += np.random.default_rng(seed).normal(scale=size, size=(len(atoms), 3))
    return copy
