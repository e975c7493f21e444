"""Response of the charges: what a field does to a longer molecule or a thicker slab."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError

from phicalc.certificate import Curve, Figure, Plot
from phicalc.units import COULOMB_CONSTANT
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import ROCKSALTS, crystals
from phicalc.validation.subject import Subject

#: V/Å.
FIELD = 0.01
CARBONS = (6, 10)
#: An alkane with 5/3 of the carbon atoms is polarized 1.6 times as much (experiment).
GROWTH = (1.3, 2.0)
THICKNESSES = (2, 4)
#: Dielectric constants ε∞ of insulating rock salts lie below this (experiment: 1.9 to 3.4).
INSULATOR = (1.2, 6.0)


def alkane(n: int) -> Atoms:
    """Return CₙH₂ₙ₊₂, all anti, along x."""
    half = np.radians(112.0) / 2
    step, height = 1.53 * np.sin(half), 1.53 * np.cos(half)
    carbons = [np.array([i * step, 0.0, (-1) ** i * height / 2]) for i in range(n)]
    hydrogens = [
        carbon + 1.09 * np.array([0.0, 0.82 * side, 0.57 * (-1) ** i])
        for i, carbon in enumerate(carbons)
        for side in (1, -1)
    ]
    for carbon, way, up in ((carbons[0], -1, 1), (carbons[-1], 1, (-1) ** (n - 1))):
        hydrogens.append(carbon + 1.09 * np.array([way * np.sin(half), 0.0, -up * np.cos(half)]))
    return Atoms("C" * n + "H" * len(hydrogens), [*carbons, *hydrogens])


def slab(salt: str, cells: int) -> Atoms:
    """Return a (001) slab of a rock salt, so many cubic cells thick, in vacuum along z."""
    atoms = bulk(salt, "rocksalt", a=ROCKSALTS[salt][0], cubic=True).repeat((1, 1, cells))
    atoms.pbc = (True, True, False)
    return atoms


def moment_per_field(subject: Subject, atoms: Atoms, axis: int) -> float:
    """Return the change of the dipole moment with a field along an axis, in e Å²/V."""
    moments = []
    for strength in (-FIELD, FIELD):
        field = np.zeros(3)
        field[axis] = strength
        moved = atoms.copy()
        moved.info["external_field"] = field.tolist()
        ready = subject.ready(moved)
        moments.append(float(ready.get_charges() @ ready.positions[:, axis]))
    return (moments[1] - moments[0]) / (2 * FIELD)


def _chains(subject: Subject) -> bool:
    return subject.knows_molecules and subject.knows(("C", "H")) and subject.takes_charge(0.0)


def _salts(subject: Subject) -> list[str]:
    return [name for name in crystals(subject) if name in ROCKSALTS]


def _applies(subject: Subject) -> str:
    if not _chains(subject) and not _salts(subject):
        return "it knows neither alkanes nor rock salts"
    trial = alkane(2) if _chains(subject) else slab(_salts(subject)[0], 1)
    calculator = subject.ready(trial).calc
    if "external_field" not in getattr(calculator, "default_parameters", {}):
        return "the calculator takes no external field"
    try:
        if not moment_per_field(subject, trial, 2 if trial.pbc.any() else 0):
            return "no field moves its charges"
    except (CalculatorSetupError, PropertyNotImplementedError) as error:
        return f"fields are refused: {' '.join(str(error).split())}"
    return ""


def _run(subject: Subject, context: Context) -> Findings:
    figures, curves = [], []
    if _chains(subject):
        found = [moment_per_field(subject, alkane(n), 0) * COULOMB_CONSTANT for n in CARBONS]
        figures.append(
            Figure.of(
                f"polarizability along C{CARBONS[1]}H22 over that of C{CARBONS[0]}H14 "
                "(experiment 1.6, mean over axes)",
                found[1] / found[0],
                at_least=GROWTH[0],
                at_most=GROWTH[1],
            )
        )
        curves.append(Curve.of("alkanes (Å³)", CARBONS, found))
    for salt in _salts(subject):
        constants = []
        for cells in THICKNESSES:
            atoms = slab(salt, cells)
            volume = ROCKSALTS[salt][0] ** 3 * cells
            slope = moment_per_field(subject, atoms, 2)
            constants.append(1 / (1 - 4 * np.pi * COULOMB_CONSTANT * slope / volume))
        low, high = INSULATOR
        figures.append(
            Figure.of(
                f"{salt}: ε∞ of {THICKNESSES[1]} cells", constants[1], at_least=low, at_most=high
            )
        )
        figures.append(
            Figure.of(
                f"{salt}: ε∞ of {THICKNESSES[1]} cells over that of {THICKNESSES[0]}",
                constants[1] / constants[0],
                at_least=0.8,
                at_most=1.25,
            )
        )
        curves.append(Curve.of(f"{salt} (ε∞)", THICKNESSES, constants))
    plot = Plot("with size", "carbon atoms, or cells", "response", tuple(curves))
    return Findings(figures, [plot])


CHECK = Check(
    name="response",
    title="Response to fields: polarizability and ε∞ do not grow with size",
    cost=12.0,
    applies=_applies,
    run=_run,
)
