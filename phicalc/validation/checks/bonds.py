"""Bonds pulled apart: the energy climbs, and there is no second minimum behind."""

from collections.abc import Callable
from functools import partial

import numpy as np
from ase import Atoms
from ase.build import molecule

from phicalc.certificate import Curve, Figure, Plot
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.scans import scan
from phicalc.validation.structures import is_water, molecules
from phicalc.validation.subject import Subject

#: Molecules, and the elements of the bond that is pulled. The weakest bond here takes 1.6 eV.
BONDS = {
    "H2": ("H", "H"),
    "N2": ("N", "N"),
    "F2": ("F", "F"),
    "Cl2": ("Cl", "Cl"),
    "CO": ("C", "O"),
    "HF": ("H", "F"),
    "HCl": ("H", "Cl"),
    "H2O": ("O", "H"),
    "NH3": ("N", "H"),
    "CH4": ("C", "H"),
    "C2H6": ("C", "C"),
    "CH3OH": ("C", "O"),
}
#: eV that a bond takes at least.
WEAKEST = 1.2
#: eV that the energy may fall on the way out.
NOISE = 0.3
#: Multiples of the bond length.
STRETCHES = np.concatenate([np.arange(0.9, 2.0, 0.1), np.arange(2.0, 4.6, 0.25)])


def pulled(atoms: Atoms, bond: tuple[str, str]) -> Callable[[float], Atoms]:
    """Return what makes the molecule with its first such bond stretched by a factor."""
    symbols = list(atoms.symbols)
    one = symbols.index(bond[0])
    others = [i for i, symbol in enumerate(symbols) if symbol == bond[1] and i != one]
    other = min(others, key=lambda i: atoms.get_distance(one, i))
    vector = atoms.positions[other] - atoms.positions[one]
    center = atoms.positions[one] + vector / 2
    moving = (atoms.positions - center) @ vector > 0
    if bond[1] == "H":  # hydrogen goes alone
        moving = np.arange(len(atoms)) == other

    def stretched(factor: float) -> Atoms:
        copy = atoms.copy()
        copy.positions[moving] += (factor - 1) * vector
        return copy

    return stretched


def _molecules(subject: Subject) -> dict[str, Atoms]:
    if is_water(subject) and not subject.knows_molecules:
        return {"H2O": molecule("H2O")}
    return molecules(subject, tuple(BONDS))


def _applies(subject: Subject) -> str:
    return "" if _molecules(subject) else "it knows no molecule whose bond could be pulled"


def _run(subject: Subject, context: Context) -> Findings:
    lowest, fall, curves = {}, {}, []
    for name, atoms in _molecules(subject).items():
        build = pulled(atoms, BONDS[name])
        energies = scan(subject, map(build, STRETCHES)).energies
        bottom = int(np.nanargmin(energies[:5]))
        outwards = energies[bottom:] - energies[bottom]
        lowest[name] = float(outwards[-1])
        fall[name] = float(np.max(np.maximum.accumulate(outwards) - outwards))
        curves.append(Curve.of(name, STRETCHES, energies - energies[bottom]))
    figures = [
        Figure.of(
            f"{name} pulled to {STRETCHES[-1]:g} times its length", value, "eV", at_least=WEAKEST
        )
        for name, value in lowest.items()
    ]
    worst = max(fall, key=partial(dict.__getitem__, fall))
    figures.append(
        Figure.of(f"largest fall on the way out ({worst})", fall[worst], "eV", at_most=NOISE)
    )
    plot = Plot("bonds pulled apart", "multiple of the bond length", "energy (eV)", tuple(curves))
    return Findings(figures, [plot])


CHECK = Check(
    name="bonds",
    title="Bonds pulled apart: energy climbs, no second minimum",
    cost=9.0,
    applies=_applies,
    run=_run,
)
