"""Uncertainty: it is as large as the error, and grows with it."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from jaxtyping import Float64
from numpy import ndarray

from phicalc.certificate import Curve, Figure, Plot
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import rattled, samples
from phicalc.validation.subject import Subject

#: Part of the force errors that must lie within two standard deviations (95 % if all is well).
COVERAGE = 0.8
#: Rank correlation of errors and uncertainties, and the most by which they may differ in size.
CORRELATION, RATIO = 0.3, (0.4, 2.5)
#: Å.
DISPLACEMENTS = (0.03, 0.08, 0.15)


def force_uncertainty(calculator: Calculator) -> Float64[ndarray, " n_atoms"] | None:
    """Return how uncertain the force on each atom is, in eV/Å; None if the calculator cannot say.

    A calculator says it as ``forces_std`` in ``deviations``, ``committee_results`` or ``results``.
    """
    for home in ("deviations", "committee_results", "results"):
        found = getattr(calculator, home, None) or {}
        if "forces_std" in found:
            return np.asarray(found["forces_std"], dtype=float)
    return None


def _labelled(subject: Subject) -> list[Atoms]:
    """Return the subject's structures that have forces to compare with."""
    return [
        atoms
        for atoms in subject.structures
        if atoms.calc is not None and "forces" in atoms.calc.results
    ]


def _applies(subject: Subject) -> str:
    found = samples(subject, most=1)
    if not found:
        return "no structure of its kind is known: give structures"
    ready = subject.ready(next(iter(found.values())))
    ready.get_forces()
    if force_uncertainty(ready.calc) is None:
        return "the calculator gives no uncertainty"
    return ""


def _frames(subject: Subject, context: Context) -> list[tuple[Atoms, Float64[ndarray, "_ 3"]]]:
    """Return structures with true forces in eV/Å: labels, or those of the reference."""
    found = [(atoms, atoms.get_forces()) for atoms in _labelled(subject)]
    if found or context.config.reference is None:
        return found
    for number, atoms in enumerate(samples(subject).values()):
        for size in DISPLACEMENTS:
            frame = rattled(atoms, size, seed=context.config.seed + number)
            copy = frame.copy()
            copy.calc = context.reference(frame)
            found.append((frame, copy.get_forces()))
    return found


def _run(subject: Subject, context: Context) -> Findings:
    errors, uncertainties = [], []
    for atoms, expected in _frames(subject, context):
        ready = subject.ready(atoms)
        errors.append(np.linalg.norm(ready.get_forces() - expected, axis=1))
        uncertainties.append(force_uncertainty(ready.calc))
    if not errors:
        return Findings([])
    error, sigma = (
        np.concatenate(errors),
        np.concatenate([u for u in uncertainties if u is not None]),
    )
    ranks = [np.argsort(np.argsort(values)) for values in (error, sigma)]
    ratio = float(np.sqrt(np.mean(error**2) / np.mean(sigma**2)))
    figures = [
        Figure.of(
            "force errors within two standard deviations",
            float(np.mean(error <= 2 * sigma)),
            at_least=COVERAGE,
        ),
        Figure.of(
            "rank correlation of error and uncertainty",
            float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
            at_least=CORRELATION,
        ),
        Figure.of("rms error over rms uncertainty", ratio, at_least=RATIO[0], at_most=RATIO[1]),
    ]
    order = np.argsort(sigma)
    plot = Plot(
        "forces on atoms",
        "uncertainty (eV/Å)",
        "error (eV/Å)",
        (Curve.of("sorted", sigma[order], error[order]),),
    )
    return Findings(figures, [plot])


CHECK = Check(
    name="calibration",
    title="Uncertainty: as large as the error, and growing with it",
    cost=14.0,
    applies=_applies,
    run=_run,
)
