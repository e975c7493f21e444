"""Pairs of molecules: interaction energies beside coupled clusters (S22×5)."""

import numpy as np
from ase import Atoms
from ase.data.s22 import (
    create_s22_system,
    get_interaction_energy_s22x5,
    get_number_of_dimer_atoms,
    get_s22x5_distance,
    s22,
)

from phicalc.certificate import Curve, Figure, Plot
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.subject import Subject

#: Distances of the set, in multiples of that of the minimum.
FACTORS = (0.9, 1.0, 1.2, 1.5, 2.0)
#: Molecules up to this size.
MOST_ATOMS = 26
#: eV.
LARGEST_MEAN, LARGEST_FAR = 0.05, 0.02


def _names(subject: Subject) -> list[str]:
    if not subject.knows_molecules or not subject.takes_charge(0.0):
        return []
    systems = {name: create_s22_system(name) for name in s22}
    return [n for n, a in systems.items() if subject.covers(a) and len(a) <= MOST_ATOMS]


def _applies(subject: Subject) -> str:
    return "" if _names(subject) else "it knows none of the molecules of the S22 set"


def at(name: str, factor: float) -> tuple[Atoms, Atoms]:
    """Return the molecules of a pair of the S22×5 set, at a multiple of their distance."""
    dimer = create_s22_system(name)
    n_first = get_number_of_dimer_atoms(name)[0]
    first, second = dimer[:n_first], dimer[n_first:]
    shift = get_s22x5_distance(name, f"{factor:.1f}")
    away = second.get_center_of_mass() - first.get_center_of_mass()
    second.translate(shift * away / np.linalg.norm(away))
    return first, second


def interaction(energy, first: Atoms, second: Atoms) -> float:  # type: ignore[no-untyped-def]
    """Return the interaction energy in eV of two molecules, by a function of a structure."""
    return float(energy(first + second) - energy(first) - energy(second))


def _run(subject: Subject, context: Context) -> Findings:
    names = _names(subject)
    curves: list[Curve] = []
    errors = np.zeros((len(names), len(FACTORS)))
    for row, name in enumerate(names):
        pairs = [at(name, factor) for factor in FACTORS]
        expected = np.array([get_interaction_energy_s22x5(name, f"{f:.1f}") for f in FACTORS])
        found = np.array([interaction(subject.energy, *pair) for pair in pairs])
        errors[row] = found - expected
        if len(curves) < 8:
            curves += [
                Curve.of(name, FACTORS, found),
                Curve.of(name, FACTORS, expected, reference=True),
            ]
    mean = np.abs(errors).mean(axis=0)
    worst = int(np.abs(errors[:, 1]).argmax())
    figures = [
        Figure.of(
            f"mean error at the minimum, {len(names)} pairs", mean[1], "eV", at_most=LARGEST_MEAN
        ),
        Figure.of("mean error at twice the distance", mean[-1], "eV", at_most=LARGEST_FAR),
        Figure.of(f"largest error at the minimum ({names[worst]})", abs(errors[worst, 1]), "eV"),
    ]
    plot = Plot("CCSD(T) dashed", "multiple of the distance", "interaction (eV)", tuple(curves))
    return Findings(figures, [plot])


CHECK = Check(
    name="dimers",
    title="Pairs of molecules beside coupled clusters (S22×5)",
    cost=25.0,
    applies=_applies,
    run=_run,
)
