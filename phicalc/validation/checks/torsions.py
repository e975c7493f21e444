"""Torsions: barriers of single, double and amide bonds."""

from typing import NamedTuple

import numpy as np
from ase import Atoms

from phicalc.certificate import Curve, Figure, Plot
from phicalc.structures import find_molecules
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.scans import relaxed, scan
from phicalc.validation.structures import molecules
from phicalc.validation.subject import Subject

#: Degrees.
ANGLES = np.arange(0.0, 181.0, 15.0)


class Torsion(NamedTuple):
    """A bond that is turned, and its barrier in eV."""

    bond: tuple[str, str]
    """Elements of the bond; the shortest such bond with neighbors on both sides."""
    experiment: float
    at_least: float
    at_most: float


#: Experimental barriers; limits are wide, since rigid scans and closed shells give more.
TORSIONS = {
    "C2H4": Torsion(("C", "C"), 2.8, 2.0, 5.5),
    "C2F4": Torsion(("C", "C"), 2.3, 1.5, 5.5),
    "butadiene": Torsion(("C", "C"), 2.3, 1.6, 5.5),
    "CH3CONH2": Torsion(("C", "N"), 0.72, 0.5, 1.5),
    "HCOOH": Torsion(("C", "O"), 0.60, 0.35, 1.1),
    "C2H6": Torsion(("C", "C"), 0.125, 0.08, 0.2),
    "CH3OH": Torsion(("C", "O"), 0.046, 0.025, 0.09),
    "CH3SH": Torsion(("C", "S"), 0.055, 0.03, 0.1),
    "H3CNH2": Torsion(("C", "N"), 0.086, 0.045, 0.15),
    "H2CCHCl": Torsion(("C", "C"), 2.5, 1.6, 5.5),
}


def turned(atoms: Atoms, bond: tuple[str, str], angle: float, *, inner: bool = False) -> Atoms:
    """Return a copy with the smaller side of a bond turned by an angle in degrees.

    Parameters
    ----------
    atoms
        A molecule.
    bond
        Elements of the bond: the shortest one with further neighbors at both ends.
    angle
        Degrees.
    inner
        Of such bonds take that with the largest sides, in place of the shortest.
    """
    bonds = bonds_of(atoms)
    found = [_parted(atoms, bonds, pair) for pair in bonds]
    found = [each for each in found if sorted(atoms.symbols[list(each[:2])]) == sorted(bond)]
    found = [each for each in found if 1 < len(each[2]) < len(atoms) - 1]
    if inner:
        first, second, side = max(found, key=lambda each: len(each[2]))
    else:
        first, second, side = min(found, key=lambda each: atoms.get_distance(*each[:2]))
    copy = atoms.copy()
    part = copy[side]
    part.rotate(angle, copy.positions[second] - copy.positions[first], copy.positions[second])
    copy.positions[side] = part.positions
    return copy


def bonds_of(atoms: Atoms) -> list[tuple[int, int]]:
    """Return the bonds of a molecule as pairs of atoms."""
    return [(int(first), int(second)) for first, second in find_molecules(atoms).bonds]


def _parted(
    atoms: Atoms, bonds: list[tuple[int, int]], bond: tuple[int, int]
) -> tuple[int, int, list[int]]:
    """Return the ends of a bond, the second one on the smaller side, and that side."""
    others = [pair for pair in bonds if pair != bond]
    first, second = bond
    side, waiting = {second}, [second]
    while waiting:
        atom = waiting.pop()
        reached = {other for pair in others if atom in pair for other in pair} - side
        side |= reached
        waiting.extend(reached)
    if 2 * len(side) > len(atoms):
        return second, first, sorted(set(range(len(atoms))) - side)
    return first, second, sorted(side)


def _applies(subject: Subject) -> str:
    return "" if molecules(subject, tuple(TORSIONS)) else "it knows none of the molecules"


def _run(subject: Subject, context: Context) -> Findings:
    figures, curves, notes = [], [], []
    for name, atoms in molecules(subject, tuple(TORSIONS)).items():
        torsion = TORSIONS[name]
        start = relaxed(subject, atoms)
        frames = [turned(start, torsion.bond, angle) for angle in ANGLES]
        energies = scan(subject, frames).energies
        barrier = float(np.max(energies) - energies[0])
        figures.append(
            Figure.of(
                f"{name} about {'–'.join(torsion.bond)}",
                barrier,
                "eV",
                at_least=torsion.at_least,
                at_most=torsion.at_most,
            )
        )
        curves.append(Curve.of(name, ANGLES, energies - energies[0]))
        text = f"{name}: experiment {torsion.experiment:g} eV"
        if context.config.reference is not None:
            expected = [_reference(context, frame) for frame in frames]
            curves.append(Curve.of(name, ANGLES, np.array(expected) - expected[0], reference=True))
            text += f", reference (rigid) {max(expected) - expected[0]:.3f} eV"
        notes.append(text)
    plot = Plot("rigid turns", "angle (°)", "energy (eV)", tuple(curves))
    return Findings(figures, [plot], notes)


def _reference(context: Context, atoms: Atoms) -> float:
    """Energy of the reference calculator in eV."""
    copy = atoms.copy()
    copy.calc = context.reference(copy)
    return float(copy.get_potential_energy())


CHECK = Check(
    name="torsions",
    title="Torsions: barriers of single, double and amide bonds",
    cost=30.0,
    applies=_applies,
    run=_run,
)
