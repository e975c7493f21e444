"""Rotation, permutation, translation, supercells, and forces as derivatives of the energy."""

from functools import cache, partial

import numpy as np
from ase import Atoms

from phicalc.certificate import Figure
from phicalc.testing.physics import (
    Evaluate,
    Evaluation,
    check_forces,
    check_left_handed_cell,
    check_net_force,
    check_permutation,
    check_rotation,
    check_stress,
    check_supercell,
    check_total_charge,
    check_translation,
)
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import samples
from phicalc.validation.subject import Subject

#: Å: wide enough for calculators that iterate to 1e-6 eV.
STEP = 2e-3
#: What each check is called, and how much a result may deviate, relative to its size or to 1.
CONTRACT = {
    "rotation": (check_rotation, 1e-4),
    "permutation": (check_permutation, 1e-4),
    "translation": (check_translation, 1e-4),
    "left-handed cell": (check_left_handed_cell, 1e-4),
    "extensivity (supercell)": (check_supercell, 1e-4),
    "forces are derivatives": (partial(check_forces, step=STEP), 2e-3),
    "stress is a derivative": (partial(check_stress, step=STEP), 2e-3),
    "net force and torque": (check_net_force, 1e-3),
    "sum of charges": (check_total_charge, 1e-3),
}
PERIODIC = {"left-handed cell", "extensivity (supercell)", "stress is a derivative"}
#: Tolerances tried: the figure is the smallest that passes.
LARGEST, SMALLEST, STEPS_PER_DECADE = 1e6, 1e-15, 4


def _applies(subject: Subject) -> str:
    return "" if samples(subject) else "no structure of its kind is known: give structures"


def _run(subject: Subject, context: Context) -> Findings:
    found = samples(subject)
    figures = []
    for name, (check, limit) in CONTRACT.items():
        chosen = [atoms for atoms in found.values() if atoms.pbc.all() or name not in PERIODIC]
        if name == "stress is a derivative":
            chosen = [atoms for atoms in chosen if _has_stress(subject, atoms)]
        if name == "sum of charges":
            chosen = [atoms for atoms in chosen if _has_charges(subject, atoms)]
        if not chosen:
            continue
        evaluate = _evaluator(subject)
        worst = max(smallest_tolerance(check, evaluate, atoms) for atoms in chosen)
        figures.append(Figure.of(name, worst, at_most=limit))
    return Findings(figures, notes=[f"measured with {', '.join(found)}"])


def _has_stress(subject: Subject, atoms: Atoms) -> bool:
    return subject.knows_stress and "stress" in subject.ready(atoms).calc.implemented_properties


def _has_charges(subject: Subject, atoms: Atoms) -> bool:
    return "charges" in subject.ready(atoms).calc.implemented_properties


def _evaluator(subject: Subject) -> Evaluate:
    """Return an evaluation that computes every structure once."""
    known: dict[bytes, Evaluation] = {}

    def evaluate(atoms: Atoms) -> Evaluation:
        parts = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        key = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        if key not in known:
            known[key] = _evaluate(subject, atoms)
        return known[key]

    return evaluate


def _evaluate(subject: Subject, atoms: Atoms) -> Evaluation:
    ready = subject.ready(atoms)
    properties = ready.calc.implemented_properties
    stress = ready.get_stress(voigt=False) if _wants_stress(subject, ready) else None
    charges = ready.get_charges() if "charges" in properties else None
    energy = ready.get_potential_energy(force_consistent="free_energy" in properties)
    return Evaluation(float(energy), ready.get_forces(), stress, charges)


def _wants_stress(subject: Subject, atoms: Atoms) -> bool:
    has_stress = "stress" in atoms.calc.implemented_properties
    return bool(atoms.pbc.all()) and has_stress and subject.knows_stress


@cache
def _tolerances() -> tuple[float, ...]:
    decades = np.log10(LARGEST / SMALLEST)
    return tuple(np.geomspace(SMALLEST, LARGEST, int(decades * STEPS_PER_DECADE) + 1))


def smallest_tolerance(check, evaluate: Evaluate, atoms: Atoms) -> float:  # type: ignore[no-untyped-def]
    """Return the smallest tolerance with which a check passes; infinite if none does.

    Parameters
    ----------
    check
        As in `phicalc.testing.CONTRACT`.
    evaluate
        Should remember results, since the check is repeated.
    atoms
        The structure.
    """
    low, high = -1, len(_tolerances())  # the first fails (or is none), the last passes (or is none)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            check(evaluate, atoms, tolerance=_tolerances()[middle])
            high = middle
        except AssertionError:
            low = middle
    return float("inf") if high == len(_tolerances()) else _tolerances()[high]


CHECK = Check(
    name="symmetry",
    title="Symmetries and derivatives",
    cost=10.0,
    applies=_applies,
    run=_run,
)
